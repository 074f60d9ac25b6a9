"""Summary of a run for the terminal, Markdown and JUnit."""

from __future__ import annotations

import re

from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.evidence.trial_result import ClaimResult, RunResult, TrialResult
from pytest_llmchaos.plan.known import is_web_link
from pytest_llmchaos.report.aggregates import detected_by, fault_of, faults_done, most_spent, times, unasked
from pytest_llmchaos.report.arm_pairs import arm_rows
from pytest_llmchaos.report.formatting import (
    NONE,
    VERDICT_MARK,
    VERDICT_MEANS,
    coarse,
    count,
    is_simulated,
    one_line,
    percent,
    ran_as,
    seconds,
    share,
    utc,
)
from pytest_llmchaos.report.known import count_known, known_lines, listed, vanished
from pytest_llmchaos.report.tables import effect_rows, time_lines, time_rows
from pytest_llmchaos.report.unread import damaged, unplaced

TIME_HEADS = ("time", "n", "mean", "median", "least to most", "standard deviation", "never")
ARM_HEADS = ("value", "arms", "first", "second", "effect", "95 % interval", "requests", "claim", "outcome")
EFFECT_HEADS = ("measure", "with the fault", "without", "difference", "95 % interval")

# Meaning of pytest's exit status if all trials held. Other statuses end before a trial.
STATUS_MEANS = {
    1: "other tests, or fixtures, failed",
    2: "the session was interrupted",
    3: "an internal error, or a cleanup that failed",
}


def headline(run: RunResult) -> str:
    """Return the run in one sentence, with the most urgent verdict first."""
    lost = len(damaged(run.unreadable))
    return _outcome(run) + (f"; {count(lost, 'journal line')} could not be read" if lost else "")


def _outcome(run: RunResult) -> str:
    counts = {verdict: n for verdict, n in run.counts.by_verdict().items() if n}
    total = sum(counts.values())
    if not total:
        return "No experiment can be read" if damaged(run.unreadable) else "No experiment was performed"
    if set(counts) == {"held"}:
        held = "The experiment held" if total == 1 else f"All {total} experiments held"
        return (f"{total} of {total} held in the readable lines" if unplaced(run.unreadable) else held) + _ended(run)
    parts: list[str] = []
    for verdict, n in counts.items():
        words = {"heal_failed": "left a fault in place", "invalid": "proves nothing" if n == 1 else "prove nothing"}
        as_known = f" ({count_known(run)} known)" if verdict == "refuted" and count_known(run) else ""
        of_total = "" if parts else f" of {total}"
        parts.append(f"{n}{of_total} {words.get(verdict, verdict)}{as_known}")
    return ", ".join(parts)


def _ended(run: RunResult) -> str:
    """Return the end of the run, if it qualifies a headline of held trials."""
    if run.exit_status is None:
        return " until the run was cut off"
    if run.exit_status == 0:
        return ""
    gone = len(vanished(run.trials))
    means = f"{count(gone, 'known refutation')} vanished" if gone else STATUS_MEANS.get(run.exit_status)
    return f", and pytest ended with status {run.exit_status}" + (f": {means}" if means else "")


def headline_verdict(run: RunResult) -> str:
    """Return the verdict whose mark and colour the headline gets.

    `inconclusive` if all trials held, but the run failed or has unreadable lines.
    """
    worst = next((verdict for verdict, n in run.counts.by_verdict().items() if n), "inconclusive")
    if worst == "held" and (run.exit_status != 0 or unplaced(run.unreadable)):
        return "inconclusive"
    return worst


def summary_lines(run: RunResult) -> list[str]:
    """Return one line for each trial, the headline, and the command that repeats it."""
    trials = run.trials
    wide = max((len(_title(trial)) for trial in trials), default=0)
    lines = []
    for trial in trials:
        verdict = trial.verdict
        line = f"{VERDICT_MARK[verdict]} {verdict:<12} {_title(trial):<{min(wide, 44)}}  {took(trial)}"
        lines.append(f"{line}  {why(trial)}".rstrip())
        lines += [f"{'':<15}{more}" for more in _more(trial)]
    lines += time_lines(times(trials))
    lines.append(headline(run) + (" (simulated engine)" if is_simulated(run) else ""))
    if run.exit_status is None:
        lines.append("the run was cut off: its last journal line is from " + utc(run.ended_unix_s))
    if run.replay:
        lines.append(f"repeat: {one_line(run.replay, 400)}")
    return lines


