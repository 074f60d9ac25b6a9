"""Bases of faults on one target, and proofs by the runtime's own events."""

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

_TARGET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*(\*|#[1-9][0-9]{0,5})?")


def check_target(fault: str, target: object) -> str:
    """Return the target if it is a service name, `model-*` or `model#2`.

    Args:
        fault: Kind of the fault, for the message.
        target: The value to check.

    Raises:
        BadScenario: It is neither.
    """
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise BadScenario(
            f"faults.{fault}(target) must be a service name such as 'api', 'model-*' for any one of several, or 'model#2' for "
            f"its second container, got {target!r}"
        )
    return target


def check_seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """Return the value as seconds.

    Args:
        name: The argument as the message names it, such as
            `faults.sequence(after_s=...)`.
        value: The value to check.
        least: Seconds that it must exceed. It must be below 86400, a day.

    Raises:
        BadScenario: It is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < 86400:
        raise BadScenario(f"{name} must be a number of seconds above {least:g} and below 86400, got {value!r}")
    return float(value)


def victims_of(target: str, services: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Return the services that a target names, in a stable order.

    Args:
        target: Service name or pattern.
        services: Services that faults may hit.
        taken: Services that other parts hit. A pattern excludes them.

    Raises:
        NoVictim: No service matches, or all that match are taken. The message names
            them.
    """
    service = target.partition("#")[0]
    if target.endswith("*"):
        found = sorted(name for name in services if name.startswith(target[:-1]))
    else:
        found = [name for name in services if name == service]
    if not found:
        raise NoVictim(
            f"target {target!r} matches no service that may be hit; available: {', '.join(sorted(services)) or 'none'}"
        )
    left = [name for name in found if name not in taken] if target.endswith("*") else found
    if not left:
        raise NoVictim(
            f"target {target!r} matches no service that is left; {', '.join(found)} {'is' if len(found) == 1 else 'are'} hit "
            "already by other parts: name fewer parts or another target"
        )
    return left


def options_of(primitive: Primitive) -> dict[str, object]:
    """Return a primitive's own dataclass fields, without those of every primitive.

    Args:
        primitive: The fault.
    """
    it: object = primitive
    own = fields(it) if is_dataclass(it) else ()
    return {one.name: getattr(it, one.name) for one in own if one.name not in vars(Primitive)}


@runtime_checkable
class Leased(Protocol):
    """A primitive with a lease, after which it ends by itself.

    Its fields do not show its strength as users write it.

    Attributes:
        strength: Its options by name.
    """

    @property
    def strength(self) -> Mapping[str, object]: ...
    def with_lease(self, for_s: float, name: str) -> Primitive:
        """Return the same primitive with a lease of at least `for_s` seconds.

        Args:
            for_s: Seconds for which it must stay in force.
            name: The fault's name, for the message.

        Raises:
            BadScenario: The engine grants no such lease.
        """
        ...


@runtime_checkable
class Seeded(Protocol):
    """A primitive that decides by a seed which requests it hits."""

    def seeded(self, rng: Random) -> Primitive:
        """Return the same primitive with a seed of the trial's random generator.

        Args:
            rng: The trial's own random generator.
        """
        ...


def strength_of(primitive: Primitive) -> Mapping[str, object]:
    """Return how strong a primitive is, by the names of its options.

    Args:
        primitive: The fault.
    """
    return primitive.strength if isinstance(primitive, Leased) else options_of(primitive)


def plain_strength(primitive: Primitive) -> dict[str, object]:
    """Return the options of a primitive as JSON values.

    Args:
        primitive: The fault.
    """
    return {name: plain(value) for name, value in strength_of(primitive).items()}


def plain(value: object) -> object:
    """Return a value with the same JSON in every process, or the name of its type.

    Args:
        value: Value of an option.
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """A primitive aimed at a service, which makes it a `Fault`.

    Attributes:
        primitive: The fault.
        target: Service name, `model-*` for one service, drawn from the trial's own
            random generator, or `model#2` for one container of a service.
        shown: Options that are part of the name, because the experiment has several
            faults of this kind on this target.
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
    def wire_targets(self) -> tuple[str, ...]:
        """Targets whose requests must pass a fault agent."""
        return (self.target,) if "proxy" in self.needs else ()

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
        victim, number = rng.choice(victims_of(self.target, services)), self.target.partition("#")[2]
        fault = self.primitive.seeded(rng) if isinstance(self.primitive, Seeded) else self.primitive
        return (Injection(after_s=0.0, fault=fault, victim=victim, replica=int(number) if number else None),)


@dataclass(frozen=True)
class ActFault:
    """Base of faults that end a service's process, which the system must repair.

    A subclass defines `kind`, `needs` and `inject`.

    Attributes:
        lifetime: `lasting`.
        fidelity: `real`.
        expects: The signal that should show it, in words.
        exit_code: Exit status that proves it, "" for any.
    """

    lifetime: ClassVar[Lifetime] = "lasting"
    fidelity: ClassVar[Fidelity] = "real"
    expects: ClassVar[str] = "up == 0 or a failing health probe; ServiceDown fires"
    exit_code: ClassVar[str] = ""

    def undo(self, victim: str) -> Undo:
        """Return the `Undo` that starts the victim if it does not run."""
        return Undo(op="ensure_running", service=victim)

    def observed(self, runtime: HasEvents, victim: str, since_unix_s: float) -> Proof | None:
        """Prove by the runtime's event that the process ended, with `exit_code`."""
        return prove_death(runtime, victim, since_unix_s, **({"exitCode": self.exit_code} if self.exit_code else {}))

    def healed(self, runtime: Runtime, victim: str, since_unix_s: float) -> Proof | None:
        """Prove that the victim was started again and runs."""
        return prove_restart(runtime, victim, since_unix_s)


@dataclass(frozen=True)
class RestrictionFault:
    """Base of faults by which the kernel restricts a service until the revert.

    A subclass defines `kind`, `needs`, `expects`, `undo_op` and `inject`.

    Attributes:
        kind: Its name in `Runtime.restricted`.
        undo_op: Operation of the runtime that reverts it.
        lifetime: `passing`.
        fidelity: `kernel`.
    """

    kind: ClassVar[str]
    undo_op: ClassVar[str]
    lifetime: ClassVar[Lifetime] = "passing"
    fidelity: ClassVar[Fidelity] = "kernel"

    @property
    def amount(self) -> float:
        """The amount left to the service, in the runtime's unit."""
        return 0

    def undo(self, victim: str) -> Undo:
        """Return the `Undo` with `undo_op`."""
        return Undo(op=self.undo_op, service=victim)

    def observed(self, runtime: ProvesRestrictions, victim: str, since_unix_s: float) -> Proof | None:
        """Prove by the runtime that the restriction is in place."""
        return runtime.restricted(self.kind, victim, since_unix_s, self.amount)

    def healed(self, runtime: ProvesRestrictions, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's signature
        """Prove by the runtime that the restriction is reverted."""
        return runtime.released(self.kind, victim)


def first_event(
    events: Sequence[RuntimeEvent], victim: str, actions: Mapping[str, str] | frozenset[str], **attributes: str
) -> RuntimeEvent | None:
    """Return the victim's first event among `actions` whose attributes match.

    Args:
        events: Events of the runtime, oldest first.
        victim: Service name.
        actions: Actions that count, such as `die`.
        **attributes: Values that the event's attributes must have.
    """
    for event in events:
        matches = all(event.attributes.get(key) == value for key, value in attributes.items())
        if event.service == victim and event.action in actions and matches:
            return event
    return None


def event_proof(step: Literal["injected", "healed"], event: RuntimeEvent | None) -> Proof | None:
    """Return a proof from the runtime's own event, or None without one.

    Args:
        step: `injected` or `healed` (reverted).
        event: The event.
    """
    if event is None:
        return None
    shown = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k in {"exitCode", "signal", "replica"})
    witness = f"runtime event {event.action}{' ' + shown if shown else ''}"
    return Proof(step=step, witness=witness, at_unix_s=event.at_unix_s)


def prove_death(runtime: HasEvents, victim: str, since_unix_s: float, **attributes: str) -> Proof | None:
    """Prove by the runtime's own event that the victim's process ended.

    Args:
        runtime: The runtime.
        victim: Service name.
        since_unix_s: Unix time in seconds. Earlier events do not count.
        **attributes: Values that the event must have, such as `exitCode="137"`.

    Returns:
        The proof, or None as long as there is no such event.
    """
    events = runtime.events(since_unix_s, float("inf"))
    return event_proof("injected", first_event(events, victim, frozenset({"die"}), **attributes))


def prove_restart(runtime: Runtime, victim: str, since_unix_s: float) -> Proof | None:
    """Prove that the victim was started again and runs.

    Args:
        runtime: The runtime.
        victim: Service name.
        since_unix_s: Unix time in seconds. An earlier start does not count.

    Returns:
        The proof, or None as long as it does not run.
    """
    state = runtime.state(victim)
    if not state.running or state.paused or state.started_unix_s < since_unix_s:
        return None
    return Proof(step="healed", witness="runtime state running", at_unix_s=state.started_unix_s)
