"""A law's decision, and what it remembers until the next one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class State:
    """Memory of a law. `State()` is the start.

    Each law uses some of the fields, and drops entries that left its windows.

    Args:
        synced_at_s: The last observation, or None before the first.
        replicas: `Observed.replicas` of that observation, in laws with a pace.
        recommendations: Earlier results before pacing, as pairs of time and replicas.
        changes: Earlier changes of the wanted count, as pairs of time and difference.
        samples: Earlier values of the law's signal, as pairs of time and value.
        polled_at_s: The last poll of a KEDA trigger.
        active_at_s: The last poll at which a KEDA trigger was active.
        panic_at_s: The last time that Knative's panic threshold was reached, or None
            outside of panic mode.
        panic_replicas: The most replicas that this panic wanted.
        idle_since_s: The start of the present idle time, in which Knative wants zero
            replicas.
    """

    synced_at_s: float | None = None
    replicas: int = 0
    recommendations: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()
    samples: tuple[tuple[float, float], ...] = ()
    polled_at_s: float | None = None
    active_at_s: float | None = None
    panic_at_s: float | None = None
    panic_replicas: int = 0
    idle_since_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The replicas that a law wants.

    Args:
        desired: The wanted count, within the law's minimum and maximum.
        state: The memory for the law's next decision.
        reason: One line with the values that led to the count.
        blind: True if the law holds because a value that it needs is unknown.
    """

    desired: int
    state: State
    reason: str
    blind: bool = False