def _more(trial: TrialResult) -> tuple[str, ...]:
    return (*faults_done(trial), *missed_objectives(trial), *coarse_shares(trial), *known_lines(trial))


def took(trial: TrialResult) -> str:
    """Return the trial's times in words."""
    parts: list[str] = []
    for word, took_s, who in (
        ("detected", trial.time_to_detect_s, detected_by(trial)),
        ("recovered", trial.time_to_recover_s, trial.repaired_by),
        ("settled", trial.time_to_settle_s, None),
        ("relapsed", trial.relapsed_s, None),
    ):
        if took_s is not None:
            by = one_line(who, 80)
            parts.append(f"{word} {seconds(took_s)}{f' ({by})' if by else ''}")
    return ", ".join(parts)


def why(trial: TrialResult) -> str:
    """Return the reason of a trial that did not hold, on one line."""
    if trial.verdict == "held":
        return ""
    return f"- {one_line(trial.reason or VERDICT_MEANS[trial.verdict], 240)}{more_failed(trial)}"


def more_failed(trial: TrialResult) -> str:
    """Return how many claims failed in addition to the one in the trial's reason."""
    n = len(failed_claims(trial))
    return f"; and {count(n, 'more claim')} failed" if n else ""


def missed_objectives(trial: TrialResult) -> list[str]:
    """Return a line if objectives were missed and no claim reads their results."""
    missed = [f"{one_line(slo.name, 40)} {share(slo)} (objective {percent(slo.objective)})" for slo in unasked(trial)]
    return [f"objective missed, and no claim reads it: {', '.join(missed)}"] if missed else []


def coarse_shares(trial: TrialResult) -> list[str]:
    """Return a line for each SLO whose share a coarse histogram only bounds."""
    return [
        f"{one_line(slo.name, 40)} is {share(slo)} (objective {percent(slo.objective)}): {coarse(slo.interval)}"
        for slo in trial.slos
        if slo.interval is not None
    ]


def failed_claims(trial: TrialResult) -> list[ClaimResult]:
    """Return the other failed claims, empty if the reason is the judge's."""
    failed = [claim for claim in trial.claims if claim.outcome in {"failed", "error"}]
    first = next((one for one in failed if trial.reason in {one.message, f"{one.nodeid} {one.outcome}"}), None)
    return [claim for claim in failed if first is not None and claim is not first]


def junit_properties(trial: TrialResult) -> list[tuple[str, str]]:
    """Return the properties of a claim in JUnit XML, without missing values."""
    shown: dict[str, object] = {
        "trial": trial.trial,
        "scenario": trial.scenario,
        "fault": trial.fault,
        "arm": trial.arm,
        "victim": trial.victim,
        "fault_done": "; ".join(faults_done(trial)),
        "fidelity": trial.fidelity,
        "reason": trial.reason,
        "time_to_detect_s": trial.time_to_detect_s,
        "detected_by": trial.detected_by,
        "detection_source": trial.detection_source,
        "time_to_recover_s": trial.time_to_recover_s,
        "time_to_settle_s": trial.time_to_settle_s,
        "recovery_resolution_s": trial.recovery_resolution_s,
        "relapsed_s": trial.relapsed_s,
        "repaired_by": trial.repaired_by,
        "healed": trial.healed,
        "replay": trial.replay,
    }
    properties = [("llmchaos_verdict", str(trial.verdict))]
    properties += [
        (f"llmchaos_{key}", redact(one_line(value, 1000))) for key, value in shown.items() if value not in {None, ""}
    ]
    for slo in trial.slos:
        known = {"value": slo.value, "budget_spent": slo.budget_spent}
        name = f"llmchaos_slo_{one_line(slo.name, 60)}"
        properties += [(f"{name}_{key}", f"{value:.6g}") for key, value in known.items() if value is not None]
    return properties


