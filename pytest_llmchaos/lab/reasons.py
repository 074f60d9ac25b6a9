"""When the system under test has a reason to act or to page, and when it has none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_llmchaos.errors import LoadNotHeld, PartialScrape

# A fault still shows after its end: rules look back for up to 15 s, requests that it left hanging end in vain after up to
# 10 s, and a repair under way takes a few seconds.
FAULT_TAIL_S = 30.0
# The slowest alert over clients' last seconds reads 5 s and waits for 2 s.
WARM_UP_TAIL_S = 10.0
# So ends a trial on a machine that had no time for its clients, or for its Prometheus.
NO_TIME = (LoadNotHeld, PartialScrape)


@dataclass(frozen=True, kw_only=True)
class Spell:
    """A time in which something of ours explains an alert, and an action too unless `alerts_alone`."""

    from_unix_s: float
    to_unix_s: float
    alerts_alone: bool = False


class Reasons:
    """Faults, set-up and warm-up of one stack since it came up. What lies outside of them nothing of ours explains."""

    def __init__(self) -> None:
        self.unjudged_unix_s = time.time()
        """Nothing before this is judged any more, or was the stack's own start."""
        self._is_set_up = False
        self._spells: list[Spell] = []

    def set_up(self) -> None:
        """The stack was clean for the first time: until now it was on its way up, and alerts on that were right."""
        if not self._is_set_up:
            self._is_set_up = True
            self.add(self.unjudged_unix_s, time.time() + WARM_UP_TAIL_S, alerts_alone=True)

    def add(self, from_unix_s: float, to_unix_s: float, *, alerts_alone: bool = False) -> None:
        self._spells.append(Spell(from_unix_s=from_unix_s, to_unix_s=to_unix_s, alerts_alone=alerts_alone))

    @contextlib.contextmanager
    def during(self, tail_s: float = FAULT_TAIL_S, *, alerts_alone: bool = False) -> Iterator[None]:
        """What is done inside the block explains what comes until `tail_s` after it."""
        begin = time.time()
        try:
            yield
        finally:
            self.add(begin, time.time() + tail_s, alerts_alone=alerts_alone)

    @contextlib.contextmanager
    def unless_measured(self) -> Iterator[None]:
        """A block that the machine was too busy to measure explains what came in it: the service had no time either."""
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
        """What came before is in a trial's result."""
        self.unjudged_unix_s = until_unix_s
