"""Reader of OpenSLO v1 files, limited to ratios of counters.

What would judge another objective than the one in the file is an error. One message
lists all errors of a file. Alerting and the annotations of other tools are not read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_llmchaos.slo.arithmetic import DAY_S, LEAST_ALERT_DAYS, LEAST_BUDGET, InvalidSlo, SecondTruth, Slo
from pytest_llmchaos.slo.formats import format_of
from pytest_llmchaos.slo.queries import (
    NO_BAD_COUNTER,
    Counters,
    counter_of,
    counters_without,
    has_line_break_in_quotes,
    is_same,
)
from pytest_llmchaos.slo.selectors import expected_of
from pytest_llmchaos.slo.yaml_nodes import Place, Problems, objects

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("openslo/v1", "openslo.com/v1")
# The rules make alerts from the objectives, and a service is only a name.
_KINDS = ("SLO", "SLI", "DataSource", "Service", "AlertPolicy", "AlertCondition", "AlertNotificationTarget")
# Kubernetes adds these, and some tools keep them in what they export.
_KUBERNETES = (
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "ownerReferences",
)
_SPEC = (
    *("description", "service", "indicator", "indicatorRef", "timeWindow", "budgetingMethod", "objectives"),
    "alertPolicies",
)
# By the specification the last four are for other metrics and other methods.
_OBJECTIVE = ("displayName", "target", "targetPercent", "op", "value", "timeSliceTarget", "timeSliceWindow")
_SPAN_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,5})([dwhm])")
_LONGEST_DAYS = 3660
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECONDS = re.compile(r"[0-9]*\.?[0-9]+([eE][+-]?[0-9]{1,3})?")
# Not writable to a generated file: control characters, lone surrogates, non-characters.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
# OpenSLO lacks fields for these. It reserves annotations for vendors.
_UNIT = "llmchaos/unit"
_THRESHOLD_S = "llmchaos/threshold-seconds"
_ALERTS = "llmchaos/alerts"
_CLIENTS = "llmchaos/clients"
_TRUTHS: tuple[SecondTruth, ...] = ("availability", "ttft", "e2e", "none")


def slos_of(path: Path, name: str = "") -> tuple[Slo, ...]:
    """Read the SLOs of an OpenSLO v1 file, in its order.

    Args:
        path: The file.
        name: Name of the file in error messages. Its path if empty.

    Raises:
        InvalidSlo: The file is unreadable, not UTF-8, or not a valid list of SLOs.
    """
    return load_slos(text_of(path), name or str(path))


def text_of(path: Path) -> str:
    """Return a file's text.

    Raises:
        InvalidSlo: The file is unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSlo(f"{path}: must be a text file in UTF-8 that can be read: {error}") from None


