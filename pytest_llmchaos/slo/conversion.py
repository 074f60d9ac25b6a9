"""OpenSLO v1 from the files of Sloth and Pyrra, and from OpenSLO v1alpha."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import yaml

from pytest_llmchaos.slo.arithmetic import InvalidSlo
from pytest_llmchaos.slo.formats import PYRRA, SLOTH, SLOTH_CRD, V1ALPHA, format_of
from pytest_llmchaos.slo.openslo import load_slos, name_like, not_good
from pytest_llmchaos.slo.queries import Counters, counter_of, has_line_break_in_quotes
from pytest_llmchaos.slo.selectors import expected_of, matchers_of
from pytest_llmchaos.slo.yaml_nodes import Problems, objects

if TYPE_CHECKING:
    from pytest_llmchaos.slo.yaml_nodes import Place

_SLOTH_WINDOW = "30d"
# An SLO has two alerts. Files of Kubernetes name them in the second way.
_SLOTH_ALERTS = ("page_alert", "ticket_alert", "pageAlert", "ticketAlert")
_SLOTH_ALERTS_OF_AN_SLO = 2
_UNITS = {"Minute": "m", "Hour": "h", "Day": "d", "Week": "w", "Month": "M", "Quarter": "Q", "Year": "Y"}
_NO_COUNTERS = "two counters, as a gauge or a computed share has no number of events"
Node: TypeAlias = "str | float | bool | list[Node] | dict[str, Node]"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """An OpenSLO v1 text, and what of the source it lacks.

    Attributes:
        text: The documents, empty if no SLO could be converted.
        notes: Differences to the source, each with its place.
        problems: SLOs that were not converted, each with its place and reason.
    """

    text: str
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def convert(text: str, source: str) -> Conversion:
    """Convert a file of Sloth, Pyrra or OpenSLO v1alpha.

    Raises:
        InvalidSlo: The text is not YAML.
    """
    converter = _Converter(
        problems=Problems(source=source, error=InvalidSlo), notes=Problems(source=source, error=InvalidSlo)
    )
    written = objects(text, source, InvalidSlo)
    for document in written:
        converter.problems.of(converter.document, document)
    problems = converter.problems.lines
    if not written:
        problems = (f"{source}:1:1: must hold at least one SLO, got an empty file",)
    head = (
        "# Written by `llmchaos slo convert`. Check the windows and the counters: a service that is killed or restarted\n"
        "# loses its own, and a claim on them is inconclusive then (CounterReset). Those of clients or of a proxy survive.\n"
    )
    body = "---\n".join(converter.found.values())
    return Conversion(text=head + body if body else "", notes=converter.notes.lines, problems=problems)


@dataclass(frozen=True, kw_only=True)
class _Converter:
    problems: Problems
    notes: Problems
    found: dict[str, str] = field(default_factory=dict)

    def document(self, document: Place) -> None:
        """Convert one object."""
        if not document.is_mapping:
            document.fail("a mapping")
        name = format_of(document)
        if name == PYRRA:
            self._pyrra(document)
        elif name == V1ALPHA:
            self._v1alpha(document)
        elif name:
            self._sloth(document, name)
        else:
            document.fail(f"of {SLOTH}, {SLOTH_CRD}, {PYRRA} or {V1ALPHA}")

    def _sloth(self, document: Place, name: str) -> None:
        root = document.child("spec") if name == SLOTH_CRD else document
        queries = ("errorQuery", "totalQuery") if name == SLOTH_CRD else ("error_query", "total_query")
        service = root.child("service").text()
        for one in root.child("slos").items():
            self.problems.of(self._sloth_slo, one, service, *queries)

    def _sloth_slo(self, slo: Place, service: str, error: str, total: str) -> None:
        sli = slo.child("sli")
        if raw := sli.optional("raw"):
            raw.fail(_NO_COUNTERS)
        if plugin := sli.optional("plugin"):
            plugin.fail("events with the plugin's queries, which are not in this file")
        events = sli.child("events")
        selector = _counter(events.child(total))
        alerting = slo.optional("alerting")
        off = [_is_off(alerting, key) for key in _SLOTH_ALERTS]
        self.notes.of(_note, slo, f"Sloth's default window is written, {_SLOTH_WINDOW}")
        self._write(
            slo,
            name=slo.child("name").text(),
            service=service,
            description=slo.optional("description"),
            window=_SLOTH_WINDOW,
            target=round(slo.child("objective").number() / 100, 15),
            counters=not_good(events.child(error), selector),
            alerts=sum(off) < _SLOTH_ALERTS_OF_AN_SLO,
        )

    def _pyrra(self, document: Place) -> None:
        document.child("kind").exactly("ServiceLevelObjective")
        spec = document.child("spec")
        indicator = spec.child("indicator")
        for key in ("bool_gauge", "latencyNative"):
            if gauge := indicator.optional(key):
                gauge.fail(f"ratio or latency over {_NO_COUNTERS}")
        is_ratio = indicator.optional("ratio") is not None
        ratio = indicator.child("ratio" if is_ratio else "latency")
        total = _counter(ratio.child("total").child("metric"))
        good = ratio.child("errors" if is_ratio else "success").child("metric")
        if not is_ratio and "le" not in [label for label, _, _ in matchers_of(_counter(good))[1]]:
            good.fail('a bucket, with its bound in the label le, such as le="0.5"')
        if grouping := ratio.optional("grouping"):
            self.notes.of(_note, grouping, "one SLO over all groups is written")
        alerting = spec.optional("alerting")
        self._write(
            document,
            name=document.child("metadata").child("name").text(),
            service=document.child("metadata").child("name").text(),
            description=spec.optional("description"),
            window=spec.child("window").text(),
            target=round(_number(spec.child("target")) / 100, 15),
            counters=not_good(good, total) if is_ratio else Counters(good=_counter(good), total=total),
            alerts=not (alerting and _is_set(alerting, "disabled")),
        )

    def _v1alpha(self, document: Place) -> None:
        if document.child("kind").exactly("SLO", "Service") == "Service":
            return
        spec = document.child("spec")
        if method := spec.optional("budgetingMethod"):
            method.exactly("Occurrences")
        name = document.child("metadata").child("name").text()
        given = list(spec.child("objectives").items())
        for one in given:
            self.problems.of(self._v1alpha_slo, one, spec, name, is_alone=len(given) == 1)

    def _v1alpha_slo(self, objective: Place, spec: Place, name: str, *, is_alone: bool) -> None:
        target = objective.child("target").number()
        metrics = objective.child("ratioMetrics")
        for key in ("counter", "incremental"):
            if (counts := metrics.optional(key)) and not counts.flag():
                counts.fail(f"true ({_NO_COUNTERS})")
        sides = []
        for side in (metrics.child("good"), metrics.child("total")):
            kind = side.optional("source")
            if kind and kind.text().lower() != "prometheus":
                kind.fail("'prometheus'")
            sides.append(_counter(side.child("query")))
        windows = spec.child("timeWindows")
        (window, *others) = list(windows.items()) or [windows]
        if others or window is windows or window.optional("calendar"):
            windows.fail("a list of one rolling window")
        unit = window.child("unit")
        self._write(
            objective,
            name=name if is_alone else f"{name}-{100 * target:.10g}",
            service=spec.child("service").text(),
            description=spec.optional("description"),
            window=f"{window.child('count').text()}{_UNITS[unit.exactly(*_UNITS)]}",
            target=target,
            counters=Counters(good=sides[0], total=sides[1]),
            alerts=True,
        )

    def _write(
        self,
        at: Place,
        *,
        name: str,
        service: str,
        description: Place | None,
        window: str,
        target: float,
        counters: Counters,
        alerts: bool,
    ) -> None:
        """Keep a document of an SLO, if the reader of OpenSLO v1 accepts it."""
        called = name_like(name)
        if called in self.found:
            called = name_like(f"{service}-{name}")
        if called in self.found:
            at.fail(f"an SLO with a name of its own (there are two of {called})")
        metadata: dict[str, Node] = {"name": called}
        if not alerts:
            metadata["annotations"] = {"llmchaos/alerts": "false"}
        text = description.text() if description and not description.is_blank else name
        sides: dict[str, Node] = {
            side: _metric(selector)
            for side, selector in (("good", counters.good), ("bad", counters.bad), ("total", counters.total))
            if selector
        }
        document: dict[str, Node] = {
            "apiVersion": "openslo/v1",
            "kind": "SLO",
            "metadata": metadata,
            "spec": {
                "description": " ".join(text.split()),
                "service": service,
                "budgetingMethod": "Occurrences",
                "timeWindow": [{"duration": window, "isRolling": True}],
                "objectives": [{"target": target}],
                "indicator": {
                    "metadata": {"name": called},
                    "spec": {"ratioMetric": {"counter": True} | sides},
                },
            },
        }
        dumped = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
        try:
            load_slos(dumped, "")
        except InvalidSlo as error:
            reasons = " and ".join(re.sub(r"^:\d+:\d+: ", "", line) for line in str(error).splitlines())
            raise InvalidSlo(f"{at.where}: cannot be written as OpenSLO v1: {reasons}") from None
        self.found[called] = dumped


def _metric(query: str) -> Node:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def _counter(query: Place) -> str:
    """Return the selector of the only counter in a query."""
    selector = counter_of(query.text())
    expected = expected_of(selector)
    if expected is not None or has_line_break_in_quotes(query.text()):
        query.fail(f"a selector of counters, alone or in sum(), rate() or increase(): {expected or 'on one line'}")
    return selector


def _number(place: Place) -> float:
    """Return a number, which Pyrra writes in quotes."""
    try:
        return float(place.text())
    except ValueError:
        place.fail("a number")


def _is_off(alerting: Place | None, key: str) -> bool:
    """True if the file disables an alert of Sloth."""
    alert = alerting.optional(key) if alerting else None
    return alert is not None and _is_set(alert, "disable")


def _is_set(alert: Place, key: str) -> bool:
    flag = alert.optional(key)
    return flag is not None and flag.flag()


def _note(place: Place, note: str) -> None:
    raise InvalidSlo(f"{place.where}: {note}")
