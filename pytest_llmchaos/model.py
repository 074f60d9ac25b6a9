"""Values and protocols that all rooms share.

Values are frozen and checked when made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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
# Metrics of the clients. Prometheus gets those without a unit as counters, whose names
# end in `_total`. Only the requests in flight are a gauge.
CLIENTS = "llmchaos_client"
CLIENT_OFFERED = f"{CLIENTS}_offered"
CLIENT_REQUESTS = f"{CLIENTS}_requests"
CLIENT_GOOD = f"{CLIENTS}_good"
CLIENT_INFLIGHT = f"{CLIENTS}_inflight"
CLIENT_TTFT = f"{CLIENTS}_time_to_first_token_seconds"
CLIENT_DURATION = f"{CLIENTS}_request_duration_seconds"
CLIENT_REPLICA_REQUESTS = f"{CLIENTS}_replica_requests"
CLIENT_REPLICA_GOOD = f"{CLIENTS}_replica_good"
CLIENT_REPLICA_TTFT = f"{CLIENTS}_replica_time_to_first_token_seconds"
# The part of a request that a service level judges.
Measure = Literal["availability", "ttft", "e2e"]
Lifetime = Literal["lasting", "passing", "none"]
Fidelity = Literal["real", "kernel", "proxy", "simulated"]
FIDELITIES: tuple[Fidelity, ...] = get_args(Fidelity)  # from the strongest to the weakest
# How a certificate is checked, if not with a CA file.
TLS_SYSTEM, TLS_UNVERIFIED = "system", "unverified"
# Headers that a client sets itself. A compressed answer would hide its tokens.
OWN_HEADERS = frozenset(
    {
        *("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"),
        *("accept-encoding", "x-request-id"),
    }
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a field name of RFC 9110


def is_header_name(text: str) -> bool:
    """True for the name of a header."""
    return _HEADER_NAME.fullmatch(text) is not None


def is_plain(text: str) -> bool:
    """True for printable ASCII on one line."""
    return text.isascii() and text.isprintable()


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as its client saw it.

    Times are seconds since the start of the load, on the monotonic clock. Latencies
    count from `due_s`, so a late generator cannot hide an outage.

    Attributes:
        due_s: Second at which the request should have left.
        sent_s: Second at which it left.
        first_s: Second of the first token, None without one.
        end_s: Second at which the answer ended.
        max_gap_s: Longest gap between two tokens, in seconds.
        tokens: Tokens received.
        outcome: How it ended. `truncated` ended cleanly before it was complete, which
            no status code shows. `cut` broke off, which every client notices.
            `unfinished` was open when the load ended and older than its own limits, so
            it is bad. `cancelled` was open and younger, so its end is unknown. `left`:
            the client lost patience while the answer could still become good, which is
            not a failure.
        replica: Name of the replica that served it, "" if unknown.
        request_id: Its id.
        status: HTTP status of the answer, 0 without one.
        retry_after_s: Seconds in Retry-After of a refusal (429 or 503), None without
            one.
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
        """Seconds from the due time to the first token, None without one."""
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def e2e_s(self) -> float:
        """Seconds from the due time to the end."""
        return self.end_s - self.due_s


# Counts of a fault on the wire: what may be hit, what was hit, own connections that the
# kernel refused, and connections that carried no HTTP/1.1.
MET, HIT, OWN_REFUSED, UNREAD = "met", "hit", "own_refused", "unread"


@dataclass(frozen=True, kw_only=True)
class FaultCounts:
    """Counts of what a fault did, by the engine or agent that performs it.

    `str(counts)` is that in words.

    Attributes:
        counters: Counts by name, such as `met` and `hit`.
        unit: Word for what `met` and `hit` count, such as `requests`. "" without them.
        first_hit_after_s: Seconds from the fault's start to its first hit. None before
            it, and if that is unknown.
    """

    counters: Mapping[str, float]
    unit: str = ""
    first_hit_after_s: float | None = None

    def __str__(self) -> str:
        left = dict(self.counters)
        met, hit, refused, unread = (left.pop(name, 0) for name in (MET, HIT, OWN_REFUSED, UNREAD))
        first = "" if self.first_hit_after_s is None else f", the first after {self.first_hit_after_s:.3g} s"
        parts = [f"hit {hit:,.0f} of {met:,.0f} {self.unit}{first}"] if MET in self.counters else []
        parts += ["and refused the agent's own connection"] if refused else []
        parts += [f"{unread:,.0f} connections carried no HTTP/1.1"] if unread else []
        others = ", ".join(f"{count:,.0f} {name.replace('_', ' ')}" for name, count in left.items())
        return ", ".join(parts + ([f"counted {others}"] if others else []))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Evidence of an independent witness.

    Attributes:
        step: `injected`, or `healed` for a reverted fault.
        witness: The witness and what it saw, in words.
        at_unix_s: Unix time in seconds.
        counts: What the fault did until then. None if no program counts it.
    """

    step: Literal["injected", "healed"]
    witness: str
    at_unix_s: float
    counts: FaultCounts | None = None


