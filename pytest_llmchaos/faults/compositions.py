"""Faults made of faults: at once, one after the other, or drawn from a list."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Self

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.base import OnTarget, check_seconds, check_target, victims_of
from pytest_llmchaos.model import FIDELITIES, Fault, Fidelity, Injection, Lifetime, ReadsRequests

if TYPE_CHECKING:
    from pytest_llmchaos.model import Primitive

Target = str | Sequence[str]  # a service, `model-*` for one of several, or a list


def check_fault(where: str, fault: object) -> Fault:
    """Return the fault if it has the shape of one.

    Other packages have classes of their own.

    Raises:
        BadScenario: It lacks a member of the `Fault` protocol.
    """
    # Checking a protocol's members costs 20 times as much as checking a class.
    if isinstance(fault, OnTarget):
        return fault
    if not isinstance(fault, Fault):
        raise BadScenario(f"{where} must be a fault such as faults.kill('api'), got {fault!r}")
    return fault


def _check_part(where: str, fault: object) -> Fault:
    made = check_fault(where, fault)
    if made.lifetime == "none":
        raise BadScenario(
            f"{where} must be something that breaks, and faults.none() is the control arm: "
            "give it as a trial of its own, experiment(fault=[..., faults.none()])"
        )
    return made


def on_targets(primitive: Primitive, target: object) -> Fault:
    """Return a primitive on its target.

    A list hits all that it names at once, as `together` does. Patterns are drawn after
    names and longer patterns, so that they exclude what those take.

    Args:
        primitive: The fault.
        target: Service name, `model-*` for one service drawn by the seed, or a list.

    Raises:
        BadScenario: The target is not a name, is empty, or names a service twice.
    """
    if not isinstance(target, list | tuple):
        return OnTarget(primitive=primitive, target=check_target(primitive.kind, target))
    names = [check_target(primitive.kind, one) for one in target]
    named = [name for name in names if not name.endswith("*")]
    if not names or len(set(named)) < len(named):
        raise BadScenario(
            f"faults.{primitive.kind}(target) must name at least one service, and each once, got {target!r}"
        )
    first, *others = (OnTarget(primitive=primitive, target=name) for name in sorted(names, key=_breadth))
    return Together(parts=tuple((0.0, one) for one in (first, *others))) if others else first


def _breadth(target: str) -> float:
    """Sort key of targets: names first, then patterns, the longest first."""
    return -len(target) if "*" in target else -math.inf


def wired_services(faults: Iterable[Fault], services: Sequence[str], *, reads_http: bool = False) -> tuple[str, ...]:
    """Return the services whose requests must pass a fault agent, sorted.

    Args:
        faults: The faults. Those without the need `proxy` add none.
        services: Services that faults may hit.
        reads_http: True for those alone whose requests the agent must be able to read.

    Raises:
        NoVictim: A target matches no service.
    """
    found: set[str] = set()
    for fault in faults:
        if "proxy" not in fault.needs:
            continue
        if isinstance(fault, _Composition):
            found.update(wired_services(fault.members, services, reads_http=reads_http))
        elif not reads_http or (isinstance(fault, OnTarget) and _reads_http(fault.primitive)):
            targets = fault.wire_targets if isinstance(fault, OnTarget) else fault.target.split(",")
            found.update(*(victims_of(target, services) for target in targets))
    return tuple(sorted(found))


def _reads_http(primitive: Primitive) -> bool:
    return isinstance(primitive, ReadsRequests) and primitive.reads_http


class _Composition(ABC):
    """Base of faults made of faults: values derived from the members."""

    @property
    @abstractmethod
    def members(self) -> tuple[Fault, ...]: ...

    @abstractmethod
    def plan_beside(self, rng: Random, services: Sequence[str], taken: Collection[str]) -> tuple[Injection, ...]:
        """Return the acts while other faults hit the `taken` services.

        Patterns exclude those. Names may hit them again.
        """

    def plan(self, rng: Random, services: Sequence[str]) -> tuple[Injection, ...]:
        return self.plan_beside(rng, services, ())

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
        """The weakest of the members. A claim may not exceed it."""
        return max((f.fidelity for f in self.members), key=FIDELITIES.index)

    @property
    def strength(self) -> Mapping[str, object]:
        return {}

    def named_by(self, options: Sequence[str]) -> Self:  # noqa: ARG002 - it has no options of its own
        return self


@dataclass(frozen=True, kw_only=True)
class Together(_Composition):
    """Several faults, each at its own time.

    Attributes:
        parts: Pairs of a start, in seconds after the phase began, and a fault.
        verb: `together` or `sequence`, for the name.
    """

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

    def leaves(self) -> tuple[tuple[float, Fault], ...]:
        """Return the parts with nested compositions flattened.

        Each has its start in seconds after the phase began.
        """
        found: list[tuple[float, Fault]] = []
        for after_s, part in self.parts:
            inner = part.leaves() if isinstance(part, Together) else ((0.0, part),)
            found += [(after_s + later_s, leaf) for later_s, leaf in inner]
        return tuple(found)

    def plan_beside(self, rng: Random, services: Sequence[str], taken: Collection[str]) -> tuple[Injection, ...]:
        """Draw in the order of the parts.

        If a pattern took what another part needs, draw again with names first.
        """
        state = rng.getstate()
        with contextlib.suppress(NoVictim):
            acts = _draw_parts(self.parts, rng, services, taken)
            named = Counter((after_s, leaf.target) for after_s, leaf in self.leaves() if isinstance(leaf, OnTarget))
            hits = Counter((act.after_s, act.victim) for act in acts)
            if all(count <= max(1, named[hit]) for hit, count in hits.items()):
                return acts
        rng.setstate(state)
        return _draw_parts(sorted(self.leaves(), key=lambda leaf: _breadth(leaf[1].target)), rng, services, taken)


def _draw_parts(
    parts: Iterable[tuple[float, Fault]], rng: Random, services: Sequence[str], taken: Collection[str]
) -> tuple[Injection, ...]:
    acts: list[Injection] = []
    hit = set(taken)
    for after_s, fault in parts:
        drawn = _draw(fault, rng, services, hit)
        acts += [replace(act, after_s=act.after_s + after_s) for act in drawn]
        hit |= {act.victim for act in drawn}
    return tuple(sorted(acts, key=lambda act: act.after_s))


def _draw(fault: Fault, rng: Random, services: Sequence[str], taken: Collection[str]) -> tuple[Injection, ...]:
    if isinstance(fault, _Composition):
        return fault.plan_beside(rng, services, taken)
    if not fault.target.endswith("*"):
        return fault.plan(rng, services)
    victims_of(fault.target, services, taken)  # raises with the services that are taken
    return fault.plan(rng, [name for name in services if name not in taken])


@dataclass(frozen=True, kw_only=True)
class RandomFaults(_Composition):
    """Faults drawn from a list, spread over some seconds.

    A fault waits until an earlier one is over if it would exceed the experiment's blast
    radius or hit a victim that is down.

    Attributes:
        n: Number of faults.
        among: Faults to draw from.
        within_s: Seconds over which they are spread.
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
        """The most services hit at once.

        A lasting act waits until the system has repaired the one before. Passing acts
        stay until all are reverted.
        """
        widest = max(f.blast_radius for f in self.among)
        staying = {name for f in self.among if f.lifetime == "passing" for name in f.target.split(",")}
        most = self.n * widest
        if any("*" in name for name in staying):
            return most
        lasting = max((f.blast_radius for f in self.among if f.lifetime != "passing"), default=0)
        return min(most, len(staying) + lasting)

    @property
    def last_act_s(self) -> float:
        return self.within_s + max(f.last_act_s for f in self.among)

    def with_lease(self, for_s: float) -> RandomFaults:
        return replace(self, among=tuple(f.with_lease(for_s) for f in self.among))

    def plan_beside(self, rng: Random, services: Sequence[str], taken: Collection[str]) -> tuple[Injection, ...]:
        slot_s = self.within_s / self.n
        acts: list[Injection] = []
        for index in range(self.n):
            fault = rng.choice(self.among)
            offset_s = round(index * slot_s + rng.random() * slot_s * 0.25, 3)
            acts.extend(replace(act, after_s=act.after_s + offset_s) for act in _draw(fault, rng, services, taken))
        return tuple(sorted(acts, key=lambda act: act.after_s))


