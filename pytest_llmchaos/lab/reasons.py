"""Periods in which the instrument explains the system's alerts and repairs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_llmchaos.errors import LoadNotHeld, PartialScrape

# A fault shows after its end: rules look back for up to 15 s, hanging requests fail
# after up to 10 s, and a repair in progress takes a few seconds.
FAULT_TAIL_S = 30.0
# The slowest alert on clients' latency reads 5 s and waits for 2 s.
WARM_UP_TAIL_S = 10.0
# The errors of a trial if its clients or its Prometheus lacked CPU.
NO_TIME = (LoadNotHeld, PartialScrape)


@dataclass(frozen=True, kw_only=True)
class Spell:
    """A period that explains alerts, and actions unless `alerts_alone`."""

    from_unix_s: float
    to_unix_s: float
    alerts_alone: bool = False


class Reasons:
    """Faults, set-up and warm-up of one stack since its start."""

    def __init__(self) -> None:
        self.unjudged_unix_s = time.time()
        """Earlier events were judged already, or belong to the start of the stack."""
        self._is_set_up = False
        self._spells: list[Spell] = []

    def set_up(self) -> None:
        """Explain alerts until now by the stack's start. Later calls do nothing."""
        if not self._is_set_up:
            self._is_set_up = True
            self.add(self.unjudged_unix_s, time.time() + WARM_UP_TAIL_S, alerts_alone=True)

    def add(self, from_unix_s: float, to_unix_s: float, *, alerts_alone: bool = False) -> None:
        """Add a period."""
        self._spells.append(Spell(from_unix_s=from_unix_s, to_unix_s=to_unix_s, alerts_alone=alerts_alone))

    @contextlib.contextmanager
    def during(self, tail_s: float = FAULT_TAIL_S, *, alerts_alone: bool = False) -> Iterator[None]:
        """Add the time of the block and `tail_s` seconds after it."""
        begin = time.time()
        try:
            yield
        finally:
            self.add(begin, time.time() + tail_s, alerts_alone=alerts_alone)

    @contextlib.contextmanager
    def unless_measured(self) -> Iterator[None]:
        """Add the time of a block that fails because the machine was too busy.

        The service lacked CPU as well.
        """
        begin = time.time()
        try:
            yield
        except NO_TIME:
            self.add(begin, time.time() + FAULT_TAIL_S)
            raise

    def explains_action(self, at_unix_s: float) -> bool:
        return any(one.from_unix_s <= at_unix_s <= one.to_unix_s for one in self._spells if not one.alerts_alone)

    def explains_alert(self, at_unix_s: float) -> bool:
        return any(one.from_unix_s <= at_unix_s <= one.to_unix_s for one in self._spells)

    def judged(self, until_unix_s: float) -> None:
        """Mark events before this time as part of a trial's result."""
        self.unjudged_unix_s = until_unix_s
