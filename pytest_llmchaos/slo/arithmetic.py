"""Error-budget and burn-rate arithmetic.

An SLO is the share of good events among all events over a window of days. A latency
SLO is a share as well: the answers that took no longer than a bound. So every SLO has
a budget of events, and a request that never finished counts as a bad one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import CLIENTS, Measure
from pytest_llmchaos.slo.selectors import expected_of

DAY_S = 86_400.0
SecondTruth = Measure | Literal["none"]
# `rate` needs two scrapes in its range. Four allow for a late or lost one.
LEAST_SCRAPES = 4
# Budgets are rounded to this. A smaller one is a floating-point error.
LEAST_BUDGET = 1e-12

# RFC 1123, as OpenSLO requires it.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class InvalidSlo(BadScenario):
    """An invalid SLO or SLO file. The message names file, line and column."""


@dataclass(frozen=True, kw_only=True)
class Slo:
    """One service level objective over a ratio of counters.

    Attributes:
        name: Up to 63 lower-case letters, digits and hyphens, such as `ttft-p95`.
        objective: Share of good events, above 0 and below 1 (99.5 % is 0.995).
        window_days: Rolling window of the error budget, in days.
        description: Meaning of the objective, in one line. Alerts show it.
        good: PromQL selector of the good events' counter, without functions.
            Its series are summed. Empty if `bad` is given.
        bad: The same for the bad events, where no counter has the good ones.
            Series that do not exist count as 0.
        total: The same for all events.
        display_name: Title on dashboards and in alerts. `name` if empty.
        unit: What the events are, in the plural.
        threshold_s: Latency bound in seconds. If it is no edge of the histogram, the
            share is an interval.
        alerts: False generates no burn alerts.
        clients: Measurement of the clients that checks this SLO: `availability`,
            `ttft`, `e2e` or `none`. None derives it from name and metric.

    Raises:
        InvalidSlo: A value is out of range or a selector is invalid in PromQL.
    """

    name: str
    objective: float
    window_days: float
    description: str
    total: str
    good: str = ""
    bad: str = ""
    display_name: str = ""
    unit: str = "requests"
    threshold_s: float | None = None
    alerts: bool = True
    clients: SecondTruth | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidSlo(
                f"name must be up to 63 lower-case letters, digits and hyphens, got {self.name!r}: write 'ttft-p95'"
            )
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
                f"{self.name}: clients {self.clients!r} needs a bound: add llmchaos/threshold-seconds, best an edge of its histogram"
            )
        if self.clients == "availability" and self.threshold_s is not None:
            raise InvalidSlo(
                f"{self.name}: clients 'availability' takes no bound, got {self.threshold_s:g} s: "
                "write ttft or e2e, or drop llmchaos/threshold-seconds"
            )
        if bool(self.good) == bool(self.bad):
            raise InvalidSlo(f"{self.name}: needs good or bad, and not both, got {self.good!r} and {self.bad!r}")
        for what, selector in zip((self.side, "total"), self.counters, strict=True):
            expected = expected_of(selector)
            if expected is not None:
                raise InvalidSlo(f"{self.name}: {what} must select counters, got {selector!r}: write {expected}")

    def __str__(self) -> str:
        return f"{self.name} {self.objective:.12g} over {self.window_days:g} days"

    @property
    def side(self) -> Literal["good", "bad"]:
        """Kind of the events that the first counter counts."""
        return "good" if self.good else "bad"

    @property
    def counters(self) -> tuple[str, str]:
        """Selectors of the good or bad events, and of all events."""
        return self.good or self.bad, self.total

    @property
    def outlives_services(self) -> bool:
        """True if clients count the events, so that no killed service loses them."""
        return all(selector.startswith(f"{CLIENTS}_") for selector in self.counters)

    @property
    def share(self) -> str:
        """The share of good events, such as `x_total{result="ok"} of x_total`."""
        return f"{self.good} of {self.total}" if self.good else f"{self.total} without {self.bad}"

    def good_events(self, of: Callable[[str], str]) -> str:
        """Return PromQL that counts the good events.

        Args:
            of: Returns PromQL that counts the events of a selector, as one value.
        """
        return of(self.good) if self.good else f"({of(self.total)} - ({of(self.bad)} or vector(0)))"

    @property
    def error_budget(self) -> float:
        """Share of events that may be bad, 0 to 1."""
        return round(1 - self.objective, 12)


@dataclass(frozen=True, kw_only=True)
class BurnAlert:
    """Alert on a budget that burns `factor` times too fast over both windows.

    The short window ends the alert soon after the cause is gone.
    """

    name: str
    severity: str
    long_s: float
    short_s: float
    budget_share: float

    def factor(self, window_days: float = 30) -> float:
        """Burn rate that spends `budget_share` of the budget within the long window."""
        return round(self.budget_share * window_days * DAY_S / self.long_s, 6)


# 14.4, 6 and 1: SRE Workbook, ch. 5 "Alerting on SLOs", table 5-8. 3 (10 % in a day) is
# the fourth factor, which generators of such rules use for low-severity tickets.
BURN_ALERTS = (
    BurnAlert(name="FastBurn", severity="page", long_s=3600, short_s=300, budget_share=0.02),
    BurnAlert(name="MediumBurn", severity="page", long_s=6 * 3600, short_s=1800, budget_share=0.05),
    BurnAlert(name="SlowBurn", severity="ticket", long_s=DAY_S, short_s=2 * 3600, budget_share=0.10),
    BurnAlert(name="CreepingBurn", severity="ticket", long_s=3 * DAY_S, short_s=6 * 3600, budget_share=0.10),
)

# A shorter window has no burn alert: each would fire on a budget that lasts.
LEAST_ALERT_DAYS = min(alert.long_s / alert.budget_share for alert in BURN_ALERTS) / DAY_S


def scaled_window_s(window_s: float, scale: float, scrape_interval_s: float = 1.0) -> float:
    """Return the window `scale` times shorter, in at least LEAST_SCRAPES whole scrapes.

    Raises:
        BadScenario: The scale is below 1 or the interval is not above 0.
    """
    if scale < 1 or scrape_interval_s <= 0:
        raise BadScenario(f"scale must be >= 1 and the interval above 0, got {scale} and {scrape_interval_s}")
    scrapes = max(LEAST_SCRAPES, math.ceil(round(window_s / scale / scrape_interval_s, 9)))
    return scrapes * scrape_interval_s


def burn_rate(value: float, slo: Slo) -> float:
    """Return the burn rate at this share of good events.

    1 spends the budget exactly in the SLO's window.
    """
    return (1 - value) / slo.error_budget


def budget_events(slo: Slo, rate_rps: float) -> float:
    """Return the bad events that the SLO's window allows at a steady `rate_rps`.

    Raises:
        BadScenario: The rate is not above 0.
    """
    if not rate_rps > 0:
        raise BadScenario(f"rate_rps must be above 0, got {rate_rps}: the budget is a share of the events offered")
    return slo.error_budget * rate_rps * slo.window_days * DAY_S


def budget_spent(bad_events: float, slo: Slo, rate_rps: float) -> float:
    """Return the share of the window's budget that `bad_events` cost.

    The budget is that of a service which receives `rate_rps` for the whole window.

    Raises:
        BadScenario: The rate is not above 0.
    """
    return bad_events / budget_events(slo, rate_rps)


def restarts_query(selector: str, span: str) -> str:
    """Return PromQL that counts process starts behind a selector in the range `span`.

    Prometheus sees no reset if a restarted counter is above its old value at the next
    scrape, so `resets` is not enough. 0 without `process_start_time_seconds`.
    """
    on = "on (job, instance)"
    return f"(sum(changes(process_start_time_seconds[{span}]) and {on} {selector}) or vector(0))"


@dataclass(frozen=True, kw_only=True)
class WindowQuery:
    """PromQL over one exact window, to be evaluated at the window's end.

    `good` and `total` are differences of the counters at both ends, without
    extrapolation. Where bad events are counted, `good` is the rest of `total`. They
    are exact if `resets` is 0 and `gone` is empty: no counter was reset in the window,
    and none disappeared.
    """

    good: str
    total: str
    ratio: str
    resets: str
    gone: str


def window_query(slo: Slo, window_s: float) -> WindowQuery:
    """Return the queries over the `window_s` seconds before the evaluation.

    Raises:
        BadScenario: The window is not above 0.
    """
    if not window_s > 0:
        raise BadScenario(f"window_s must be above 0, got {window_s}")
    span = f"{round(window_s * 1000)}ms"

    def difference(selector: str) -> str:
        return f"sum({selector}) - sum({selector} offset {span})"

    total, resets = difference(slo.total), f"sum(resets({slo.good}[{span}]))"
    good = difference(slo.good)
    if slo.bad:  # its series may not exist before the first bad event
        zero = "or vector(0)"
        good = f"({total}) - (sum({slo.bad} {zero}) - sum({slo.bad} offset {span} {zero}))"
        resets = f"(sum(resets({slo.bad}[{span}])) {zero})"
    return WindowQuery(
        good=good,
        total=total,
        ratio=f"({good}) / ({total})",
        resets=f"{resets} + sum(resets({slo.total}[{span}])) + {restarts_query(slo.total, span)}",
        gone=" or ".join(f"({one} offset {span} unless {one})" for one in dict.fromkeys(slo.counters)),
    )
