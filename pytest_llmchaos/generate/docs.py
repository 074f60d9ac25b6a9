"""Tables of docs/slo.md and docs/faults.md, between their marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate.rules import alert_name, alerts_of, factors_of, lab_windows
from pytest_llmchaos.slo.arithmetic import DAY_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.subject.lab_signals import Expected

BEGIN, END = "<!-- generated from stack/slo.yaml: begin -->", "<!-- generated from stack/slo.yaml: end -->"
SIGNALS_BEGIN = "<!-- generated from pytest_llmchaos/subject/lab_signals.py: begin -->"
SIGNALS_END = "<!-- generated from pytest_llmchaos/subject/lab_signals.py: end -->"


def page(old: str, slos: Sequence[Slo], scale: float) -> str:
    """Return the page with a new generated part."""
    return _between(old, BEGIN, f"{_slos(slos)}\n{_alerts(slos, scale)}", END)


def faults_page(old: str, expected: Sequence[Expected]) -> str:
    """Return the page with a new table of faults and signals."""
    rows = [
        f"| `{one.fault}`{''.join(f', `{name}={value!r}`' for name, value in one.options)} | {one.on} | "
        f"{_names(one.alerts)} | {_names(one.rules)} | {one.why} |"
        for one in expected
    ]
    head = "| fault | on | alerts, without the remediator | rule of the remediator | note |\n|---|---|---|---|---|"
    return _between(old, SIGNALS_BEGIN, "\n".join([head, *rows, ""]), SIGNALS_END)


def _between(old: str, begin: str, text: str, end: str) -> str:
    head, begins, rest = old.partition(begin)
    _, ends, tail = rest.partition(end)
    if not (begins and ends):
        raise BadScenario(f"the page must hold the lines {begin!r} and {end!r}, in this order: add them")
    return f"{head}{begin}\n{text}{end}{tail}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def own_page(slos: Sequence[Slo], source: str, scale: float) -> str:
    """Return a page of the tables alone."""
    return (
        f"<!-- Generated from {source} by `llmchaos generate`. Change that file and generate again. -->\n\n"
        f"# Service levels\n\n{_slos(slos)}\n{_alerts(slos, scale)}"
    )


def _slos(slos: Sequence[Slo]) -> str:
    rows = [
        f"| `{slo.name}` | {100 * slo.objective:.12g} % in {_window(slo.window_days)} | {_cell(slo.description)} | "
        f"{_code(slo.good)} | {_code(slo.total)} | {slo.error_budget * 8 * slo.window_days * DAY_S:,.0f} |"
        for slo in slos
    ]
    return "\n".join(
        [
            "| SLO | objective | meaning | good | total | bad events allowed in the window at 8 events/s |",
            "|---|---|---|---|---|---:|",
            *rows,
            "",
        ]
    )


def _alerts(slos: Sequence[Slo], scale: float) -> str:
    rows = [
        f"| {factors_of(slos, w.alert)} | {w.alert.severity} | {w.alert.budget_share:.0%} in {w.alert.long_s / 3600:g} h | "
        f"{w.alert.long_s / 3600:g} h and {w.alert.short_s / 60:g} min | {w.long} and {w.short} | "
        f"{', '.join(f'`{alert_name(slo, w.alert)}`' for slo in slos if w in alerts_of(slo, scale))} |"
        for w in lab_windows(scale)
        if factors_of(slos, w.alert)
    ]
    if not rows:
        return "No SLO has a burn alert.\n"
    return "\n".join(
        [
            "| burn rate | severity | budget spent | windows for a month | windows in the rules | alerts |",
            "|---:|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _window(days: float) -> str:
    return f"{days:g} days" if days >= 1 else f"{24 * days:g} hours"


def _code(selector: str) -> str:
    return "`" + _cell(selector) + "`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
