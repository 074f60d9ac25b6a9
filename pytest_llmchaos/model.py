"""The values and protocols that every layer shares. Frozen, checked at birth; no behaviour beyond that, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol

Outcome = Literal[
    "ok",
    "truncated",
    "cut",
    "stalled",
    "inband_error",
    "http_4xx",
    "http_5xx",
    "http_429",
    "timeout",
    "refused",
    "corrupted",
    "cancelled",
]
OUTCOMES: tuple[Outcome, ...] = (
    "ok",
    "truncated",
    "cut",
    "stalled",
    "inband_error",
    "http_4xx",
    "http_5xx",
    "http_429",
    "timeout",
    "refused",
    "corrupted",
    "cancelled",
)
Lifetime = Literal["lasting", "passing", "none"]
Fidelity = Literal["real", "kernel", "proxy", "telemetry", "simulated"]
FIDELITIES: tuple[Fidelity, ...] = ("real", "kernel", "proxy", "telemetry", "simulated")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one caller saw of one request. Times are seconds since the start of the load, on the monotonic clock.

    `due_s` is when the request should have left; latencies count from it, so a late generator cannot hide an outage.
    `truncated` ended cleanly before it was complete, which no status code shows; `cut` broke off, which every caller notices.
    `cancelled` marks a request that the end of the run cut off: it is evidence of nothing.
    """

    due_s: float
    sent_s: float
    first_s: float | None
    end_s: float
    max_gap_s: float
    tokens: int
    outcome: Outcome
    replica: str
    request_id: str

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.due_s


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What an independent witness saw, and when (Unix seconds)."""

    step: Literal["injected", "healed"]
    witness: str
    at_unix_s: float


@dataclass(frozen=True, kw_only=True)
class RuntimeEvent:
    """Something that the runtime itself reported of one service, at the runtime's own time (Unix seconds)."""

    at_unix_s: float
    service: str
    action: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """What the runtime says of one service now. `started_unix_s` is 0 for one that never ran."""

    service: str
    running: bool
    paused: bool = False
    healthy: bool | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    started_unix_s: float = 0.0
    restarts: int = 0
    identity: str = ""


# Every way to undo a fault, each known to the runtimes: whoever finds a dead run's journal can do them without that run's code.
UNDO_OPS = frozenset(
    {
        "engine_end",
        "ensure_connected",
        "ensure_cpu",
        "ensure_memory",
        "ensure_running",
        "ensure_unpaused",
        "stop_overload",
    }
)


@dataclass(frozen=True, kw_only=True)
class Undo:
    """How to undo one fault: an operation of the runtime on one service. Serialisable, so that another process can do it."""

    op: str
    service: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"op": self.op, "service": self.service, "args": dict(self.args)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Undo:
        return cls(op=str(value["op"]), service=str(value["service"]), args=dict(value.get("args", {})))


class Runtime(Protocol):
    """Where the subject runs. What it can do beyond this is named in `abilities`.

    Methods of the same name: kill, start, restart, crash, pause, unpause, partition, limit_cpu, limit_memory, events.
    `engine`: it reaches the simulated engine's admin port. `oom_kill`: the kernel ends a service at its memory limit.
    """

    name: str
    project: str

    @property
    def abilities(self) -> frozenset[str]: ...
    def up(self, *, remediator: bool) -> None: ...
    def down(self) -> None: ...
    def targets(self) -> tuple[str, ...]:
        """Services that a fault may hit."""
        ...

    def url(self, service: str) -> str: ...
    def state(self, service: str) -> ServiceState: ...
    def states(self) -> Mapping[str, ServiceState]: ...
    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]: ...
    def audit(self) -> Sequence[Mapping[str, Any]]:
        """The remediator's own record of what it saw and did, oldest first."""
        ...

    def undo(self, undo: Undo) -> None:
        """Do one undo; idempotent, and content with a service that is already gone."""
        ...


class Primitive(Protocol):
    """One fault on one victim: inject, prove, undo, prove healed. It acts only through the runtime it is given."""

    @property
    def kind(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def lifetime(self) -> Lifetime: ...
    @property
    def fidelity(self) -> Fidelity: ...
    @property
    def expects(self) -> str:
        """The signal that should show it, in words."""
        ...

    def inject(self, runtime: Any, victim: str) -> None: ...
    def undo(self, victim: str) -> Undo: ...
    def observed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        """Proof that the fault took hold after `since_unix_s`, or None if no witness saw it yet."""
        ...

    def healed(self, runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
        """Proof that nothing of the fault is left, or None."""
        ...


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One planned act: which fault hits which victim, how many seconds after the fault phase began."""

    after_s: float
    fault: Primitive
    victim: str

    def __str__(self) -> str:
        return f"{self.fault.kind} {self.victim} at +{self.after_s:g} s"


class Fault(Protocol):
    """What an experiment is given: a primitive with a target, or a composition. `str(fault)` is its identity in reports and seeds."""

    @property
    def target(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def lifetime(self) -> Lifetime: ...
    @property
    def fidelity(self) -> Fidelity: ...
    @property
    def blast_radius(self) -> int:
        """The most services that may be hit at once."""
        ...

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        """The acts of one trial, in order of time. Raises NoVictim if the target matches no service."""
        ...
