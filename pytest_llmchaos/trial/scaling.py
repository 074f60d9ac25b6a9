"""Replicas that an autoscaler started and stopped, by independent evidence.

The runtime's events show when a replica ran and who ended it. The clients' samples show
what a stop cut. The autoscaler's own counters are only compared with that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pytest_llmchaos.errors import Inconclusive, NoData, TruthsDisagree
from pytest_llmchaos.stats.bounded import BoundedCount, BoundedFloat, NoClaim, Scale
from pytest_llmchaos.trial.attribution import acted_on
from pytest_llmchaos.trial.tasks import NamedCount

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.model import RuntimeEvent, Sample, ServiceState
    from pytest_llmchaos.trial.attribution import Audit

Direction = Literal["up", "down"]
HOUR_S = 3600.0
# An act in the other direction within this time is a flap. A horizontal autoscaler of
# Kubernetes looks back for 300 s, at loads that last for hours. A trial lasts minutes.
FLAP_S = 30.0
# A stream ends broken at a stop from shortly before the signal to the replica until its
# client reads the end of the connection.
CUT_BEFORE_S = 0.5
CUT_AFTER_S = 1.5
# A drain takes at most this long. Answers of that time show that a stop could cut some.
DRAIN_S = 30.0
# The counters of a scrape are at most this old.
SCRAPED_S = 2.5
BROKEN = frozenset({"truncated", "cut", "stalled", "inband_error", "http_5xx"})


@dataclass(frozen=True, kw_only=True)
class ScaleEvent:
    """A start or a stop of a replica by the autoscaler.

    Attributes:
        at_s: Seconds from the load's start.
        replica: The replica's service.
        direction: "up" for a start, "down" for a stop.
        is_certain: False if the remediator may have done it.
        is_replacement: True for a start instead of a replica that had died, which is
            no change of scale.
        may_replace: True for a start that may be such a one.
        signalled_s: Seconds from the load's start to the signal that stopped the
            replica, None for a start.
    """

    at_s: float
    replica: str
    direction: Direction
    is_certain: bool = True
    is_replacement: bool = False
    may_replace: bool = False
    signalled_s: float | None = None

    def __str__(self) -> str:
        return f"{self.replica} {self.direction} at {self.at_s:.1f} s{'' if self.is_certain else ' (perhaps)'}"


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time in which a replica ran, in seconds from the load's start."""

    replica: str
    from_s: float
    to_s: float


