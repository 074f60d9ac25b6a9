"""Check that Prometheus has the metrics of the service levels."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_llmchaos.errors import NotReady, PrometheusUnreachable
from pytest_llmchaos.prometheus.api import RefusedError, data_of
from pytest_llmchaos.servers.bounds import within
from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.preflight import is_late, reason_of, rename_of
from pytest_llmchaos.slo.latency import latency_bound
from pytest_llmchaos.slo.selectors import matchers_of

if TYPE_CHECKING:
    from pytest_llmchaos.prometheus.queries import Prometheus, Target
    from pytest_llmchaos.servers.preflight import ScrapedServer
    from pytest_llmchaos.slo.arithmetic import Slo


METRICS_DEADLINE_S = 20.0  # the first scrape comes 5 to 6 s after Prometheus' start
FIRST_SCRAPE_S = 8.0
SETTLED_S = 4.0  # of good scrapes after the first answer
RECORDED_S = 4.0  # until a rule has recorded what was scraped
_MOST_SHOWN = 3
_CHECK_TARGET = "check port and path of the target, and that it runs"
# Answers that waiting does not change.
_FINAL = range(300, 500)


def require_metrics(
    server: Prometheus,
    slos: Sequence[Slo],
    *,
    jobs: Sequence[str] | None = None,
    servers: Sequence[ScrapedServer] = (),
    also: Mapping[str, str] | None = None,
) -> None:
    """Wait until Prometheus has every metric of the service levels.

    Many services export a counter only after their first request, which must be
    answered before this call. One that a model server exports with its first event is
    not required: the load decides.

    Args:
        server: Prometheus.
        slos: The service levels.
        jobs: Jobs that `llmchaos_metrics` names, or None for all.
        servers: Model servers of the stack, for the causes.
        also: Other required metrics, each with the ini key that names it.

    Raises:
        NotReady: Metrics are missing after METRICS_DEADLINE_S or several good scrapes,
            or Prometheus refuses the request. The message has the cause.
    """
    where = dict(also or {}) | {_probe(selector): "the SLO file" for slo in slos for selector in slo.counters}
    wanted, begun_unix_s = sorted(one for one in where if not one.startswith("llmchaos_")), time.time()
    late = {slo.bad.partition("{")[0] for slo in slos if slo.bad}
    settled_unix_s = begun_unix_s + SETTLED_S + (RECORDED_S if any(_name(one) in BY_SERIES for one in wanted) else 0)

    def why_missing(missing: Sequence[str], targets: Sequence[Target] | None) -> str:
        whose = {key: [one for one in missing if where[one] == key] for key in dict.fromkeys(where.values())}
        names = ", ".join(f"{', '.join(ones)} of {key}" for key, ones in whose.items() if ones)
        return _why_missing(server, names, missing, targets, servers) + _late(late, missing)

    def look() -> str:
        if not (missing := _missing(server, wanted, servers)):
            return ""
        targets = _targets(server, jobs)
        problem = why_missing(missing, targets)
        if all(rename_of(_name(one), servers) for one in missing):
            raise NotReady(problem)  # waiting does not bring a former name back
        if not targets or not all(one.up and one.last_scrape_unix_s > settled_unix_s for one in targets):
            return problem
        # These scrapes may have come after the first look.
        if missing := _missing(server, missing, servers):
            raise NotReady(why_missing(missing, targets))
        return ""

    _wait(server, look)


def _probe(selector: str) -> str:
    """Return the name of a selector's metric.

    A canonical name keeps the matchers of its service, because others may have it.
    """
    name, matchers = matchers_of(selector)
    kept = [f"{label}{how}{text}" for label, how, text in matchers if label in ("job", "service", "server")]
    return f"{name}{{{','.join(kept)}}}" if kept and name in BY_SERIES else name


def _name(probe: str) -> str:
    return probe.partition("{")[0]


def coarse_bounds(server: Prometheus, slos: Sequence[Slo]) -> tuple[str, ...]:
    """Return a line for each SLO whose share of requests will be an interval.

    Its latency bound is no edge of a histogram that Prometheus has now.

    Raises:
        NotReady: A bound is no edge, and the SLO does not declare it. The message has
            the edges next to it.
    """
    found, refused = [], []
    for slo in slos:
        bound = latency_bound(slo.good, slo.threshold_s) if slo.good else None
        if bound is None or not _instant(server, bound.lacking):
            continue
        histograms: dict[str, dict[float, float]] = {}
        for labels in _instant(server, bound.buckets):
            others = repr(sorted((name, value) for name, value in labels.items() if name != "le"))
            histograms.setdefault(others, {})[float(labels["le"])] = 0.0
        seen = within(histograms.values(), bound.bound_s)
        if seen.is_exact:
            continue
        if not bound.is_declared:
            refused.append(f"{slo.name}: {bound.refusal(seen.place)}")
            continue
        found.append(
            f"{slo.name}: {bound.at(seen.place)}, so its share is an interval, and inconclusive if it holds the objective"
            + ("; rules of its burn alerts lack data" if slo.alerts else "")
        )
    if refused:
        raise NotReady("\n".join(refused))
    return tuple(found)


def _instant(server: Prometheus, query: str) -> list[dict[str, str]]:
    """Return the labels of each series of a query now, none if the server refuses."""
    try:
        data = data_of(server, f"/api/v1/query?query={quote(query)}")
        return [one["metric"] for one in data["result"]]
    except (OSError, RefusedError, KeyError, TypeError):
        return []  # the trial's judgement raises the reason


def require_scrapes(server: Prometheus, jobs: Sequence[str]) -> None:
    """Wait until each target was scraped once, and require that none failed.

    Args:
        server: Prometheus.
        jobs: Jobs that `llmchaos_metrics` names.

    Raises:
        NotReady: A scrape failed. The message has its error.
    """
    deadline = time.monotonic() + FIRST_SCRAPE_S
    while not _all_scraped(targets := _targets(server, jobs) or ()) and time.monotonic() < deadline:
        time.sleep(0.2)
    if failed := _failed(targets):
        raise NotReady(f"Prometheus at {server.url} cannot scrape {_few(failed)}: {_CHECK_TARGET}")


def _all_scraped(targets: Sequence[Target]) -> bool:
    return bool(targets) and all(one.last_scrape_unix_s for one in targets)


def _failed(targets: Sequence[Target]) -> list[str]:
    return [f"{one.job} at {one.url} ({one.last_error})" for one in targets if one.last_error]


def require_rules(server: Prometheus) -> None:
    """Wait until the user's own Prometheus lists its rules.

    Raises:
        NotReady: It does not within METRICS_DEADLINE_S. The message has the cause.
    """

    def look() -> str:
        data_of(server, "/api/v1/rules")
        return ""

    _wait(server, look)


def _wait(server: Prometheus, look: Callable[[], str]) -> None:
    """Look until there is no problem. Raises NotReady with the last one."""
    deadline = time.monotonic() + METRICS_DEADLINE_S
    while True:
        try:
            problem = look()
        except RefusedError as refused:
            problem = f"Prometheus at {server.url} {refused}"
            if refused.status in _FINAL:
                raise NotReady(problem) from None
        except OSError as error:
            problem = f"Prometheus at {server.url} does not answer: {error}; check the log of that service"
        if not problem:
            return
        if time.monotonic() > deadline:
            raise NotReady(problem)
        time.sleep(0.2)


def _missing(server: Prometheus, probes: Sequence[str], servers: Sequence[ScrapedServer]) -> list[str]:
    return [one for one in probes if not _is_known(server, one) and not is_late(_name(one), servers)]


def _targets(server: Prometheus, jobs: Sequence[str] | None) -> tuple[Target, ...] | None:
    """The scrape targets, or None for a server that lacks this list, such as Thanos."""
    try:
        return tuple(one for one in server.targets() if jobs is None or one.job in jobs)
    except PrometheusUnreachable:
        return None


def _is_known(server: Prometheus, probe: str) -> bool:
    """True if the metric was scraped, or HELP and TYPE declare it without a sample."""
    if data_of(server, f"/api/v1/series?match[]={quote(probe)}"):
        return True
    if probe != _name(probe):
        return False
    declared = [probe, re.sub(r"_(total|bucket|count|sum)$", "", probe)]
    try:
        return any(data_of(server, f"/api/v1/metadata?metric={one}") for one in declared)
    except RefusedError:  # not every server of this API has metadata
        return False


def _why_missing(
    server: Prometheus,
    names: str,
    missing: Sequence[str],
    targets: Sequence[Target] | None,
    servers: Sequence[ScrapedServer],
) -> str:
    """Name the cause, as far as model servers or Prometheus' targets show it."""
    lacks = f"Prometheus at {server.url} lacks the metric {names}"
    reasons = "; ".join(dict.fromkeys(text for one in missing if (text := reason_of(_name(one), servers))))
    if targets is None:
        return f"{lacks}: {reasons or f'check its name there, and that the service is scraped{_hint(server, missing)}'}"
    if not targets:
        return f"{lacks}, because it scrapes nothing: add the service to llmchaos_metrics"
    if failed := _failed(targets):
        return f"{lacks}, and cannot scrape {_few(failed)}: {_CHECK_TARGET}"
    waiting = [f"{one.job} at {one.url}" for one in targets if one.last_scrape_unix_s == 0]
    if waiting:
        return f"{lacks}, because it did not scrape {_few(waiting)} within {METRICS_DEADLINE_S:g} s: see its log"
    return (
        f"{lacks}, although it scrapes {len(targets)} targets without an error: "
        f"{reasons or f'check its name there{_hint(server, missing)}'}"
    )


def _late(bad: Collection[str], missing: Sequence[str]) -> str:
    """A remark on counters that may begin with the first bad event."""
    names = ", ".join(name for name in missing if name in bad)
    return f"; if {names} begins with the first bad event, export it at 0 from the start" if names else ""


def _few(found: Sequence[str]) -> str:
    return ", ".join(found[:_MOST_SHOWN]) + (
        f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    )


def _hint(server: Prometheus, missing: Sequence[str]) -> str:
    """Names that are close to the missing ones."""
    try:
        names = [str(name) for name in data_of(server, "/api/v1/label/__name__/values")]
    except (OSError, RefusedError, TypeError):
        return ""
    close = dict.fromkeys(one for name in missing for one in difflib.get_close_matches(name, names, n=2, cutoff=0.8))
    return f" (it has {', '.join(close)})" if close else ""
