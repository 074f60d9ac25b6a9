"""Values that pass between the parts of the remediator. No clock, no I/O: wall-clock seconds come in as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Action = Literal["start", "restart", "kill"]
Event = Literal["detected", "act", "suppressed", "escalated", "recovered"]

# What the runtime itself calls stopped: proof that does not come from the detector.
STOPPED = frozenset({"exited", "dead", "paused"})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One answer of Prometheus for one service; `at` is the evaluation time, not the scrape's."""

    at: float
    value: float

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError("expected a number as reading, got NaN: a NaN is an absent reading, leave it out")


@dataclass(frozen=True, kw_only=True)
class Container:
    """What the runtime said about one container; `seen_at` is when the question was asked."""

    id: str
    state: str
    health: str | None
    started_at: float
    restart_count: int
    exit_code: int
    seen_at: float

    @property
    def condition(self) -> str:
        """The state, refined by the health check while running: running, starting or unhealthy."""
        if self.state == "running" and self.health in ("starting", "unhealthy"):
            return self.health
        return self.state

    def __str__(self) -> str:
        return f"{self.condition} ({self.exit_code})" if self.state in ("exited", "dead") else self.condition


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Everything known at one moment. A signal or container that is not in here is absent, which says nothing."""

    readings: Mapping[tuple[str, str], Reading] = field(default_factory=dict)  # (signal, service)
    containers: Mapping[str, Container] = field(default_factory=dict)
    held: frozenset[str] = frozenset()  # services on operator hold; "*" holds all


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One fact behind a decision, as it stands in the audit log."""

    signal: str
    value: float | str
    at: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thing to write down and, for `act`, to do."""

    event: Event
    service: str
    incident: str
    rule: str | None
    action: Action | Literal["quarantine", "page"] | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    result: str = ""  # label of remediation_actions_total for what was not done
    took_s: float | None = None  # detection to recovery, where one of our actions lies between


@dataclass(frozen=True, kw_only=True)
class Incident:
    """From the first bad signal of a service to the first moment it is good again."""

    id: str
    rule: str
    detected_at: float
    acted_at: float | None = None
    acted: Action | None = None
    said: frozenset[str] = frozenset()  # reasons already written down, each once per incident


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """Memory about one service."""

    incident: Incident | None = None
    in_flight: bool = False
    attempts: int = 0  # actions since it was last healthy for `healthy_s`
    actions_at: tuple[float, ...] = ()
    settled_at: float = -math.inf  # end of the last action: older evidence speaks about the container before it
    healthy_since: float | None = None
    suspected_since: float | None = None  # a signal fires, with or without evidence
    quarantined: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """Memory of the decision core; every change makes a new one."""

    services: Mapping[str, ServiceState] = field(default_factory=dict)
    marks: Mapping[tuple[str, str], tuple[tuple[float, bool, float], ...]] = field(
        default_factory=dict
    )  # at, bad, value

    def of(self, service: str) -> ServiceState:
        return self.services.get(service) or ServiceState()