@dataclass(frozen=True, kw_only=True)
class RuntimeEvent:
    """An event that the runtime itself reported of one service.

    A service is one container, the one that faults hit. Another container of the same
    service is reported as `web#2`, where 2 is its number.

    Attributes:
        at_unix_s: Unix time in seconds, by the runtime's clock.
        service: Name of the service.
        action: Action as the runtime names it, such as `die`.
        attributes: Further values, such as `exitCode`.
        container: Id of the container. A replacement has another id and the number of
            the container that it replaces.
    """

    at_unix_s: float
    service: str
    action: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    container: str = ""


# The event for an unreadable line of the remediator's record.
UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class EventGap:
    """A period without the runtime's events. Absence of events in it is unknown.

    Attributes:
        from_unix_s: Unix time of its start, in seconds.
        to_unix_s: Unix time of its end, in seconds.
        why: The reason, in words.
    """

    from_unix_s: float
    to_unix_s: float
    why: str


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """State of one service as the runtime reports it now.

    Attributes:
        service: Name of the service.
        running: True while its process runs.
        paused: True while it is frozen.
        healthy: Result of its own health check, None without one.
        exit_code: Exit status of the last process, None while it runs or if unknown.
        started_unix_s: Unix time of the last start in seconds, 0 if it never ran.
        restarts: Number of restarts by its restart policy since a start by others.
        identity: Id of the container or process.
        health_every_s: Seconds between its health checks, None without one. Changes of
            health are events.
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
    """A revert as a value: one operation of the runtime on one service.

    It is serialisable, so that another process can apply it after a crash.

    Attributes:
        op: Name of the operation, one of `UNDO_OPS`.
        service: Name of the service.
        args: Arguments of the operation.
    """

    op: str
    service: str
    args: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the value as the journal keeps it."""
        return {"op": self.op, "service": self.service, "args": dict(self.args)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Undo:
        """Return the `Undo` of a journal's line.

        Args:
            value: The JSON object. Any content makes an `Undo`. The runtime raises for
                an operation that it lacks.
        """
        args = value.get("args")
        return cls(
            op=str(value.get("op", "")),
            service=str(value.get("service", "")),
            args=dict(args) if isinstance(args, Mapping) else {},
        )


# Argument of an undo: number of the container that was hit.
REPLICA = "replica"

EngineOption = str | int | float


@dataclass(frozen=True, kw_only=True)
class LeasedFaultState:
    """One fault as the engine or the fault agent reports it.

    Attributes:
        id: Id of the fault there.
        kind: Kind of the fault.
        active: True while it is in force.
        started_unix_s: Unix time of its start, in seconds.
        counters: Counts of what the fault has done so far.
        hit_unix_s: Unix time of the first hit in seconds, by the agent's clock. None
            before it, and from the engine.
        hit_after_s: Seconds from the start to the first hit, both by the agent's clock.
            None without one of them.
    """

    id: str
    kind: str
    active: bool
    started_unix_s: float
    counters: Mapping[str, float] = field(default_factory=dict)
    hit_unix_s: float | None = None
    hit_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class LeasedFaults:
    """All faults that an engine or a fault agent lists at one moment.

    Attributes:
        at_unix_s: Unix time of the report, in seconds.
        faults: The faults, ended ones included.
    """

    at_unix_s: float
    faults: tuple[LeasedFaultState, ...]

    def in_force(self, kind: str) -> LeasedFaultState | None:
        """Return the active fault of a kind, or None.

        Args:
            kind: Kind of the fault.
        """
        return next((one for one in self.faults if one.kind == kind and one.active), None)

    def newest(self, kind: str) -> LeasedFaultState | None:
        """Return the latest fault of a kind since the process started, or None.

        Args:
            kind: Kind of the fault.
        """
        return next((one for one in reversed(self.faults) if one.kind == kind), None)


# Abilities of runtimes, one protocol each. A fault's methods name the one they need, so
# that the type checker sees both sides. `needs` and `abilities` are their names, and
# ABILITIES maps names to protocols.


@runtime_checkable
class HasEvents(Protocol):
    """A runtime that reports events of its services."""

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        """Return the events between two Unix times in seconds, oldest first."""
        ...

    def event_gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        """Return the periods between two Unix times in seconds without known events."""
        ...


@runtime_checkable
class CanKill(Protocol):
    """A runtime that kills a service so that no restart policy answers."""

    def kill(self, service: str) -> None:
        """Kill the service."""
        ...


@runtime_checkable
class CanStop(Protocol):
    """A runtime that stops a service with a grace period."""

    def stop(self, service: str, grace_s: int) -> None:
        """Send SIGTERM, then SIGKILL if the service still runs after `grace_s` seconds.

        Return once it has ended.
        """
        ...


@runtime_checkable
class CanStart(Protocol):
    """A runtime that starts a service."""

    def start(self, service: str) -> None:
        """Start a service that does not run."""
        ...


@runtime_checkable
class CanRestart(Protocol):
    """A runtime that restarts a service."""

    def restart(self, service: str) -> None:
        """Restart the service by force, without a grace period."""
        ...


@runtime_checkable
class CanCrash(Protocol):
    """A runtime that ends a service's own process."""

    def crash(self, service: str) -> None:
        """End the main process, so that the runtime sees it die by itself."""
        ...


@runtime_checkable
class CanPause(Protocol):
    """A runtime that freezes a service."""

    def pause(self, service: str) -> None:
        """Freeze the service."""
        ...

    def unpause(self, service: str) -> None:
        """Thaw the service."""
        ...


@runtime_checkable
class ProvesRestrictions(Protocol):
    """A runtime that proves restrictions of a service."""

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None:
        """Prove that the restriction is in place, or return None.

        Args:
            kind: Kind of the fault.
            service: Name of the service.
            since_unix_s: Unix time in seconds. An earlier restriction does not count.
            amount: Amount left to the service, in cores or MiB.
        """
        ...

    def released(self, kind: str, service: str) -> Proof | None:
        """Prove that the restriction is reverted, or return None."""
        ...


@runtime_checkable
class CanPartition(ProvesRestrictions, Protocol):
    """A runtime that disconnects a service from all its networks."""

    def partition(self, service: str) -> None:
        """Disconnect the service."""
        ...


@runtime_checkable
class CanLimitCpu(ProvesRestrictions, Protocol):
    """A runtime that limits the processor time of a service."""

    def limit_cpu(self, service: str, cores: float) -> None:
        """Limit the service to this many cores."""
        ...


@runtime_checkable
class CanLimitMemory(ProvesRestrictions, Protocol):
    """A runtime that limits the memory of a service."""

    def limit_memory(self, service: str, mebibytes: int) -> None:
        """Limit the service to this many MiB, without swap."""
        ...


@runtime_checkable
class HasOomKiller(CanLimitMemory, Protocol):
    """A runtime whose kernel ends a service that exceeds its memory limit.

    It has no method of its own.
    """


@runtime_checkable
class CanReachEngine(Protocol):
    """A runtime that reaches the admin port of a simulated engine."""

    def engine_start(self, service: str, kind: str, *, lease_s: float, **options: EngineOption) -> str:
        """Start a fault in the engine.

        Args:
            service: Name of the service.
            kind: Kind of the fault.
            lease_s: Seconds after which the engine ends it by itself, at most 3600.
            **options: Options of the fault.

        Returns:
            Its id in the engine.
        """
        ...

    def engine_faults(self, service: str) -> LeasedFaults | None:
        """Return the faults that the engine lists, or None if it does not answer."""
        ...

    def engine_signal(self, query: str) -> float | None:
        """Return the value of a Prometheus query, or None without a sample."""
        ...

    def engine_witness(self, kind: str, victim: str) -> str:
        """Return the subject's query for a fault on a victim.

        It has a sample only while Prometheus sees the fault.
        """
        ...


@runtime_checkable
class CanProxy(Protocol):
    """A runtime with a fault agent, a proxy that enters the way of a service."""

    def wire_arm(self, services: Sequence[str]) -> None:
        """Put an agent in the way of each service, before the load starts. Idempotent.

        From then on all requests of each of its containers pass an agent.

        Args:
            services: Names of services.

        Raises:
            NotReady: An agent cannot enter. The message names the service.
        """
        ...

    def wire_disarm(self) -> None:
        """Remove all agents, and check that they are gone. Idempotent."""
        ...

    def wire_protocols(self, service: str) -> Mapping[int, str]:
        """Return the protocol of each of a service's ports.

        The agent sends each port a greeting of TLS, one of HTTP/2 and `OPTIONS *`,
        until an answer shows TLS or HTTP/1.

        Args:
            service: Name of the service.

        Returns:
            `HTTP/1`, `HTTP/2`, `TLS`, or "" for an unknown one, by port. Empty without
            an agent.

        Raises:
            NotReady: The agent does not answer.
        """
        ...

    def wire_start(self, service: str, kind: str, *, lease_s: float, seed: int, **options: object) -> str:
        """Start a fault in the service's agent.

        Args:
            service: Name of the service.
            kind: Kind of the fault.
            lease_s: Seconds after which the agent ends it by itself, at most 3600.
            seed: Seed of the decisions which requests are hit.
            **options: Options of the fault, with `share` and `match`.

        Returns:
            Its id in the agent.

        Raises:
            NotReady: The agent is missing, does not answer or refuses.
        """
        ...

    def wire_faults(self, service: str) -> LeasedFaults | None:
        """Return the faults that the agent lists, or None if it does not answer.

        Without an agent the list is empty.
        """
        ...

    def wire_wait(self, service: str, id_: str, deadline_s: float) -> LeasedFaultState | None:
        """Wait until a fault has hit its first request, and return its state.

        Args:
            service: Name of the service.
            id_: The fault's id in the agent.
            deadline_s: Seconds to wait. The state then shows no hit.

        Returns:
            The state, or None without an agent.

        Raises:
            NotReady: The agent does not answer, or has no such fault.
        """
        ...

    def wire_end(self, service: str, id_: str) -> None:
        """End one fault. Does nothing if it has ended."""
        ...

    def wire_open(self, service: str) -> str | None:
        """Return in words that the service accepts a connection from outside, or None.

        Such as `127.0.0.1:18000 accepts a connection from outside`.
        """
        ...


@runtime_checkable
class CanOverload(Protocol):
    """A runtime that floods a service with the lab's clients."""

    def overload(self, service: str, times: float, max_tokens: int) -> None:
        """Start the flood.

        Args:
            service: Name of the service.
            times: Multiple of the backend's peak tokens per second.
            max_tokens: Length of each answer, in tokens.
        """
        ...

    def overload_seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Prove that it is too much since then (Unix seconds), or return None."""
        ...

    def overload_report(self, service: str) -> str:
        """Return in words what Prometheus measures of the flood, for an error."""
        ...

    def overload_gone(self, service: str) -> Proof | None:
        """Prove that the flood has ended, or return None."""
        ...


# Environment variables by service, each with its value.
Environment = Mapping[str, Mapping[str, str]]


@runtime_checkable
class CanConfigure(Protocol):
    """A runtime that gives services further environment variables."""

    def configure(self, environment: Environment) -> None:
        """Run the services with these variables on top of their own.

        A service is restarted if its further variables change, which includes those
        that it no longer gets. One that does not run gets them at its next start.
        Returns once all restarted services are healthy and scraped. Idempotent. An
        empty value restores every service's own variables. The caller stops the
        remediator, which would repair what restarts.

        Args:
            environment: Services that may be hit, each with its variables.

        Raises:
            BadScenario: A service may not be hit, or a variable has an impossible name
                or value. Nothing was touched.
            NotReady: A service cannot be restarted, or does not become healthy. The
                next call restarts it again.
        """
        ...


class Flood(Protocol):
    """Clients on top of a trial's own.

    The lab lends them to the runtime while faults are injected.
    """

    def start(self, service: str, times: float, max_tokens: int) -> None:
        """Start clients that offer a multiple of the peak tokens per second."""
        ...

    def seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Prove that it is too much since then (Unix seconds), or return None."""
        ...

    def report(self, service: str) -> str:
        """Return in words what Prometheus measures of the flood, for an error."""
        ...

    def gone(self) -> Proof | None:
        """Prove that the flood has ended, or return None."""
        ...

    def stop(self) -> None:
        """Stop the clients."""
        ...


UndoOp = Callable[[Undo], None]


def replica_name(service: str, number: int | None) -> str:
    """Return the name of one container: `web#2`, or `web` without a number.

    Args:
        service: Name of the service.
        number: Number of the container within the service.
    """
    return service if number is None else f"{service}#{number}"


class Runtime(HasEvents, Protocol):
    """The place where the subject runs: Docker or local processes.

    Attributes:
        name: Name of the runtime.
        project: Name of the compose project.
        services_run_as: Form of its services in words, for the report.
        flood: Clients that the lab lends for an overload, None outside a load.
    """

    name: str
    project: str
    services_run_as: str  # in words, for the report
    flood: Flood | None

    @property
    def abilities(self) -> frozenset[str]:
        """Names of what it can do, as the `needs` of faults have them."""
        ...

    @property
    def dashboards(self) -> str | None:
        """Address of the dashboards, None if they are not served."""
        ...

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        """Operations that revert faults, by the name that journals keep. Idempotent."""
        ...

    def prepare(self) -> None:
        """Check everything that the stack needs before it starts.

        Raises:
            NotReady: Something is missing.
        """
        ...

    def up(self, *, remediator: bool = True) -> None:
        """Start the stack."""
        ...

    def down(self) -> None:
        """Stop the stack and remove it."""
        ...

    def targets(self) -> tuple[str, ...]:
        """Return the services that a fault may hit."""
        ...

    def images(self) -> Mapping[str, str]:
        """Return the image of each service, for the fingerprint."""
        ...

    def logs(self, *, tail: int = 200) -> str:
        """Return the last `tail` lines of each service's log."""
        ...

    def clock_offset_s(self) -> float | None:
        """Return the seconds by which the clock of its events is ahead of ours.

        None if it is the same clock.
        """
        ...

    def url(self, service: str) -> str:
        """Return the address of a service, as this machine reaches it."""
        ...

    def state(self, service: str) -> ServiceState:
        """Return the state of a service."""
        ...

    def states(self) -> Mapping[str, ServiceState]:
        """Return the states of all services by name."""
        ...

    def wait_healthy(self, services: Sequence[str], deadline_s: float) -> None:
        """Wait until these services run and pass their own health checks.

        Args:
            services: Names of services.
            deadline_s: Seconds to wait.

        Raises:
            NotReady: A service is not healthy by the deadline. The message names it.
        """
        ...

    def audit(self) -> Sequence[Mapping[str, object]] | None:
        """Return the remediator's own record of what it saw and did, oldest first.

        A torn line becomes an `UNREADABLE` entry. None without such a file, empty for
        an empty one.
        """
        ...

    def start_remediator(self) -> None:
        """Start the remediator."""
        ...

    def stop_remediator(self) -> None:
        """Stop the remediator."""
        ...

    def aim(self, service: str, draw: Random, number: int | None = None) -> int | None:
        """Choose the container that stands for a service from now on.

        Args:
            service: Name of the service.
            draw: Random generator that chooses among several.
            number: Number of the container to choose, None to draw one.

        Returns:
            Its number. None if the service has only one.

        Raises:
            NoVictim: The service has no container of that number.
        """
        ...

    def undo(self, undo: Undo) -> None:
        """Revert a fault. Idempotent, and succeeds if the service is already gone.

        The argument `replica` is the number of the container that was hit.
        """
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
    CanProxy,
    CanOverload,
    CanConfigure,
    Protocol,
):
    """A runtime with every ability, as faults get it.

    `needs` lists which of them a fault may use.
    """