@dataclass(frozen=True, kw_only=True)
class Scaling(NoClaim):
    """An autoscaler's acts in one trial.

    Attributes:
        replicas: Services that it may start and stop.
        spans: Times in which they ran.
        acts: Its starts and stops, by time.
        ended_s: End of the trial, in seconds from the load's start.
        samples: Requests that ended near a stop, or that a stopped replica served
            before.
        unknown: Reason why its acts are unknown, or None.
    """

    how_to_claim: ClassVar[str] = "such as trial.replica_hours <= 0.05"

    replicas: tuple[str, ...]
    spans: tuple[Span, ...]
    acts: tuple[ScaleEvent, ...]
    ended_s: float
    samples: tuple[Sample, ...] = ()
    unknown: Inconclusive | None = None

    def __repr__(self) -> str:
        return f"<scaling: {'; '.join(map(str, self.acts)) or 'none'}>"

    @property
    def replica_hours(self) -> float:
        """Hours that the replicas ran, summed, from the load's start to the end."""
        most = len(self.replicas) * self.ended_s / HOUR_S
        scale = Scale(
            what="replica_hours",
            least=0.0,
            most=most,
            at_least="no replica had run",
            at_most=f"all {len(self.replicas)} replicas had run from start to end",
            advice="bound it inside the length of the trial times the number of replicas",
        )
        return BoundedFloat(sum(one.to_s - one.from_s for one in self.spans) / HOUR_S, scale)

    @property
    def max_replicas(self) -> float:
        """Most replicas that ran at once, those that start and those that drain too."""
        steps = sorted((at, by) for one in self.spans for at, by in ((one.from_s, 1), (one.to_s, -1)))
        running = most = 0
        for _, by in steps:
            running += by
            most = max(most, running)
        scale = Scale(
            what="max_replicas",
            least=0.0,
            most=float(len(self.replicas)),
            at_least="no replica had run",
            at_most=f"all {len(self.replicas)} replicas had run at once",
            advice="bound it below the number of replicas that the autoscaler has",
        )
        return BoundedCount(most, scale)

    @property
    def flaps(self) -> float:
        """Acts that reversed an earlier one within FLAP_S.

        Raises:
            Inconclusive: The autoscaler did not run, or its counters disagree.
        """
        self._require_known()
        acts = [act for act in self.acts if not act.is_replacement]
        low = len(_reversed([act for act in acts if act.is_certain and not act.may_replace]))
        high = len(_reversed(acts))
        scale = Scale(
            what="flaps",
            least=0.0,
            most=math.inf,
            at_least="the autoscaler had reversed no act",
            at_most="it had reversed its acts without end",
            advice="bound it from above",
            undecided=(
                "the remediator may have done some of these acts: experiment(remediator=False)"
                if any(not act.is_certain for act in acts)
                else "a start after a death and a stop either replaced the dead replica or reversed the stop"
            ),
        )
        named = [f"{first}, {second}" for first, second in _reversed(acts)]
        return NamedCount(low, scale, low=min(low, high), high=max(low, high), named=named)

    @property
    def cut_by_scale_down(self) -> float:
        """Streams that ended broken when a scale-down stopped their replica.

        Raises:
            Inconclusive: The autoscaler did not run, or its counters disagree.
            NoData: It stopped no replica, or none that served clients before.
        """
        self._require_known()
        downs = [act for act in self.acts if act.direction == "down"]
        if downs and not any(act.is_certain for act in downs):
            raise NoData(
                f"cut_by_scale_down: the autoscaler or the remediator may have done each stop ({'; '.join(map(str, downs))}), so "
                "none shows what a scale-down cuts: experiment(remediator=False)"
            )
        if not downs:
            raise NoData(
                "cut_by_scale_down: the autoscaler stopped no replica in this trial, so no stream could be cut by it: "
                "let the load fall, or lengthen the trial"
            )
        at_risk = [one for one in self.samples if any(_served_before(one, act) for act in downs)]
        if not at_risk:
            raise NoData(
                f"cut_by_scale_down: the stopped replicas gave no client an answer in their last {DRAIN_S:g} s, so nothing shows "
                "that a stop spares streams: raise rate_rps"
            )
        broken = [one for one in self.samples if one.outcome in BROKEN and any(_ended_near(one, act) for act in downs)]
        certain = [
            one
            for one in broken
            if any(act.is_certain and one.replica == act.replica and _ended_near(one, act) for act in downs)
        ]
        possible = [
            one for one in broken if any(one.replica in {"", act.replica} and _ended_near(one, act) for act in downs)
        ]
        scale = Scale(
            what="cut_by_scale_down",
            least=0.0,
            most=float(len({id(one) for one in (*at_risk, *possible)})),
            at_least="no stream had been cut",
            at_most=f"every stream that these replicas served in their last {DRAIN_S:g} s had been cut",
            advice="bound it below the number of streams",
            undecided=f"{len(possible) - len(certain)} streams broke at a stop, and the replica that served them is unknown",
        )
        named = [f"{one.request_id} {one.outcome} at {one.end_s:.1f} s" for one in certain]
        return NamedCount(len(certain), scale, high=len(possible), named=named)

    def _require_known(self) -> None:
        if self.unknown is not None:
            raise self.unknown


def _reversed(acts: Sequence[ScaleEvent]) -> list[tuple[ScaleEvent, ScaleEvent]]:
    """Return each act that reversed the one before it, with that one."""
    return [
        (first, second)
        for first, second in pairwise(acts)
        if first.direction != second.direction and second.at_s - first.at_s <= FLAP_S
    ]


def _ended_near(sample: Sample, act: ScaleEvent) -> bool:
    since_s = act.at_s if act.signalled_s is None else act.signalled_s
    return since_s - CUT_BEFORE_S <= sample.end_s <= act.at_s + CUT_AFTER_S


def _served_before(sample: Sample, act: ScaleEvent) -> bool:
    return sample.replica == act.replica and -DRAIN_S <= sample.end_s - act.at_s <= CUT_AFTER_S


