"""The run in a few lines: for the terminal, for a Markdown summary, for JUnit. Strings in, strings out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_llmchaos.report.aggregates import most_spent, times
from pytest_llmchaos.report.formatting import (
    NONE,
    VERDICT_MARK,
    VERDICT_MEANS,
    is_simulated,
    number,
    one_line,
    percent,
    ran_as,
    seconds,
    utc,
)
from pytest_llmchaos.report.tables import effect_rows, time_lines, time_rows

TIME_HEADS = ("time", "n", "mean", "median", "least to most", "standard deviation", "never")
EFFECT_HEADS = ("measure", "with the fault", "without", "difference", "95 % interval")

Run = Mapping[str, Any]
Trial = Mapping[str, Any]


def headline(run: Run) -> str:
    """The run in one sentence; what did not hold comes first."""
    counts = {verdict: n for verdict, n in run["counts"].items() if n}
    total = sum(counts.values())
    if not total:
        return "No experiment was performed"
    if set(counts) == {"held"}:
        return "The experiment held" if total == 1 else f"All {total} experiments held"
    parts: list[str] = []
    for verdict, n in counts.items():
        words = {"heal_failed": "left a fault behind", "invalid": "proves nothing" if n == 1 else "prove nothing"}
        parts.append(f"{n} {words.get(verdict, verdict)}" if parts else f"{n} of {total} {words.get(verdict, verdict)}")
    return ", ".join(parts)


def summary_lines(run: Run) -> list[str]:
    """One line a trial, what it took and why; then the line that repeats the run."""
    trials = run["trials"]
    wide = max((len(_title(trial)) for trial in trials), default=0)
    lines = []
    for trial in trials:
        verdict = str(trial["verdict"])
        line = f"{VERDICT_MARK[verdict]} {verdict:<12} {_title(trial):<{min(wide, 44)}}  {took(trial)}"
        lines.append(f"{line}  {why(trial)}".rstrip())
    lines += time_lines(times(trials))
    lines.append(headline(run) + (" (simulated engine)" if is_simulated(run) else ""))
    if run["exit_status"] is None:
        lines.append("the run did not end by itself: its last journal line is from " + utc(run["ended_unix_s"]))
    if run["replay"]:
        lines.append(f"repeat: {one_line(run['replay'], 400)}")
    return lines


def took(trial: Trial) -> str:
    """Detection and recovery, where there was something to detect."""
    parts: list[str] = []
    for key, word, who in (
        ("time_to_detect_s", "detected", "detected_by"),
        ("time_to_recover_s", "recovered", "repaired_by"),
        ("time_to_settle_s", "settled", None),
    ):
        if number(trial.get(key)) is not None:
            by = one_line(trial.get(who), 50) if who else ""
            parts.append(f"{word} {seconds(trial[key])}{f' ({by})' if by else ''}")
    return ", ".join(parts)


def why(trial: Trial) -> str:
    """The reason where a trial did not hold, on one line."""
    return (
        ""
        if trial["verdict"] == "held"
        else f"- {one_line(trial['reason'] or VERDICT_MEANS[str(trial['verdict'])], 240)}"
    )


def junit_properties(trial: Trial) -> list[tuple[str, str]]:
    """What a CI server may show beside a claim. Only values that exist."""
    properties = [("llmchaos_verdict", str(trial["verdict"]))]
    for key in (
        "trial",
        "scenario",
        "fault",
        "victim",
        "fidelity",
        "reason",
        "time_to_detect_s",
        "detected_by",
        "time_to_recover_s",
        "time_to_settle_s",
        "repaired_by",
        "healed",
        "replay",
    ):
        value = trial.get(key)
        if value is not None and value != "":
            properties.append((f"llmchaos_{key}", one_line(value, 1000)))
    for slo in trial["slos"]:
        name = one_line(slo.get("name"), 60)
        known = [key for key in ("value", "budget_spent") if number(slo.get(key)) is not None]
        properties += [(f"llmchaos_slo_{name}_{key}", f"{slo[key]:.6g}") for key in known]
    return properties


def markdown(run: Run) -> str:
    """`summary.md`: what a pull request or a CI job's page shows."""
    lines = [f"## {_md(headline(run))}", ""]
    if is_simulated(run):
        lines += ["**Simulated engine**: says nothing about a real model's speed.", ""]
    unlike = f" ({_md(ran_as(run))})" if ran_as(run) else ""
    what = f"{_md(run['runtime'])} runtime{unlike}, backend {_md(run['backend'])}"
    lines.append(f"Run {_code(run['run'])}, seed {_code(run['seed'])}, {what}, {utc(run['started_unix_s'])}")
    lines += [
        "",
        "| verdict | experiment | fault | detected | recovered | budget spent | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for trial in run["trials"]:
        cells = [
            f"{VERDICT_MARK[str(trial['verdict'])]} {trial['verdict']}",
            _md(f"{trial['scenario']}{_arm(trial)}"),
            _md(f"{trial['fault']} · {trial['fidelity'] or 'fidelity unknown'}"),
            _md(_by(trial, "time_to_detect_s", "detected_by")),
            _md(_by(trial, "time_to_recover_s", "repaired_by")),
            _md(f"{percent(spent[0])} · {spent[1]}" if (spent := most_spent(trial)) else NONE),
            _md(why(trial).removeprefix("- ")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += _table("repeated", TIME_HEADS, time_rows(times(run["trials"])))
    lines += _table("against its control arm", EFFECT_HEADS, effect_rows(run["trials"]))
    if run["replay"]:
        lines += ["", f"Repeat: {_code(run['replay'])}"]
    return "\n".join(lines) + "\n"


def _table(first: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A table of foreign text; nothing where it would be empty."""
    if not rows:
        return []
    lines = ["", f"| {' | '.join((first, *heads))} |", "|---" * (len(heads) + 1) + "|"]
    return lines + [f"| {' | '.join(map(_md, row))} |" for row in rows]


def _title(trial: Trial) -> str:
    return one_line(f"{trial['scenario']}: {trial['fault']}{_arm(trial)}", 80)


def _arm(trial: Trial) -> str:
    """What sets this trial apart from others of its experiment."""
    bare = " without remediator" if trial.get("remediator") is False else ""
    return bare + (f" #{trial['repeat']}" if trial.get("repeat") else "")


def _by(trial: Trial, key: str, who: str) -> str:
    by = trial.get(who)
    return f"{seconds(trial.get(key))}{f' · {by}' if by else ''}"


def _md(value: Any) -> str:
    """Foreign text inside a Markdown table: no markup, no cell borders, no autolinks, one line."""
    text = re.sub(r"([\\`*_{}\[\]()#|~!>])", r"\\\1", one_line(value, 300))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("://", ":&#8203;//").replace("@", "@&#8203;")


def _code(value: Any) -> str:
    """Foreign text as inline code; what could end it is replaced."""
    return "`" + one_line(value, 400).replace("`", "'").replace("|", "¦") + "`"