def markdown(run: RunResult) -> str:
    """Return `summary.md`, for a pull request or a CI job's page."""
    lines = [f"## {_md(headline(run))}", ""]
    if is_simulated(run):
        lines += ["**Simulated engine**: this run does not show a real model's speed.", ""]
    unlike = f" ({_md(ran_as(run))})" if ran_as(run) else ""
    what = f"{_md(run.runtime)} runtime{unlike}, backend {_md(run.backend)}"
    lines.append(f"Run {_code(run.run)}, seed {_code(run.seed)}, {what}, {utc(run.started_unix_s)}")
    lines += [
        "",
        "| verdict | experiment | fault | detected | recovered | budget spent | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for trial in run.trials:
        cells = [
            f"{VERDICT_MARK[trial.verdict]} {trial.verdict}",
            _md(f"{trial.scenario}{_arm(trial)}"),
            "<br>".join(map(_md, [f"{fault_of(trial)} · {trial.fidelity or 'fidelity unknown'}", *faults_done(trial)])),
            _md(_by(trial.time_to_detect_s, detected_by(trial))),
            _md(_by(trial.time_to_recover_s, trial.repaired_by)),
            _md(f"{percent(spent[0])} · {spent[1]}" if (spent := most_spent(trial)) else NONE),
            "<br>".join(map(_md, [*filter(None, _reasons(trial)), *missed_objectives(trial), *coarse_shares(trial)])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for what, its in listed(run.trials):
        lines += ["", f"{count(len(its), what)}:", ""] if its else []
        lines += [f"- {_md_link(claim.nodeid, entry.issue)}: {_md(entry.why)}" for claim, entry in its]
    lines += _table("repeated", TIME_HEADS, time_rows(times(run.trials)))
    lines += _table("against its control arm", EFFECT_HEADS, effect_rows(run.trials))
    lines += _table("between arms", ARM_HEADS, arm_rows(run.trials))
    if run.replay:
        lines += ["", f"Repeat: {_code(run.replay)}"]
    return "\n".join(lines) + "\n"


def _reasons(trial: TrialResult) -> list[str]:
    """Return each failed claim with its message."""
    others = failed_claims(trial)
    if not others:
        return [why(trial).removeprefix("- ")]
    return [
        str(trial.reason),
        *(f"{claim.nodeid.rsplit('::', 1)[-1]}: {claim.message or claim.outcome}" for claim in others),
    ]


def _table(first: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table of untrusted text, no lines if there are no rows."""
    if not rows:
        return []
    lines = ["", f"| {' | '.join((first, *heads))} |", "|---" * (len(heads) + 1) + "|"]
    return lines + [f"| {' | '.join(map(_md, row))} |" for row in rows]


def _title(trial: TrialResult) -> str:
    return one_line(f"{trial.scenario}: {fault_of(trial)}{_arm(trial)}", 80)


def _arm(trial: TrialResult) -> str:
    """Return the suffix that distinguishes a trial in its experiment."""
    arm = f", arm {trial.arm}" if trial.arm else ""
    bare = " without remediator" if trial.remediator is False else ""
    return arm + bare + (f" #{trial.repeat}" if trial.repeat else "")


def _by(took_s: float | None, who: str | None) -> str:
    return f"{seconds(took_s)}{f' · {who}' if who else ''}"


def _md(value: object) -> str:
    """Escape untrusted text for a cell of a Markdown table."""
    text = re.sub(r"([\\`*_{}\[\]()#|~!>])", r"\\\1", one_line(value, 300))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("://", ":&#8203;//").replace("@", "@&#8203;")


def _md_link(text: str, url: str) -> str:
    """Return a Markdown link, or its text alone if the address is no web page's."""
    if not is_web_link(url):
        return _md(text)
    safe = re.sub(r"[^\w:/?#@&=+.,;%-]", lambda found: f"%{ord(found[0]):02X}", url).replace("&", "&amp;")
    return f"[{_md(text)}](<{safe}>)"


def _code(value: object) -> str:
    """Return untrusted text as inline code, without characters that end it."""
    return "`" + one_line(value, 400).replace("`", "'").replace("|", "¦") + "`"
