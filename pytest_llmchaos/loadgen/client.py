"""One request, from its due time to its sample."""

from __future__ import annotations

import os
import secrets
import time

import gevent

from pytest_llmchaos.loadgen import classify
from pytest_llmchaos.loadgen.dialects import FORMATS
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loadgen.wire import BODY_MAX_BYTES, Answer, Leave, Wire
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Outcome, Sample
from pytest_llmchaos.subject.request_body import Body
from pytest_llmchaos.subject.requests import head_of

# An event of one token is shorter, even with log probabilities and other fields.
TOKEN_MAX_BYTES = 4096
# Wait this long beyond a request's limits, because its real end has more information.
OVERDUE_S = 0.25


class Client:
    """All clients of one process.

    Attributes:
        wire: the connections.
        t0_s: second 0 of the load on the monotonic clock.
        uncancelled: tasks that may still run after `close`, which requests are not.
    """

    uncancelled = 0

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        sent = plan.requests.resolve(os.environ)
        self.wire = Wire(plan.url, tls=plan.requests.tls, host=sent.host)
        self.t0_s = 0.0
        self._arriving: dict[int, Answer] = {}
        self._name = f"llmchaos-{secrets.token_hex(4)}"
        self._replica_header = (plan.replica_header or "").lower().encode()
        self._head = self.wire.head("POST", sent.path, head_of(sent.headers))
        self._body = Body(plan.requests, plan.model, stream=plan.stream)
        self._of_stream = FORMATS[plan.requests.dialect].of_stream

    def call(self, index: int, arrival: Arrival) -> tuple[Sample, int]:
        """Send a request and classify its answer.

        Never raises. A greenlet that is killed gives its request up.

        Args:
            index: the request's place in the schedule.
            arrival: the request.

        Returns:
            The sample, and the size of the answer in bytes.
        """
        due_s = arrival.due_s
        sent_s = time.monotonic() - self.t0_s
        request_id = self.request_id(index)
        answer = self._arriving[index] = Answer(
            self._replica_header,
            dialect=self._plan.requests.dialect,
            any_channel=self._plan.first_token == "any",
            max_bytes=BODY_MAX_BYTES + arrival.max_tokens * TOKEN_MAX_BYTES,
        )
        try:
            self.wire.exchange(
                self._request(arrival, request_id),
                timeout_s=self._plan.timeout_s - (sent_s - due_s),
                idle_timeout_s=self._plan.idle_timeout_s,
                stream=self._plan.stream,
                answer=answer,
                leave=self._leave(index, sent_s - due_s),
            )
        except gevent.GreenletExit:
            return self.given_up(index, arrival, sent_s), 0
        finally:
            del self._arriving[index]
        outcome, tokens = self._verdict(answer, arrival)
        first_s = answer.end_s if answer.first_s is None and outcome == "ok" else answer.first_s
        gap_s = answer.max_gap_s
        if answer.first_s is not None and answer.ended in ("timeout", "silent", "left"):
            gap_s = max(gap_s, answer.end_s - answer.last_s)
        sample = Sample(
            due_s,
            sent_s,
            None if first_s is None else first_s - self.t0_s,
            answer.end_s - self.t0_s,
            gap_s,
            tokens,
            outcome,
            answer.replica,
            request_id,
            answer.status,
            classify.retry_after_s(answer.retry_after, time.time()) if answer.status in (429, 503) else None,
        )
        return sample, len(answer.body)

    def _leave(self, index: int, late_s: float) -> Leave | None:
        impatience = self._plan.impatience
        if impatience is None or not impatience.takes(index):
            return None
        return Leave(after_s=impatience.after_s - late_s, unless_begun=impatience.until == "first_token")

    def close(self) -> None:
        self.wire.close()

    def request_id(self, index: int) -> str:
        """The value of the header `X-Request-Id`.

        Unique, and it ends with the request's place in the schedule. A fault agent
        decides by that place.
        """
        return f"{self._name}-{index}"

    def has_begun(self, index: int) -> bool:
        """True if an open request has its first token."""
        return index in self._arriving and self._arriving[index].first_s is not None

    def overdue_s(self, index: int, arrival: Arrival) -> float:
        """Seconds that an open request exceeds its limits by.

        Below 0 it can be good.
        """
        age_s = time.monotonic() - self.t0_s - arrival.due_s
        limit_s = self._plan.good_e2e_s if self.has_begun(index) else min(self._plan.good_ttft_s, self._plan.good_e2e_s)
        return age_s - limit_s

    def is_awaited(self, index: int, arrival: Arrival) -> bool:
        """True if the end of the load waits for an open request."""
        return self.overdue_s(index, arrival) <= OVERDUE_S

    def given_up(self, index: int, arrival: Arrival, sent_s: float) -> Sample:
        """The sample of a request that is open at the end of the load.

        `unfinished`, which is bad, if it is older than its limits, else `cancelled`.
        """
        outcome: Outcome = "unfinished" if self.overdue_s(index, arrival) > 0 else "cancelled"
        first_s = self._arriving[index].first_s if index in self._arriving else None
        return Sample(
            arrival.due_s,
            sent_s,
            None if first_s is None else first_s - self.t0_s,
            time.monotonic() - self.t0_s,
            0.0,
            0,
            outcome,
            "",
            self.request_id(index),
        )

    def _request(self, arrival: Arrival, request_id: str) -> bytes:
        body = self._body.of(arrival.prompt, arrival.max_tokens)
        own = b"X-Request-Id: %b\r\nContent-Length: %d\r\n\r\n" % (request_id.encode(), len(body))
        return self._head + own + body

    def _verdict(self, answer: Answer, arrival: Arrival) -> classify.Verdict:
        at_once: Outcome | None = classify.of_status(answer.status) if answer.status else None
        if answer.ended in ("refused", "garbled"):
            at_once = "refused" if answer.ended == "refused" else "corrupted"
        elif answer.ended == "endless" and at_once is None:
            at_once = "corrupted"
        if at_once is not None:
            return classify.Verdict(at_once, 0)
        expected = classify.expected_of(self._plan.check, arrival.prompt, arrival.max_tokens, self._plan.model)
        judge = self._of_stream if self._plan.stream else classify.of_whole
        verdict = judge(bytes(answer.body), expected)
        if answer.ended == "complete" or verdict.outcome == "inband_error":
            return verdict
        if answer.ended == "cut":
            return classify.Verdict("cut", verdict.tokens)
        silent = answer.first_s is not None and (
            answer.ended == "silent" or answer.end_s - answer.last_s >= self._plan.stall_s
        )
        if answer.ended == "left" and not silent and not self._is_late(answer, arrival):
            return classify.Verdict("left", verdict.tokens)
        return classify.Verdict("stalled" if silent else "timeout", verdict.tokens)

    def _is_late(self, answer: Answer, arrival: Arrival) -> bool:
        """True if the answer could no longer become good when its client left."""
        due_s = self.t0_s + arrival.due_s
        first_s = answer.end_s if answer.first_s is None else answer.first_s
        return first_s - due_s >= self._plan.good_ttft_s or answer.end_s - due_s >= self._plan.good_e2e_s
