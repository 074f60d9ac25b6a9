"""A fault at a message: it begins while a fault agent holds that message."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from pytest_llmchaos.errors import BadScenario, FaultNotObserved, NotReady
from pytest_llmchaos.faults.base import OnTarget, check_seconds, check_target, options_of
from pytest_llmchaos.model import AbleRuntime, CanProxy, Fault, Fidelity, Lifetime, Moment, Primitive, Proof, Undo

# The message is let go soon after the deadline, whatever happens to pytest.
LEASE_MARGIN_S = 5.0
LONGEST_WAIT_S = 3595.0  # with the margin, the longest lease of a fault agent
_AT = re.compile(r"after:(?:([A-Za-z0-9][A-Za-z0-9_-]*)\.)?([A-Za-z0-9_.*?-]+)#([1-9][0-9]{0,5})\.([a-z_]+)")
# Paths of requests, by the names that `at` uses.
PATHS: Mapping[str, str] = {
    "request": "*",
    "chat": "*/chat*",
    "completion": "*/completions",
    "generate": "*/generate*",
}
EVENTS = ("received", "first_token", "answered", "delivered")
# A stop lasts as long as its victim drains, which may wait for the message.
LET_GO_S = 0.5
# These act at once. All others last, so that the moment of their start matters little.
_AT_ONCE = ("kill", "crash", "stop", "restart", "pause")


class _Message(NamedTuple):
    """Parts of `at`. With a service, `what` is a tool, else a kind of request."""

    service: str
    what: str
    number: int
    event: str

    @property
    def tool(self) -> str:
        return self.what if self.service else ""


@dataclass(frozen=True, kw_only=True)
class AtMessage:
    """A primitive that begins at a message.

    Attributes:
        primitive: The fault.
        at: The message, such as `after:chat#3.first_token`.
        named: Service whose messages count, "" for the one in `at` or the victim.
        within_s: Seconds within which the message must come.
    """

    primitive: Primitive
    at: str
    named: str = ""
    within_s: float

    @property
    def on(self) -> str:
        """Service whose messages count, "" for the victim."""
        return self.named or _parts(self.at).service

    @property
    def tool(self) -> str:
        """Glob of the tool whose calls count, "" for requests by their path."""
        return _parts(self.at).tool

    @property
    def reads_http(self) -> bool:
        return True

    @property
    def path(self) -> str:
        """Glob of the paths of the requests that count."""
        return PATHS["request" if self.tool else _parts(self.at).what]

    @property
    def number(self) -> int:
        """Number of the request, from 1."""
        return _parts(self.at).number

    @property
    def kind(self) -> str:
        return self.primitive.kind

    @property
    def needs(self) -> frozenset[str]:
        return self.primitive.needs | {"proxy"}

    @property
    def lifetime(self) -> Lifetime:
        return self.primitive.lifetime

    @property
    def fidelity(self) -> Fidelity:
        return self.primitive.fidelity

    @property
    def expects(self) -> str:
        return self.primitive.expects

    @property
    def strength(self) -> Mapping[str, object]:
        return {"at": self.at, **({"on": self.named} if self.named else {}), **options_of(self.primitive)}

    def with_lease(self, for_s: float, name: str) -> AtMessage:  # noqa: ARG002 - the protocol's
        return self

    @contextmanager
    def moment(self, runtime: CanProxy, victim: str) -> Iterator[Moment]:
        """Wait for the message, and hold it inside the block.

        Raises:
            FaultNotObserved: It did not come in time.
            NotReady: The service has no fault agent, or it does not answer.
        """
        service = self.on or victim
        lease_s = self.within_s + LEASE_MARGIN_S
        event = _parts(self.at).event
        let_go_s = LET_GO_S if self.kind == "stop" else None
        id_ = runtime.wire_start(
            service,
            "hold",
            lease_s=lease_s,
            seed=0,
            event=event,
            number=self.number,
            match={"tool": self.tool} if self.tool else {"path": self.path},
            **({} if let_go_s is None else {"most_s": let_go_s}),
        )
        try:
            held = runtime.wire_wait(service, id_, self.within_s)
            if held is None or held.hit_unix_s is None:
                met = held.counters.get("met", 0) if held is not None else 0
                counted = f"calls of {self.tool}" if self.tool else f"POST requests for {self.path}"
                raise FaultNotObserved(
                    f"{self.kind} {victim} was to begin {self.at}, and within {self.within_s:g} s {service} got {met:g} "
                    f"{counted}: raise the rate or within_s, or name an earlier request or another kind"
                )
            at = self.at.replace(":", " ") + ("" if self.tool else f" on {service}")
            lasts_s = math.inf if event == "delivered" else let_go_s
            yield Moment(at=at, unix_s=held.hit_unix_s, passes_s=lease_s, lasts_s=lasts_s)
        finally:
            with suppress(NotReady):  # an agent that went with its service holds nothing
                runtime.wire_end(service, id_)

    def inject(self, runtime: AbleRuntime, victim: str) -> None:
        self.primitive.inject(runtime, victim)

    def undo(self, victim: str) -> Undo:
        return self.primitive.undo(victim)

    def observed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        return self.primitive.observed(runtime, victim, since_unix_s)

    def healed(self, runtime: AbleRuntime, victim: str, since_unix_s: float) -> Proof | None:
        return self.primitive.healed(runtime, victim, since_unix_s)


@dataclass(frozen=True, kw_only=True)
class Timed(OnTarget):
    """A fault on its target that begins at a message."""

    primitive: AtMessage

    def __str__(self) -> str:
        return f"{super().__str__()} {self.primitive.at}{f' on {self.primitive.named}' if self.primitive.named else ''}"

    @property
    def wire_targets(self) -> tuple[str, ...]:
        return (self.primitive.on or self.target,)


def timed(fault: Fault, *, at: str, on: str | None = None, within_s: float = 30.0) -> Fault:
    """Begin a fault at a message of a conversation.

    A fault agent holds that message. The fault is injected and proven, then the message
    goes on, or is dropped if its sender is dead. `stop` waits for its victim's end, so
    the message goes on 0.5 s after it came. At `delivered` nothing is held.

    - Ends: as `fault` does.
    - Fidelity: that of `fault`. The moment is the agent's.
    - Expected signal: that of `fault`.

    Args:
        fault: `faults.kill`, `crash`, `stop`, `restart` or `pause` of one target.
        at: The message, `after:KIND#NUMBER.EVENT`. KIND is `chat` (paths with
            `/chat`), `completion`, `generate` or `request` (every POST), or
            `SERVICE.TOOL` for calls of an MCP tool, with wildcards. NUMBER counts
            them from the start of the wait: the fault phase, or in a sequence the
            return of an earlier victim. EVENT is `received` (the service does not have
            the request yet), `first_token`, `answered` (the client lacks the last
            event) or `delivered` (the client has the whole answer).
        on: Service whose messages count. Default: the one in `at`, or the victim.
        within_s: Seconds within which the message must come, above 0, at most 3595.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `fault` is another fault or has several targets, or an argument is
            not as described.
    """
    if not isinstance(fault, OnTarget) or fault.primitive.kind not in _AT_ONCE:
        names = ", ".join(f"faults.{one}" for one in _AT_ONCE)
        raise BadScenario(f"faults.timed(fault) must be one of {names} on one target, got {fault}")
    if isinstance(fault, Timed):
        raise BadScenario(f"faults.timed(fault) must be a fault without a message, got {fault}")
    if not isinstance(at, str):
        raise BadScenario(f"faults.timed(at=...) must be text such as 'after:chat#3.first_token', got {at!r}")
    message = _parts(at)
    service = "" if on is None else check_target("timed(on)", on)
    if service and message.service:
        raise BadScenario(f"faults.timed(on=...) must not be given, as {at!r} names {message.service}, got {on!r}")
    if service.endswith("*") or "#" in service:
        raise BadScenario(f"faults.timed(on=...) must be the name of one service, got {on!r}")
    limit_s = check_seconds("faults.timed(within_s=...)", within_s)
    if limit_s > LONGEST_WAIT_S:
        raise BadScenario(f"faults.timed(within_s=...) must be at most {LONGEST_WAIT_S:g} seconds, got {within_s!r}")
    primitive = AtMessage(primitive=fault.primitive, at=at, named=service, within_s=limit_s)
    return Timed(primitive=primitive, target=fault.target, shown=fault.shown)


def at_message(fault: Fault, *, at: str | None, on: str | None, within_s: float) -> Fault:
    """Return a fault that begins at a message if there is one.

    Raises:
        BadScenario: `on` is given without `at`, or `timed` refuses it.
    """
    if at is not None:
        return timed(fault, at=at, on=on, within_s=within_s)
    if on is not None:
        raise BadScenario(
            f"faults: on={on!r} of {fault} needs at, the message at which it begins, such as at='after:chat#3.first_token', "
            "or drop it"
        )
    return fault


def _parts(at: str) -> _Message:
    """Return the parts of a message. Raises BadScenario."""
    found = _AT.fullmatch(at)
    if found is None or (not found[1] and found[2] not in PATHS) or found[4] not in EVENTS:
        raise BadScenario(
            f"faults.timed(at=...) must be 'after:KIND#NUMBER.EVENT' with KIND one of {', '.join(PATHS)} or SERVICE.TOOL, "
            f"NUMBER from 1 and EVENT one of {', '.join(EVENTS)}, such as 'after:chat#3.first_token' or "
            f"'after:desk.refund#1.answered', got {at!r}"
        )
    return _Message(found[1] or "", found[2], int(found[3]), found[4])
