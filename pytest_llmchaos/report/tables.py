"""Repeated times and effects as rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmchaos.evidence.trial_result import Measure, TrialResult
from pytest_llmchaos.report.aggregates import Times
from pytest_llmchaos.report.formatting import NONE, figure, one_line, percent, seconds


def time_rows(times: Sequence[Times]) -> list[tuple[str, ...]]:
    """Return a row for each time with more than one trial.

    Columns: experiment, time, n, mean, median, least to most, standard deviation,
    never.
    """
    return [
        (
            row.experiment,
            row.name,
            str(len(row.values_s)),
            seconds(row.mean_s),
            seconds(row.median_s),
            f"{figure(min(row.values_s))} to {seconds(max(row.values_s))}",
            seconds(row.deviation_s),
            str(row.missing or ""),
        )
        for row in times
        if len(row.values_s) + row.missing > 1
    ]


def time_lines(times: Sequence[Times]) -> list[str]:
    """Return the same rows as lines for a terminal."""
    lines = []
    for experiment, name, n, mean, median, spread, _, never in time_rows(times):
        lost = f", never in {never}" if never else ""
        lines.append(f"{experiment}: {name} {mean} (n={n}, median {median}, {spread}{lost})")
    return lines


def effect_rows(trials: Sequence[TrialResult]) -> list[tuple[str, ...]]:
    """Return the rows of each trial that has a control arm.

    Columns: experiment, measure, with the fault, without, difference, 95 % interval.
    """
    rows: list[tuple[str, ...]] = []
    for trial in trials:
        effect = trial.effect
        if effect is None:
            continue
        number_of = f" #{trial.repeat}" if trial.repeat else ""
        arm = f", arm {trial.arm}" if trial.arm else ""
        who = one_line(f"{trial.scenario}: {trial.fault}{arm}{number_of}", 120)
        if effect.reason:
            rows.append((who, one_line(effect.reason, 200), NONE, NONE, NONE, NONE))
            continue
        for words, measure in (
            ("availability", effect.availability),
            ("median time to first token", effect.ttft_p50_s),
            ("median whole answer", effect.e2e_p50_s),
        ):
            if measure is not None:
                rows.append((who, words, *_side_by_side(measure, ratio=measure is effect.availability)))
    return rows


def _side_by_side(measure: Measure, *, ratio: bool) -> tuple[str, str, str, str]:
    def plain(value: float | None) -> str:
        if value is None:
            return "no answer"
        return percent(value) if ratio else seconds(value)

    def format_signed(value: float | None) -> str | None:
        return None if value is None else f"{value * 100:+.1f}" if ratio else f"{value:+.3f}"

    value, low, high = (format_signed(end) for end in (measure.value, measure.low, measure.high))
    unit = "points" if ratio else "s"
    between = f"{low or 'no bound'} to {high or 'no bound'} {unit}"
    shown = (f"{value} {unit}", between) if value else ("no finite value", NONE)
    return plain(measure.fault), plain(measure.control), *shown
