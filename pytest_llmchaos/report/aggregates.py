"""Facts about the whole run: repeated times with their spread, and coverage."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from pytest_llmchaos.evidence.trial_result import RunResult, SloVerdict, TimeName, TimeResult, TrialResult, UndoResult
from pytest_llmchaos.model import FaultCounts
from pytest_llmchaos.report.formatting import NONE, count, figure, one_line

PROVED = ("held", "refuted")  # only trials that prove something count in a mean
TIMES: dict[TimeName, tuple[str, str]] = {
    "time_to_detect_s": ("MTTD", "fault start to the system's own first signal"),
    "time_to_recover_s": ("MTTR", "fault start to the first sustained good second"),
    "time_to_settle_s": ("settling", "end of a passing fault to the first sustained good second"),
}


@dataclass(frozen=True, kw_only=True)
class Times:
    """One kind of time of one experiment over its trials.

    `missing` counts the held or refuted trials that lack the time, such as an outage
    that was never detected.
    """

    scenario: str
    fault: str
    remediator: bool
    key: TimeName
    name: str
    meaning: str
    values_s: tuple[float, ...]
    missing: int
    arm: str | None = None

    @property
    def experiment(self) -> str:
        arm = f", arm {one_line(self.arm, 40)}" if self.arm else ""
        bare = "" if self.remediator else ", no remediator"
        return f"{one_line(self.scenario, 60)}: {one_line(self.fault, 60)}{arm}{bare}"

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.values_s)

    @property
    def median_s(self) -> float:
        return statistics.median(self.values_s)

    @property
    def deviation_s(self) -> float | None:
        return statistics.stdev(self.values_s) if len(self.values_s) > 1 else None

    def result(self) -> TimeResult:
        """Return the row of run.json, rounded to milliseconds as single times are."""
        deviation_s = self.deviation_s
        return TimeResult(
            scenario=self.scenario,
            fault=self.fault,
            remediator=self.remediator,
            time=self.key,
            n=len(self.values_s),
            never=self.missing,
            mean_s=round(self.mean_s, 3),
            median_s=round(self.median_s, 3),
            deviation_s=None if deviation_s is None else round(deviation_s, 3),
            least_s=round(min(self.values_s), 3),
            most_s=round(max(self.values_s), 3),
            arm=self.arm,
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fault on one target: the number of trials by verdict, and the judged SLOs."""

    verdicts: Mapping[str, int]
    slos: tuple[tuple[str, bool | None], ...]
    """(name, True if every value met its objective, None if a value is unknown)"""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Exercised faults by targets, the other faults, and the control arms.

    `controls` holds (description, verdict, trials).
    """

    exercised: list[str]
    others: list[str]
    targets: list[str]
    cells: Mapping[tuple[str, str], Cell]
    controls: list[tuple[str, str, int]]


def times(trials: Sequence[TrialResult]) -> list[Times]:
    """Return the times of all experiments, in the order of their first trials.

    Experiments without a time are omitted.
    """
    groups: dict[tuple[str, str, str | None, bool], list[TrialResult]] = {}
    for trial in trials:
        if trial.verdict in PROVED:
            identity = (trial.scenario, trial.fault, trial.arm, trial.remediator is not False)
            groups.setdefault(identity, []).append(trial)
    found = []
    for (scenario, fault, arm, remediator), its in groups.items():
        for key, (name, meaning) in TIMES.items():
            values = [value for trial in its if (value := time_of(trial, key)) is not None]
            if values:
                found.append(
                    Times(
                        scenario=scenario,
                        fault=fault,
                        remediator=remediator,
                        key=key,
                        name=name,
                        meaning=meaning,
                        values_s=tuple(values),
                        missing=len(its) - len(values),
                        arm=arm,
                    )
                )
    return found


def time_of(trial: TrialResult, key: TimeName) -> float | None:
    """Return one of a trial's times by its name."""
    found: dict[TimeName, float | None] = {
        "time_to_detect_s": trial.time_to_detect_s,
        "time_to_recover_s": trial.time_to_recover_s,
        "time_to_settle_s": trial.time_to_settle_s,
    }
    return found[key]


def coverage(run: RunResult) -> Coverage:
    """Return the exercised faults and targets, and those of the run's catalogue."""
    grouped: dict[tuple[str, str], list[TrialResult]] = {}
    controls: dict[tuple[str, str], int] = {}
    for trial in run.trials:
        control = "without a fault" if trial.fault == "none" else ""
        if trial.environment:
            control = f"{control or trial.fault} in arm {trial.arm}"
        if trial.remediator is False:
            control = f"{control or trial.fault} without the remediator"
        if control:
            key = (one_line(control, 120), trial.verdict)
            controls[key] = controls.get(key, 0) + 1
        else:
            for place in _places(trial):
                grouped.setdefault(place, []).append(trial)
    hit = {fault for fault, _ in grouped}
    faults = _union(run.catalogue.faults, [fault for fault, _ in grouped])
    return Coverage(
        exercised=[fault for fault in faults if fault in hit],
        others=[fault for fault in faults if fault not in hit],
        targets=_union(run.catalogue.targets, [target for _, target in grouped]),
        cells={place: _cell(trials) for place, trials in grouped.items()},
        controls=[(what, verdict, n) for (what, verdict), n in controls.items()],
    )


