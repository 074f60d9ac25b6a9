"""Faults made of faults: at once, one after the other, or drawn from a list."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Self

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget, check_seconds, check_target
from pytest_llmchaos.model import FIDELITIES, Fault, Fidelity, Injection, Lifetime

if TYPE_CHECKING:
    from pytest_llmchaos.model import Primitive

Target = str | Sequence[str]  # one service, `model-*` for one of several, or several of either


def check_fault(where: str, fault: object) -> Fault:
    """The fault, if it has the shape of one: other packages bring classes of their own."""
    # A protocol is checked member by member, which costs 20 times as much as a class.
    if isinstance(fault, OnTarget):
        return fault
    if not isinstance(fault, Fault):
        raise BadScenario(f"{where} must be a fault such as faults.kill('api'), got {fault!r}")
    return fault


def on_targets(primitive: Primitive, target: object) -> Fault:
    """The primitive on its target. A list hits all that it names at once, as `together` does.

    A pattern draws after the names and the longer patterns, so that it leaves them what they name.
    """
    if not isinstance(target, list | tuple):
        return OnTarget(primitive=primitive, target=check_target(primitive.kind, target))
    names = [check_target(primitive.kind, one) for one in target]
    named = [name for name in names if not name.endswith("*")]
    if not names or len(set(named)) < len(named):
        raise BadScenario(
            f"faults.{primitive.kind}(target) must name at least one service, and each once, got {target!r}"
        )
    narrow_first = sorted(names, key=lambda name: len(name) if name.endswith("*") else math.inf, reverse=True)
    aimed = tuple(OnTarget(primitive=primitive, target=name) for name in narrow_first)
    return aimed[0] if len(aimed) == 1 else Together(parts=tuple((0.0, one) for one in aimed))


class _Composition(ABC):
    """What a fault made of faults derives from its members."""

    @property
    @abstractmethod
    def members(self) -> tuple[Fault, ...]: ...

    @property
    def target(self) -> str:
        return ",".join(sorted({f.target for f in self.members if f.target}))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(f.needs for f in self.members))

    @property
    def lifetime(self) -> Lifetime:
        return "passing" if any(f.lifetime == "passing" for f in self.members) else "lasting"

    @property
    def fidelity(self) -> Fidelity:
        """The weakest of the members: a claim may not exceed it."""
        return max((f.fidelity for f in self.members), key=FIDELITIES.index)

    @property
    def strength(self) -> Mapping[str, object]:
        return {}

    def named_by(self, options: Sequence[str]) -> Self:  # noqa: ARG002 - it has no options of its own
        return self


@dataclass(frozen=True, kw_only=True)
class Together(_Composition):
    """Several faults; each starts `after_s` seconds after the phase began."""

    parts: tuple[tuple[float, Fault], ...]
    verb: str = "together"

    def __str__(self) -> str:
        if self.verb == "together":
            return "together(" + ", ".join(str(f) for _, f in self.parts) + ")"
        return "sequence(" + ", ".join(f"{f} at +{after:g} s" for after, f in self.parts) + ")"

    @property
    def members(self) -> tuple[Fault, ...]:
        return tuple(f for _, f in self.parts)

    @property
    def blast_radius(self) -> int:
        return sum(f.blast_radius for f in self.members)

    @property
    def last_act_s(self) -> float:
        return max(after_s + f.last_act_s for after_s, f in self.parts)

    def with_lease(self, for_s: float) -> Together:
        return replace(self, parts=tuple((after_s, f.with_lease(for_s)) for after_s, f in self.parts))

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        acts: list[Injection] = []
        taken: set[str] = set()
        for after_s, fault in self.parts:
            free = [s for s in services if s not in taken] if fault.target.endswith("*") else list(services)
            for act in fault.plan(rng, free):
                acts.append(replace(act, after_s=act.after_s + after_s))
                taken.add(act.victim)
        return tuple(sorted(acts, key=lambda act: act.after_s))


@dataclass(frozen=True, kw_only=True)
class RandomFaults(_Composition):
    """`n` faults drawn from `among`, spread over `within_s` seconds.

    One that would go beyond the experiment's blast radius, or hit a victim that is down, waits until an earlier one is over.
    """

    n: int
    among: tuple[Fault, ...]
    within_s: float

    def __str__(self) -> str:
        return f"random({self.n} among {', '.join(str(f) for f in self.among)} within {self.within_s:g} s)"

    @property
    def members(self) -> tuple[Fault, ...]:
        return self.among

    @property
    def blast_radius(self) -> int:
        """A lasting act waits until the system has repaired the one before; passing ones stay until all are reverted."""
        widest = max(f.blast_radius for f in self.among)
        staying = {name for f in self.among if f.lifetime == "passing" for name in f.target.split(",")}
        stay = self.n * widest if any("*" in name for name in staying) else len(staying)
        lasting = max((f.blast_radius for f in self.among if f.lifetime != "passing"), default=0)
        return min(self.n * widest, stay + lasting)

    @property
    def last_act_s(self) -> float:
        return self.within_s + max(f.last_act_s for f in self.among)

    def with_lease(self, for_s: float) -> RandomFaults:
        return replace(self, among=tuple(f.with_lease(for_s) for f in self.among))

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        slot_s = self.within_s / self.n
        acts: list[Injection] = []
        for index in range(self.n):
            fault = rng.choice(self.among)
            offset_s = round(index * slot_s + rng.random() * slot_s * 0.25, 3)
            acts.extend(replace(act, after_s=act.after_s + offset_s) for act in fault.plan(rng, services))
        return tuple(sorted(acts, key=lambda act: act.after_s))


def together(*parts: Fault) -> Fault:
    """All of these at once."""
    if len(parts) < 2:
        raise BadScenario(f"faults.together(...) needs at least two faults, got {len(parts)}: give one fault as it is")
    return Together(parts=tuple((0.0, check_fault("each part of faults.together", f)) for f in parts))


def sequence(first: Fault, *, then: Fault, after_s: float) -> Fault:
    """One fault, and another `after_s` seconds later."""
    gap_s = check_seconds("faults.sequence(after_s=...)", after_s)
    start = check_fault("faults.sequence(first)", first)
    follow = check_fault("faults.sequence(then=...)", then)
    parts = start.parts if isinstance(start, Together) and start.verb == "sequence" else ((0.0, start),)
    last_s = parts[-1][0]
    return Together(parts=(*parts, (last_s + gap_s, follow)), verb="sequence")


def random(*, n: int, among: Sequence[Fault], within_s: float = 30.0) -> Fault:
    """`n` faults drawn by the run's seed from `among`, spread evenly (with jitter) over `within_s` seconds."""
    if type(n) is not int or not 1 <= n <= 1000:
        raise BadScenario(f"faults.random(n=...) must be a whole number from 1 to 1000, got {n!r}")
    if not isinstance(among, Iterable):
        raise BadScenario(
            f"faults.random(among=...) must be a list of faults such as [faults.kill('api')], got {among!r}"
        )
    choices = tuple(check_fault("each of faults.random(among=...)", f) for f in among)
    if not choices:
        raise BadScenario(
            "faults.random(among=[...]) is empty: list the faults to draw from, such as [faults.kill('api')]"
        )
    return RandomFaults(n=n, among=choices, within_s=check_seconds("faults.random(within_s=...)", within_s))
