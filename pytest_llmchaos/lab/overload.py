"""The overload fault's flood of requests, sent by a second load generator."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, InvalidExperiment, NoData
from pytest_llmchaos.host import identity
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess
from pytest_llmchaos.loads.arrivals import MAX_ARRIVALS, Arrival
from pytest_llmchaos.model import Proof
from pytest_llmchaos.servers.canonical import BY_KEY
from pytest_llmchaos.subject.lab import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.subject.lab import Subject

LONGEST_S = 600.0
# The proof is what Prometheus counts, not what the sender does.
SEEN_SHARE = 0.5
# Shortest queue at model servers, in seconds of offered requests. An engine that is not
# saturated lets requests wait for its next step, some 10 ms.
WAIT_S = 0.1
# Engines that generate so much of what is offered are not saturated.
SERVED_SHARE = 0.9
# The flood's own requests with these outcomes never reach an engine.
_TURNED_AWAY = ("http_3xx", "http_4xx", "refused")
_TOKENS = f"sum(rate({BY_KEY['tokens_out'].name}{ENGINES}[3s]))"
# An idle engine's queue is no queue of a busy engine that reports none.
_WITHOUT_QUEUE = (
    f"count(count by (job) ({BY_KEY['done'].name}{ENGINES} or {BY_KEY['running'].name}{ENGINES}) "
    f"unless count by (job) ({BY_KEY['waiting'].name}{ENGINES}))"
)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The offer of a flood.

    Attributes:
        rate_rps: requests per second.
        tokens_per_s: output tokens per second, if each answer has its full length.
    """

    rate_rps: float
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Numbers of a flood in Prometheus. None is what no server reports.

    Attributes:
        turned_away: share of the flood's requests that end with a status 3xx, or 4xx
            other than 429, or get no connection. 1 if none is sent.
        arriving_rps: requests per second that arrive or wait.
        waiting: fewest requests that waited in the last 3 s.
        waited: fewest requests that waited in the 3 s before the flood.
        tokens_per_s: output tokens per second of the engines.
        without_queue: engines of a user's stack that count requests and report no
            waiting ones.
    """

    turned_away: float
    arriving_rps: float | None
    waiting: float | None
    waited: float
    tokens_per_s: float | None
    without_queue: float | None

    def is_too_much(self, offer: Offer, *, at_gateway: bool) -> bool:
        """Return whether the flood arrives, and is more than what is served.

        Without a queue it is unknown. Servers that count a request at its end show too
        few tokens while a served flood begins.

        Args:
            offer: What is offered.
            at_gateway: True if the gateway counts what arrives and what waits. False if
                model servers alone do, and a gateway may keep requests from them.
        """
        if self.waiting is None:
            return False
        if at_gateway:
            arrives = self.arriving_rps is not None and self.arriving_rps >= SEEN_SHARE * offer.rate_rps
            return arrives and self.waiting > self.waited
        is_served = self.tokens_per_s is not None and self.tokens_per_s >= SERVED_SHARE * offer.tokens_per_s
        is_taken = self.turned_away <= 1 - SEEN_SHARE
        return is_taken and not is_served and self.waiting - self.waited >= max(1.0, WAIT_S * offer.rate_rps)

    def text(self, service: str, offer: Offer) -> str:
        """Return all of it in words."""
        lines = [f"Prometheus: {service} is sent {offer.rate_rps:.0f} requests/s"]
        if self.arriving_rps is not None:
            lines[0] += f", {self.arriving_rps:.0f}/s arrive or wait"
        if self.waiting is not None:
            lines.append(f"{self.waiting:.0f} requests wait, {self.waited:.0f} before")
        if self.tokens_per_s is not None:
            lines.append(f"the engines generate {self.tokens_per_s:.0f} of {offer.tokens_per_s:.0f} offered tokens/s")
        if self.turned_away > 0:
            lines.append(f"{self.turned_away:.0%} of the flood ends with a status 3xx or 4xx, or gets no connection")
        if self.waiting is None:
            lines.append("no engine reports waiting requests")
        if self.without_queue:
            lines.append(f"engines that report no waiting requests: {self.without_queue:.0f}")
        return "; ".join(lines)


class ProcessFlood:
    """One flood of the subject's gateway at a time. The record lists its process."""

    def __init__(self, subject: Subject, url: str, record: Record, prometheus: Callable[[], Prometheus]) -> None:
        self._subject, self._url, self._record, self._prometheus = subject, url, record, prometheus
        self._process: LoadProcess | None = None
        self._offer: Offer
        self._begun_unix_s: float

    def start(self, service: str, times: float, max_tokens: int) -> None:
        """Offer `times` the backend's peak throughput, `max_tokens` per request."""
        subject = self._subject
        if service != subject.api:
            raise InvalidExperiment(f"only {subject.api} can be flooded, got {service!r}")
        self._require_witness(service)
        tokens_per_s = times * (subject.peak_tokens_per_s or subject.capacity_tokens_per_s)
        rate_rps = tokens_per_s / max_tokens
        count = math.ceil(rate_rps * LONGEST_S)
        if count > MAX_ARRIVALS:
            raise InvalidExperiment(
                f"a flood of {rate_rps:.0f} requests/s is {count} requests in {LONGEST_S:g} s, at most {MAX_ARRIVALS} are "
                f"possible: raise max_tokens of faults.overload, now {max_tokens}"
            )
        self._offer = Offer(rate_rps=rate_rps, tokens_per_s=tokens_per_s)
        words = "Count slowly from one to a hundred, one number after the other."
        arrivals = tuple(Arrival(i / rate_rps, f"{words} ({i})", max_tokens) for i in range(count))
        plan = LoadPlan(
            url=subject.requests.address(self._url),
            model=subject.model,
            requests=subject.requests,
            arrivals=arrivals,
            timeout_s=10.0,
            drain_s=0.0,
        )
        # The start of the process takes CPU time from the stack, so that requests wait.
        self._begun_unix_s = time.time()
        self._process = LoadProcess(plan, self._record.directory / "overload")
        self._process.start()
        pid = self._process.pid
        self._record.process(pid, identity.process_started(pid))

    def _require_witness(self, service: str) -> None:
        """Require metrics that can prove the flood. The lab has them."""
        subject, why = self._subject, f"a flood of {service} cannot be proven"
        if subject.requests_query is None:
            raise InvalidExperiment(
                f"{why}: this stack has no scraped model server: name its endpoint in llmchaos_metrics"
            )
        if subject.own and self._number(subject.waiting_query, time.time()) is None:
            raise InvalidExperiment(
                f"{why}: no scraped engine has {BY_KEY['waiting'].name}, so a flood that is served looks like one that is not. "
                "The queues of gateways do not count. Scrape an engine that reports its queue (llmchaos_metrics), and name it "
                "in llmchaos_servers, such as model: vllm"
            )

    def seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Proof in Prometheus that more is offered than served, else None."""
        now = time.time()
        if self._process is None or not self._process.alive or now - since_unix_s < 3:
            return None
        try:
            seen = self._measured(self._process, now)
        except Inconclusive:
            return None
        if not seen.is_too_much(self._offer, at_gateway=not self._subject.own):
            return None
        return Proof(step="injected", witness=seen.text(service, self._offer), at_unix_s=self._process.t0_unix_s)

    def report(self, service: str) -> str:
        """Return in words what is offered and served, and how to offer more."""
        if self._process is None:
            return f"no flood of {service} has begun"
        subject, more = self._subject, "raise times of faults.overload"
        if subject.own:
            more = f"raise llmchaos_tokens_per_s, now {subject.capacity_tokens_per_s:g}"
        try:
            return f"{self._measured(self._process, time.time()).text(service, self._offer)}: {more}"
        except Inconclusive as error:
            return str(error)

    def _measured(self, process: LoadProcess, now_unix_s: float) -> Seen:
        """Return the numbers of now. Raises Inconclusive without an answer."""
        waiting, status = f"min_over_time({self._subject.waiting_query}[3s:1s])", process.status()
        away = sum(status.outcomes.get(one, 0) for one in _TURNED_AWAY)
        return Seen(
            turned_away=away / status.sent if status.sent else 1.0,
            arriving_rps=self._number(str(self._subject.requests_query), now_unix_s),
            waiting=self._number(waiting, now_unix_s),
            waited=self._number(waiting, self._begun_unix_s) or 0.0,
            tokens_per_s=self._number(_TOKENS, now_unix_s),
            without_queue=self._number(_WITHOUT_QUEUE, now_unix_s) if self._subject.own else None,
        )

    def _number(self, query: str, at_unix_s: float) -> float | None:
        """Return a query's number, None if no server has its metrics."""
        try:
            return self._prometheus().value(query, at_unix_s)
        except NoData:
            return None

    def gone(self) -> Proof | None:
        """Proof that the flood has ended, or None."""
        if self._process is not None and self._process.alive:
            return None
        return Proof(step="healed", witness="the flood's process has ended", at_unix_s=time.time())

    def stop(self) -> None:
        """End the flood."""
        if self._process is not None:
            self._process.stop()
