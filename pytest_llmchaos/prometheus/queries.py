"""Queries of a verdict: exact values or typed errors.

No value is rounded or made from missing data. Threads may share a `Prometheus`: each
gets its own connection.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, NoData, NotANumber, PartialScrape, PrometheusUnreachable, StaleData
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.prometheus.answers import cause_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Labels = frozenset[tuple[str, str]]

# Default seconds between scrapes. docs/byo.md requires it of a user's own stack.
SCRAPE_S = 1.0
# Longest gap between two samples, in scrape intervals: one lost scrape (two intervals)
# and the lateness of a busy machine. Two lost in a row make three, which is too long.
GAP_TOLERANCE = 2.9


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series with its stored samples, oldest first.

    `points` holds (Unix seconds of the scrape, value).
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class FiredAlert:
    """One period in which an alert fired.

    `before`: the alert was firing or pending when the window opened, so nothing in the
    window caused it. `theirs`: the user's own Prometheus raised it.
    """

    name: str
    labels: Mapping[str, str]
    at_unix_s: float
    until_unix_s: float
    before: bool = False
    theirs: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """One scrape target now. `last_scrape_unix_s` is 0 before the first scrape."""

    job: str
    service: str
    url: str
    up: bool
    last_error: str
    last_scrape_unix_s: float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of Prometheus.

    `error` is the reason why its last evaluation failed. `evaluated_unix_s` is 0 before
    the first evaluation. `every_s` is the time between two evaluations.
    """

    name: str
    is_alert: bool
    error: str
    evaluated_unix_s: float
    every_s: float = 1.0


