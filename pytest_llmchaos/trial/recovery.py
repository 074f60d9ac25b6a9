"""When the victims took part again and clients were served for good. No I/O.

A victim is back when it takes part again, which is later than when its process exists: the latest of its last start, its
own health check, Prometheus' first successful scrape of it, and its use by the gateway, as far as each of them can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.evidence.samples_file import Samples
from pytest_llmchaos.stats.bounded import NoClaim
from pytest_llmchaos.stats.recovery import ClientsSaw, clients_from
from pytest_llmchaos.stats.windows import LatencyTargets

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.model import RuntimeEvent
    from pytest_llmchaos.plan.experiment import TrialPlan

DOWN = frozenset({"die", "pause"})
UP = frozenset({"start", "unpause"})
# A trial looks so often whether anything of a fault is left.
OVER_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Sightings:
    """What one watcher saw of one victim at each look: whether it took part. Times are on the trial's clock.

    `may_lose_one`: a single bad look between good ones is one that got lost, as a scrape on a busy machine.
    """

    what: str
    points: tuple[tuple[float, bool], ...]
    may_lose_one: bool = False

    def has_a_say(self, fault_s: float) -> bool:
        """Whether it saw the victim take part at its last look before the fault. One that did not never does."""
        before = [is_good for at_s, is_good in self.points if at_s < fault_s]
        return bool(before) and before[-1]

    def bad_looks(self, since_s: float) -> list[float]:
        """The times of the looks from then on at which the victim did not take part."""
        inside = [(at_s, is_good) for at_s, is_good in self.points if at_s >= since_s]
        return [at_s for i, (at_s, is_good) in enumerate(inside) if not (is_good or self._is_lost(inside, i))]

    def _is_lost(self, looks: Sequence[tuple[float, bool]], i: int) -> bool:
        """Whether the looks beside a bad one were good, as far as there are any; the first of all has seen no return."""
        return self.may_lose_one and i > 0 and all(is_good for _, is_good in (looks[i - 1], *looks[i + 1 : i + 2]))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is known of one victim beside the runtime's events.

    `health_every_s` is the interval of its own health check; None for a service without one.
    """

    health_every_s: float | None = None
    sightings: tuple[Sightings, ...] = ()


UNWATCHED = Watched()


@dataclass(frozen=True, kw_only=True)
class VictimsSeen:
    """What the runtime reported, and what else is known of each victim."""

    events: Sequence[RuntimeEvent] = ()
    watched: Mapping[str, Watched] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Back:
    """When something was good again, and how much earlier that may really have been."""

    at_s: float
    resolution_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Known:
    """What recovery is read from. Seconds are on the trial's clock.

    What became of requests that were due after `known_s` is unknown: the trial ended first. `settled` is false where
    the service was not good again when the trial stopped waiting for it.
    """

    samples: Samples
    limits: LatencyTargets
    fault_s: float
    known_s: float
    ended_s: float
    victims: VictimsSeen = VictimsSeen()
    settled: bool = True


@dataclass(frozen=True, kw_only=True)
class Recovery(NoClaim):
    """Whether, when and how exactly a service recovered, or settled after a passing fault.

    `took_s` counts from the fault's start, or from the end of a passing fault; `relapsed_s` from the fault's start.
    """

    how_to_claim: ClassVar[str] = "such as trial.time_to_recover_s <= 20"

    took_s: float | None = None
    resolution_s: float | None = None
    relapsed_s: float | None = None
    why_not: str = ""


