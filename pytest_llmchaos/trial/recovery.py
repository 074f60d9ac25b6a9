"""Recovery times of victims and clients.

A victim is back when it takes part again, which is later than its start. That is the
latest of its last start, its own health check, its first successful scrape and its use
by the gateway, as far as each of them is visible.
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
# Interval at which a trial checks whether the fault is still in place.
OVER_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Sightings:
    """One watcher's record of whether a victim took part.

    Attributes:
        what: The victim's state when it takes part, such as "scraped by Prometheus".
        points: Times on the trial's clock, each with True if the victim took part.
        may_lose_one: True if a single bad look between good ones does not count, such
            as a scrape lost on a busy machine.
    """

    what: str
    points: tuple[tuple[float, bool], ...]
    may_lose_one: bool = False

    def has_a_say(self, fault_s: float) -> bool:
        """True if it saw the victim take part at its last look before the fault.

        A watcher that did not is ignored.
        """
        before = [is_good for at_s, is_good in self.points if at_s < fault_s]
        return bool(before) and before[-1]

    def bad_looks(self, since_s: float) -> list[float]:
        """Return the times since then at which the victim did not take part."""
        inside = [(at_s, is_good) for at_s, is_good in self.points if at_s >= since_s]
        return [at_s for i, (at_s, is_good) in enumerate(inside) if not (is_good or self._is_lost(inside, i))]

    def _is_lost(self, looks: Sequence[tuple[float, bool]], i: int) -> bool:
        """True if the looks next to a bad one were good.

        The first look does not qualify, because it saw no return.
        """
        return self.may_lose_one and i > 0 and all(is_good for _, is_good in (looks[i - 1], *looks[i + 1 : i + 2]))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Evidence on one victim in addition to the runtime's events.

    Attributes:
        health_every_s: Interval of its own health check in seconds. None if it has no
            health check.
        sightings: The watchers' records.
    """

    health_every_s: float | None = None
    sightings: tuple[Sightings, ...] = ()


UNWATCHED = Watched()


@dataclass(frozen=True, kw_only=True)
class VictimsSeen:
    """The runtime's events and the further evidence on each victim."""

    events: Sequence[RuntimeEvent] = ()
    watched: Mapping[str, Watched] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Back:
    """A time of return and its precision.

    Attributes:
        at_s: Seconds on the trial's clock.
        resolution_s: The return may have been up to this much earlier.
    """

    at_s: float
    resolution_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Known:
    """Evidence for recovery. Times are seconds on the trial's clock.

    Attributes:
        samples: The clients' requests.
        limits: The latency targets that a good request meets.
        fault_s: Start of the fault.
        known_s: Outcomes of requests due after this are unknown, as the trial ended.
        ended_s: End of the trial.
        victims: Events and sightings of the victims.
        settled: False if the service was not good when the trial stopped waiting.
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
    """A recovery from a lasting fault, or after a passing one.

    Attributes:
        took_s: Seconds from the fault's start, or from the end of a passing fault. None
            if there was no recovery.
        resolution_s: The recovery may have been up to this much earlier.
        relapsed_s: Seconds from the fault's start to a relapse, or None.
        why_not: Reason why there was no recovery. Empty if there was one.
    """

    how_to_claim: ClassVar[str] = "such as trial.time_to_recover_s <= 20"

    took_s: float | None = None
    resolution_s: float | None = None
    relapsed_s: float | None = None
    why_not: str = ""


def recovery(record: Record, plan: TrialPlan, injected: Injected, known: Known) -> Recovery:
    """Return the recovery from a lasting fault, before the instrument's own revert."""
    if not injected.acts or injected.reverted_unix_s is None or injected.last_unix_s is None:
        return Recovery(why_not="no fault was injected, so nothing had to recover")
    if plan.is_passing:
        return Recovery(why_not=f"the instrument ended {plan.fault}: use trial.time_to_settle_s")
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
            f"{took}, but {'a victim then went down or stopped taking part' if lost else late}",
            _after(fault_s, down_s) if lost else relapsed_s,
        )
    return _recovered(last, fault_s, relapsed_s)


def settling(record: Record, plan: TrialPlan, injected: Injected, known: Known) -> Recovery:
    """Return the recovery after the end of a passing fault."""
    if not plan.is_passing or injected.reverted_unix_s is None:
        return Recovery(why_not=f"{plan.fault} is not a passing fault that ended, so nothing settled after it")
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
    again = "" if relapsed_s is None else f"; it had recovered, and relapsed {relapsed_s:.1f} s after the fault"
    return Recovery(relapsed_s=relapsed_s, why_not=f"{why}{again}")


def _recovered(back: Back, from_s: float, relapsed_s: float | None) -> Recovery:
    took_s = round(back.at_s - from_s, 3)
    return Recovery(took_s=took_s, resolution_s=round(min(back.resolution_s, took_s), 3), relapsed_s=relapsed_s)


def _after(from_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else round(at_s - from_s, 3)


def _not_served(clients: ClientsSaw, plan: TrialPlan, known: Known) -> str:
    """Return why clients were not served without a relapse, or "" if they were."""
    stable_s = plan.experiment.stable_s
    if clients.good_s is None:
        return (
            f"clients never had {stable_s:g} s without a bad request after {plan.fault} until the end of the evidence"
        )
    if not known.settled:
        return f"the service had not been good for {stable_s:g} s in a row when the trial stopped waiting for it"
    return ""


def _all_back(
    record: Record, injected: Injected, known: VictimsSeen, *, until_s: float, must: bool
) -> list[Back] | str:
    """Return when each victim took part again, or a message about one that did not."""
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
    """Return when a victim took part again by `until_s`, or a message why it did not.

    Args:
        record: The trial's record, for its clock.
        injected: The injected faults and their times.
        known: Events and sightings of the victims.
        victim: The victim's service.
        until_s: Latest time on the trial's clock.
        must: True if the victim must have returned, by a start, an unpause or the end
            of its fault. If False, this holds only after it was seen to go down.
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
            # A start restarts the health check. An unpause does not.
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
    """Return the first look after which the victim took part until the end.

    A good look before a bad one is not a return, because a gateway may notice late that
    its replica was gone. `must` marks a victim that was down, so looks from before its
    return do not count.
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
    """Return when a victim first went down or stopped taking part after its return."""
    down: list[float] = []
    for victim in injected.victims:
        for event in known.victims.events:
            sick = event.action == "health_status" and event.attributes.get("detail") == "unhealthy"
            if event.service == victim and (sick or event.action in DOWN):
                down.append(record.at_s(event.at_unix_s))
        for seen in known.victims.watched.get(victim, UNWATCHED).sightings:
            down += seen.bad_looks(from_s) if seen.has_a_say(known.fault_s) else ()
    return min((at_s for at_s in down if from_s < at_s <= known.ended_s), default=None)
