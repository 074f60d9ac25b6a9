"""An SLO's result over one window, and its ledger line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import BadScenario, NoData
from pytest_llmchaos.evidence.ledger import Entry
from pytest_llmchaos.slo.arithmetic import budget_spent, burn_rate
from pytest_llmchaos.stats.bounded import BoundedFloat, NoClaim, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_llmchaos.servers.bounds import Within
    from pytest_llmchaos.slo.arithmetic import Slo


@dataclass(frozen=True, kw_only=True)
class SloResult(NoClaim):
    """One SLO over one window, with the query and the raw values behind it.

    Attributes:
        slo: The SLO, with its objective and its window in days.
        good: Good events in the window.
        total: All events in the window. Above 0.
        window_s: Length of the window in seconds.
        rate_rps: Events per second of this SLO in the steady phase, which scale its
            error budget. None if the steady phase had no events.
        query: The PromQL query for the share of good events.
        raw: Counter values at both ends of the window.
        load_s: Seconds of the window in which load was offered. If None, `window_s`.
        longest_s: Seconds of load if the service had not recovered before its
            deadline. A quick recovery makes a short window.
        clients_say: The share of good events, counted from the clients' samples.
        unknown: Requests that were open when the load ended.
        within: Good events by the edges next to a latency bound that is no edge of the
            histogram. `good` are those that are certain.
        uncertainty: Why the share is then an interval, and what to do.

    Raises:
        BadScenario: `total` is not above 0, or `good` is below 0.
    """

    how_to_claim: ClassVar[str] = "such as .met or .bad_s <= 10"

    slo: Slo
    good: float
    total: float
    window_s: float
    rate_rps: float | None
    query: str
    raw: Mapping[str, float] = field(default_factory=dict)
    load_s: float | None = None
    longest_s: float = 0.0
    clients_say: float | None = None
    unknown: int = 0
    within: Within | None = None
    uncertainty: str = ""

    def __post_init__(self) -> None:
        if not self.total > 0 or self.good < 0:
            raise BadScenario(f"{self.slo.name}: needs total > 0 and good >= 0, got {self.good} of {self.total}")

    @property
    def name(self) -> str:
        """The SLO's name."""
        return self.slo.name

    @property
    def objective(self) -> float:
        """The SLO's objective as a share, such as 0.999."""
        return self.slo.objective

    @property
    def value(self) -> float:
        """Share of good events, from 0 to 1.

        It is capped at 1, because a window that starts with requests in flight can
        count more good ends than starts. Where a latency bound is no edge of the
        histogram, it is the least share, and `share` is the interval.
        """
        return self._bounded("value", lambda good, total: good / total)

    @property
    def share(self) -> tuple[float, float]:
        """The least and the largest share of good events, as the histogram shows them.

        Both are the same for a latency bound that is an edge, and without a bound.
        """
        most = self.good if self.within is None else self.within.most
        return min(self.good / self.total, 1.0), min(most / self.total, 1.0)

    @property
    def bad(self) -> float:
        """Number of bad events."""
        return self._bounded("bad", lambda good, total: total - good, grows=True)

    @property
    def bad_s(self) -> float:
        """Seconds of load without a good answer: share of bad events times `load_s`.

        A full outage of 10 s counts 10. So does a loss of every second request for
        20 s.
        """
        return self._bounded("bad_s", lambda good, total: (total - good) * self._load_s / total, grows=True)

    @property
    def met(self) -> bool:
        """True if the share of good events reached the objective.

        Raises:
            TooFewSamples: The window has fewer than 1 / (1 - objective) events and
                did not miss the objective. So few events can miss an objective but
                cannot meet it.
        """
        return self.value >= self.objective

    @property
    def burn_rate(self) -> float:
        """Error ratio divided by error budget. 1 spends the budget in its window."""
        return self._bounded("burn_rate", lambda good, total: burn_rate(good / total, self.slo))

    @property
    def budget_spent(self) -> float:
        """Share of the month's error budget that this window spent.

        The budget assumes `rate_rps` events per second over the SLO's whole window.

        Raises:
            NoData: The steady phase had no events, so the budget is unknown.
        """
        rate_rps = self.rate_rps
        if rate_rps is None:
            raise NoData(f"{self.name}: no {self.slo.unit} in the steady phase, so the month's budget is unknown")
        return self._bounded(
            "budget_spent", lambda good, total: budget_spent(total - good, self.slo, rate_rps), grows=True
        )

    @property
    def _load_s(self) -> float:
        return self.window_s if self.load_s is None else self.load_s

    def _bounded(self, what: str, of: Callable[[float, float], float], *, grows: bool = False) -> BoundedFloat:
        """Return `of(good, total)` with its least and greatest possible values.

        `grows` marks a value that grows with the window. Its greatest value is that
        of the longest possible window.
        """
        events = self.total + self.unknown
        reach = max(1.0, self.longest_s / self._load_s) if grows else 1.0
        # Rounded, because Prometheus extrapolates counters to values such as 63.04.
        every = f"{events * reach:.0f} {self.slo.unit}"
        ends = sorted(
            [
                (reach * of(events, events), f"none of the {every} had been bad"),
                (reach * of(0.0, events), f"every one of the {every} had been bad"),
            ]
        )
        month = (
            f"a window is too short for a budget of {self.slo.window_days:g} days: " if what == "budget_spent" else ""
        )
        scale = Scale(
            what=f"{what} of {self.name}",
            least=ends[0][0],
            most=ends[1][0],
            at_least=ends[0][1],
            at_most=ends[1][1],
            advice=f"{month}bound bad_s, bad or value inside what this window can show",
            events=None if grows else self.total,
            of=self.total if what == "bad" else None,
            coarse=self.uncertainty,
        )
        good = min(self.good, self.total)
        if not self.unknown and self.within is None:
            return BoundedFloat(of(good, self.total), scale)
        most = self.share[1] * self.total + self.unknown
        low, high = sorted((of(good, events), of(most, events)))
        return BoundedFloat(of(good, self.total), scale, low=low, high=high)

    def __repr__(self) -> str:
        shown = " to ".join(f"{end:.6g}" for end in dict.fromkeys(self.share))
        spent = "an unknown part" if self.rate_rps is None else f"{self.budget_spent:.3g}"
        return (
            f"<slo {self.name}: {shown} of objective {self.objective:.12g}, {self.bad:.6g} of {self.total:.6g} "
            f"{self.slo.unit} bad in {self._load_s:.1f} s of load: {self.bad_s:.3g} s without a good answer, "
            f"{spent} of the month's budget spent, burn rate {self.burn_rate:.3g}>"
        )


def ledger_entry(
    result: SloResult,
    *,
    at_unix_s: float,
    run: str,
    trial: str,
    scenario: str,
    fault: str,
    verdict: str,
    arm: str = "",
) -> Entry:
    """Return the ledger's line for a result whose steady phase had events."""
    return Entry(
        at_unix_s=at_unix_s,
        run=run,
        trial=trial,
        scenario=scenario,
        fault=fault,
        slo=result.name,
        objective=result.objective,
        window_days=result.slo.window_days,
        rate_rps=result.rate_rps or 0.0,
        window_s=result.window_s,
        good=result.good,
        total=result.total,
        bad=float(result.bad),
        verdict=verdict,
        arm=arm,
    )
