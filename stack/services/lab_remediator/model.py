"""Values shared by the remediator's parts. Times are wall-clock seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Action = Literal["start", "restart", "kill"]
Event = Literal["detected", "act", "suppressed", "escalated", "recovered"]

# States that the runtime itself reports as stopped, independent of the detector.
STOPPED = frozenset({"exited", "dead", "paused"})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One answer of Prometheus for one service. `at` is its evaluation time."""

    at: float
    value: float

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError("expected a number as reading, got NaN: a NaN is an absent reading, drop it")


@dataclass(frozen=True, kw_only=True)
class Container:
    """The runtime's report on one container. `seen_at` is the time of the query."""

    id: str
    state: str
    health: str | None
    started_at: float
    restart_count: int
    exit_code: int
    seen_at: float

    @property
    def condition(self) -> str:
        """The state, while running refined to running, starting or unhealthy."""
        if self.state == "running" and self.health in ("starting", "unhealthy"):
            return self.health
        return self.state

    def __str__(self) -> str:
        return f"{self.condition} ({self.exit_code})" if self.state in ("exited", "dead") else self.condition


@dataclass(frozen=True, kw_only=True)
class Observations:
    """All readings at one moment. An absent signal or container proves nothing."""

    readings: Mapping[tuple[str, str], Reading] = field(default_factory=dict)  # (signal, service)
    containers: Mapping[str, Container] = field(default_factory=dict)
    held: frozenset[str] = frozenset()  # services on operator hold. "*" holds all
    elsewhere: frozenset[str] = frozenset()  # replicas of the autoscaler


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One fact behind a decision, as recorded in the audit log."""

    signal: str
    value: float | str
    at: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line to record and, for `act`, an action."""

    event: Event
    service: str
    incident: str
    rule: str | None
    action: Action | Literal["quarantine", "page"] | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    result: str = ""  # label of remediation_actions_total for refused actions
    took_s: float | None = None  # seconds from detection to recovery, if one of our actions lies between


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Time from the first bad signal of a service until it is good again."""

    id: str
    rule: str
    detected_at: float
    acted_at: float | None = None
    acted: Action | None = None
    said: frozenset[str] = frozenset()  # reasons already recorded in this incident


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """Memory about one service."""

    incident: Incident | None = None
    in_flight: bool = False
    attempts: int = 0  # actions since it was last healthy for `healthy_s`
    actions_at: tuple[float, ...] = ()
    settled_at: float = -math.inf  # end of the last action. Older evidence concerns the container before it
    healthy_since: float | None = None
    suspected_since: float | None = None  # a signal fires, with or without evidence
    quarantined: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """Memory of the decision core. Every change makes a new one."""

    services: Mapping[str, ServiceState] = field(default_factory=dict)
    marks: Mapping[tuple[str, str], tuple[tuple[float, bool, float], ...]] = field(
        default_factory=dict
    )  # at, bad, value

    def of(self, service: str) -> ServiceState:
        return self.services.get(service) or ServiceState()
