"""A fixed number of replicas, which no load changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_autoscaler.decision import Decision
from lab_autoscaler.policies.bounds import MOST_REPLICAS
from lab_common.values import require_whole

if TYPE_CHECKING:
    from lab_autoscaler.decision import State
    from lab_autoscaler.seen import Observed


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The same count at any load: the arm that autoscaling is compared with.

    Args:
        replicas: The count, from 1.

    Raises:
        InvalidValueError: with the bound and the value.
    """

    replicas: int = 1

    def __post_init__(self) -> None:
        require_whole("replicas", self.replicas, at_least=1, at_most=MOST_REPLICAS)

    @property
    def minimum(self) -> int:
        return self.replicas

    @property
    def maximum(self) -> int:
        return self.replicas

    def decide(self, observed: Observed, state: State) -> Decision:  # noqa: ARG002 # the method of all laws
        return Decision(desired=self.replicas, state=state, reason=f"fixed: {self.replicas}")
