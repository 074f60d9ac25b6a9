"""Comparison of clients, Prometheus and the service over a whole trial."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, TruthsDisagree
from pytest_llmchaos.model import ForgesAnswers
from pytest_llmchaos.prometheus.queries import SCRAPE_S
from pytest_llmchaos.slo.arithmetic import restarts_query
from pytest_llmchaos.slo.latency import latency_bound
from pytest_llmchaos.stats.columns import CANCELLED, CODES, LEFT
from pytest_llmchaos.trial.latency_edges import counted_within, lacks_edge
from pytest_llmchaos.trial.recorded_rules import require_recorded
from pytest_llmchaos.trial.truths import UNSEEN, Between, Sight, Spell, measure_of, miscount, oddity, seen_by_clients

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pytest_llmchaos.evidence.samples_file import Samples
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import Measure, RuntimeEvent
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.slo.latency import LatencyBound
    from pytest_llmchaos.trial.truths import Share

# Counts between the last scrape and a death are lost, as are those before the next.
BLIND_EDGE_S = 1.2 * SCRAPE_S


def require_truths(lab: Lab, record: Record, samples: Samples, injected: Injected, counted_unix_s: float) -> None:
    """Require that all counts of a load's requests and the recording rules agree.

    Raises:
        TruthsDisagree: They differ by more than is explained.
    """
    events = lab.runtime.events(record.anchor_unix_s, time.time())
    Comparison(
        lab=lab, record=record, samples=samples, injected=injected, events=events, counted_unix_s=counted_unix_s
    ).require()
    require_recorded(lab, record.anchor_unix_s, counted_unix_s)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The counts of one trial's requests: clients, Prometheus and the service."""

    lab: Lab
    record: Record
    samples: Samples
    injected: Injected
    events: Sequence[RuntimeEvent]
    counted_unix_s: float

    def require(self) -> None:
        """Compare every SLO that clients can judge, and the number of requests.

        Window edges, dead time of the service and counter resets explain differences.

        Raises:
            TruthsDisagree: A count differs by more. The message names the odd one.
        """
        for slo in self.lab.slos:
            measure = measure_of(slo)
            odd = None if measure is None else self._oddity(slo, measure)
            if odd is not None:
                raise TruthsDisagree(odd)
        if (odd := self._miscount()) is not None:
            raise TruthsDisagree(odd)

    def _miscount(self) -> str | None:
        """Return a message if the service counted other requests than clients sent."""
        subject, columns = self.lab.subject, self.samples.columns
        if subject.attempts_counters is None or self._blind_spells(subject.api):
            return None
        try:
            counted = self._moved(subject.attempts_counters[1])
        except Inconclusive:
            return None  # a claim on the attempts raises the reason
        seen = seen_by_clients(columns, "availability", None, self._sight({subject.api}, counts_failures=True))
        given_up = columns.outcomes.count(CANCELLED) + columns.outcomes.count(LEFT)
        return None if counted is None else miscount(seen, given_up, counted)

    def _oddity(self, slo: Slo, measure: Measure) -> str | None:
        columns, bound_s = self.samples.columns, slo.threshold_s
        is_pushed = slo.outlives_services
        try:
            slo_says = self._pushed(slo) if is_pushed else self._share_of(slo)
        except Inconclusive:
            return None  # a claim on this SLO raises the reason
        all_seen = seen_by_clients(columns, measure, bound_s, None)
        if slo_says is None or not all_seen.total:
            return None
        service_says = self._service_says(measure, slo) if is_pushed else None
        if not self._floods and oddity(slo.name, all_seen, replace(all_seen), slo_says, service_says) is None:
            return None  # saves another pass over every sample
        services = {self.lab.subject.api} if is_pushed else {self.lab.subject.api, *self.injected.victims}
        sighted = seen_by_clients(columns, measure, bound_s, self._sight(services, counts_failures=is_pushed))
        exact = all_seen if is_pushed else sighted
        if not sighted.total:
            return None
        return oddity(slo.name, exact, sighted, slo_says, service_says)

    @property
    def _until_unix_s(self) -> float:
        """End of the comparison, at the latest the start of an overload fault.

        The service also counts that fault's requests, which are not in the samples.
        """
        return min([self.counted_unix_s, *self._floods])

    @property
    def _floods(self) -> list[float]:
        return [at_unix_s for act, at_unix_s in self.injected.proven if act.fault.kind == "overload"]

    def _sight(self, services: AbstractSet[str], *, counts_failures: bool) -> Sight:
        until_s = self.record.at_s(self._until_unix_s) if self._floods else math.inf
        blind = [spell for service in sorted(services) for spell in self._blind_spells(service)]
        if self._floods:  # requests that ended after the last scrape were not counted yet
            blind.append((until_s - BLIND_EDGE_S, until_s))
        known_s = max(self.samples.columns.due_s, default=0.0)
        return Sight(
            blind=blind,
            until_s=until_s,
            known_s=known_s,
            counts_failures=counts_failures,
            unseen=UNSEEN | {CODES["truncated"]} if self._forged else UNSEEN,
        )

    @property
    def _forged(self) -> bool:
        """True if a fault made short answers look whole."""
        acts = (act.fault for act, _ in self.injected.proven)
        return any(isinstance(one, ForgesAnswers) and one.looks_whole for one in acts)

    def _blind_spells(self, service: str) -> list[Spell]:
        """Return when the service could not count, or its counts were lost.

        The runtime's events give these spells, or else the faults on the service.
        """
        spells: list[Spell] = []
        since_s: float | None = None
        for event in self.events:
            at_s = self.record.at_s(event.at_unix_s)
            if event.service != service:
                continue
            if event.action in {"die", "pause"} and since_s is None:
                since_s = at_s
            elif event.action in {"start", "unpause"} and since_s is not None:
                spells.append((since_s - BLIND_EDGE_S, at_s + BLIND_EDGE_S))
                since_s = None
        if since_s is not None:
            spells.append((since_s - BLIND_EDGE_S, math.inf))
        proven = self.injected.proven
        hit = [at for act, at in proven if act.victim == service and act.fault.kind != "overload"]
        if hit and not spells:  # such as a partition, which lasts until its revert
            reverted = self.injected.reverted_unix_s
            until_s = math.inf if reverted is None else self.record.at_s(reverted) + BLIND_EDGE_S
            spells.append((self.record.at_s(min(hit)) - BLIND_EDGE_S, until_s))
        return spells

    def _pushed(self, slo: Slo) -> Share:
        bound = self._coarse(slo.good, slo.threshold_s)
        if bound is not None:
            counted = self.lab.prometheus.value(_sum(slo.total), self.counted_unix_s)
            return self._between(bound, max(1.0, counted))  # none of no events is within the bound
        return self.lab.prometheus.value(f"{slo.good_events(_sum)} / {_sum(slo.total)}", self.counted_unix_s)

    def _service_says(self, measure: Measure, slo: Slo) -> Share | None:
        """Return the share of good requests by the service's own counters.

        None if it has no such counters or they restarted. Counters that are configured
        but missing are a finding.
        """
        subject, until_unix_s = self.lab.subject, self._until_unix_s
        share = next((one for one in subject.latency_shares if one.measure == measure), None)
        try:
            if measure == "availability" and subject.availability_query is not None:
                # From one scrape before the load: increase() needs an earlier sample.
                span = f"{math.ceil(until_unix_s - self.record.anchor_unix_s + 1.5 * SCRAPE_S)}s"
                return self.lab.prometheus.value(subject.availability_query.replace("$span", span), until_unix_s)
            if share is None or self._blind_spells(subject.api):
                return None
            return self._share(share.good.replace("$le", _bucket(slo.threshold_s or 0.0)), share.total, slo.threshold_s)
        except Inconclusive as error:
            self.record.finding(f"{slo.name}: the service's own counters cannot be compared: {error}")
            return None

    def _share_of(self, slo: Slo) -> Share | None:
        if slo.good:
            return self._share(slo.good, slo.total, slo.threshold_s)
        counted_bad, counted = self._moved(slo.bad, may_be_missing=True), self._moved(slo.total)
        return 1 - counted_bad / counted if counted_bad is not None and counted else None

    def _share(self, good: str, total: str, bound_s: float | None) -> Share | None:
        """Return the share of good events since the load's start.

        It is exact, or between two edges if the histogram lacks the latency bound. None
        if a counter restarted or there were no events.
        """
        bound = self._coarse(good, bound_s)
        if bound is not None:
            counted = self._moved(total)
            is_whole = self._moved(bound.every) is not None
            return self._between(bound, counted) if counted and is_whole else None
        counted_good, counted = self._moved(good), self._moved(total)
        return counted_good / counted if counted_good is not None and counted else None

    def _coarse(self, good: str, bound_s: float | None) -> LatencyBound | None:
        """Return the bound of a selector that its histogram lacks as an edge."""
        bound = latency_bound(good, bound_s) if good else None
        if bound is None or not bound.is_declared or not lacks_edge(self.lab.prometheus, bound, self._until_unix_s):
            return None
        return bound

    def _between(self, bound: LatencyBound, counted: float) -> Between:
        seen = counted_within(self.lab.prometheus, bound, self.record.anchor_unix_s, self._until_unix_s)
        return Between(seen.least / counted, seen.most / counted)

    def _moved(self, selector: str, *, may_be_missing: bool = False) -> float | None:
        """Return the exact increase since the load's start, or None after a restart."""
        until_unix_s, prometheus = self._until_unix_s, self.lab.prometheus
        span = f"{round((until_unix_s - self.record.anchor_unix_s) * 1000)}ms"
        resets, counted = f"sum(resets({selector}[{span}]))", f"sum({selector})"
        if may_be_missing:
            resets, counted = f"({resets} or vector(0))", f"({counted} or vector(0))"
        resets = f"{resets} + {restarts_query(selector, span)}"
        if prometheus.value(resets, until_unix_s) > 0:
            return None
        return prometheus.value(f"{counted} - (sum({selector} offset {span}) or vector(0))", until_unix_s)


def _sum(selector: str) -> str:
    return f"sum({selector})"


def _bucket(bound_s: float) -> str:
    """Return a pattern for the label `le`, which can be "2" or "2.0"."""
    bound = f"{bound_s:g}".replace(".", "[.]")
    return bound if "." in bound else f"{bound}|{bound}[.]0"