def together(*parts: Fault) -> Fault:
    """Return several faults that start at once.

    A pattern excludes services that another part hits.

    - Ends: as its parts do.
    - Fidelity: the weakest of its parts.

    Args:
        *parts: At least two faults, such as `faults.kill("api")`.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: There are fewer than two parts, a part is not a fault or is
            `faults.none()`, or one kind of fault hits one service twice.
    """
    if len(parts) < 2:
        raise BadScenario(f"faults.together(...) needs at least two faults, got {len(parts)}: give one fault as it is")
    checked = tuple((0.0, _check_part("each part of faults.together", f)) for f in parts)
    return _check_once(Together(parts=checked))


def sequence(first: Fault, *, then: Fault, after_s: float) -> Fault:
    """Return one fault followed by another.

    A sequence as `first` is continued: `after_s` counts from its last part.

    - Ends: as its parts do.
    - Fidelity: the weakest of its parts.

    Args:
        first: The fault at the start of the fault phase.
        then: The fault that follows.
        after_s: Seconds from the start of `first` to the start of `then`, above 0,
            below 86400.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: A part is not a fault or is `faults.none()`, or `after_s` is out of
            bounds.
    """
    gap_s = check_seconds("faults.sequence(after_s=...)", after_s)
    start = _check_part("faults.sequence(first)", first)
    follow = _check_part("faults.sequence(then=...)", then)
    parts = start.parts if isinstance(start, Together) and start.verb == "sequence" else ((0.0, start),)
    last_s = parts[-1][0]
    return _check_once(Together(parts=(*parts, (last_s + gap_s, follow)), verb="sequence"))


