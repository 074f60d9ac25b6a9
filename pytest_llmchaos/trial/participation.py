"""Participation of victims: runtime, scrapes and the gateway's metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.trial.recovery import Sightings, VictimsSeen, Watched, victim_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.prometheus.queries import Series

# A watcher counts only if it saw the victim take part in this time before the fault.
BEFORE_S = 5.0


def victims_seen(lab: Lab, record: Record, injected: Injected, to_unix_s: float) -> VictimsSeen:
    """Return events and sightings of the victims, from BEFORE_S before the fault.

    Raises:
        Inconclusive: Prometheus cannot answer.
    """
    if injected.start_unix_s is None:
        return VictimsSeen()
    from_unix_s = injected.start_unix_s - BEFORE_S
    scrapes = lab.prometheus.raw("up", from_unix_s, to_unix_s)
    used = lab.subject.used_selector

    def watch(victim: str) -> Watched:
        query = None if used is None else used.replace("$victim", victim)
        return Watched(
            health_every_s=lab.runtime.state(victim).health_every_s,
            sightings=_sightings(
                record,
                [series for series in scrapes if _service_of(series) == victim],
                lab.prometheus.raw(query, from_unix_s, to_unix_s) if query else (),
            ),
        )

    return VictimsSeen(
        events=lab.runtime.events(injected.start_unix_s, to_unix_s),
        watched={victim: watch(victim) for victim in injected.victims},
    )


def take_part(lab: Lab, record: Record, injected: Injected, *, must: bool) -> bool:
    """True if every victim takes part now, by the same evidence that the judge uses."""
    try:
        seen = victims_seen(lab, record, injected, time.time())
    except Inconclusive:
        return False
    now_s = record.now_s()
    back = (victim_back(record, injected, seen, victim, until_s=now_s, must=must) for victim in injected.victims)
    return not any(isinstance(one, str) for one in back)


def _sightings(record: Record, scrapes: Sequence[Series], uses: Sequence[Series]) -> tuple[Sightings, ...]:
    found = (("scraped by Prometheus", scrapes, True), ("used by the gateway", uses, False))
    return tuple(
        Sightings(what=what, points=_points(record, series), may_lose_one=may_lose_one)
        for what, series, may_lose_one in found
        if series
    )


def _service_of(series: Series) -> str:
    """Return the service of a scrape, from its label or else its host."""
    labels = series.labels
    return labels.get("service") or labels.get("instance", "").partition(":")[0]


def _points(record: Record, found: Sequence[Series]) -> tuple[tuple[float, bool], ...]:
    """Return one series of points, good when the last value of each series is 1."""
    marks = sorted((at, number, value == 1) for number, one in enumerate(found) for at, value in one.points)
    state: dict[int, bool] = {}
    points: dict[float, bool] = {}
    for at, number, is_good in marks:
        state[number] = is_good
        points[record.at_s(at)] = all(state.values())
    return tuple(points.items())
