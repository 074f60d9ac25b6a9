"""An SLO's events over a window, read from Prometheus."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BetweenEdges, CounterReset, Inconclusive, NoData, StaleData
from pytest_llmchaos.model import CLIENTS
from pytest_llmchaos.prometheus.queries import GAP_TOLERANCE, SCRAPE_S
from pytest_llmchaos.slo.arithmetic import LEAST_SCRAPES, window_query
from pytest_llmchaos.slo.latency import by_edge, latency_bound
from pytest_llmchaos.trial.latency_edges import counted_within, lacks_edge
from pytest_llmchaos.trial.slo_result import SloResult

if TYPE_CHECKING:
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.slo.arithmetic import Slo


def judge_slo(
    prometheus: Prometheus,
    slo: Slo,
    from_unix_s: float,
    to_unix_s: float,
    *,
    rate_rps: float | None,
) -> SloResult:
    """Return an SLO's result between two instants.

    Args:
        prometheus: The Prometheus to query.
        slo: The SLO.
        from_unix_s: Start of the window, in Unix seconds.
        to_unix_s: End of the window, in Unix seconds.
        rate_rps: Events per second of this SLO, which scale its budget.

    Raises:
        CounterReset: A counter restarted at 0, or a series ended.
        NoData: The window has no events.
        StaleData: The newest sample is too old.
        NotANumber: A query returned NaN or infinity.
        BetweenEdges: The latency bound is no edge of the histogram, and the SLO does
            not declare it as one to be judged as an interval.
    """
    bound = latency_bound(slo.good, slo.threshold_s) if slo.good else None
    if bound is None or not lacks_edge(prometheus, bound, to_unix_s, from_unix_s):
        return _counted(prometheus, slo, from_unix_s, to_unix_s, rate_rps=rate_rps)
    found = _counted(prometheus, replace(slo, good=bound.every), from_unix_s, to_unix_s, rate_rps=rate_rps)
    seen = counted_within(prometheus, bound, to_unix_s - found.window_s, to_unix_s)
    found = replace(
        found,
        slo=slo,
        good=seen.least,
        query=by_edge(bound.buckets, slo.total, found.window_s),
        raw={
            f"good within {edge_s:g} s": count
            for edge_s, count in ((seen.lower_s, seen.least), (seen.upper_s, seen.most))
        }
        | {name: count for name, count in found.raw.items() if name.startswith("total")},
    )
    if seen.is_exact:  # an edge in another spelling, such as 2.0 for 2
        return found
    if not bound.is_declared:
        raise BetweenEdges(f"{slo.name}: {bound.refusal(seen.place)}")
    return replace(found, within=seen, uncertainty=bound.uncertainty(seen.place))


def _counted(
    prometheus: Prometheus, slo: Slo, from_unix_s: float, to_unix_s: float, *, rate_rps: float | None
) -> SloResult:
    """Return an SLO's result where its selectors match the series to count."""
    from_unix_s = _fresh_start(prometheus, slo, from_unix_s)
    try:
        _require_fresh(prometheus, slo, to_unix_s)
    except NoData:
        # As after a crash: a new process has no series before its first event.
        raise CounterReset(
            f"{slo.name}: {' or '.join(slo.counters)} has series at the window's start and none at its end, so their counts "
            "are lost: compute the SLO from counters that outlive the service, such as the clients' own "
            f"({CLIENTS}_*), or use trial.whole"
        ) from None
    queries = window_query(slo, to_unix_s - from_unix_s)
    resets = prometheus.value(queries.resets, to_unix_s)
    if resets:
        raise CounterReset(
            f"{slo.name}: {' or '.join(slo.counters)} restarted at 0 within the window ({resets:g} resets), so counts "
            "between the last scrape and the end of the process are lost: compute the SLO from counters that outlive "
            f"the service, such as the clients' own ({CLIENTS}_*), or use trial.whole"
        )
    gone = prometheus.vector(queries.gone, to_unix_s, may_be_empty=True)
    if gone:
        names = "; ".join(
            ", ".join(f'{key}="{value}"' for key, value in sorted(labels)) for labels in sorted(map(sorted, gone))
        )
        raise CounterReset(
            f"{slo.name}: of {' or '.join(slo.counters)}, series from the window's start are missing at its end "
            f"({names}), so their counts are lost: compute the SLO from counters that outlive the service, such as "
            f"the clients' own ({CLIENTS}_*), or use trial.whole"
        )
    good, total = prometheus.value(queries.good, to_unix_s), prometheus.value(queries.total, to_unix_s)
    if not total > 0:
        raise NoData(f"{slo.name}: no {slo.unit} between {from_unix_s:.3f} and {to_unix_s:.3f}, so no share of them")
    if good < 0:
        what = slo.good or f"{slo.bad} counts events that {slo.total} does not, or {slo.total}"
        raise Inconclusive(f"{slo.name}: {what} decreased by {-good:g} without a reset that Prometheus saw")
    return SloResult(
        slo=slo,
        good=good,
        total=total,
        window_s=to_unix_s - from_unix_s,
        rate_rps=rate_rps,
        query=queries.ratio,
        raw={
            f"{name} at the window's {end}": prometheus.value(f"sum({selector}{zero})", at_unix_s)
            for name, selector, zero in (
                (slo.side, slo.counters[0], " or vector(0)" if slo.bad else ""),
                ("total", slo.total, ""),
            )
            for end, at_unix_s in (("start", from_unix_s), ("end", to_unix_s))
        },
    )


def events_rps(prometheus: Prometheus, slo: Slo, from_unix_s: float, to_unix_s: float) -> float | None:
    """Return the SLO's events per second between two instants, from all clients.

    None if there were no events.
    """
    span_s = max(LEAST_SCRAPES, math.ceil(to_unix_s - from_unix_s))
    rates = prometheus.vector(f"sum(rate({slo.total}[{span_s}s]))", to_unix_s, may_be_empty=True)
    return next((rate for rate in rates.values() if rate), None)


def _fresh_start(prometheus: Prometheus, slo: Slo, from_unix_s: float) -> float:
    """Return the window's start, or one scrape earlier if a scrape failed there.

    If the fault interrupts a scrape, Prometheus marks the series as ended at that
    scrape's start, which is just before the fault. The scrape before it has values.
    """
    try:
        _require_fresh(prometheus, slo, from_unix_s)
    except NoData:
        from_unix_s -= SCRAPE_S
        _require_fresh(prometheus, slo, from_unix_s)
    return from_unix_s


def _require_fresh(prometheus: Prometheus, slo: Slo, at_unix_s: float) -> None:
    for selector in slo.counters:
        if selector == slo.bad and not prometheus.vector(selector, at_unix_s, may_be_empty=True):
            continue  # no bad event yet
        newest = prometheus.value(f"min(timestamp({selector}))", at_unix_s)
        if at_unix_s - newest > GAP_TOLERANCE * SCRAPE_S:
            raise StaleData(f"the newest sample of {selector} is {at_unix_s - newest:.1f} s older than {at_unix_s:.3f}")
