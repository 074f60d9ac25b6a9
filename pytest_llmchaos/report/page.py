"""Renders the run as one HTML page with styles, scripts, drawings and data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from pytest_llmchaos.evidence.trial_result import RunResult, TrialResult
from pytest_llmchaos.report import aggregates, formatting, known
from pytest_llmchaos.report.arm_pairs import arm_pairs
from pytest_llmchaos.report.assets import asset, environment, security_policy
from pytest_llmchaos.report.binning import Curves, Raw, curves
from pytest_llmchaos.report.column_labels import label
from pytest_llmchaos.report.markers import fault_start_s, marks
from pytest_llmchaos.report.sparklines import sparkline, strip
from pytest_llmchaos.report.summary import failed_claims, headline, headline_verdict
from pytest_llmchaos.report.tables import effect_rows
from pytest_llmchaos.report.task_lanes import task_lanes, task_rows
from pytest_llmchaos.report.timeline import timeline
from pytest_llmchaos.report.trial_view import (
    chronology,
    claim_words,
    coincidences,
    load_words,
    outcome_words,
    plan_rows,
    raw_values,
    rows_of,
    stack_rows,
    tiles,
)

if TYPE_CHECKING:
    from jinja2 import Environment

LIMIT_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Amount of detail that the page shows. run.json always has everything."""

    points: int  # bins of a chart
    dots: int  # single requests in all charts together
    log_bytes: int  # of all logs together
    cut: int  # characters of one text
    rows: int  # of one table


DETAILS = (
    Detail(points=240, dots=12_000, log_bytes=120_000, cut=4000, rows=200),
    Detail(points=120, dots=4_000, log_bytes=60_000, cut=1500, rows=60),
    Detail(points=60, dots=0, log_bytes=20_000, cut=600, rows=30),
    Detail(points=20, dots=0, log_bytes=0, cut=120, rows=5),
)
POINTS = 6000  # of all charts together: more never fit, so such a detail is skipped


def page(run: RunResult, raws: Mapping[str, Raw], logs: Mapping[str, str]) -> str:
    """Return the page in the most detail that fits LIMIT_BYTES."""
    html = ""
    charts = len(run.trials) + sum(trial.arm is not None for trial in run.trials)  # arms are drawn side by side, too
    for detail in [detail for detail in DETAILS[:-1] if detail.points * charts <= POINTS] + [DETAILS[-1]]:
        html = _render(run, raws, logs, detail)
        if len(html.encode("utf-8", "replace")) <= LIMIT_BYTES:
            break
    return html


def _render(run: RunResult, raws: Mapping[str, Raw], logs: Mapping[str, str], detail: Detail) -> str:
    watermark = "simulated engine" if formatting.is_simulated(run) else ""
    each = detail.dots // max(1, len(run.trials))
    pairs = arm_pairs(run.trials)
    ends_s = {trial.trial: _until_s(trial, raws.get(trial.trial, Raw())) for trial in run.trials}
    # The arms of a pair have one scale of time.
    ends_s |= {one.trial: max(ends_s[arm.trial] for arm in pair.trials) for pair in pairs for one in pair.trials}
    shown, timelines = [], {}
    for trial in run.trials:
        raw = raws.get(trial.trial, Raw())
        until_s = ends_s[trial.trial]
        drawn = curves(raw, until_s=until_s, points=detail.points, dots=each)
        timelines[trial.trial] = timeline(trial, drawn, watermark)
        shown.append(
            {
                "trial": trial,
                "timeline": timelines[trial.trial],
                "spark": sparkline(drawn),
                "tasks": task_rows(trial.tasks) if trial.tasks else [],
                "lanes": task_lanes(trial.tasks) if trial.tasks else None,
                "tiles": tiles(trial, raw, formatting.ran_as(run)),
                "chronology": chronology(trial),
                "coincidences": coincidences(trial)[: detail.rows],
                "plan": plan_rows(trial.plan)[: detail.rows],
                "load": load_words(trial.load),
                "spent": (aggregates.most_spent(trial) or (None, ""))[0],
                "data": _data(trial, drawn),
            }
        )
    style, script = asset("vendor/uPlot.min.css") + asset("page_files/page.css"), asset("page_files/page.js")
    library = f"/*\n{asset('vendor/LICENSE')}*/\n{asset('vendor/uPlot.iife.min.js')}"
    return label(
        _environment(detail)
        .get_template("page.html.j2")
        .render(
            run=run,
            headline=headline(run),
            worst=headline_verdict(run),
            took=formatting.duration(run.started_unix_s, run.ended_unix_s),
            environment_rows=(rows_of(run.environment) + stack_rows(run.stack))[: detail.rows],
            watermark=watermark,
            shown=shown,
            times=aggregates.times(run.trials),
            effects=effect_rows(run.trials),
            pairs=pairs,
            timelines=timelines,
            listed=known.listed(run.trials),
            coverage=aggregates.coverage(run),
            logs=_tails(logs, detail.log_bytes),
            less=detail is not DETAILS[0],
            detail=detail,
            style=Markup(style),  # noqa: S704  our own files, and data that _json escaped
            script=Markup(script),  # noqa: S704
            library=Markup(library),  # noqa: S704
            data=_json([item["data"] for item in shown]),
            policy=security_policy(style, [library, script]),
        )
    )


