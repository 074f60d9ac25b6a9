"""Prometheus rules of the SLOs: recorded error ratios and burn alerts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from pytest_llmchaos.slo.arithmetic import BURN_ALERTS, scaled_window_s
from pytest_llmchaos.slo.recorded import error_ratio, error_ratio_expression, events_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.slo.arithmetic import BurnAlert, Slo

# 30 days become 3 hours and the fast burn's hour 15 s, so an alert can start and end
# within a trial of one minute.
LAB_SCALE = 240.0
# One bad request alone must not page: 1 of 100 burns a budget of 0.5 % twice too fast.
LEAST_BAD = 2
_BOTH = "# An alert needs both windows: the long one shows that the burn matters, the short one that it continues.\n"
_WORDS = {"ttft": "TimeToFirstToken", "p95": "P95", "p99": "P99"}


@dataclass(frozen=True, kw_only=True)
class Windows:
    """One burn alert with its scaled windows, such as `15s`."""

    alert: BurnAlert
    long: str
    short: str


def lab_windows(scale: float) -> tuple[Windows, ...]:
    return tuple(
        Windows(
            alert=alert,
            long=f"{scaled_window_s(alert.long_s, scale):g}s",
            short=f"{scaled_window_s(alert.short_s, scale):g}s",
        )
        for alert in BURN_ALERTS
    )


def alert_name(slo: Slo, alert: BurnAlert) -> str:
    """Return the alert's name, such as StreamCompletenessFastBurn."""
    return "".join(_WORDS.get(word, word.capitalize()) for word in slo.name.split("-")) + alert.name


def events(window: str) -> str:
    return f"slo:events:increase{window}"


def alerts_of(slo: Slo, scale: float) -> tuple[Windows, ...]:
    """Return the alerts that fit the SLO.

    An alert whose factor even a total outage does not reach would never fire. A factor
    below 1 (an SLO window too short for the alert's) would fire on a budget that lasts.
    """
    return tuple(one for one in lab_windows(scale) if _has_alert(slo, one.alert))


def _has_alert(slo: Slo, alert: BurnAlert) -> bool:
    factor = alert.factor(slo.window_days)
    return slo.alerts and factor >= 1 and factor * slo.error_budget < 1


def factors_of(slos: Sequence[Slo], alert: BurnAlert) -> str:
    """Return the alert's factors over all SLOs, such as "14.4 or 3.36"."""
    factors = {alert.factor(slo.window_days) for slo in slos if _has_alert(slo, alert)}
    return " or ".join(f"{factor:g}" for factor in sorted(factors, reverse=True))


def rules(slos: Sequence[Slo], source: str, scale: float = LAB_SCALE) -> str:
    """Return the text of the rule file.

    Args:
        slos: The objectives.
        source: Name of the SLO file, for the header.
        scale: Factor by which the alerts' windows are shorter than for a month.
    """
    rows = ((w, factors_of(slos, w.alert)) for w in lab_windows(scale))
    table = "".join(
        f"#   {w.alert.name:<13} {factors:>4} times too fast over {w.long} and {w.short} "
        f"(for a month: {_span(w.alert.long_s)} and {_span(w.alert.short_s)}), {w.alert.severity}\n"
        for w, factors in rows
        if factors
    )
    windows = "Windows are for a month"
    if scale > 1:
        windows = f"Windows are {scale:g} times shorter than for a month, at least 4 scrapes. Burn rates are unchanged"
    head = f"# Generated from {source} by `llmchaos generate`. Change that file and generate again.\n" + (
        f"#\n# {windows}:\n{table}{_BOTH}" if table else "#\n# No SLO has a burn alert.\n"
    )
    return head + "groups:\n" + "\n".join(_group(slo, scale) for slo in slos)


def _group(slo: Slo, scale: float) -> str:
    alerts = alerts_of(slo, scale)
    shown = lab_windows(scale)[0].long
    longs = {one.long for one in alerts}
    windows = sorted({shown} | longs | {one.short for one in alerts}, key=lambda w: float(w[:-1]))
    lines = [f"  - name: slo-{slo.name}", "    rules:"]
    lines += _record("slo:objective:ratio", slo, f"vector({slo.objective:.12g})")
    for window in windows:
        lines += _record(error_ratio(window), slo, error_ratio_expression(slo, window))
        if window in longs:
            lines += _record(events(window), slo, events_expression(slo, window))
    burn = f'{error_ratio(shown)}{{slo="{slo.name}"}} / {slo.error_budget:.6g}'
    lines += _record(f"slo:burn_rate:rate{shown}", slo, burn)
    for one in alerts:
        lines += _alert(slo, one)
    return "\n".join(lines) + "\n"


def _record(name: str, slo: Slo, expression: str) -> list[str]:
    return [
        f"      - record: {name}",
        f"        expr: {_quote(expression)}",
        f"        labels: {{slo: {_scalar(slo.name)}}}",
    ]


def _alert(slo: Slo, windows: Windows) -> list[str]:
    alert = windows.alert
    factor = alert.factor(slo.window_days)
    of_slo = f'{{slo="{slo.name}"}}'
    limit = f"{factor:g} * {slo.error_budget:.6g}"
    share = "{{ $value | humanizePercentage }}"
    name, unit = _literal(slo.display_name or slo.name), _literal(slo.unit)
    summary = f"{name}: {share} of {unit} bad over {windows.long}, burn rate above {factor:g}"
    return [
        f"      - alert: {alert_name(slo, alert)}",
        "        expr: |",
        f"          {error_ratio(windows.long)}{of_slo} > {limit}",
        f"            and {error_ratio(windows.short)}{of_slo} > {limit}",
        f"            and {error_ratio(windows.long)}{of_slo} * {events(windows.long)}{of_slo} >= {LEAST_BAD}",
        f'        labels: {{severity: {alert.severity}, slo: {_scalar(slo.name)}, signal: slo, burn: "{factor:g}"}}',
        "        annotations:",
        f"          summary: {_quote(summary)}",
        f"          description: {_quote(_literal(slo.description))}",
    ]


def _literal(text: str) -> str:
    """Escape a text for Prometheus's templates."""
    return text.replace("{{", '{{ "{{" }}')


def _scalar(name: str) -> str:
    """Return an SLO's name as YAML, in quotes if it looks like a number or a flag."""
    return name if isinstance(yaml.safe_load(name), str) else _quote(name)


def _quote(text: str) -> str:
    """Return the text as a single-quoted YAML scalar."""
    return "'" + text.replace("'", "''") + "'"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
