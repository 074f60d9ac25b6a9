"""Reader of OpenSLO v1 files, limited to ratios of counters.

Every other part of the format is an error, because ignoring it would judge a different
objective from the one in the file.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pytest_llmchaos.slo.arithmetic import LEAST_BUDGET, InvalidSlo, SecondTruth, Slo
from pytest_llmchaos.slo.selectors import expected_of
from pytest_llmchaos.slo.yaml_nodes import Place, documents

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = {"d": 1.0, "w": 7.0, "h": 1 / 24}
_DURATION = re.compile(r"([0-9]{1,5})([dwh])")
_LONGEST_DAYS = 3660
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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSlo(f"{path}: must be a text file in UTF-8 that can be read: {error}") from None
    return load_slos(text, name or str(path))


def load_slos(text: str, source: str) -> tuple[Slo, ...]:
    """Read the SLOs of an OpenSLO v1 text, in its order.

    Args:
        text: YAML documents of kind SLO.
        source: Name of the text in error messages.

    Raises:
        InvalidSlo: The text is not a valid list of SLOs. The message begins with
            source, line and column.
    """
    found: dict[str, Slo] = {}
    for document in documents(text, source, InvalidSlo):
        document.only("apiVersion", "kind", "metadata", "spec")
        document.child("apiVersion").exactly("openslo/v1")
        document.child("kind").exactly("SLO")
        slo = _slo(document.child("metadata"), document.child("spec"))
        if slo.name in found:
            document.child("metadata").child("name").fail("unique in the file")
        found[slo.name] = slo
    if not found:
        raise InvalidSlo(f"{source}:1:1: must hold at least one document of kind SLO, got none")
    return tuple(found.values())


def _slo(metadata: Place, spec: Place) -> Slo:
    metadata.only("name", "displayName", "annotations", "labels")
    spec.only("description", "service", "indicator", "timeWindow", "budgetingMethod", "objectives")
    spec.child("budgetingMethod").exactly("Occurrences")
    name = metadata.child("name")
    display_name = metadata.optional("displayName")
    annotations = metadata.optional("annotations")
    if annotations is not None:
        annotations.only(_UNIT, _THRESHOLD_S, _ALERTS, _CLIENTS)
    unit = annotations.optional(_UNIT) if annotations else None
    threshold_s = annotations.optional(_THRESHOLD_S) if annotations else None
    alerts = annotations.optional(_ALERTS) if annotations else None
    clients = annotations.optional(_CLIENTS) if annotations else None
    indicator = spec.child("indicator")
    indicator.only("metadata", "spec")
    indicator.child("spec").only("ratioMetric")
    ratio = indicator.child("spec").child("ratioMetric")
    ratio.only("counter", "good", "total")
    if not ratio.child("counter").flag():
        ratio.child("counter").fail("true (rates and gauges cannot be added up to events)")
    try:
        return Slo(
            name=name.text(),
            display_name=_line(display_name) if display_name else "",
            description=_line(spec.child("description")),
            objective=_objective(spec.child("objectives")),
            window_days=_window_days(spec.child("timeWindow")),
            good=_selector(ratio.child("good")),
            total=_selector(ratio.child("total")),
            unit=_line(unit) if unit else "requests",
            threshold_s=_seconds(threshold_s) if threshold_s else None,
            clients=_TRUTHS[_TRUTHS.index(clients.exactly(*_TRUTHS))] if clients else None,
            alerts=alerts is None or alerts.exactly("true", "false") == "true",
        )
    except InvalidSlo as error:
        if str(error).startswith(f"{name.source}:"):
            raise
        raise InvalidSlo(f"{name.where}: {error}") from error


def _objective(objectives: Place) -> float:
    found = list(objectives.items())
    if len(found) != 1:
        objectives.fail("a list of exactly one objective (write a second SLO for a second target)")
    (objective,) = found
    objective.only("displayName", "target")
    target = objective.child("target")
    if not 0 < target.number() <= 1 - LEAST_BUDGET:
        target.fail("a share above 0 and below 1 (99.5 % is 0.995), by 1e-12 at least")
    return target.number()


def _window_days(windows: Place) -> float:
    found = list(windows.items())
    if len(found) != 1:
        windows.fail("a list of exactly one window")
    (window,) = found
    window.only("duration", "isRolling")
    if not window.child("isRolling").flag():
        window.child("isRolling").fail("true (calendar months are not supported)")
    duration = window.child("duration")
    match = _DURATION.fullmatch(duration.text())
    days = int(match[1]) * _DAYS[match[2]] if match else 0.0
    if not 0 < days <= _LONGEST_DAYS:
        duration.fail(f"a duration such as 30d, 4w or 12h, of at most {_LONGEST_DAYS}d")
    return days


def _line(place: Place) -> str:
    """Return the text on one line, for titles and annotations."""
    line = " ".join(place.text().split())
    if _UNWRITABLE.search(line):
        place.fail("a text without control characters")
    return line


def _selector(metric: Place) -> str:
    metric.only("metricSource")
    source = metric.child("metricSource")
    source.only("type", "spec")
    source.child("type").exactly("Prometheus")
    source.child("spec").only("query")
    query = source.child("spec").child("query")
    selector = _line(query)
    expected = expected_of(selector)
    if expected is not None:
        query.fail(f"a selector of counters, {expected}")
    return selector


def _seconds(place: Place) -> float:
    seconds = float(place.text()) if _SECONDS.fullmatch(place.text()) else 0.0
    if not 0 < seconds < math.inf:
        place.fail('seconds above 0, as a text such as "2.5"')
    return seconds
