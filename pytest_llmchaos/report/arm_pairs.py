"""Arms of one experiment side by side: settings, and effects that claims read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmchaos.evidence.trial_result import ArmEffect, TrialResult
from pytest_llmchaos.report.aggregates import fault_of
from pytest_llmchaos.report.formatting import NONE, figure, one_line, percent, seconds

OWN = "its own"
WINDOWS = {
    "before_fault": " before the fault",
    "during_fault": " during the fault",
    "after_fault": " after the fault",
    "whole": "",
}


@dataclass(frozen=True, kw_only=True)
class ArmPair:
    """The trials of all arms of one fault and repeat.

    Attributes:
        title: Scenario, fault and repeat.
        trials: One trial for each arm that was performed.
    """

    title: str
    trials: tuple[TrialResult, ...]

    @property
    def names(self) -> list[str]:
        """The arms' names."""
        return [one_line(trial.arm, 40) for trial in self.trials]

    def settings(self) -> list[tuple[str, ...]]:
        """Return the settings that differ: service and variable, then each arm's."""
        variables = dict.fromkeys(
            (service, name) for trial in self.trials for service, of in trial.environment.items() for name in of
        )
        rows = [
            (f"{service}: {name}", *(trial.environment.get(service, {}).get(name, OWN) for trial in self.trials))
            for service, name in variables
        ]
        runs = [{True: "on", False: "off", None: NONE}[trial.remediator] for trial in self.trials]
        rows += [("remediator", *runs)] if len(set(runs)) > 1 else []
        policies = [trial.autoscaler or NONE for trial in self.trials]
        rows += [("autoscaler", *policies)] if len(set(policies)) > 1 else []
        return [tuple(one_line(cell, 120) for cell in row) for row in rows]

    def effects(self) -> list[tuple[str, ...]]:
        """Return the effects that claims read.

        Columns: value, arms, first, second, effect, 95 % interval, requests, claim,
        outcome.
        """
        claims = {(claim.nodeid, claim.outcome): claim for trial in self.trials for claim in trial.claims}
        return [
            (
                *effect_words(effect),
                f"{effect.first_requests:,} / {effect.second_requests:,}",
                one_line(claim.nodeid.rsplit("::", 1)[-1], 120),
                claim.outcome,
            )
            for claim in claims.values()
            for effect in claim.effects
        ]


def arm_pairs(trials: Sequence[TrialResult]) -> list[ArmPair]:
    """Return the pairs of a run, in the order of their first trials.

    The arms of each are in the order in which the run's first pair of that scenario
    performed them.
    """
    groups: dict[object, list[TrialResult]] = {}
    orders: dict[str, dict[str, None]] = {}
    for trial in trials:
        if trial.arm:
            groups.setdefault((trial.scenario, trial.fault, trial.repeat, trial.plan), []).append(trial)
            orders.setdefault(trial.scenario, {})[trial.arm] = None
    found = []
    for its in groups.values():
        first = its[0]
        order = list(orders[first.scenario])
        number_of = f" #{first.repeat}" if first.repeat else ""
        title = one_line(f"{first.scenario}: {fault_of(first)}{number_of}", 120)
        found.append(ArmPair(title=title, trials=tuple(sorted(its, key=lambda one: order.index(one.arm or "")))))
    return found


def arm_rows(trials: Sequence[TrialResult]) -> list[tuple[str, ...]]:
    """Return the effects of all pairs as rows, each with the title of its pair."""
    return [(pair.title, *row) for pair in arm_pairs(trials) for row in pair.effects()]


def effect_words(effect: ArmEffect) -> tuple[str, str, str, str, str, str]:
    """Return the value's name, the arms, both values, the effect and its interval."""
    window, _, name = effect.measure.partition(".")
    sign = "/" if effect.is_ratio else "-"
    between = f"{_shown(name, effect.low, effect)} to {_shown(name, effect.high, effect)}"
    return (
        one_line(f"{name}{WINDOWS.get(window, f' {window}')}", 80),
        one_line(f"{effect.first} {sign} {effect.second}", 80),
        _plain(name, effect.first_value),
        _plain(name, effect.second_value),
        "no finite value" if effect.value is None else _shown(name, effect.value, effect) + _unit(name, effect),
        between + _unit(name, effect),
    )


def _plain(name: str, value: float | None) -> str:
    """Return one arm's value with its unit."""
    if value is None:
        return "no answer"
    if _is_share(name):
        return percent(value)
    return f"{figure(value)}/s" if name.endswith("_rps") else seconds(value)


def _shown(name: str, value: float | None, effect: ArmEffect) -> str:
    """Return a difference or a ratio, without its unit."""
    if value is None:
        return "no bound"
    if effect.is_ratio:
        return figure(value)
    return f"{value * 100:+.1f}" if _is_share(name) else f"{value:+.3g}"


def _unit(name: str, effect: ArmEffect) -> str:
    if effect.is_ratio:
        return " times"
    return " points" if _is_share(name) else " /s" if name.endswith("_rps") else " s"


def _is_share(name: str) -> bool:
    return name == "availability" or name.endswith("_ratio")