def load_slos(text: str, source: str) -> tuple[Slo, ...]:
    """Read the SLOs of an OpenSLO v1 text, in its order.

    Args:
        text: YAML documents, or lists of them. Those of kind SLO are read, and the SLI
            and DataSource documents that they name.
        source: Name of the text in error messages.

    Raises:
        InvalidSlo: The text is not a valid list of SLOs. The message has a line for
            each problem, which begins with source, line and column.
    """
    reader = _Reader(problems=Problems(source=source, error=InvalidSlo))
    of = reader.problems.of
    documents = [one for one in objects(text, source, InvalidSlo) if of(reader.sort, one)]
    found: dict[str, Slo] = {}
    for document in documents:
        for slo in reader.slos(document):
            if slo.name in found:
                of(document.child("metadata").child("name").fail, "unique in the file")
            found[slo.name] = slo
    reader.problems.stop()
    if not found:
        kinds = ", ".join(sorted(reader.kinds)) or "none"
        raise InvalidSlo(f"{source}:1:1: must hold at least one document of kind SLO, got {kinds}")
    return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the SLOs of one text, and what they name in it."""

    problems: Problems
    indicators: dict[str, Place] = field(default_factory=dict)
    sources: dict[str, Place] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)

    def sort(self, document: Place) -> bool:
        """Keep a document that an SLO may name. True for one of kind SLO."""
        if not document.is_mapping:
            document.fail("a mapping of apiVersion, kind, metadata, spec")
        other = format_of(document)
        if other:
            raise InvalidSlo(
                f"{document.where}: the document must be OpenSLO v1, got {other}: "
                f"write it as OpenSLO with `llmchaos slo convert {document.source}`"
            )
        of = self.problems.of
        document.child("apiVersion").exactly(*VERSIONS)
        self.problems.only(document, "apiVersion", "kind", "metadata", "spec", "status")
        of(document.child, "spec")
        metadata = of(document.child, "metadata")
        kind = document.child("kind").exactly(*_KINDS)
        self.kinds.add(kind)
        kept = {"SLI": self.indicators, "DataSource": self.sources}.get(kind)
        if metadata and kept is not None:
            name = metadata.child("name")
            if name.text() in kept:
                name.fail(f"unique among the documents of kind {kind}")
            kept[name.text()] = document
        return kind == "SLO"

    def slos(self, document: Place) -> list[Slo]:
        """Return a document's SLOs, one for each objective."""
        of = self.problems.of
        metadata, spec = of(document.child, "metadata"), of(document.child, "spec")
        if not (metadata and spec and of(metadata.keys) is not None and of(spec.keys) is not None):
            return []
        self.problems.only(metadata, "name", "displayName", "annotations", "labels", *_KUBERNETES)
        self.problems.only(spec, *_SPEC)
        name, title = of(_name, metadata), of(_line_of, metadata, "displayName")
        unit, threshold_s, alerts, clients = self._annotations(metadata)
        of(_require_occurrences, spec)
        targets = of(self._targets, spec)
        days = of(self._window_days, spec, with_alerts=alerts)
        counters = of(self._counters, spec)
        description = of(_line_of, spec, "description")
        if not (name and targets and days and counters):
            return []
        found = []
        for target in targets:
            made = of(
                _slo,
                metadata.child("name"),
                name=name if len(targets) == 1 else f"{name}-{100 * target:.10g}".replace(".", "-"),
                display_name=title or "",
                description=description or title or name,
                objective=target,
                window_days=days,
                counters=counters,
                unit=unit or "requests",
                threshold_s=threshold_s,
                clients=clients,
                alerts=alerts,
            )
            found += [made] if made else []
        return found

    def _annotations(self, metadata: Place) -> tuple[str, float | None, bool, SecondTruth | None]:
        """Return unit, threshold, alerts and clients."""
        of = self.problems.of
        place = of(metadata.optional, "annotations")
        if place is None or of(place.keys) is None:
            return "", None, True, None
        known = (_UNIT, _THRESHOLD_S, _ALERTS, _CLIENTS)
        for key in place.keys("llmchaos/"):
            if key.node.value not in known:
                of(key.fail, f"one of {', '.join(known)}")
        self.problems.once(place)
        threshold, alerts, clients = (place.optional(key) for key in (_THRESHOLD_S, _ALERTS, _CLIENTS))
        named = of(clients.exactly, *_TRUTHS) if clients else None
        return (
            of(_line_of, place, _UNIT) or "",
            of(_seconds, threshold) if threshold else None,
            not alerts or of(alerts.exactly, "true", "false") != "false",
            _TRUTHS[_TRUTHS.index(named)] if named else None,
        )

    def _targets(self, spec: Place) -> list[float]:
        objectives = spec.child("objectives")
        given = list(objectives.items())
        if not given:
            objectives.fail("a list of at least one objective")
        found = [target for one in given if (target := self.problems.of(self._target, one)) is not None]
        if len(set(found)) < len(found):
            objectives.fail("a list of objectives with different targets")
        return found

    def _target(self, objective: Place) -> float:
        objective.keys()
        self.problems.only(objective, *_OBJECTIVE)
        percent = objective.optional("targetPercent")
        if percent and objective.optional("target"):
            percent.fail("left out, because target is given")
        if percent:
            target, share = percent, round(percent.number() / 100, 15)
            expected = "a percentage above 0 and below 100"
        else:
            target = objective.child("target")
            share, expected = target.number(), "a share above 0 and below 1 (99.5 % is 0.995)"
        if not 0 < share <= 1 - LEAST_BUDGET:
            target.fail(f"{expected}, by 1e-12 at least")
        return share

    def _window_days(self, spec: Place, *, with_alerts: bool) -> float:
        windows = spec.child("timeWindow")
        given = list(windows.items())
        if len(given) != 1:
            windows.fail("a list of exactly one window")
        (window,) = given
        self.problems.only(window, "duration", "isRolling", "calendar")
        calendar, rolling = window.optional("calendar"), window.optional("isRolling")
        if calendar:
            self.problems.only(calendar, "startTime", "timeZone")
        if calendar and rolling and rolling.flag():
            self.problems.of(rolling.fail, "false or left out, because calendar is given")
        if not calendar and not window.child("isRolling").flag():
            self.problems.of(window.child("isRolling").fail, "true, or have a calendar next to it")
        duration = window.child("duration")
        if re.fullmatch("[0-9]+[MQY]", duration.text()):
            duration.fail("of a fixed length, such as 30d or 4w (months, quarters and years differ in length)")
        match = _DURATION.fullmatch(duration.text())
        days = int(match[1]) * _SPAN_S[match[2]] / DAY_S if match else 0.0
        if not 0 < days <= _LONGEST_DAYS:
            duration.fail(f"a duration such as 30d, 4w or 12h, of at most {_LONGEST_DAYS}d")
        if with_alerts and days < LEAST_ALERT_DAYS:
            duration.fail(
                f'at least {24 * LEAST_ALERT_DAYS:g}h for burn alerts (or write the annotation {_ALERTS}: "false")'
            )
        return days

    def _counters(self, spec: Place) -> Counters | None:
        """Return the selectors of the events, None after a problem."""
        of = self.problems.of
        indicator = self._indicator(spec)
        self.problems.only(indicator, "description", "ratioMetric", "thresholdMetric")
        threshold = indicator.optional("thresholdMetric")
        if threshold:
            threshold.fail(
                'a ratioMetric: for latency, good is the histogram\'s x_bucket{le="2.5"} and total its x_count'
            )
        ratio = indicator.child("ratioMetric")
        self.problems.only(ratio, "counter", "good", "bad", "total", "raw", "rawType")
        raw = ratio.optional("raw")
        if raw:
            raw.fail("good and total, two counters (a share that was computed before has no number of events)")
        of(_require_counter, ratio)
        good, bad = ratio.optional("good"), ratio.optional("bad")
        if good and bad:
            of(bad.fail, "left out, because good is given")
        total = of(self._selector, ratio, "total")
        if good or not bad:
            selector = of(self._selector, ratio, "good")
        else:
            query = of(self._query, ratio, "bad")
            return of(not_good, query, total) if query and total else None
        if good and selector and total and is_same(selector, total):
            of(good.fail, "a part of total (all events are good here, so that no outage would show)")
        return Counters(good=selector, total=total) if selector and total else None

    def _indicator(self, spec: Place) -> Place:
        """Return the spec of the SLI, from the SLO or a document of the file."""
        inline, name = spec.optional("indicator"), spec.optional("indicatorRef")
        if name is None:
            indicator = spec.child("indicator")
            self.problems.only(indicator, "metadata", "spec")
            return indicator.child("spec")
        if inline:
            name.fail("left out, because indicator is given")
        if name.text() not in self.indicators:
            there = ", ".join(self.indicators) or "no SLI"
            name.fail(f"the name of a document of kind SLI in this file, which has {there} (copy it into the file)")
        return self.indicators[name.text()].child("spec")

    def _selector(self, ratio: Place, side: str) -> str:
        query = self._query(ratio, side)
        selector = counter_of(query.text())
        expected = expected_of(selector)
        if expected is not None:
            query.fail(f"a selector of counters, alone or in sum(), rate() or increase(): {expected}")
        return selector

    def _query(self, ratio: Place, side: str) -> Place:
        metric = ratio.child(side)
        self.problems.only(metric, "metricSource")
        source = metric.child("metricSource")
        self.problems.only(source, "type", "metricSourceRef", "spec")
        self.problems.of(self._require_prometheus, source)
        self.problems.only(source.child("spec"), "query")
        query = source.child("spec").child("query")
        if has_line_break_in_quotes(query.text()):
            query.fail(r"a query whose label values are on one line (write a line break as \n)")
        if _UNWRITABLE.search(" ".join(query.text().split())):
            query.fail("a text without control characters")
        return query

    def _require_prometheus(self, source: Place) -> None:
        """Check the type of a metric source and of the DataSource that it names.

        A source in another file is not read. Then the query alone decides.
        """
        kind, name = source.optional("type"), source.optional("metricSourceRef")
        if name is None:
            kind = source.child("type")
        elif name.text() in self.sources:
            _require_type(self.sources[name.text()].child("spec").child("type"))
        if kind:
            _require_type(kind)


