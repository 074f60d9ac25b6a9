"""The values and protocols that every room shares. Frozen, checked at birth; no behaviour beyond that, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol, get_args, runtime_checkable

Outcome = Literal[
    "ok",
    "truncated",
    "cut",
    "stalled",
    "inband_error",
    "http_3xx",
    "http_4xx",
    "http_5xx",
    "http_429",
    "timeout",
    "refused",
    "corrupted",
    "left",
    "unfinished",
    "cancelled",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# Metrics of the clients. Prometheus gets the first three as counters, whose names end in _total.
CLIENTS = "llmchaos_client"
CLIENT_OFFERED = f"{CLIENTS}_offered"
CLIENT_REQUESTS = f"{CLIENTS}_requests"
CLIENT_GOOD = f"{CLIENTS}_good"
CLIENT_INFLIGHT = f"{CLIENTS}_inflight"
CLIENT_TTFT = f"{CLIENTS}_time_to_first_token_seconds"
CLIENT_DURATION = f"{CLIENTS}_request_duration_seconds"
# What of a request a service level judges.
Measure = Literal["availability", "ttft", "e2e"]
Lifetime = Literal["lasting", "passing", "none"]
Fidelity = Literal["real", "kernel", "simulated"]
FIDELITIES: tuple[Fidelity, ...] = get_args(Fidelity)  # from the strongest to the weakest


@dataclass(frozen=True, slots=True)
class Sample:
    """What one client saw of one request. Times are seconds since the start of the load, on the monotonic clock.

    `due_s` is when the request should have left; latencies count from it, so a late generator cannot hide an outage.
    `truncated` ended cleanly before it was complete, which no status code shows; `cut` broke off, which every client notices.
    `unfinished` marks one that was still open when the load ended, and older than its own limits: bad, whatever came of it.
    `cancelled` marks a younger one: it could still have become good, so it is unknown.
    `status` is the answer's HTTP status, 0 where there was none. `retry_after_s` is what a refusal (429 or 503) asked for,
    None where it named no time.
    `left` marks one whose client lost patience while the answer could still become good: the client's act, no failure.
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
    status: int = 0
    retry_after_s: float | None = None

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
    """Something that the runtime itself reported of one service, at the runtime's own time (Unix seconds).

    A service is one container, the one that faults hit: what happens to another of the same service is reported of
    `web#2`, where 2 is its number. `container` is the id of the container; a replacement has another one and the number
    of the container that it replaces.
    """

    at_unix_s: float
    service: str
    action: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    container: str = ""


# The event of a line of the remediator's record that cannot be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class EventGap:
    """A time in which the runtime's events were not seen. What did not happen in it is not known."""

    from_unix_s: float
    to_unix_s: float
    why: str


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """What the runtime says of one service now. `started_unix_s` is 0 for one that never ran.

    `health_every_s` is the interval of its own health check, whose changes are events; None for a service without one.
    """

    service: str
    running: bool
    paused: bool = False
    healthy: bool | None = None
    exit_code: int | None = None
    started_unix_s: float = 0.0
    restarts: int = 0
    identity: str = ""
    health_every_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Undo:
    """How to undo one fault: an operation of the runtime on one service. Serialisable, so that another process can do it."""

    op: str
    service: str
    args: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return {"op": self.op, "service": self.service, "args": dict(self.args)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Undo:
        """The undo of a journal's line. Whatever stands there makes one: the runtime names an operation that it lacks."""
        args = value.get("args")
        return cls(
            op=str(value.get("op", "")),
            service=str(value.get("service", "")),
            args=dict(args) if isinstance(args, Mapping) else {},
        )


EngineOption = str | int | float


@dataclass(frozen=True, kw_only=True)
class EngineFaultState:
    """One fault as the engine reports it. `counters` is the engine's own count of what the fault has done so far."""

    id: str
    kind: str
    active: bool
    started_unix_s: float
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """All faults that an engine lists, at one moment."""

    at_unix_s: float
    faults: tuple[EngineFaultState, ...]

    def in_force(self, kind: str) -> EngineFaultState | None:
        return next((one for one in self.faults if one.kind == kind and one.active), None)

    def lists(self, kind: str) -> bool:
        """Whether one of this kind is in force, or was since the engine's start."""
        return any(one.kind == kind for one in self.faults)


# What a runtime can do, one small protocol per ability. A fault's methods name the one they need, so that the type checker
# sees both sides; `needs` and `abilities` name them in words, and ABILITIES ties the words to the protocols.


@runtime_checkable
class HasEvents(Protocol):
    """Reports what happened to its services."""

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]: ...
    def event_gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        """When its events could not be seen, as far as that could not be made good afterwards."""
        ...


