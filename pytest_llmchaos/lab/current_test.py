"""The test that uses the lab now: its name, random draws and own loads."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from pytest_llmchaos.plan.seeds import rng_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from random import Random

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.evidence.trial_result import Planned, TrialResult


class CurrentTest:
    """One per process. Draws depend only on the seed and the test.

    Outside pytest the name is `lab`.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._own: dict[str, TrialResult | None] = {}
        self.name = "lab"
        self.hypothesis = ""
        self.wire: tuple[str, ...] = ()
        """Services of its mark `llmchaos_wire`, behind a fault agent in its loads."""
        self.waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        """Entered while another process measures, so that its time limit is paused."""

    def begin(self, name: str, hypothesis: str = "") -> None:
        """Begin a test, or the same one again. Its draws start anew."""
        self.name, self.hypothesis = name, hypothesis
        for key in [key for key in self._numbers if key[0] == name]:
            del self._numbers[key]
        # A load that ended after its last test was judged with that test.
        for trial in [trial for trial, result in self._own.items() if result is not None]:
            del self._own[trial]

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Use a shared fixture's own name. Test order then changes no draw."""
        before = self.name, self.hypothesis
        self.begin(name)
        try:
            yield
        finally:
            self.name, self.hypothesis = before

    def number(self, what: str) -> int:
        """Return the count of earlier draws of this kind in this test, and add one."""
        self._numbers[self.name, what] += 1
        return self._numbers[self.name, what] - 1

    def rng(self, what: str, number: int) -> Random:
        """Return the generator of this test's `number`-th draw of this kind."""
        return rng_for(self._seed, self.name, what, number)

    def rng_of(self, planned: Planned, what: str) -> Random:
        """Return the generator of a draw within one trial or load."""
        return rng_for(self._seed, planned.scenario, what, planned.repeat or 0)

    @contextlib.contextmanager
    def owning(self, record: Record) -> Iterator[None]:
        """Mark a record as this test's, which then decides its verdict."""
        self._own[record.trial] = None
        try:
            yield
        finally:
            self._own[record.trial] = record.outcome

    def claim(self, *, keep: bool = False) -> dict[str, TrialResult | None]:
        """Return and forget this test's records of loads, with their results.

        An open record has no result and stays for later tests. `keep` forgets none.
        """
        found = dict(self._own)
        if keep:
            return found
        for trial, result in found.items():
            if result is not None:
                del self._own[trial]
        return found
