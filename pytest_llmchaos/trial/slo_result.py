"""What one window says of one SLO, and its line in the ledger. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import BadScenario, NoData
from pytest_llmchaos.evidence.ledger import Entry
from pytest_llmchaos.slo.arithmetic import budget_spent, burn_rate
from pytest_llmchaos.stats.bounded import BoundedFloat, NoClaim, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_llmchaos.slo.arithmetic import Slo


@dataclass(frozen=True, kw_only=True)
class SloResult(NoClaim):
    """What one window says of one SLO, with the query and the raw values behind it.

    Args:
      good: good events of the window.
      total: all events of the window.
      window_s: seconds that Prometheus counted over.
      load_s: those of them in which load was offered; `window_s` where that is not known.
      longest_s: seconds of load that the window could have had if the service had not
        recovered before its deadline: a quick recovery makes a short window.
      rate_rps: the SLO's own events a second in the steady phase, which scale its budget;
        None where the steady phase had none.
      clients_say: the same share of good events, counted from the clients' own samples.
      unknown: requests that were open when the load ended.
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

    def __post_init__(self) -> None:
        if not self.total > 0 or self.good < 0:
            raise BadScenario(f"{self.slo.name}: needs total > 0 and good >= 0, got {self.good} of {self.total}")

    @property
    def name(self) -> str:
        return self.slo.name

    @property
    def objective(self) -> float:
        return self.slo.objective

    @property
    def value(self) -> float:
        """Share of good events, at most 1: a window that opens with requests in flight can see more good ends than offers."""
        return self._bounded("value", lambda good, total: good / total)

    @property
    def bad(self) -> float:
        """Bad events."""
        return self._bounded("bad", lambda good, total: total - good, grows=True)

    @property
    def bad_s(self) -> float:
        """Seconds of the offered load without a good answer: the share of bad events times the seconds of load.

        An outage of 10 s costs 10, and so does losing every second request for 20 s.
        """
        return self._bounded("bad_s", lambda good, total: (total - good) * self._load_s / total, grows=True)

    @property
    def met(self) -> bool:
        """Whether the objective was met.

        Raises TooFewSamples below 1 / (1 - objective) events unless too many of them were bad: so few can miss an
        objective and cannot meet it.
        """
        return self.value >= self.objective

    @property
    def burn_rate(self) -> float:
        return self._bounded("burn_rate", lambda good, total: burn_rate(good / total, self.slo))

    @property
    def budget_spent(self) -> float:
        """Share of the month's budget that this window cost a service with `rate_rps` events a second all month.

        Raises NoData where the steady phase had no events.
        """
        rate_rps = self.rate_rps
        if rate_rps is None:
            raise NoData(f"{self.name}: no {self.slo.unit} in the steady phase, so its budget of a month is not known")
        return self._bounded(
            "budget_spent", lambda good, total: budget_spent(total - good, self.slo, rate_rps), grows=True
        )

    @property
    def _load_s(self) -> float:
        return self.window_s if self.load_s is None else self.load_s

    def _bounded(self, what: str, of: Callable[[float, float], float], *, grows: bool = False) -> BoundedFloat:
        """The value that `of` gives for good events among all events, between those of none and of all good ones.

        What `grows` with the window is no share: it reaches as far as the longest window does.
        """
        events = self.total + self.unknown
        reach = max(1.0, self.longest_s / self._load_s) if grows else 1.0
        # Prometheus extrapolates counters, and no reader expects 63.04 requests.
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
        )
        good = min(self.good, self.total)
        if not self.unknown:
            return BoundedFloat(of(good, self.total), scale)
        low, high = sorted((of(good, events), of(good + self.unknown, events)))
        return BoundedFloat(of(good, self.total), scale, low=low, high=high)

    def __repr__(self) -> str:
        spent = "an unknown part" if self.rate_rps is None else f"{self.budget_spent:.3g}"
        return (
            f"<slo {self.name}: {self.value:.6g} of objective {self.objective:.12g}, {self.bad:.6g} of {self.total:.6g} "
            f"{self.slo.unit} bad in {self.window_s:.1f} s: {self.bad_s:.3g} s without a good answer, "
            f"{spent} of the month's budget spent, burn rate {self.burn_rate:.3g}>"
        )


def ledger_entry(
    result: SloResult, *, at_unix_s: float, run: str, trial: str, scenario: str, fault: str, verdict: str
) -> Entry:
    """A trial's result as a line of the ledger. Its steady phase must have had events, or its budget is not known."""
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
    )
