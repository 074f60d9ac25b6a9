"""The test that uses the lab now: its name, its random draws and the loads that it ran by itself."""

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
    from pytest_llmchaos.evidence.trial_result import TrialResult


class CurrentTest:
    """One of these per process. Its draws depend on the seed and on the test alone.

    Outside pytest the name is `lab`.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._own: dict[str, TrialResult | None] = {}
        self.name = "lab"
        self.hypothesis = ""
        self.waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        """Entered while another process measures: that time is not the test's."""

    def begin(self, name: str, hypothesis: str = "") -> None:
        """Another test begins, or the same one again: its draws start anew."""
        self.name, self.hypothesis = name, hypothesis
        for key in [key for key in self._numbers if key[0] == name]:
            del self._numbers[key]
        # What ended after its last test was judged with that test, and is not of this one.
        for trial in [trial for trial, result in self._own.items() if result is not None]:
            del self._own[trial]

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """A fixture that several tests share has a name of its own: which of them comes first must not matter."""
        before = self.name, self.hypothesis
        self.begin(name)
        try:
            yield
        finally:
            self.name, self.hypothesis = before

    def number(self, what: str) -> int:
        """How many of these this test has had before, counting this one in."""
        self._numbers[self.name, what] += 1
        return self._numbers[self.name, what] - 1

    def rng(self, what: str, number: int) -> Random:
        """The generator of this test's `number`-th of these."""
        return rng_for(self._seed, self.name, what, number)

    @contextlib.contextmanager
    def owning(self, record: Record) -> Iterator[None]:
        """A record whose verdict is its test's."""
        self._own[record.trial] = None
        try:
            yield
        finally:
            self._own[record.trial] = record.outcome

    def claim(self) -> dict[str, TrialResult | None]:
        """The records of loads that this test's outcome is about, with their results. One still open stays for later tests."""
        found = dict(self._own)
        for trial, result in found.items():
            if result is not None:
                del self._own[trial]
        return found
