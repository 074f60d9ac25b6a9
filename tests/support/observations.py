"""Observations of replicas, as the autoscaler's laws read them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lab_autoscaler.decision import State
from lab_autoscaler.policies import decide
from lab_autoscaler.seen import Observed
from lab_autoscaler.written import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab_autoscaler.decision import Decision
    from lab_autoscaler.policies import Policy

# A pace without limits.
WIDE = "scale_up_window_s=0, scale_down_window_s=0, scale_up_pods=9999, scale_down_percent=100, maximum=9999"
# A count that has stood for a long time: no window holds it.
LONG_AGO_S = -100_000.0


def seen(replicas: int = 2, **values: Any) -> Observed:
    """Ready replicas that report no load, at 0 s."""
    ready = values.get("ready", replicas)
    quiet: dict[str, Any] = {
        "now_s": 0.0, "ready": ready, "waiting": 0.0, "running": 0.0, "rate_rps": 0.0, "slots": 4, "utilisation": 0.0,
        "first_token_attained": 1.0, "token_gap_attained": 1.0, "reporting": ready,
    }  # fmt: skip
    return Observed(replicas=replicas, **quiet | values)


def blind(replicas: int = 2, **values: Any) -> Observed:
    """Replicas without any metric."""
    names = ("waiting", "running", "rate_rps", "utilisation", "first_token_attained", "token_gap_attained")
    return seen(replicas, **dict.fromkeys(names), **{"reporting": 0} | values)


def settled(observed: Observed, **values: Any) -> State:
    """The memory of a law that has seen this count for a long time."""
    at_s = observed.now_s + LONG_AGO_S
    return replace(
        State(synced_at_s=at_s, replicas=observed.replicas, recommendations=((at_s, observed.replicas),)), **values
    )


def wanted(text: str, observed: Observed, **values: Any) -> int:
    """The count that a policy wants after a long time with the present one."""
    return decide(parse(text), observed, settled(observed, **values)).desired


def followed(text: str, observations: Sequence[Mapping[str, Any]], *, replicas: int) -> list[int]:
    """The counts of one policy, each in force at the next observation.

    Without a `ready` in an observation, all replicas are ready.
    """
    policy, state, counts = parse(text), State(), []
    for values in observations:
        decision = decide(policy, seen(**{"replicas": replicas, **values}), state)
        replicas, state = decision.desired, decision.state
        counts.append(replicas)
    return counts


def held(policy: Policy, observed: Observed, state: State) -> Decision:
    """The decision, checked to be one for lack of data."""
    decision = decide(policy, observed, state)
    assert decision.blind, decision.reason
    return decision
