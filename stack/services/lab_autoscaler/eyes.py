"""Prometheus' samples as one observation. What is not proven is None."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab_autoscaler.seen import Observed
from lab_remediator.clients import AskError, Prometheus, Sample, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab_autoscaler.settings import Sights

RUNNING, WAITING, QUEUE, RATE = "running", "waiting", "queue", "rate"
FIRST_TOKEN, TOKEN_GAP = "first token", "token gap"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Answers of Prometheus by query. A query without an answer is absent."""

    found: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def one(self, name: str) -> float | None:
        """The value of an answer with exactly one sample."""
        samples = self.found.get(name, ())
        return samples[0].value if len(samples) == 1 else None

    def by_service(self, name: str) -> dict[str, float]:
        return {sample.labels.get("service", ""): sample.value for sample in self.found.get(name, ())}

    def sum_of(self, name: str, services: Sequence[str]) -> float | None:
        """The sum over these services. None if one of them does not report."""
        values = self.by_service(name)
        return sum((values[one] for one in services), 0.0) if set(services) <= values.keys() else None


def queries(sights: Sights) -> dict[str, str]:
    """The queries by name. `last_over_time` drops samples older than `stale_s`."""
    stale, window = f"[{sights.stale_s:g}s]", f"[{sights.window_s:g}s]"
    # The api's counters count only while its last scrape is fresh.
    fresh = f'and on () (max(last_over_time(up{{job="api"}}{stale})) == 1)'
    found = {
        RUNNING: f"sum by (service) (last_over_time(llmchaos:requests_running{stale}))",
        QUEUE: f"max(last_over_time(llmlab_queue_depth{stale}))",
        RATE: f"sum(rate(llmlab_requests_total{window})) {fresh}",
        FIRST_TOKEN: _share("gen_ai_server_time_to_first_token_seconds", sights.first_token_s, window, fresh),
        TOKEN_GAP: _share("gen_ai_server_time_per_output_token_seconds", sights.token_gap_s, window, fresh),
    }
    if sights.engine_queue:
        found[WAITING] = f"sum by (service) (last_over_time(llmchaos:requests_waiting{stale}))"
    return found


def _share(histogram: str, bound_s: str, window: str, fresh: str) -> str:
    """The share of requests within the bound. Absent without requests."""
    # Programs disagree on how to print a whole number.
    bound = bound_s.removesuffix(".0")
    edge = f"{bound}|{bound}[.]0" if bound.isdigit() else bound.replace(".", "[.]")
    within = f'sum(rate({histogram}_bucket{{job="api",error_type="",le=~"{edge}"}}{window}))'
    every = f'sum(rate({histogram}_count{{job="api",error_type!="client_cancelled"}}{window}))'
    return f"clamp_max({within} / ({every} > 0), 1) {fresh}"


class Eyes:
    """The queries, at Prometheus."""

    def __init__(self, prometheus: Prometheus, sights: Sights) -> None:
        self._prometheus, self._queries, self._stale_s = prometheus, queries(sights), sights.stale_s

    async def look(self) -> Samples:
        """Send all queries at once."""
        answers = await asyncio.gather(*(self._ask(name, query) for name, query in self._queries.items()))
        return Samples(
            found={name: answer for name, answer in answers if not isinstance(answer, str)},
            errors={name: answer for name, answer in answers if isinstance(answer, str)},
        )

    async def _ask(self, name: str, query: str) -> tuple[str, list[Sample] | str]:
        try:
            samples = samples_of(await self._prometheus.data(query, name), name)
        except AskError as error:
            return name, str(error)
        return name, usable(samples, time.time() - self._stale_s)


def usable(samples: Sequence[Sample], since_s: float) -> list[Sample]:
    """The samples that are counts, evaluated at this Unix time or later.

    An answer that is repeated has the time of the first one.
    """
    return [one for one in samples if 0 <= one.value < math.inf and one.at >= since_s]


def observed_of(samples: Samples, sights: Sights, *, now_s: float, replicas: int, ready: Sequence[str]) -> Observed:
    """The observation of these samples.

    Args:
        samples: The answers of Prometheus.
        sights: Slots of a replica, and if the engines report a queue.
        now_s: The time of the answers, in seconds of any one clock.
        replicas: The wanted count in force.
        ready: Names of the replicas that take requests. Each has to report.
    """
    running = samples.sum_of(RUNNING, ready) if ready else None
    queue = samples.one(QUEUE)
    behind = samples.sum_of(WAITING, ready) if sights.engine_queue else 0.0
    places = sights.slots * len(ready)
    return Observed(
        now_s=now_s,
        replicas=replicas,
        ready=len(ready),
        waiting=None if queue is None or behind is None else queue + behind,
        running=running,
        rate_rps=samples.one(RATE),
        slots=sights.slots,
        utilisation=None if running is None or not places else running / places,
        first_token_attained=samples.one(FIRST_TOKEN),
        token_gap_attained=samples.one(TOKEN_GAP),
        reporting=len(set(ready) & samples.by_service(RUNNING).keys()),
    )