# The names in `needs` and `abilities`, and the protocol of each.
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
    "proxy": CanProxy,
    "configure": CanConfigure,
}
# Every `op` of an `Undo`, and the ability that provides it.
UNDO_OPS: Mapping[str, str] = {
    "ensure_running": "start",
    "ensure_unpaused": "unpause",
    "ensure_connected": "partition",
    "ensure_cpu": "limit_cpu",
    "ensure_memory": "limit_memory",
    "engine_end": "engine",
    "wire_end": "proxy",
    "stop_overload": "overload",
}


class Primitive(Protocol):
    """One fault on one victim, for authors of faults.

    It acts only through the runtime that it gets.

    Attributes:
        kind: Its name in reports and schedules.
        needs: Abilities of the runtime that it uses, keys of `ABILITIES`.
        lifetime: `lasting` if the system has to repair it, `passing` if it ends after
            `fault_s`.
        fidelity: How real it is: `real`, `kernel`, `proxy` or `simulated`.
    """

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

    def inject(self, runtime: AbleRuntime, victim: str) -> None:
        """Inject the fault into the victim."""
        ...

    def undo(self, victim: str) -> Undo:
        """Return the revert, which is written to the journal before `inject`."""
        ...

    def observed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        """Prove that the fault took hold.

        Args:
            runtime: The runtime.
            victim: Name of the service.
            since_unix_s: Unix time in seconds. Earlier evidence does not count.

        Returns:
            The proof, or None as long as no witness saw it.
        """
        ...

    def healed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        """Prove that the fault is reverted or repaired.

        Args:
            runtime: The runtime.
            victim: Name of the service.
            since_unix_s: Unix time in seconds. Earlier evidence does not count.

        Returns:
            The proof, or None as long as there is no evidence.
        """
        ...


