"""Metrics that an autoscaler or the judge does not get, or gets from before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.option_checks import check_choice
from pytest_llmchaos.faults.wire_faults import WireFault, WireOption, selection
from pytest_llmchaos.faults.wire_match import Match
from pytest_llmchaos.faults.wire_match import match as requests

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault

AUTOSCALER, JUDGE = "autoscaler", "judge"
# The requests of each reader, by the name that it sends with them.
READERS: Mapping[str, Match] = {
    AUTOSCALER: requests(method="*", path="/api/v1/*", header="user-agent: lab_autoscaler*"),
    JUDGE: requests(method="GET", header="user-agent: Prometheus/*"),
}
# Services whose answers they read: Prometheus, and the counters of the clients.
READ: Mapping[str, str] = {AUTOSCALER: "prometheus", JUDGE: "pushgateway"}
# The lab's autoscaler reads every 5 s, and the first answer is no stale one.
STALE_WITHIN_S = 15.0


@dataclass(frozen=True, kw_only=True)
class ScrapeFault(WireFault):
    """A fault of what one reader of metrics sees.

    Attributes:
        of: The reader, `autoscaler` or `judge`.
    """

    of: str

    @property
    def blinds_judge(self) -> bool:
        """True if Prometheus lacks samples, so that its silence proves nothing."""
        return self.of == JUDGE

    @property
    def strength(self) -> Mapping[str, object]:
        return {"of": self.of, "share": dict(self.options)["share"]}


class ScrapeGap(ScrapeFault):
    """Reads of metrics that fail."""

    kind: ClassVar[str] = "scrape_gap"
    expects: ClassVar[str] = "the autoscaler holds its count; of the judge: up == 0 for the target"

    @property
    def agent_kind(self) -> str:
        return "flaky"


class StaleMetrics(ScrapeFault):
    """Reads of metrics that get an answer from before."""

    kind: ClassVar[str] = "stale_metrics"
    expects: ClassVar[str] = "counters and gauges of the target stand still, and up == 1"

    @property
    def agent_kind(self) -> str:
        return "stale_answers"

    @property
    def proof_within_s(self) -> float:
        return STALE_WITHIN_S


def scrape_gap(target: Target | None = None, *, of: str, share: float = 1.0, match: Match | None = None) -> Fault:
    """Let each read of metrics by one reader fail with status 503.

    `of="autoscaler"` blinds the lab's autoscaler alone: its queries to Prometheus fail,
    and Prometheus goes on. `of="judge"` leaves a gap in the Prometheus that judges the
    trial: its scrapes of the target fail. What it alone records is then inconclusive,
    such as `trial.slo(...)`. The clients' own samples still judge.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: the autoscaler holds its count. Of the judge, `up == 0` for the
      target.

    Args:
        target: Service whose answers the reader lacks, `model-*` for one service drawn
            by the seed, or a list of these. None is `prometheus` for the autoscaler and
            `pushgateway`, which has the clients' counters, for the judge.
        of: The reader: `autoscaler` or `judge`. An autoscaler that reads from the
            judge's Prometheus lacks the samples of a target of the judge too.
        share: Share of the reads that is hit, above 0, at most 1.
        match: Requests of the reader, from `faults.match`. None recognizes the lab's
            autoscaler and Prometheus by their header User-Agent.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `of`, `share` or
            `match` is not one of those.
    """
    reader = check_choice("scrape_gap(of=...)", of, (AUTOSCALER, JUDGE))
    options: tuple[tuple[str, WireOption], ...] = (("status", 503), *_selection("scrape_gap", reader, share, match))
    return on_targets(ScrapeGap(of=reader, options=options), READ[reader] if target is None else target)


def stale_metrics(target: Target | None = None, *, of: str, share: float = 1.0, match: Match | None = None) -> Fault:
    """Repeat the first answer for each further read of metrics by one reader.

    The answers have status 200 and values from the fault's start, as of an exporter
    whose cache is stuck. `of` is as for `scrape_gap`. The first read after the start
    gets a fresh answer, and each later one the same again. Queries that differ only in
    their time count as the same.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `proxy`.
    - Expected signal: counters and gauges of the target stand still, and `up == 1`.

    Args:
        target: As for `scrape_gap`.
        of: The reader: `autoscaler` or `judge`.
        share: Ratio of reads that are hit, as for `scrape_gap`.
        match: As for `scrape_gap`.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `of`, `share` or
            `match` is not one of those.
    """
    reader = check_choice("stale_metrics(of=...)", of, (AUTOSCALER, JUDGE))
    fault = StaleMetrics(of=reader, options=_selection("stale_metrics", reader, share, match))
    return on_targets(fault, READ[reader] if target is None else target)


def _selection(kind: str, reader: str, share: object, given: Match | None) -> tuple[tuple[str, WireOption], ...]:
    return selection(kind, share, READERS[reader] if given is None else given)
