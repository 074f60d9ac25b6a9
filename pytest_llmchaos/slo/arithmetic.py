"""Arithmetic of service levels. No clock, no I/O: numbers in, numbers out.

An SLO is a share of good events among all events, over a window of days. Latency SLOs are shares as well (answers
that took no longer than the bound), so that every SLO has a budget of events and failures that never finished count.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import Measure
from pytest_llmchaos.slo.selectors import expected_of

DAY_S = 86_400.0
SecondTruth = Measure | Literal["none"]
# A range needs a few scrapes to hold a rate at all: two make one, and one of them may be late or lost.
LEAST_SCRAPES = 4
# Budgets are rounded to this: what is smaller is dust of floating point, and would be no budget at all.
LEAST_BUDGET = 1e-12

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class InvalidSlo(BadScenario):
    """An invalid service level. The message names the place."""


@dataclass(frozen=True, kw_only=True)
class Slo:
    """A service level objective: a share of good events over a window of days.

    `good` and `total` select counters. Their series are summed.

    Attributes:
        name: Lower-case words joined by hyphens, such as `ttft-p95`.
        objective: Share of good events, above 0, below 1.
        window_days: Length of the window in days, above 0.
        description: Its meaning, in words.
        good: Selector of the good events.
        total: Selector of all events.
        display_name: Name for people, "" for none.
        unit: The events, such as `requests`.
        threshold_s: Latency bound of a good event in seconds, None for other
            objectives.
        alerts: True if it has burn alerts.
        clients: The part of the clients' requests that is compared with it:
            `availability`, `ttft`, `e2e` or `none`. None derives it from name and
            metric.

    Raises:
        InvalidSlo: A value is outside its bounds.
    """

    name: str
    objective: float
    window_days: float
    description: str
    good: str
    total: str
    display_name: str = ""
    unit: str = "requests"
    threshold_s: float | None = None
    alerts: bool = True
    clients: SecondTruth | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidSlo(f"name must be lower-case words joined by hyphens, got {self.name!r}: write 'ttft-p95'")
        if not 0 < self.objective < 1:
            raise InvalidSlo(f"{self.name}: objective must be above 0 and below 1, got {self.objective}: write 0.995")
        if not self.error_budget > 0:
            raise InvalidSlo(
                f"{self.name}: objective must leave a budget of at least {LEAST_BUDGET:g}, got {self.objective!r}: "
                "write 0.99999 or less"
            )
        if not 0 < self.window_days < math.inf:
            raise InvalidSlo(f"{self.name}: window_days must be above 0, got {self.window_days}: write 30")
        if self.clients in ("ttft", "e2e") and self.threshold_s is None:
            raise InvalidSlo(
                f"{self.name}: clients {self.clients!r} needs a bound: add llmchaos/threshold-seconds, an edge of its histogram"
            )
        if self.clients == "availability" and self.threshold_s is not None:
            raise InvalidSlo(
                f"{self.name}: clients 'availability' knows no bound: write ttft or e2e, or drop the bound"
            )
        for what, selector in (("good", self.good), ("total", self.total)):
            expected = expected_of(selector)
            if expected is not None:
                raise InvalidSlo(f"{self.name}: {what} must select counters, got {selector!r}: write {expected}")

    def __str__(self) -> str:
        return f"{self.name} {self.objective:.12g} over {self.window_days:g} days"

    @property
    def error_budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 12)


@dataclass(frozen=True, kw_only=True)
class BurnAlert:
    """Alert when the budget burns `factor` times too fast over both windows; the short one ends the alert in time."""

    name: str
    severity: str
    long_s: float
    short_s: float
    budget_share: float

    def factor(self, window_days: float = 30) -> float:
        """How many times too fast it must burn to spend `budget_share` of the budget within the long window."""
        return round(self.budget_share * window_days * DAY_S / self.long_s, 6)


# 14.4, 6 and 1 are of the Site Reliability Workbook, chapter 5 «Alerting on SLOs», table 5-8; 3 (10 % in a day) is the
# fourth that its section on low-severity tickets and the generators of such rules use.
BURN_ALERTS = (
    BurnAlert(name="FastBurn", severity="page", long_s=3600, short_s=300, budget_share=0.02),
    BurnAlert(name="MediumBurn", severity="page", long_s=6 * 3600, short_s=1800, budget_share=0.05),
    BurnAlert(name="SlowBurn", severity="ticket", long_s=DAY_S, short_s=2 * 3600, budget_share=0.10),
    BurnAlert(name="CreepingBurn", severity="ticket", long_s=3 * DAY_S, short_s=6 * 3600, budget_share=0.10),
)


def scaled_window_s(window_s: float, scale: float, scrape_interval_s: float = 1.0) -> float:
    """A window made `scale` times shorter, in whole scrapes and never under LEAST_SCRAPES of them."""
    if scale < 1 or scrape_interval_s <= 0:
        raise BadScenario(f"scale must be >= 1 and the interval above 0, got {scale} and {scrape_interval_s}")
    scrapes = max(LEAST_SCRAPES, math.ceil(round(window_s / scale / scrape_interval_s, 9)))
    return scrapes * scrape_interval_s


def burn_rate(value: float, slo: Slo) -> float:
    """How many times faster than allowed the budget is spent; 1 spends it exactly in the SLO's window."""
    return (1 - value) / slo.error_budget


def budget_events(slo: Slo, rate_rps: float) -> float:
    """The bad events that a whole window allows at that steady rate of events."""
    if not rate_rps > 0:
        raise BadScenario(f"rate_rps must be above 0, got {rate_rps}: the budget is a share of the events offered")
    return slo.error_budget * rate_rps * slo.window_days * DAY_S


def budget_spent(bad_events: float, slo: Slo, rate_rps: float) -> float:
    """The share of the window's whole budget that these events cost a service that gets `rate_rps` all month."""
    return bad_events / budget_events(slo, rate_rps)


def restarts_query(selector: str, span: str) -> str:
    """PromQL: how often processes behind a selector started in the range before the evaluation; 0 where they do not tell.

    A counter that is above its old value again at the first scrape after a restart is no reset to Prometheus.
    """
    on = "on (job, instance)"
    return f"(sum(changes(process_start_time_seconds[{span}]) and {on} {selector}) or vector(0))"


@dataclass(frozen=True, kw_only=True)
class WindowQuery:
    """PromQL over one exact window, to be evaluated at the window's end.

    `good` and `total` are differences of the counters at both ends: exact, no extrapolation, but only where no counter
    was reset in between, which `resets` tells, and none that was there at the start is `gone` at the end.
    """

    good: str
    total: str
    ratio: str
    resets: str
    gone: str


def window_query(slo: Slo, window_s: float) -> WindowQuery:
    """The queries that count good and total events of the `window_s` seconds before the evaluation."""
    if not window_s > 0:
        raise BadScenario(f"window_s must be above 0, got {window_s}")
    span = f"{round(window_s * 1000)}ms"

    def difference(selector: str) -> str:
        return f"sum({selector}) - sum({selector} offset {span})"

    return WindowQuery(
        good=difference(slo.good),
        total=difference(slo.total),
        ratio=f"({difference(slo.good)}) / ({difference(slo.total)})",
        resets=f"sum(resets({slo.good}[{span}])) + sum(resets({slo.total}[{span}])) + {restarts_query(slo.total, span)}",
        gone=" or ".join(f"({one} offset {span} unless {one})" for one in dict.fromkeys((slo.good, slo.total))),
    )