@runtime_checkable
class CanKill(Protocol):
    """Kills a service so that no restart policy answers."""

    def kill(self, service: str) -> None: ...


@runtime_checkable
class CanStop(Protocol):
    """Ends a service with SIGTERM, and with SIGKILL where it still runs after `grace_s`. Returns once it has ended."""

    def stop(self, service: str, grace_s: int) -> None: ...


@runtime_checkable
class CanStart(Protocol):
    """Starts a service that does not run."""

    def start(self, service: str) -> None: ...


@runtime_checkable
class CanRestart(Protocol):
    """Restarts a service by force."""

    def restart(self, service: str) -> None: ...


@runtime_checkable
class CanCrash(Protocol):
    """Ends a service's own process, so that the runtime sees it die by itself."""

    def crash(self, service: str) -> None: ...


@runtime_checkable
class CanPause(Protocol):
    """Freezes a service and thaws it."""

    def pause(self, service: str) -> None: ...
    def unpause(self, service: str) -> None: ...


@runtime_checkable
class ProvesRestrictions(Protocol):
    """Proves that something was taken from a service, and that it was given back."""

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None: ...
    def released(self, kind: str, service: str) -> Proof | None: ...


@runtime_checkable
class CanPartition(ProvesRestrictions, Protocol):
    """Takes a service off all its networks."""

    def partition(self, service: str) -> None: ...


@runtime_checkable
class CanLimitCpu(ProvesRestrictions, Protocol):
    """Limits the processor time of a service."""

    def limit_cpu(self, service: str, cores: float) -> None: ...


@runtime_checkable
class CanLimitMemory(ProvesRestrictions, Protocol):
    """Limits the memory of a service."""

    def limit_memory(self, service: str, mebibytes: int) -> None: ...


@runtime_checkable
class HasOomKiller(CanLimitMemory, Protocol):
    """Runs services where the kernel ends one that needs more than its limit. It is no method of its own."""


@runtime_checkable
class CanReachEngine(Protocol):
    """Reaches the admin port of a simulated engine."""

    def engine_start(self, service: str, kind: str, *, lease_s: float, **options: EngineOption) -> str: ...
    def engine_faults(self, service: str) -> EngineReport | None: ...
    def engine_signal(self, query: str) -> float | None: ...
    def engine_witness(self, kind: str, victim: str) -> str:
        """The subject's query with a sample only while Prometheus sees such a fault show."""
        ...


@runtime_checkable
class CanOverload(Protocol):
    """Floods a service with the clients that the lab lends it."""

    def overload(self, service: str, times: float, max_tokens: int) -> None: ...
    def overload_seen(self, service: str, since_unix_s: float) -> Proof | None: ...
    def overload_gone(self, service: str) -> Proof | None: ...


class Flood(Protocol):
    """Clients on top of a trial's own. The lab lends them to the runtime while faults are injected."""

    def start(self, service: str, times: float, max_tokens: int) -> None: ...
    def seen(self, service: str, since_unix_s: float) -> Proof | None: ...
    def gone(self) -> Proof | None: ...
    def stop(self) -> None: ...


UndoOp = Callable[[Undo], None]


