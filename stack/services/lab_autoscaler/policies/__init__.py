"""Laws: one observation and a memory to the wanted count.

Pure: no clock, no I/O. A law is a frozen value with its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lab_autoscaler.policies.fixed import Fixed
from lab_autoscaler.policies.hpa import Hpa
from lab_autoscaler.policies.keda import Keda
from lab_autoscaler.policies.kpa import Kpa
from lab_autoscaler.policies.queue import Queue
from lab_autoscaler.policies.slo import Slo

if TYPE_CHECKING:
    from lab_autoscaler.decision import Decision, State
    from lab_autoscaler.seen import Observed

Policy: TypeAlias = Fixed | Hpa | Keda | Kpa | Slo | Queue
LAWS: dict[str, type[Policy]] = {"fixed": Fixed, "hpa": Hpa, "keda": Keda, "kpa": Kpa, "slo": Slo, "queue": Queue}

__all__ = ["LAWS", "Fixed", "Hpa", "Keda", "Kpa", "Policy", "Queue", "Slo", "decide"]


def decide(policy: Policy, observed: Observed, state: State) -> Decision:
    """The count that a law wants now, and its memory for the next decision."""
    return policy.decide(observed, state)
