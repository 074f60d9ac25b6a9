"""Reads whether victims took part: from the runtime, from Prometheus' scrapes, and from the gateway's own metrics."""

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

# A watcher speaks for a victim only if it saw it take part before the fault; this far back it is asked.
BEFORE_S = 5.0


def victims_seen(lab: Lab, record: Record, injected: Injected, to_unix_s: float) -> VictimsSeen:
    """What is known of the victims from a moment before the fault on. Raises Inconclusive where Prometheus cannot answer."""
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
    """Whether every victim takes part now, by what a judge would read."""
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
    """The service that a scrape is of: by its label, else the host that was scraped."""
    labels = series.labels
    return labels.get("service") or labels.get("instance", "").partition(":")[0]


def _points(record: Record, found: Sequence[Series]) -> tuple[tuple[float, bool], ...]:
    """Of several series with one meaning, each must say 1 at its last look."""
    marks = sorted((at, number, value == 1) for number, one in enumerate(found) for at, value in one.points)
    state: dict[int, bool] = {}
    points: dict[float, bool] = {}
    for at, number, is_good in marks:
        state[number] = is_good
        points[record.at_s(at)] = all(state.values())
    return tuple(points.items())