def _check_once(made: Together) -> Together:
    """Return the composition if one kind of fault hits each service once at an instant.

    Raises:
        BadScenario: It names one service twice.
    """
    acts = [
        (after_s, leaf.primitive.kind, leaf.target)
        for after_s, leaf in made.leaves()
        if isinstance(leaf, OnTarget) and not leaf.target.endswith("*")
    ]
    for (after_s, kind, target), count in Counter(acts).items():
        if count > 1:
            raise BadScenario(
                f"faults.{made.verb}(...) has {kind} of {target!r} twice at +{after_s:g} s: name it once, "
                "or give faults.sequence(..., after_s=...) for one after the other"
            )
    return made


def random(*, n: int, among: Sequence[Fault], within_s: float = 30.0) -> Fault:
    """Return faults drawn by the run's seed, spread evenly with jitter.

    A fault waits until an earlier one is over if it would exceed the experiment's blast
    radius or hit a victim that is down.

    - Ends: as its parts do.
    - Fidelity: the weakest of `among`.

    Args:
        n: Number of faults, 1 to 1000.
        among: Faults to draw from, with replacement.
        within_s: Seconds over which they are spread, above 0, below 86400.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `n` or `within_s` is out of bounds, `among` is empty or not a list,
            or one of its items is not a fault or is `faults.none()`.
    """
    if type(n) is not int or not 1 <= n <= 1000:
        raise BadScenario(f"faults.random(n=...) must be a whole number from 1 to 1000, got {n!r}")
    if not isinstance(among, Iterable):
        raise BadScenario(
            f"faults.random(among=...) must be a list of faults such as [faults.kill('api')], got {among!r}"
        )
    choices = tuple(_check_part("each of faults.random(among=...)", f) for f in among)
    if not choices:
        raise BadScenario(
            "faults.random(among=[...]) is empty: list the faults to draw from, such as [faults.kill('api')]"
        )
    return RandomFaults(n=n, among=choices, within_s=check_seconds("faults.random(within_s=...)", within_s))