@runtime_checkable
class DeclaresSignals(Protocol):
    """A fault with signals of its own, in addition to all about its victim.

    Attributes:
        signals: Names of the alerts and remediator rules that detect it.
    """

    @property
    def signals(self) -> tuple[str, ...]: ...


@runtime_checkable
class MayEndEarly(Protocol):
    """A fault that may end without its revert, such as by a lease that ran out."""

    def ended_early(self, runtime: AbleRuntime, victim: str) -> bool:
        """True if it ended without a revert on the victim that was hit.

        False if the victim was restarted since.
        """
        ...


@runtime_checkable
class ForgesAnswers(Protocol):
    """A fault that may make short answers look whole, so that no service counts them.

    Attributes:
        looks_whole: True if its answers end as whole ones do.
    """

    @property
    def looks_whole(self) -> bool: ...


@runtime_checkable
class CountsRequests(Protocol):
    """A fault that shows only once requests meet it.

    Attributes:
        proof_within_s: Seconds within which a witness must have seen it.
    """

    @property
    def proof_within_s(self) -> float: ...

    def counted(self, runtime: AbleRuntime, victim: str) -> str:
        """Return in words what was counted of them, for an error."""
        ...


@runtime_checkable
class ReadsRequests(Protocol):
    """A fault on the wire that may have to read requests.

    Attributes:
        reads_http: True if they must be HTTP/1.1 without TLS.
    """

    @property
    def reads_http(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment at which a fault begins.

    Attributes:
        at: The moment, in words.
        unix_s: Unix time of it, in seconds.
        passes_s: Seconds after the start of the wait at which it passes, whatever
            pytest does.
        lasts_s: Seconds after `unix_s` for which it lasts at most, infinity if nothing
            ends it. None: it lasts until the fault is proven.
    """

    at: str
    unix_s: float
    passes_s: float
    lasts_s: float | None = None


@runtime_checkable
class BeginsAtMoment(Protocol):
    """A fault that begins at a moment of the running load.

    Attributes:
        at: The moment.
        on: Service whose fault agent has the moment, "" for the victim.
    """

    @property
    def at(self) -> str: ...
    @property
    def on(self) -> str: ...
    def moment(self, runtime: AbleRuntime, victim: str) -> AbstractContextManager[Moment]:
        """Wait for the moment. It lasts as long as the block."""
        ...


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One planned act.

    Attributes:
        after_s: Seconds after the fault phase began.
        fault: The fault.
        victim: Name of the service.
        replica: Number of the container to hit, None for the one that the seed draws.
    """

    after_s: float
    fault: Primitive
    victim: str
    replica: int | None = None

    def __str__(self) -> str:
        what = f"{self.fault.kind} {replica_name(self.victim, self.replica)} at +{self.after_s:g} s"
        if not isinstance(self.fault, BeginsAtMoment):
            return what
        on = self.fault.on
        return f"{what}, begins {self.fault.at}{f' on {on}' if on and f':{on}.' not in self.fault.at else ''}"


@runtime_checkable
class Fault(Protocol):
    """A primitive with a target, or a composition.

    `str(fault)` is its identity in reports and seeds.

    Attributes:
        target: Service name or pattern, several separated by commas.
        needs: Abilities of the runtime that it uses.
        lifetime: `lasting`, `passing` or `none` (the control arm).
        fidelity: How real it is: `real`, `kernel`, `proxy` or `simulated`.
    """

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
        """Its options by name. Empty for a composition."""
        ...

    def named_by(self, options: Sequence[str]) -> Fault:
        """Return the same fault with these of its options in its name."""
        ...

    def with_lease(self, for_s: float) -> Fault:
        """Return the same fault, in force for at least `for_s` seconds.

        A fault whose design is to end by itself is unchanged.
        """
        ...

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        """Return the acts of one trial, in order of time.

        Args:
            rng: The trial's own random generator.
            services: Services that faults may hit.

        Raises:
            NoVictim: The target matches no service.
        """
        ...