def _places(trial: TrialResult) -> list[tuple[str, str]]:
    """Return (fault, target) of each primitive fault. A composition has several."""
    acts = trial.plan.injections if trial.plan else ()
    found = [tuple(act.split(" ")[:2]) for act in acts if act.count(" ") >= 2]
    return list(dict.fromkeys((one_line(kind, 40), one_line(_service(part), 60)) for kind, part in found)) or [
        (_kind(trial), _target(trial))
    ]


def _cell(trials: Sequence[TrialResult]) -> Cell:
    verdicts: dict[str, int] = {}
    met: dict[str, bool | None] = {}
    for trial in trials:
        verdicts[trial.verdict] = verdicts.get(trial.verdict, 0) + 1
        for slo in trial.slos:
            name, now = one_line(slo.name, 40), is_reached(slo)
            before = met.get(name, True)
            met[name] = None if now is None or before is None else now and before
    return Cell(verdicts=verdicts, slos=tuple(met.items()))


def most_spent(trial: TrialResult) -> tuple[float, str] | None:
    """Return the largest share of a month's error budget spent, with the SLO's name.

    None if no SLO was judged.
    """
    spent = [(slo.budget_spent, one_line(slo.name, 40)) for slo in trial.slos if slo.budget_spent is not None]
    return max(spent, key=lambda pair: pair[0], default=None)


def is_reached(slo: SloVerdict) -> bool | None:
    """True if the value reached its objective.

    None if value or objective is missing, if there are too few events to decide, or if
    the objective lies in the interval of a coarse histogram.
    """
    if slo.value is None or slo.objective is None:
        return None
    if slo.interval is not None and slo.interval.high >= slo.objective:
        return slo.met
    return False if slo.value < slo.objective else slo.met


def unasked(trial: TrialResult) -> list[SloVerdict]:
    """Return the objectives that a trial missed without a claim that read their result.

    None of a trial without the remediator or with other variables, which is there to
    miss them, of one that proves nothing, or if it is unknown what a claim read.
    """
    asked = [claim.objectives for claim in trial.claims]
    is_control = trial.remediator is False or trial.environment
    if trial.verdict not in {"held", "refuted"} or is_control or not asked or None in asked:
        return []
    read = {name for names in asked for name in names or ()}
    return [slo for slo in trial.slos if is_reached(slo) is False and slo.name not in read]


def _kind(trial: TrialResult) -> str:
    """Return the fault without its target: `kill` for `kill api`."""
    name, target = one_line(trial.fault, 80), one_line(trial.target, 80)
    return name.removesuffix(f" {target}") if target else name


def _target(trial: TrialResult) -> str:
    return one_line(_service(trial.victim or trial.target or ""), 80) or NONE


def fault_of(trial: TrialResult) -> str:
    """Return the fault, with the containers of scaled services that it hit."""
    hit = [name for name in (trial.victim or "").split(", ") if "#" in name and name not in trial.fault]
    return f"{trial.fault} ({', '.join(hit)})" if hit else trial.fault


def faults_done(trial: TrialResult, most: int = 3) -> list[str]:
    """Return each fault with its options, and what it did by its own counts.

    Such as `flaky(status=503, share=0.3) on model-1: hit 7 of 27 requests`. A fault
    that has neither options nor counts is omitted.

    Args:
        trial: The trial.
        most: The most lines. A last line has the number of others.
    """
    lines = list(dict.fromkeys(_done(one) for one in trial.undo if one.strength or one.counts is not None))
    more = len(lines) - most
    return [*lines[:most], f"and {count(more, 'more fault')} with options or counts"] if more > 0 else lines


def _done(fault: UndoResult) -> str:
    options = ", ".join(f"{name}={_option(value)}" for name, value in fault.strength.items())
    what = f"{fault.fault}({options})" if options else fault.fault
    counts = "" if fault.counts is None else str(FaultCounts(**structs.asdict(fault.counts)))
    return one_line(f"{what} on {fault.victim}{f': {counts}' if counts else ''}", 300)


def _option(value: object) -> str:
    """Return an option's value. Numbers of any size stay readable."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return figure(value, 6) if is_number else one_line(value, 120)


def detected_by(trial: TrialResult) -> str | None:
    """Return the signal that detected the fault, and whose Prometheus raised it."""
    whose = {"run_prometheus": " of the run's own Prometheus", "user_prometheus": " of the user's Prometheus"}
    return trial.detected_by and trial.detected_by + whose.get(trial.detection_source or "", "")


def _service(victim: str) -> str:
    """Return a victim without the numbers of containers."""
    return re.sub(r"#[0-9]+", "", victim)


def _union(known: Sequence[str], seen: list[str]) -> list[str]:
    return list(dict.fromkeys([*(one_line(item, 80) for item in known), *seen]))
