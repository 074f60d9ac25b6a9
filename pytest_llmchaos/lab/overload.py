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
# Engines that generate so much of what is offered are not saturated. It decides only
# where no server reports its queue.
SERVED_SHARE = 0.9
_TOKENS = f"sum(rate({BY_KEY['tokens_out'].name}[3s]))"


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
        arriving_rps: requests per second that arrive or wait.
        waiting: fewest requests that waited in the last 3 s.
        waited: fewest requests that waited in the 3 s before the flood.
        tokens_per_s: output tokens per second of the engines.
    """

    arriving_rps: float | None
    waiting: float | None
    waited: float
    tokens_per_s: float | None

    def is_too_much(self, offer: Offer, *, at_gateway: bool) -> bool:
        """Return whether the flood arrives, and is more than what is served.

        Args:
            offer: What is offered.
            at_gateway: True if the gateway counts what arrives and what waits. False if
                model servers alone do, and a gateway may keep requests from them.
        """
        arrives = self.arriving_rps is not None and self.arriving_rps >= SEEN_SHARE * offer.rate_rps
        if self.waiting is None:
            is_served = self.tokens_per_s is not None and self.tokens_per_s >= SERVED_SHARE * offer.tokens_per_s
            return arrives and not is_served
        if at_gateway:
            return arrives and self.waiting > self.waited
        return self.waiting - self.waited >= max(1.0, WAIT_S * offer.rate_rps)

    def text(self, service: str, offer: Offer) -> str:
        """Return all of it in words."""
        lines = [f"Prometheus: {service} is sent {offer.rate_rps:.0f} requests/s"]
        if self.arriving_rps is not None:
            lines[0] += f", {self.arriving_rps:.0f}/s arrive or wait"
        if self.waiting is not None:
            lines.append(f"{self.waiting:.0f} requests wait, {self.waited:.0f} before")
        if self.tokens_per_s is not None:
            lines.append(f"the engines generate {self.tokens_per_s:.0f} of {offer.tokens_per_s:.0f} offered tokens/s")
        if self.waiting is None:
            lines.append("no server reports waiting requests")
            if self.tokens_per_s is None:
                lines[-1] += " or output tokens, so whether they are saturated is not measured"
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
        queries = (subject.waiting_query, subject.requests_query) if subject.own else ()
        if queries and all(self._number(query, time.time()) is None for query in queries):
            raise InvalidExperiment(
                f"{why}: no scraped service has {BY_KEY['waiting'].name} or {BY_KEY['done'].name}, so none is a known model "
                "server that counts its requests: name it in llmchaos_servers, such as model: vllm"
            )

    def seen(self, service: str, since_unix_s: float) -> Proof | None:
        """Proof in Prometheus that more is offered than served, else None."""
        now = time.time()
        if self._process is None or now - since_unix_s < 3:
            return None
        try:
            seen = self._measured(now)
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
            return f"{self._measured(time.time()).text(service, self._offer)}: {more}"
        except Inconclusive as error:
            return str(error)

    def _measured(self, now_unix_s: float) -> Seen:
        """Return the numbers of now. Raises Inconclusive without an answer."""
        waiting = f"min_over_time({self._subject.waiting_query}[3s:1s])"
        return Seen(
            arriving_rps=self._number(str(self._subject.requests_query), now_unix_s),
            waiting=self._number(waiting, now_unix_s),
            waited=self._number(waiting, self._begun_unix_s) or 0.0,
            tokens_per_s=self._number(_TOKENS, now_unix_s),
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
