"""Agreement of clocks, scrapes and counts between clients and Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ParamSpec

from pytest_llmchaos.errors import Inconclusive, LlmchaosError, NoData, StaleData, TooFewSamples, TruthsDisagree
from pytest_llmchaos.lab.lab import CLOCK_ANSWER_S
from pytest_llmchaos.model import CLIENT_DURATION, CLIENT_REQUESTS
from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.stats.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmchaos.evidence.trial_record import ClockReading, Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab


Given = ParamSpec("Given")

# The clients push their counters after the last request, and Prometheus scrapes them
# after that. So counts of the whole trial agree, except for rounding.
TRUTHS_TOLERANCE = 0.001


CLOCK_TOLERANCE_S = 0.25
CLOCK_TRIES = 10


SCRAPED_DEADLINE_S = 5.0


def require_evidence(lab: Lab, record: Record, whole: Window, counted_unix_s: float, injected: Injected) -> None:
    """Require that the recordings of a load agree and are complete.

    Raises:
        TruthsDisagree: Clocks or counts differ by more than the tolerance.
        Inconclusive: A clock was set or could not be read.
        NoData: Prometheus counted no request.
        PartialScrape: Scrapes are missing.
        StaleData: The newest scrape is too old.
    """
    require_counts(lab, record, whole, counted_unix_s)
    require_coverage(lab, record, injected)


def require_counts(lab: Lab, record: Record, whole: Window, counted_unix_s: float) -> None:
    """Require that clocks and counts of a load agree.

    Raises:
        TruthsDisagree: They differ by more than the tolerance.
        Inconclusive: A clock was set or could not be read.
        NoData: Prometheus counted no request.
    """
    require_one_clock(lab, record)
    require_agreement(lab, record, whole, counted_unix_s)


def require_one_clock(lab: Lab, record: Record) -> None:
    """Require that all clocks agree and that none was set during the trial.

    A verdict combines times of all clocks.

    Raises:
        TruthsDisagree: Clocks differ by more than CLOCK_TOLERANCE_S.
        Inconclusive: A clock was set or could not be read.
    """
    for name, read in lab.clocks.items():
        offset_s = _read_clock(name, read)
        if offset_s is not None:
            record.read_clock(name, offset_s)
    record.read_wall_clock()
    require_no_step(record.clocks)
    last = {reading.clock: reading.offset_s for reading in record.clocks}
    for clock, apart_s in last.items():
        if not abs(apart_s) <= CLOCK_TOLERANCE_S:
            raise TruthsDisagree(
                f"{clock} is {apart_s:+.3f} s off ours, at most {CLOCK_TOLERANCE_S} s allowed: run both on one "
                "machine, or synchronize both machines with one time server"
            )


def _read_clock(name: str, read: Callable[[], float | None]) -> float | None:
    """Return the clock's offset to ours in seconds, or None if it is ours.

    The offset is precise to half of the time that the answer took. A slow answer on a
    busy machine would look like a clock that was set, so it is read again.
    """
    why = ""
    for _ in range(CLOCK_TRIES):
        begun_s = time.monotonic()
        try:
            offset_s = read()
        except (LlmchaosError, OSError) as error:
            why = f": {error}"
            continue
        if offset_s is None or time.monotonic() - begun_s <= CLOCK_ANSWER_S:
            return offset_s
    raise Inconclusive(
        f"{name} did not answer within {CLOCK_ANSWER_S:g} s in {CLOCK_TRIES} tries, so its times cannot be compared with the "
        f"clients'{why}; free a core, or move it nearer"
    )


def require_no_step(readings: Sequence[ClockReading]) -> None:
    """Require that no clock was set during the trial.

    Raises:
        Inconclusive: A clock's offset changed by more than CLOCK_TOLERANCE_S.
    """
    first: dict[str, float] = {}
    last_s: dict[str, float] = {}
    for reading in readings:
        by_s = reading.offset_s - first.setdefault(reading.clock, reading.offset_s)
        if abs(by_s) > CLOCK_TOLERANCE_S:
            raise Inconclusive(
                f"{reading.clock} was set by {by_s:+.3f} s between {last_s[reading.clock]:.1f} s and {reading.at_s:.1f} s of the "
                f"trial, at most {CLOCK_TOLERANCE_S} s allowed: times before and after that cannot be compared"
            )
        last_s[reading.clock] = reading.at_s


def require_agreement(lab: Lab, record: Record, whole: Window, counted_unix_s: float) -> None:
    """Require that clients and Prometheus agree on availability and p95.

    Raises:
        TruthsDisagree: They differ over the whole trial.
        NoData: Prometheus counted no request.
    """
    if lab.subject.pushgateway is None:
        return
    query = f'sum by (outcome) ({CLIENT_REQUESTS}_total{{outcome!="cancelled"}})'
    told = {dict(labels)["outcome"]: value for labels, value in lab.prometheus.vector(query, counted_unix_s).items()}
    total = sum(told.values())
    if total <= 0:
        raise NoData("Prometheus counted no request of the clients")
    theirs = told.get("ok", 0.0) / total
    if abs(float(whole.availability) - theirs) > TRUTHS_TOLERANCE:
        raise TruthsDisagree(
            f"availability of the whole trial: clients counted {whole.availability:.4f}, Prometheus {theirs:.4f}"
        )
    _compare_p95(lab, record, whole, counted_unix_s)


def _compare_p95(lab: Lab, record: Record, whole: Window, at_unix_s: float) -> None:
    """Require that the clients' p95 lies in the bucket of Prometheus' histogram.

    A p95 in the next bucket is a finding with both numbers.

    Raises:
        TruthsDisagree: The p95 is farther away than that.
    """
    query = f"sum by (le) ({CLIENT_DURATION}_bucket)"
    found = lab.prometheus.vector(query, at_unix_s)
    buckets = sorted((float(dict(labels)["le"]), count) for labels, count in found.items())
    try:
        mine = float(whole.e2e_s.p95)
    except TooFewSamples:
        return
    edges = [0.0, *(upper for upper, _ in buckets)]
    theirs = next(i for i, (_, count) in enumerate(buckets) if count >= 0.95 * buckets[-1][1])
    if edges[theirs] <= mine <= edges[theirs + 1]:
        return
    both = f"p95: clients measured {mine:.3f} s, Prometheus' histogram {edges[theirs]:g} to {edges[theirs + 1]:g} s"
    if not edges[max(0, theirs - 1)] <= mine <= edges[min(len(edges) - 1, theirs + 2)]:
        raise TruthsDisagree(f"{both}, more than one bucket apart")
    record.finding(both)


def await_scrapes(lab: Lab, since_unix_s: float) -> float:
    """Wait until Prometheus has scraped every target since then and return the time.

    Then it waits for rules that record what the objectives of a user's stack read.

    Raises:
        StaleData: A target was not scraped, or a rule not evaluated, within
            SCRAPED_DEADLINE_S.
    """
    deadline = time.monotonic() + SCRAPED_DEADLINE_S
    scraped_unix_s = _within(deadline, require_scraped, lab, since_unix_s, SCRAPED_DEADLINE_S)
    return _within(deadline, _require_recorded, lab, scraped_unix_s)


def _within(deadline: float, require: Callable[Given, None], *args: Given.args, **named: Given.kwargs) -> float:
    """Repeat a check until it holds and return the time. Raises its last StaleData."""
    while True:
        try:
            require(*args, **named)
        except StaleData:
            if time.monotonic() > deadline:
                raise
        else:
            return time.time()
        time.sleep(0.1)


def _require_recorded(lab: Lab, since_unix_s: float) -> None:
    """Require an evaluation since then of each rule with a canonical name of an SLO.

    Raises:
        StaleData: A rule was not evaluated.
    """
    if not lab.subject.brings_judge:
        return
    names = {counter.partition("{")[0] for slo in lab.slos for counter in slo.counters} & set(BY_SERIES)
    rules = lab.prometheus.rules() if names else ()
    late = sorted({one.name for one in rules if one.name in names and one.evaluated_unix_s < since_unix_s})
    if late:
        raise StaleData(
            f"Prometheus has not evaluated the rules of {', '.join(late)} within {SCRAPED_DEADLINE_S:g} s of the load's "
            "end, so their last counts are unknown: is the machine too busy?"
        )


def require_scraped(lab: Lab, since_unix_s: float, waited_s: float) -> None:
    """Require a scrape of every target since then.

    Raises:
        StaleData: A target was not scraped within the seconds waited.
    """
    jobs = lab.subject.scrape_jobs
    late = [
        target
        for target in lab.prometheus.targets()
        if target.last_scrape_unix_s < since_unix_s and (not jobs or target.job in jobs)
    ]
    if late:
        names = ", ".join(sorted({target.service or target.job for target in late}))
        raise StaleData(
            f"Prometheus has not scraped {names} within {waited_s:g} s of the load's end, so their last counts are "
            "unknown: scrape every second"
        )


def require_coverage(lab: Lab, record: Record, injected: Injected) -> None:
    """Require complete scrapes from the end of the steady phase on.

    A load without a steady phase needs them from its start.

    Raises:
        PartialScrape: Scrapes are missing.
        StaleData: The newest scrape is too old.
    """
    if not lab.subject.scrape_jobs:
        return
    steady = next((p for p in record.phases if p.name == "steady"), None)
    first = record.unix_s(max(0.0, steady.to_s - 4.0) if steady else 0.0)
    subject = lab.subject
    resting = subject.spare if record.planned.autoscaler is None else subject.scaled
    may_be_down = (*injected.victims, *resting)
    lab.prometheus.require_coverage(subject.scrape_jobs, first, time.time() - 0.5, allow_down=may_be_down)
