"""Parts that faults on one target share: victims, bases of primitives, proofs by the runtime's own witnesses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from random import Random
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.model import (
    Fidelity,
    HasEvents,
    Injection,
    Lifetime,
    Primitive,
    Proof,
    ProvesRestrictions,
    Runtime,
    RuntimeEvent,
    Undo,
)

_TARGET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*(\*)?")


def check_target(fault: str, target: object) -> str:
    """The target, if it is a service name or a name with one `*` at its end."""
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise BadScenario(
            f"faults.{fault}(target) must be a service name such as 'api', or 'model-*' for any one of several, got {target!r}"
        )
    return target


def check_seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """The value as seconds, if it is a finite number above `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < 86400:
        raise BadScenario(f"{name} must be a number of seconds above {least:g} and below 86400, got {value!r}")
    return float(value)


def victims_of(target: str, services: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """The services that a target names, in a stable order. A pattern leaves out those that are `taken`.

    Raises NoVictim, naming the services there are, and those that were taken.
    """
    if target.endswith("*"):
        found = sorted(name for name in services if name.startswith(target[:-1]))
    else:
        found = [name for name in services if name == target]
    if not found:
        raise NoVictim(
            f"target {target!r} matches no service that may be hit; there are {', '.join(sorted(services)) or 'none'}"
        )
    left = [name for name in found if name not in taken] if target.endswith("*") else found
    if not left:
        raise NoVictim(
            f"target {target!r} matches no service that is left; {', '.join(found)} {'is' if len(found) == 1 else 'are'} hit "
            "already by other parts: name fewer parts or another target"
        )
    return left


def options_of(primitive: Primitive) -> dict[str, object]:
    """How strong a primitive is: its own dataclass fields, without what every primitive declares."""
    it: object = primitive
    own = fields(it) if is_dataclass(it) else ()
    return {one.name: getattr(it, one.name) for one in own if one.name not in vars(Primitive)}


@runtime_checkable
class Leased(Protocol):
    """A primitive that ends by itself after a while, and whose strength its fields do not show as they are."""

    @property
    def strength(self) -> Mapping[str, object]: ...
    def with_lease(self, for_s: float, name: str) -> Primitive:
        """The same one, which does not end by itself within `for_s`. Raises BadScenario with `name` for too long."""
        ...


def strength_of(primitive: Primitive) -> Mapping[str, object]:
    """How strong a primitive is, by the names of its options."""
    return primitive.strength if isinstance(primitive, Leased) else options_of(primitive)


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """A primitive fault aimed at a service. `model-*` means one of them, drawn from the trial's own generator.

    `shown`: options that are a part of the name, because the experiment has several faults of this kind and target.
    """

    primitive: Primitive
    target: str
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        strength = ", ".join(f"{name}={self.strength.get(name)}" for name in self.shown)
        return f"{self.primitive.kind}{f'({strength})' if strength else ''} {self.target}"

    @property
    def needs(self) -> frozenset[str]:
        return self.primitive.needs

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
    def blast_radius(self) -> int:
        return 1

    @property
    def last_act_s(self) -> float:
        return 0.0

    @property
    def strength(self) -> Mapping[str, object]:
        return strength_of(self.primitive)

    def named_by(self, options: Sequence[str]) -> OnTarget:
        return replace(self, shown=tuple(options))

    def with_lease(self, for_s: float) -> OnTarget:
        if not isinstance(self.primitive, Leased):
            return self
        return replace(self, primitive=self.primitive.with_lease(for_s, str(self)))

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        victim = rng.choice(victims_of(self.target, services))
        return (Injection(after_s=0.0, fault=self.primitive, victim=victim),)


@dataclass(frozen=True)
class ActFault:
    """An act that ends a service's process. The system must bring the service back.

    `exit_code`: status with which the process must end for a proof; "" for any.
    """

    lifetime: ClassVar[Lifetime] = "lasting"
    fidelity: ClassVar[Fidelity] = "real"
    expects: ClassVar[str] = "up == 0 or a failing health probe; ServiceDown fires"
    exit_code: ClassVar[str] = ""

    def undo(self, victim: str) -> Undo:
        return Undo(op="ensure_running", service=victim)

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        return prove_death(runtime, victim, since_unix_s, **({"exitCode": self.exit_code} if self.exit_code else {}))

    def healed(self, runtime: Runtime, victim: str, since_unix_s: float) -> Proof | None:
        return prove_restart(runtime, victim, since_unix_s)


@dataclass(frozen=True)
class RestrictionFault:
    """Something that the kernel withholds from a service until it is given back. `undo_op` gives it back."""

    kind: ClassVar[str]
    undo_op: ClassVar[str]
    lifetime: ClassVar[Lifetime] = "passing"
    fidelity: ClassVar[Fidelity] = "kernel"

    @property
    def amount(self) -> float:
        """What is left to the service, in the runtime's unit."""
        return 0

    def undo(self, victim: str) -> Undo:
        return Undo(op=self.undo_op, service=victim)

    def observed(self, runtime: ProvesRestrictions, victim: str, since_unix_s: float) -> Proof | None:
        return runtime.restricted(self.kind, victim, since_unix_s, self.amount)

    def healed(self, runtime: ProvesRestrictions, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's signature
        return runtime.released(self.kind, victim)


def first_event(
    events: Sequence[RuntimeEvent], victim: str, actions: Mapping[str, str] | frozenset[str], **attributes: str
) -> RuntimeEvent | None:
    """The first event of the victim among `actions` whose attributes all match."""
    for event in events:
        matches = all(event.attributes.get(key) == value for key, value in attributes.items())
        if event.service == victim and event.action in actions and matches:
            return event
    return None


def event_proof(step: Literal["injected", "healed"], event: RuntimeEvent | None) -> Proof | None:
    """The runtime's own event as a proof."""
    if event is None:
        return None
    shown = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k in {"exitCode", "signal"})
    witness = f"runtime event {event.action}{' ' + shown if shown else ''}"
    return Proof(step=step, witness=witness, at_unix_s=event.at_unix_s)


def prove_death(runtime: HasEvents, victim: str, since_unix_s: float, **attributes: str) -> Proof | None:
    """Proof that the victim's process ended after `since_unix_s`, from the runtime's own event."""
    events = runtime.events(since_unix_s, float("inf"))
    return event_proof("injected", first_event(events, victim, frozenset({"die"}), **attributes))


def prove_restart(runtime: Runtime, victim: str, since_unix_s: float) -> Proof | None:
    """Proof that the victim was started after `since_unix_s`, and runs."""
    state = runtime.state(victim)
    if not state.running or state.paused or state.started_unix_s < since_unix_s:
        return None
    return Proof(step="healed", witness="runtime state running", at_unix_s=state.started_unix_s)
