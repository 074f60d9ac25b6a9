"""What all faults on one target share: choosing victims, and asking witnesses. Injects nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.model import Fidelity, Injection, Lifetime, Primitive, Proof, RuntimeEvent

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
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < float(value) < 86400:
        raise BadScenario(f"{name} must be a number of seconds above {least:g} and below 86400, got {value!r}")
    return float(value)


def victims_of(target: str, services: Sequence[str]) -> list[str]:
    """The services that a target names, in a stable order.

    Raises NoVictim, naming the services there are.
    """
    if target.endswith("*"):
        found = sorted(name for name in services if name.startswith(target[:-1]))
    else:
        found = [name for name in services if name == target]
    if not found:
        raise NoVictim(
            f"target {target!r} matches no service that may be hit; there are {', '.join(sorted(services)) or 'none'}"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """A primitive fault aimed at a service. `model-*` means one of them, drawn from the trial's own generator.

    `strength` is set only where an experiment has several of one kind and target: it is a part of the name then.
    """

    primitive: Primitive
    target: str
    strength: str = ""

    def __str__(self) -> str:
        strength = f"({self.strength})" if self.strength else ""
        return f"{self.primitive.kind}{strength} {self.target}"

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

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        victim = rng.choice(victims_of(self.target, services))
        return (Injection(after_s=0.0, fault=self.primitive, victim=victim),)


def first_event(
    events: Sequence[RuntimeEvent], victim: str, actions: Mapping[str, str] | frozenset[str], **attributes: str
) -> RuntimeEvent | None:
    """The first event of the victim among `actions` whose attributes all match."""
    for event in events:
        matches = all(event.attributes.get(key) == value for key, value in attributes.items())
        if event.service == victim and event.action in actions and matches:
            return event
    return None


def event_proof(step: str, event: RuntimeEvent | None) -> Proof | None:
    """The runtime's own event as a proof."""
    if event is None:
        return None
    shown = " ".join(f"{k}={v}" for k, v in sorted(event.attributes.items()) if k in {"exitCode", "signal"})
    witness = f"runtime event {event.action}{' ' + shown if shown else ''}"
    return Proof(step="injected" if step == "injected" else "healed", witness=witness, at_unix_s=event.at_unix_s)


def died(runtime: Any, victim: str, since_unix_s: float, **attributes: str) -> Proof | None:
    """Proof that the victim's process ended after `since_unix_s`, from the runtime's own event."""
    events = runtime.events(since_unix_s, float("inf"))
    return event_proof("injected", first_event(events, victim, frozenset({"die"}), **attributes))


def runs_again(runtime: Any, victim: str, since_unix_s: float) -> Proof | None:
    """Proof that the victim was started after `since_unix_s`, and runs."""
    state = runtime.state(victim)
    if not state.running or state.paused or state.started_unix_s < since_unix_s:
        return None
    return Proof(step="healed", witness="runtime state running", at_unix_s=state.started_unix_s)