@cache
def _environment(detail: Detail) -> Environment:
    """Return the Jinja environment, which escapes every value by default."""
    made = environment(detail.cut)

    def short(value: object, cut: int = 100) -> str | None:
        return None if value is None else formatting.one_line(value, cut)

    made.globals.update(short=short, fault_of=aggregates.fault_of)
    made.globals.update(faults_done=aggregates.faults_done, link=known.link)
    made.globals.update(reached=aggregates.is_reached, unasked=aggregates.unasked)
    made.globals.update(
        failed_claims=failed_claims, claim_words=claim_words, outcome_words=outcome_words, raw_values=raw_values
    )
    made.globals.update(strip=strip, visible_log=lambda text: escape(formatting.visible(text, LIMIT_BYTES)))
    return made


def _json(value: object) -> Markup:
    """Return ASCII JSON that cannot end its script element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _until_s(trial: TrialResult, raw: Raw) -> float:
    """Return the time axis' end: the last phase's end or due time, at least 1 s."""
    ends = [phase.to_s or 0.0 for phase in trial.phases]
    return max([*ends, max(raw.due_s, default=0.0), 1.0])


def _data(trial: TrialResult, drawn: Curves) -> dict[str, object]:
    """Return the data of the interactive charts.

    Latencies are whole milliseconds to keep the page small, with -1 for infinity.
    """

    def milliseconds(values: list[float | None]) -> list[int | None]:
        return [None if value is None else -1 if value == math.inf else round(value * 1000) for value in values]

    return {
        "width_s": drawn.width_s,
        "until_s": round(drawn.until_s, 3),
        "offered": drawn.offered,
        "ok": drawn.ok,
        "bad": {kind: values for kind, values in drawn.bad.items() if any(values)},
        "ttft_p50": milliseconds(drawn.ttft_p50_s),
        "ttft_p95": milliseconds(drawn.ttft_p95_s),
        "e2e_p95": milliseconds(drawn.e2e_p95_s),
        "inflight": drawn.inflight,
        "phases": [[formatting.one_line(phase.name, 20), phase.from_s, phase.to_s] for phase in trial.phases],
        "marks": [[round(mark.at_s, 3), mark.css, mark.label] for mark in marks(trial) if mark.key],
        "fault_s": fault_start_s(trial),
    }


def _tails(logs: Mapping[str, str], budget: int) -> dict[str, str]:
    """Return the end of each log, `budget` characters in total."""
    each = budget // max(1, len(logs))
    return {name: text[-each:] for name, text in logs.items()} if each else {}