def not_good(bad: Place, total: str) -> Counters:
    """Return the counters of an SLO that counts its bad events."""
    counters = counters_without(bad.text(), total)
    if counters is None:
        bad.fail(NO_BAD_COUNTER)
    return counters


def _require_type(kind: Place) -> None:
    if kind.text().lower() != "prometheus":
        kind.fail("'Prometheus' (objectives are judged by counters that a Prometheus scrapes)")


def _require_counter(ratio: Place) -> None:
    counter = ratio.child("counter")
    if not counter.flag():
        counter.fail("true (rates and gauges cannot be added up to events)")


def _require_occurrences(spec: Place) -> None:
    method = spec.child("budgetingMethod")
    if method.text() != "Occurrences":
        method.fail("'Occurrences' (it counts events: a trial of a minute has no time slices to count)")


def _name(metadata: Place) -> str:
    name = metadata.child("name")
    if not _NAME.fullmatch(name.text()):
        name.fail(f"up to 63 lower-case letters, digits and hyphens (RFC 1123), such as {name_like(name.text())!r}")
    return name.text()


def name_like(text: str) -> str:
    """Return a name by RFC 1123 that is like the text."""
    return re.sub("[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "availability"


def _line_of(place: Place, key: str) -> str:
    """Return the text of an optional key on one line, for titles and annotations."""
    found = place.optional(key)
    if found is None or found.is_blank:
        return ""
    line = " ".join(found.text().split())
    if _UNWRITABLE.search(line):
        found.fail("a text without control characters")
    return line


def _seconds(place: Place) -> float:
    seconds = float(place.text()) if _SECONDS.fullmatch(place.text()) else 0.0
    if not 0 < seconds < math.inf:
        place.fail('seconds above 0, as a text such as "2.5"')
    return seconds


def _slo(
    at: Place,
    *,
    name: str,
    display_name: str,
    description: str,
    objective: float,
    window_days: float,
    counters: Counters,
    unit: str,
    threshold_s: float | None,
    clients: SecondTruth | None,
    alerts: bool,
) -> Slo:
    """Make an SLO. Errors of its values begin with the place of its name."""
    try:
        return Slo(
            name=name,
            display_name=display_name,
            description=description,
            objective=objective,
            window_days=window_days,
            good=counters.good,
            bad=counters.bad,
            total=counters.total,
            unit=unit,
            threshold_s=threshold_s,
            clients=clients,
            alerts=alerts,
        )
    except InvalidSlo as error:
        raise InvalidSlo(f"{at.where}: {error}") from None