def touched_by(acts: Sequence[ScaleEvent], samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the requests that a stop may have cut, and those that it did not.

    They ended near a stop, or the stopped replica served them shortly before.
    """
    downs = [act for act in acts if act.direction == "down"]
    return tuple(one for one in samples if any(_ended_near(one, act) or _served_before(one, act) for act in downs))


def spans_of(
    record: Record,
    replicas: Collection[str],
    events: Sequence[RuntimeEvent],
    states: Mapping[str, ServiceState],
    ended_s: float,
) -> tuple[Span, ...]:
    """Return the times in which the replicas ran, from the load's start to the end.

    Args:
        record: The trial's record, for its clock.
        replicas: The services.
        events: The runtime's events since the load's start.
        states: States of the services now.
        ended_s: End of the trial, in seconds from the load's start.
    """
    found: list[Span] = []
    for replica in sorted(replicas):
        own = [event for event in events if event.service == replica and event.action in {"start", "die"}]
        state = states.get(replica)
        is_up = own[0].action == "die" if own else state is not None and state.running
        since_s = 0.0
        for event in own:
            at_s = min(max(0.0, record.at_s(event.at_unix_s)), ended_s)
            if event.action == "die" and is_up:
                found.append(Span(replica=replica, from_s=since_s, to_s=at_s))
            if event.action == "die" or not is_up:
                since_s = at_s
            is_up = event.action == "start"
        if is_up:
            found.append(Span(replica=replica, from_s=since_s, to_s=ended_s))
    return tuple(one for one in found if one.to_s > one.from_s)


def acts_of(
    record: Record,
    replicas: Collection[str],
    events: Sequence[RuntimeEvent],
    injected: Injected,
    audit: Audit,
) -> tuple[ScaleEvent, ...]:
    """Return the autoscaler's starts and stops of replicas, by time.

    Left out are acts of the instrument and of the remediator, and deaths without a
    signal from the runtime.

    Args:
        record: The trial's record, for its clock.
        replicas: Services that the autoscaler may start and stop.
        events: The runtime's events since the load's start.
        injected: The injected faults, with the instrument's own acts.
        audit: The remediator's audit log.
    """
    found: list[ScaleEvent] = []
    dead: dict[str, int] = {}  # each with the number of acts before its death
    signalled: dict[str, RuntimeEvent] = {}  # the first signal to each replica since its start
    for event in sorted(events, key=lambda one: one.at_unix_s):
        name = event.service
        if name not in replicas:
            continue
        if event.action == "kill":
            signalled.setdefault(name, event)
        if event.action not in {"start", "die"}:
            continue
        signal = signalled.pop(name, None)
        cause = signal if event.action == "die" else event
        by_remediator = cause is not None and acted_on(audit, name, cause.at_unix_s, event.at_unix_s)
        is_ours = injected.is_own(event) or (cause is not None and injected.is_own(cause))
        if cause is None or is_ours or by_remediator == "done":
            dead.pop(name, None)
            if event.action == "die":
                dead[name] = len(found)
            continue
        replaced = _replaced_by(name, dead, found) if event.action == "start" else None
        may_replace = event.action == "start" and replaced is None and bool(dead)
        if replaced is not None:
            del dead[replaced]
        found.append(
            ScaleEvent(
                at_s=record.at_s(event.at_unix_s),
                replica=name,
                direction="up" if event.action == "start" else "down",
                is_certain=by_remediator != "perhaps",
                is_replacement=replaced is not None,
                may_replace=may_replace,
                signalled_s=record.at_s(cause.at_unix_s) if event.action == "die" else None,
            )
        )
    return tuple(found)


def _replaced_by(name: str, dead: Mapping[str, int], acts: Sequence[ScaleEvent]) -> str | None:
    """Return the dead replica for which this one certainly starts, or None.

    After a stop, the start of another replica may also reverse that stop.
    """
    if name in dead:
        return name
    return next((one for one, since in dead.items() if all(act.direction == "up" for act in acts[since:])), None)


def disagreement(
    acts: Sequence[ScaleEvent], counted: Mapping[str, float], *, edges: Sequence[ScaleEvent] = ()
) -> TruthsDisagree | None:
    """Return how the autoscaler's counters differ from its acts, None if they agree.

    Args:
        acts: Its acts in the trial, by the runtime's events.
        counted: Its own counts of the same time, by direction.
        edges: Acts so near to the ends of the trial that the counters may miss them.
    """
    for direction in ("up", "down"):
        seen = [act for act in acts if act.direction == direction]
        most = len(seen) + sum(act.direction == direction for act in edges if act not in seen)
        least = sum(act.is_certain and not act.is_replacement and act not in edges for act in seen)
        own = counted.get(direction, 0.0)
        if not least <= own <= most:
            return TruthsDisagree(
                f"the autoscaler counted {own:g} replicas {direction}, and the runtime's events show "
                f"{'; '.join(map(str, seen)) or 'none'}: another program starts or stops replicas, or its counters are wrong"
            )
    return None