class Prometheus:
    """A Prometheus server, queried at exact instants.

    Args:
        url: Base address of the server.
        timeout_s: Seconds that one request may take.
        also: Another server whose alerts and rules count, too.
        headers: Headers of each request, such as credentials. No message has them.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 3.0,
        also: Prometheus | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.headers = dict(headers or {})
        self.also = also
        from pytest_llmchaos.prometheus.http import Connection  # noqa: PLC0415 - 0.2 s that a plan need not pay

        self._connection = Connection(self.url, timeout_s, self.headers)

    def __repr__(self) -> str:
        return f"<Prometheus at {self.url}>"

    def ready(self) -> bool:
        """True if the server reports that it can answer queries."""
        try:
            answer = request("GET", f"{self.url}/-/ready", timeout_s=self.timeout_s, headers=self.headers)
            return answer.status_code == 200
        except OSError:
            return False

    def value(self, query: str, at_unix_s: float) -> float:
        """Return the one number of `query` at that instant.

        Raises:
            NoData: The query matches no series.
            NotANumber: The value is NaN or infinite.
            Inconclusive: The query returns several series.
        """
        values = self.vector(query, at_unix_s)
        if len(values) > 1:
            found = "; ".join(sorted(_format_labels(labels) for labels in values))
            raise Inconclusive(
                f"{query} must return one series at {at_unix_s:.3f}, got {len(values)} ({found}): aggregate it"
            )
        return next(iter(values.values()))

    def vector(self, query: str, at_unix_s: float, *, may_be_empty: bool = False) -> dict[Labels, float]:
        """Return the numbers of `query` at that instant, by labels.

        Raises:
            NoData: The answer is empty and `may_be_empty` is False.
            NotANumber: A value is NaN or infinite.
        """
        found: dict[Labels, float] = {}
        for labels, value in self._instant(query, at_unix_s):
            if not math.isfinite(value):
                raise NotANumber(
                    f"{query} returned {value} for {_format_labels(labels)} at {at_unix_s:.3f}: no events to divide by?"
                )
            found[labels] = value
        if not found and not may_be_empty:
            raise NoData(f"{query} matched no series at {at_unix_s:.3f}: is the metric scraped, and its name right?")
        return found

    def raw(self, selector: str, from_unix_s: float, to_unix_s: float) -> tuple[Series, ...]:
        """Return the stored samples of a selector inside [from, to]."""
        if not to_unix_s > from_unix_s:
            raise ValueError(f"a window must end after it begins, got {from_unix_s} to {to_unix_s}")
        # 1 ms more, then cut: Prometheus 2 includes a range's left end, 3 does not.
        range_ms = math.ceil((to_unix_s - from_unix_s) * 1000) + 1
        kind, result = self._connection.query(f"{selector}[{range_ms}ms]", to_unix_s)
        if kind != "matrix":
            raise Inconclusive(f"{selector} must be a plain selector, Prometheus returned a {kind}")
        found = []
        for one in result:
            points = tuple((float(t), float(v)) for t, v in one.get("values", ()) if float(t) >= from_unix_s - 0.0005)
            if points:
                found.append(Series(labels=dict(one["metric"]), points=points))
        return tuple(found)

    def series_over(self, query: str, from_unix_s: float, to_unix_s: float, step_s: float = 1.0) -> dict[float, float]:
        """Return the one series of `query` by instant, one value every `step_s`."""
        found = self._connection.query_range(query, from_unix_s, to_unix_s, step_s)
        if len(found) > 1:
            raise Inconclusive(f"{query} must return one series, got {len(found)}: aggregate it")
        return {float(at): float(value) for one in found for at, value in one["values"]}

    def firing_spells(self, from_unix_s: float, to_unix_s: float) -> tuple[FiredAlert, ...]:
        """Return the firing periods inside the window, oldest first.

        Each begins with its first firing evaluation. `ALERTS_FOR_STATE` has the start
        of each alert. Without it, a gap above GAP_TOLERANCE evaluations begins a new
        period. The other server may evaluate its rules less often.
        """
        fired = self._firing_spells(from_unix_s, to_unix_s, 1.0)
        if self.also:
            every_s = max((rule.every_s for rule in self.also_rules()), default=1.0)
            theirs = self.also._firing_spells(from_unix_s, to_unix_s, max(1.0, every_s))  # noqa: SLF001 - this class
            fired += tuple(replace(one, theirs=True) for one in theirs)
        return tuple(sorted(fired, key=lambda alert: (alert.at_unix_s, alert.name)))

    def _firing_spells(self, from_unix_s: float, to_unix_s: float, interval_s: float) -> tuple[FiredAlert, ...]:
        already = {_identity(dict(labels)) for labels in self.vector("ALERTS", from_unix_s, may_be_empty=True)}
        firing = self.raw('ALERTS{alertstate="firing"}', from_unix_s, to_unix_s)
        since = self._active_since(from_unix_s, to_unix_s) if firing else {}
        fired = []
        for series in firing:
            identity = _identity(series.labels)
            shown = {k: v for k, v in identity if k != "alertname"}
            for spell in _spells(series.points, GAP_TOLERANCE * interval_s):
                first, last = spell[0][0], spell[-1][0]
                active_s = since.get(identity, {}).get(first)
                goes_on = (
                    first <= from_unix_s + GAP_TOLERANCE * interval_s if active_s is None else active_s < from_unix_s
                )
                fired.append(
                    FiredAlert(
                        name=series.labels["alertname"],
                        labels=shown,
                        at_unix_s=first,
                        until_unix_s=last,
                        before=identity in already and goes_on,
                    )
                )
        return tuple(fired)

    def _active_since(self, from_unix_s: float, to_unix_s: float) -> dict[Labels, dict[float, float]]:
        """Start of each pending or firing alert by evaluation, whole Unix seconds."""
        found = self.raw("ALERTS_FOR_STATE", from_unix_s, to_unix_s)
        return {_identity(series.labels): dict(series.points) for series in found}

    def targets(self) -> tuple[Target, ...]:
        """Return the active scrape targets, sorted by job and service."""
        active = self._connection.ask_in_time("targets", lambda api: api.get_targets(state="active")["activeTargets"])
        found = [
            Target(
                job=one["labels"].get("job", ""),
                service=one["labels"].get("service", ""),
                url=one["scrapeUrl"],
                up=one["health"] == "up",
                last_error=one["lastError"],
                last_scrape_unix_s=max(0.0, datetime.fromisoformat(one["lastScrape"]).timestamp()),
            )
            for one in active
        ]
        return tuple(sorted(found, key=lambda target: (target.job, target.service)))

    def also_rules(self) -> tuple[Rule, ...]:
        """Return the rules of the other server."""
        return self.also.rules() if self.also else ()

    def rules(self) -> tuple[Rule, ...]:
        """Return all rules with the result of their last evaluation, sorted by name."""
        try:
            answer = request("GET", f"{self.url}/api/v1/rules", timeout_s=self.timeout_s, headers=self.headers)
            if not answer.is_success:
                cause = cause_of(answer.status_code, answer.text, answer.headers.get("location", ""))
                raise PrometheusUnreachable(f"{self.url} could not answer about its rules: it {cause}")
            found = [
                Rule(
                    name=str(one["name"]),
                    is_alert=one["type"] == "alerting",
                    error=str(one.get("lastError") or "") if one["health"] == "err" else "",
                    evaluated_unix_s=max(0.0, datetime.fromisoformat(one["lastEvaluation"]).timestamp()),
                    every_s=float(group.get("interval") or 1.0),
                )
                for group in answer.json()["data"]["groups"]
                for one in group["rules"]
            ]
            return tuple(sorted(found, key=lambda rule: rule.name))
        except OSError as error:
            raise PrometheusUnreachable(
                f"no answer from {self.url} about its rules within {self.timeout_s:g} s: {error}"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise PrometheusUnreachable(
                f"the server at {self.url} is not Prometheus: its list of rules lacks {error}"
            ) from error

    def require_coverage(
        self,
        jobs: Sequence[str],
        from_unix_s: float,
        to_unix_s: float,
        *,
        interval_s: float = 1.0,
        allow_down: Sequence[str] = (),
    ) -> None:
        """Raise unless each job was scraped throughout the window.

        A failed scrape counts as missing, except for services in `allow_down`. One
        missing scrape is tolerated.

        Raises:
            NoData: A job has no scrape in the window.
            StaleData: The newest scrape is too old.
            PartialScrape: The window has a gap.
        """
        limit_s = GAP_TOLERANCE * interval_s
        for job in jobs:
            found = self.raw(f'up{{job="{job}"}}', from_unix_s, to_unix_s)
            if not found:
                raise NoData(
                    f"job {job} has no scrape between {from_unix_s:.3f} and {to_unix_s:.3f}: is it configured?"
                )
            for series in found:
                name = series.labels.get("service") or series.labels.get("instance", job)
                good = [t for t, up in series.points if up == 1 or name in allow_down]
                failed = len(series.points) - len(good)
                stamps = [from_unix_s, *good]
                silent_s = to_unix_s - stamps[-1]
                if silent_s > limit_s and not failed:
                    raise StaleData(f"the newest scrape of {name} is {silent_s:.1f} s older than the window's end")
                gap_s, at_s = max((b - a, a) for a, b in itertools.pairwise([*stamps, to_unix_s]))
                if gap_s > limit_s:
                    why = (
                        f"{failed} of {len(series.points)} scrapes failed, and it was not a victim; is the machine too busy?"
                        if failed
                        else "scrapes are missing"
                    )
                    raise PartialScrape(
                        f"{name} was not scraped for {gap_s:.1f} s from {at_s:.3f} on, expected at most {limit_s:g} s: {why}"
                    )

    def clock_offset_s(self) -> float:
        """Seconds that Prometheus' clock is ahead, within half of the round trip."""
        before = time.time()
        kind, result = self._connection.query("time()", None)
        if kind != "scalar":
            raise NoData(f"time() must be a scalar, {self.url} returned a {kind}: is that Prometheus?")
        return float(result[1]) - (before + time.time()) / 2

    def _instant(self, query: str, at_unix_s: float) -> list[tuple[Labels, float]]:
        kind, result = self._connection.query(query, at_unix_s)
        if kind == "scalar":
            return [(frozenset(), float(result[1]))]
        if kind != "vector":
            raise Inconclusive(f"{query} must return numbers at one instant, Prometheus returned a {kind}")
        return [(frozenset(one["metric"].items()), float(one["value"][1])) for one in result]


def _identity(labels: Mapping[str, str]) -> Labels:
    """Labels that identify an alert in each of its states."""
    return frozenset((k, v) for k, v in labels.items() if k not in {"__name__", "alertstate"})


def _format_labels(labels: Labels) -> str:
    return "{" + ", ".join(f'{k}="{v}"' for k, v in sorted(labels)) + "}"


def _spells(points: Sequence[tuple[float, float]], gap_s: float) -> list[list[tuple[float, float]]]:
    spells: list[list[tuple[float, float]]] = []
    for point in points:
        if spells and point[0] - spells[-1][-1][0] <= gap_s:
            spells[-1].append(point)
        else:
            spells.append([point])
    return spells
