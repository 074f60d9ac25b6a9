"""The truths of every service level that clients can judge, compared over a whole trial."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, TruthsDisagree
from pytest_llmchaos.model import CLIENTS
from pytest_llmchaos.prometheus.queries import SCRAPE_S
from pytest_llmchaos.slo.arithmetic import restarts_query
from pytest_llmchaos.stats.columns import CANCELLED, LEFT
from pytest_llmchaos.trial.recorded_rules import require_recorded
from pytest_llmchaos.trial.truths import Sight, Spell, measure_of, miscount, oddity, seen_by_clients

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pytest_llmchaos.evidence.samples_file import Samples
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import Measure, RuntimeEvent
    from pytest_llmchaos.slo.arithmetic import Slo

# Beside a death of the service lie what it counted after its last scrape, and what came before its next one.
BLIND_EDGE_S = 1.2 * SCRAPE_S


def require_truths(lab: Lab, record: Record, samples: Samples, injected: Injected, counted_unix_s: float) -> None:
    """All that counted the requests of a load, and the rules that record it, agree. Raises TruthsDisagree."""
    events = lab.runtime.events(record.anchor_unix_s, time.time())
    Comparison(
        lab=lab, record=record, samples=samples, injected=injected, events=events, counted_unix_s=counted_unix_s
    ).require()
    require_recorded(lab, record.anchor_unix_s, counted_unix_s)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All who counted the requests of one trial."""

    lab: Lab
    record: Record
    samples: Samples
    injected: Injected
    events: Sequence[RuntimeEvent]
    counted_unix_s: float

    def require(self) -> None:
        """Compare every SLO of the subject that clients can judge, and the number of requests.

        Raises TruthsDisagree, which names the truth that differs from the others by more than edges of windows, dead time of
        the service and resets of its counters explain.
        """
        for slo in self.lab.slos:
            measure = measure_of(slo)
            odd = None if measure is None else self._oddity(slo, measure)
            if odd is not None:
                raise TruthsDisagree(odd)
        if (odd := self._miscount()) is not None:
            raise TruthsDisagree(odd)

    def _miscount(self) -> str | None:
        """How many requests the service counted, where that is not as many as its clients sent."""
        subject, columns = self.lab.subject, self.samples.columns
        if subject.attempts_counters is None or self._blind_spells(subject.api):
            return None
        try:
            counted = self._moved(subject.attempts_counters[1])
        except Inconclusive:
            return None  # a claim on the attempts raises why
        seen = seen_by_clients(columns, "availability", None, self._sight({subject.api}, counts_failures=True))
        given_up = columns.outcomes.count(CANCELLED) + columns.outcomes.count(LEFT)
        return None if counted is None else miscount(seen, given_up, counted)

    def _oddity(self, slo: Slo, measure: Measure) -> str | None:
        columns, bound_s = self.samples.columns, slo.threshold_s
        is_pushed = slo.good.startswith(CLIENTS) and slo.total.startswith(CLIENTS)
        try:
            slo_says = self._pushed(slo) if is_pushed else self._share(slo.good, slo.total)
        except Inconclusive:
            return None  # what cannot answer contradicts nothing: a claim on this SLO raises why
        all_seen = seen_by_clients(columns, measure, bound_s, None)
        if slo_says is None or not all_seen.total:
            return None
        service_says = self._service_says(measure, slo) if is_pushed else None
        if not self._floods and oddity(slo.name, all_seen, replace(all_seen), slo_says, service_says) is None:
            return None  # nothing has to be explained, which costs another look at every sample
        services = {self.lab.subject.api} if is_pushed else {self.lab.subject.api, *self.injected.victims}
        sighted = seen_by_clients(columns, measure, bound_s, self._sight(services, counts_failures=is_pushed))
        exact = all_seen if is_pushed else sighted
        if not sighted.total:
            return None
        return oddity(slo.name, exact, sighted, slo_says, service_says)

    @property
    def _until_unix_s(self) -> float:
        """The service counts a flood's requests as well, of which the trial's clients know nothing."""
        return min([self.counted_unix_s, *self._floods])

    @property
    def _floods(self) -> list[float]:
        return [at_unix_s for act, at_unix_s in self.injected.proven if act.fault.kind == "overload"]

    def _sight(self, services: AbstractSet[str], *, counts_failures: bool) -> Sight:
        until_s = self.record.at_s(self._until_unix_s) if self._floods else math.inf
        blind = [spell for service in sorted(services) for spell in self._blind_spells(service)]
        if self._floods:  # what ended after the last scrape before the flood was not counted yet
            blind.append((until_s - BLIND_EDGE_S, until_s))
        known_s = max(self.samples.columns.due_s, default=0.0)
        return Sight(blind=blind, until_s=until_s, known_s=known_s, counts_failures=counts_failures)

    def _blind_spells(self, service: str) -> list[Spell]:
        """When it could count nothing, or what it had counted was lost: by the runtime's events, else by the faults on it."""
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
        if hit and not spells:  # a partition or a limit of a resource, say, which lasts until it is reverted
            reverted = self.injected.reverted_unix_s
            until_s = math.inf if reverted is None else self.record.at_s(reverted) + BLIND_EDGE_S
            spells.append((self.record.at_s(min(hit)) - BLIND_EDGE_S, until_s))
        return spells

    def _pushed(self, slo: Slo) -> float:
        return self.lab.prometheus.value(f"sum({slo.good}) / sum({slo.total})", self.counted_unix_s)

    def _service_says(self, measure: Measure, slo: Slo) -> float | None:
        """The share of good requests by the service's own counters.

        None where it has none, and where they began again with it; a finding where they should be there and are not.
        """
        subject, until_unix_s = self.lab.subject, self._until_unix_s
        share = next((one for one in subject.latency_shares if one.measure == measure), None)
        try:
            if measure == "availability" and subject.availability_query is not None:
                # From the scrape before the load on: increase() knows nothing of what came before its first sample.
                span = f"{math.ceil(until_unix_s - self.record.anchor_unix_s + 1.5 * SCRAPE_S)}s"
                return self.lab.prometheus.value(subject.availability_query.replace("$span", span), until_unix_s)
            if share is None or self._blind_spells(subject.api):
                return None
            return self._share(share.good.replace("$le", _bucket(slo.threshold_s or 0.0)), share.total)
        except Inconclusive as error:
            self.record.finding(f"{slo.name}: the service's own counters cannot be compared: {error}")
            return None

    def _share(self, good: str, total: str) -> float | None:
        """Good of all events since the load began, exactly; None where a counter began again, or nothing was counted."""
        counted_good, counted = self._moved(good), self._moved(total)
        return counted_good / counted if counted_good is not None and counted else None

    def _moved(self, selector: str) -> float | None:
        """How far these counters moved since the load began, exactly; None where one began again."""
        until_unix_s, prometheus = self._until_unix_s, self.lab.prometheus
        span = f"{round((until_unix_s - self.record.anchor_unix_s) * 1000)}ms"
        resets = f"sum(resets({selector}[{span}])) + {restarts_query(selector, span)}"
        if prometheus.value(resets, until_unix_s) > 0:
            return None
        return prometheus.value(f"sum({selector}) - (sum({selector} offset {span}) or vector(0))", until_unix_s)


def _bucket(bound_s: float) -> str:
    """A pattern of the bucket's label: programs disagree on how to print a whole number."""
    bound = f"{bound_s:g}".replace(".", "[.]")
    return bound if "." in bound else f"{bound}|{bound}[.]0"
