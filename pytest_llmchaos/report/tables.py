"""Repeated times and effects as rows of text, for the page, the summary and the terminal. Strings out, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmchaos.report.aggregates import Times
from pytest_llmchaos.report.formatting import NONE, figure, number, one_line, percent, seconds

MEASURES = {
    "availability": "availability",
    "ttft_p50_s": "median time to first token",
    "e2e_p50_s": "median whole answer",
}


def time_rows(times: Sequence[Times]) -> list[tuple[str, ...]]:
    """(experiment, time, n, mean, median, least to most, standard deviation, never) of each that was measured more than once."""
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
    """The same for a terminal, a line each."""
    lines = []
    for experiment, name, n, mean, median, spread, _, never in time_rows(times):
        lost = f", never in {never}" if never else ""
        lines.append(f"{experiment}: {name} {mean} (n={n}, median {median}, {spread}{lost})")
    return lines


def effect_rows(trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """(experiment, measure, with the fault, without, difference, 95 % interval) of each trial that has a control arm."""
    rows: list[tuple[str, ...]] = []
    for trial in trials:
        effect = trial.get("effect")
        if not isinstance(effect, Mapping):
            continue
        number_of = f" #{trial['repeat']}" if trial.get("repeat") else ""
        who = one_line(f"{trial['scenario']}: {trial['fault']}{number_of}", 120)
        if effect.get("reason"):
            rows.append((who, one_line(effect["reason"], 200), NONE, NONE, NONE, NONE))
            continue
        for key, words in MEASURES.items():
            measure = effect.get(key)
            if isinstance(measure, Mapping):
                rows.append((who, words, *_side_by_side(measure, ratio=key == "availability")))
    return rows


def _side_by_side(measure: Mapping[str, Any], *, ratio: bool) -> tuple[str, str, str, str]:
    def plain(value: Any) -> str:
        if number(value) is None:
            return "never came"
        return percent(value) if ratio else seconds(value)

    def signed(value: Any) -> str | None:
        seen = number(value)
        return None if seen is None else f"{seen * 100:+.1f}" if ratio else f"{seen:+.3f}"

    value, low, high = (signed(measure.get(key)) for key in ("value", "low", "high"))
    unit = "points" if ratio else "s"
    between = f"{low or 'no bound'} to {high or 'no bound'} {unit}"
    shown = (f"{value} {unit}", between) if value else ("no finite value", NONE)
    return plain(measure.get("fault")), plain(measure.get("control")), *shown