class Runtime(HasEvents, Protocol):
    """Where the subject runs. What it can do beyond this is named in `abilities`."""

    name: str
    project: str
    services_run_as: str  # in words, for the report
    flood: Flood | None

    @property
    def abilities(self) -> frozenset[str]: ...
    @property
    def dashboards(self) -> str | None:
        """Address of the dashboards; None if they are not served."""
        ...

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        """Every undo that it can do, by the name that journals keep. Each is idempotent."""
        ...

    def prepare(self) -> None:
        """Find everything that is wrong before anything starts. Raises NotReady."""
        ...

    def up(self, *, remediator: bool = True) -> None: ...
    def down(self) -> None: ...
    def targets(self) -> tuple[str, ...]:
        """Services that a fault may hit."""
        ...

    def images(self) -> Mapping[str, str]:
        """What each service runs, for the fingerprint."""
        ...

    def logs(self, *, tail: int = 200) -> str: ...
    def clock_offset_s(self) -> float | None:
        """Seconds by which the clock of its events is ahead of ours; None where it is the same clock."""
        ...

    def url(self, service: str) -> str: ...
    def state(self, service: str) -> ServiceState: ...
    def states(self) -> Mapping[str, ServiceState]: ...
    def wait_healthy(self, services: Sequence[str], deadline_s: float) -> None:
        """Wait until these services run and pass their own health checks. Raises NotReady naming one that does not."""
        ...

    def audit(self) -> Sequence[Mapping[str, object]] | None:
        """The remediator's own record of what it saw and did, oldest first; in place of a torn line one of UNREADABLE.

        None where there is no such file. An empty one is an empty record.
        """
        ...

    def start_remediator(self) -> None: ...
    def stop_remediator(self) -> None: ...
    def undo(self, undo: Undo) -> None:
        """Do one undo; idempotent, and content with a service that is already gone."""
        ...


class AbleRuntime(
    Runtime,
    CanKill,
    CanStop,
    CanStart,
    CanRestart,
    CanCrash,
    CanPause,
    CanPartition,
    CanLimitCpu,
    CanLimitMemory,
    CanReachEngine,
    CanOverload,
    Protocol,
):
    """What a fault is handed: a runtime with every ability. `needs` says which of them the fault may use."""


# The words of `needs` and `abilities`, and what a runtime that has one provides.
ABILITIES: Mapping[str, type] = {
    "kill": CanKill,
    "stop": CanStop,
    "crash": CanCrash,
    "start": CanStart,
    "restart": CanRestart,
    "pause": CanPause,
    "unpause": CanPause,
    "partition": CanPartition,
    "limit_cpu": CanLimitCpu,
    "limit_memory": CanLimitMemory,
    "oom_kill": HasOomKiller,
    "overload": CanOverload,
    "events": HasEvents,
    "engine": CanReachEngine,
}
# Every undo that a fault may write into the journal, and the ability that brings it.
UNDO_OPS: Mapping[str, str] = {
    "ensure_running": "start",
    "ensure_unpaused": "unpause",
    "ensure_connected": "partition",
    "ensure_cpu": "limit_cpu",
    "ensure_memory": "limit_memory",
    "engine_end": "engine",
    "stop_overload": "overload",
}


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

    def inject(self, runtime: AbleRuntime, victim: str) -> None: ...
    def undo(self, victim: str) -> Undo: ...
    def observed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        """Proof that the fault took hold after `since_unix_s`, or None if no witness saw it yet."""
        ...

    def healed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        """Proof that nothing of the fault is left, or None."""
        ...


@runtime_checkable
class DeclaresSignals(Protocol):
    """A fault that names the alerts and remediator rules which detect it, beside all that are about its victim."""

    @property
    def signals(self) -> tuple[str, ...]: ...


@runtime_checkable
class MayEndEarly(Protocol):
    """A fault that something else than its undo can end, such as a lease that ran out."""

    def ended_early(self, runtime: AbleRuntime, victim: str) -> bool:
        """Whether it is over although nothing undid it, and its victim is the one that was hit: not one that was restarted."""
        ...


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One planned act: which fault hits which victim, how many seconds after the fault phase began."""

    after_s: float
    fault: Primitive
    victim: str

    def __str__(self) -> str:
        return f"{self.fault.kind} {self.victim} at +{self.after_s:g} s"


@runtime_checkable
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

    @property
    def last_act_s(self) -> float:
        """An upper bound for the seconds from the first act to the last."""
        ...

    @property
    def strength(self) -> Mapping[str, object]:
        """How strong it is, by the names of its options; empty for a composition."""
        ...

    def named_by(self, options: Sequence[str]) -> Fault:
        """The same fault with these of its options in its name."""
        ...

    def with_lease(self, for_s: float) -> Fault:
        """The same fault, no part of which ends by itself within `for_s`, unless that is its way."""
        ...

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        """The acts of one trial, in order of time. Raises NoVictim if the target matches no service."""
        ...
