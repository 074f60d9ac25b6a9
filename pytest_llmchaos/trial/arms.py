"""The value of the fixture `arms`: the trials of all arms, and their effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.stats.bounded import NoClaim
from pytest_llmchaos.stats.effects import Effect, Note, WindowEffects
from pytest_llmchaos.stats.names import Known
from pytest_llmchaos.trial.trial import Trial


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(NoClaim):
    """Effects between two arms: the first arm minus the second.

    Attributes:
        first: Trial of the first arm.
        second: Trial of the second arm.
        note: Called with each effect that a claim reads.
    """

    how_to_claim: ClassVar[str] = "such as .during_fault.availability.low >= 0.05"

    first: Trial
    second: Trial
    note: Note

    def __repr__(self) -> str:
        return f"<{self.first.arm} - {self.second.arm}>"

    @property
    def before_fault(self) -> WindowEffects:
        """Effects on the requests that had ended when the fault began."""
        return self._effects("before_fault", "before")

    @property
    def during_fault(self) -> WindowEffects:
        """Effects on the requests in flight or due while the fault lasted.

        A lasting fault is over with its recovery, which may be earlier in one arm.
        """
        return self._effects("during_fault", "during")

    @property
    def after_fault(self) -> WindowEffects:
        """Effects on the requests due after the fault was over."""
        return self._effects("after_fault", "after")

    @property
    def whole(self) -> WindowEffects:
        """Effects on all requests."""
        return self._effects("whole", "whole")

    def _effects(self, name: str, window: str) -> WindowEffects:
        first, second = self.first, self.second
        return WindowEffects(name, first.phase(window), second.phase(window), (first.arm, second.arm), self.note)


class Arms(NoClaim, Mapping[str, Trial]):
    """The trials of all arms of an experiment, as its claims compare them.

    They have the same load, faults and acts. With two arms, the windows of `arms` are
    the effects of the first minus the second. `arms["on"]` is one arm's trial.

    Args:
        trials: The trials by arm, in the order of `experiment(arms=...)`.

    Attributes:
        effects: The effects that the claim has read.
    """

    how_to_claim: ClassVar[str] = "such as arms.during_fault.availability.low >= 0.05"

    def __init__(self, trials: Mapping[str, Trial]) -> None:
        self._trials = dict(trials)
        self.effects: list[Effect] = []

    def __repr__(self) -> str:
        return f"<arms {', '.join(self._trials)}>"

    def __getitem__(self, name: str) -> Trial:
        """Return the trial of one arm.

        Args:
            name: The arm's name.

        Raises:
            BadScenario: There is no such arm.
        """
        Known("arm", self._trials).require(name)
        return self._trials[name]

    def __contains__(self, name: object) -> bool:
        return name in self._trials

    def __iter__(self) -> Iterator[str]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    __hash__ = object.__hash__

    def compare(self, first: str, second: str) -> Comparison:
        """Return the effects of one arm minus those of another.

        Args:
            first: Name of the first arm.
            second: Name of the second arm.

        Raises:
            BadScenario: There is no such arm, or both are the same.
        """
        if first == second:
            raise BadScenario(f"arms.compare({first!r}, {second!r}) needs two different arms of {', '.join(self)}")
        return Comparison(first=self[first], second=self[second], note=self.effects.append)

    @property
    def before_fault(self) -> WindowEffects:
        """Effects on the requests that had ended when the fault began.

        Raises:
            BadScenario: There are more than two arms. Use `compare`.
        """
        return self._both("before_fault").before_fault

    @property
    def during_fault(self) -> WindowEffects:
        """Effects on the requests in flight or due while the fault lasted.

        A lasting fault is over with its recovery, which may be earlier in one arm.

        Raises:
            BadScenario: There are more than two arms. Use `compare`.
        """
        return self._both("during_fault").during_fault

    @property
    def after_fault(self) -> WindowEffects:
        """Effects on the requests due after the fault was over.

        Raises:
            BadScenario: There are more than two arms. Use `compare`.
        """
        return self._both("after_fault").after_fault

    @property
    def whole(self) -> WindowEffects:
        """Effects on all requests.

        Raises:
            BadScenario: There are more than two arms. Use `compare`.
        """
        return self._both("whole").whole

    def _both(self, name: str) -> Comparison:
        first, *others = self
        if len(others) != 1:
            raise BadScenario(
                f"arms.{name} needs two arms to compare, got {', '.join(self)}: "
                f"use arms.compare({first!r}, {others[-1]!r}).{name}"
            )
        return self.compare(first, others[0])