def recovery(record: Record, plan: TrialPlan, injected: Injected, known: Known) -> Recovery:
    """The recovery from a lasting fault, before the instrument's own revert."""
    if not injected.acts or injected.reverted_unix_s is None or injected.last_unix_s is None:
        return Recovery(why_not="no fault was injected, so nothing had to recover")
    if plan.is_passing:
        return Recovery(why_not=f"{plan.fault} was ended by the instrument: ask for trial.time_to_settle_s")
    fault_s, reverted_s = known.fault_s, record.at_s(injected.reverted_unix_s)
    clients = _clients(known, record.at_s(injected.last_unix_s), plan.experiment.stable_s)
    relapsed_s = _after(fault_s, clients.relapsed_s)
    back = _all_back(record, injected, known.victims, until_s=reverted_s, must=True)
    if isinstance(back, str) or (why := _not_served(clients, plan, known)):
        reverted = f"when the instrument reverted the fault, {reverted_s - fault_s:.1f} s after it"
        return _none(f"{back} {reverted}" if isinstance(back, str) else why, relapsed_s)
    suffered = clients_from(known.samples, fault_s, plan.experiment.stable_s, known.limits).suffered
    if suffered and clients.good_s is not None:
        back.append(Back(at_s=clients.good_s, resolution_s=clients.resolution_s))
    last = max(back, key=lambda one: one.at_s)
    took = f"the service came back {last.at_s - fault_s:.1f} s after the fault"
    down_s = _down_again_s(record, injected, known, last.at_s)
    if last.at_s > reverted_s or down_s is not None:
        late = f"only after the instrument's own revert at {reverted_s - fault_s:.1f} s"
        lost = last.at_s <= reverted_s
        return _none(
            f"{took}, but {'a victim went down, or took no part, again' if lost else late}",
            _after(fault_s, down_s) if lost else relapsed_s,
        )
    return _recovered(last, fault_s, relapsed_s)


def settling(record: Record, plan: TrialPlan, injected: Injected, known: Known) -> Recovery:
    """How long the service needed after the end of a passing fault until it was good for good."""
    if not plan.is_passing or injected.reverted_unix_s is None:
        return Recovery(why_not=f"{plan.fault} is no fault that we end, so nothing settled after it")
    reverted_s = record.at_s(injected.reverted_unix_s)
    clients = _clients(known, reverted_s, plan.experiment.stable_s)
    relapsed_s = _after(known.fault_s, clients.relapsed_s)
    limit = f"within {plan.experiment.deadline_s(plan.fault):g} s of the fault's end"
    if clients.good_s is None:
        return _none(f"the service did not settle {limit}", relapsed_s)
    back = _all_back(record, injected, known.victims, until_s=known.ended_s, must=False)
    if isinstance(back, str) or not known.settled:
        return _none(f"the service did not settle {limit}" + (f": {back}" if isinstance(back, str) else ""), relapsed_s)
    back.append(Back(at_s=clients.good_s, resolution_s=clients.resolution_s))
    last = max(back, key=lambda one: one.at_s)
    return _recovered(replace(last, at_s=max(last.at_s, reverted_s)), reverted_s, relapsed_s)


def _none(why: str, relapsed_s: float | None) -> Recovery:
    again = "" if relapsed_s is None else f"; it had been good again, and relapsed {relapsed_s:.1f} s after the fault"
    return Recovery(relapsed_s=relapsed_s, why_not=f"{why}{again}")


def _recovered(back: Back, from_s: float, relapsed_s: float | None) -> Recovery:
    took_s = round(back.at_s - from_s, 3)
    return Recovery(took_s=took_s, resolution_s=round(min(back.resolution_s, took_s), 3), relapsed_s=relapsed_s)


def _after(from_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else round(at_s - from_s, 3)


def _not_served(clients: ClientsSaw, plan: TrialPlan, known: Known) -> str:
    """Why clients do not count as served for good; empty where they were."""
    stable_s = plan.experiment.stable_s
    if clients.good_s is None:
        return f"clients never saw {stable_s:g} s without a bad request after {plan.fault}, to the end of what is known"
    if not known.settled:
        return f"the service was not good for {stable_s:g} s in a row when the trial stopped waiting for it"
    return ""


def _all_back(
    record: Record, injected: Injected, known: VictimsSeen, *, until_s: float, must: bool
) -> list[Back] | str:
    """When each victim took part again; in words what the first one that did not had not done."""
    back: list[Back] = []
    for victim in injected.victims:
        one = victim_back(record, injected, known, victim, until_s=until_s, must=must)
        if isinstance(one, str):
            return one
        back.append(one)
    return back


def _clients(known: Known, from_s: float, stable_s: float) -> ClientsSaw:
    return clients_from(known.samples, from_s, stable_s, known.limits, known.known_s)


def victim_back(
    record: Record, injected: Injected, known: VictimsSeen, victim: str, *, until_s: float, must: bool
) -> Back | str:
    """When a victim took part again by `until_s`; else in words what it had not done.

    `must`: it is back only by a start or a thaw, or, where it was never seen to go down, by the end of its fault.
    Otherwise that is so only where it was seen to go down.
    """
    watched = known.watched.get(victim, UNWATCHED)
    events = [(record.at_s(e.at_unix_s), e) for e in known.events if e.service == victim]
    fault_s = record.at_s(injected.start_unix_s or 0.0)
    inside = [(at_s, event) for at_s, event in events if fault_s <= at_s <= until_s]
    was_down = must or any(event.action in DOWN for _, event in inside)
    running: Back | None = None if was_down else Back(at_s=fault_s)
    if not inside and injected.over_unix_s is not None:
        running = Back(at_s=record.at_s(injected.over_unix_s), resolution_s=OVER_EVERY_S)
    healthy: Back | None = running
    for at_s, event in inside:
        if event.action in DOWN:
            running = healthy = None
        elif event.action in UP:
            running = Back(at_s=at_s)
            # A start begins the health check anew; a thaw does not.
            healthy = None if event.action == "start" and watched.health_every_s is not None else running
        elif event.action == "health_status":
            is_good = event.attributes.get("detail") == "healthy"
            healthy = Back(at_s=at_s, resolution_s=watched.health_every_s or 0.0) if is_good else None
    if running is None or healthy is None:
        return f"{victim} had not started again" if running is None else f"{victim} was not healthy by its own check"
    back = [running, healthy]
    for seen in watched.sightings:
        since_s = running.at_s if was_down else record.at_s(injected.last_unix_s or injected.start_unix_s or 0.0)
        one = _seen_again(seen, fault_s, since_s, until_s, must=was_down)
        if one is None:
            return f"{victim} was not {seen.what}"
        back.append(one)
    return max(back, key=lambda one: one.at_s)


def _seen_again(seen: Sightings, fault_s: float, since_s: float, until_s: float, *, must: bool) -> Back | None:
    """The look from which on a victim took part to the end. `must`: it was down, so a look from before its return says nothing.

    A good look before a bad one is no return: a gateway may not have noticed yet that its replica was gone.
    """
    if not seen.has_a_say(fault_s):
        return Back(at_s=fault_s)
    bad_s = [at_s for at_s in seen.bad_looks(since_s) if at_s <= until_s]
    if not (bad_s or must):
        return Back(at_s=fault_s)
    from_s = bad_s[-1] if bad_s else since_s
    good_s = [at_s for at_s, is_good in seen.points if is_good and from_s <= at_s <= until_s]
    return Back(at_s=good_s[0], resolution_s=good_s[0] - from_s) if good_s else None


def _down_again_s(record: Record, injected: Injected, known: Known, from_s: float) -> float | None:
    """When a victim first ended, was unhealthy or took no part again after it had been back, up to the trial's end."""
    down: list[float] = []
    for victim in injected.victims:
        for event in known.victims.events:
            sick = event.action == "health_status" and event.attributes.get("detail") == "unhealthy"
            if event.service == victim and (sick or event.action in DOWN):
                down.append(record.at_s(event.at_unix_s))
        for seen in known.victims.watched.get(victim, UNWATCHED).sightings:
            down += seen.bad_looks(from_s) if seen.has_a_say(known.fault_s) else ()
    return min((at_s for at_s in down if from_s < at_s <= known.ended_s), default=None)
