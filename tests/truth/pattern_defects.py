"""Defects of the gateway's patterns: switches that change too little."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

API = "stack/services/lab_api"


def _defect(
    pattern: str,
    what: str,
    caught_by: str,
    *changes: tuple[str, str, str],
    name: str = "",
    only: str = "",
    seed: int = 7,
) -> SubjectDefect:
    """A defect of a pattern. Each change is (file, old text, new text)."""
    return SubjectDefect(
        name=f"pattern-{name or pattern}",
        part="gateway",
        what=what,
        patches=tuple(Patch(file=f"{API}/{file}", old=old, new=new) for file, old, new in changes),
        scenario=f"patterns/{pattern}",
        caught_by=caught_by,
        only=only,
        seed=seed,
    )


PATTERNS: tuple[SubjectDefect, ...] = (
    _defect(
        "retry",
        "a retry goes to the replica that has just failed",
        "test_retries_keep_answers",
        (
            "gateway.py",
            "                excluding=tried, retry=bool(tried)",
            (
                "                excluding=[one.name for one in self.pool.replicas if tried and one.name not in tried],\n"
                "                retry=bool(tried)"
            ),
        ),
    ),
    _defect(
        "retry_budget",
        "each request has a retry budget of its own, which is full",
        "test_retries_are_a_share_of_the_load",
        (
            "gateway.py",
            "(not patterns.retry_budget or self.budget.spend())",
            (
                "(not patterns.retry_budget or RetryBudget(\n"
                "                ratio=self.settings.retrying.ratio, burst=self.settings.retrying.burst).spend())"
            ),
        ),
    ),
    _defect(
        "breaker",
        "the breaker takes the seconds of its window for milliseconds, so that it never holds enough requests",
        "test_a_failing_replica_is_left_out",
        ("breaker.py", "now_s - self._policy.window_s", "now_s - self._policy.window_s / 1000"),
    ),
    _defect(
        "half_open",
        "a half-open circuit closes as its trial is sent, before that is answered",
        "test_a_bad_replica_gets_single_trials",
        (
            "breaker.py",
            "        self._trial_out = True\n        return True\n",
            "        self._close()\n        return False\n",
        ),
    ),
    _defect(
        "fail_open",
        "the gateway fails open if all probes are bad, and not if all circuits are open",
        "test_the_service_is_back_as_soon_as_its_replicas",
        (
            "pool.py",
            "        if not chosen and self._patterns.fail_open:\n",
            "        if not chosen and not self.ready and self._patterns.fail_open:\n",
        ),
    ),
    _defect(
        "migration",
        "the first token of the rest of an answer is taken for an echo and dropped",
        "test_cut_answers_are_finished_elsewhere",
        (
            "rewriting.py",
            "        if tokens < 2 or not content.startswith(text):\n            return content\n",
            '        if not content.startswith(text):\n            self._begun = True\n            return ""\n',
        ),
    ),
    _defect(
        "hedging",
        "the delay of a hedge follows the slowest of the latest first tokens, in place of a quantile",
        "test_stragglers_are_overtaken",
        (
            "hedging.py",
            "self._ordered_s[int(self._policy.quantile * (known - 1))]",
            "self._ordered_s[-1]",
        ),
    ),
    _defect(
        "hedging",
        "with hedging each stream is held back for 10 ms, whether a hedge follows or not",
        "test_a_healthy_system_pays_nothing",
        (
            "hedging.py",
            "        stream = await _Race(",
            "        await asyncio.sleep(0.01)\n        stream = await _Race(",
        ),
        name="hedging-holds-back",
    ),
    _defect(
        "drain",
        "the drain waits for requests without a first token, and ends the streams that have one",
        "test_a_stopped_gateway_lets_its_streams_end",
        (
            "exchange.py",
            "            if not self.exchanges:\n",
            "            if all(one.phase is Phase.DECODE for one in self.exchanges):\n",
        ),
        ("__main__.py", "    if not finished:\n", "    if gateway.board.exchanges:\n"),
    ),
    _defect(
        "retry_after",
        "a replica's 429 is passed on without Retry-After",
        "test_a_refusal_names_a_time",
        (
            "outcomes.py",
            "    {\n        Outcome.UPSTREAM_429,\n        Outcome.REJECTED_QUEUE_FULL,\n",
            "    {\n        Outcome.REJECTED_QUEUE_FULL,\n",
        ),
    ),
    _defect(
        "strict",
        "only a lost connection is an error for the client, and not an end without a finish reason",
        "test_no_half_answer_looks_whole",
        (
            "gateway.py",
            "(client.fail(error) if self.settings.patterns.strict else",
            '(client.fail(error) if self.settings.patterns.strict and "broke off" in error.message else',
        ),
    ),
    _defect(
        "ttft_deadline",
        "the deadline of the first token ends with the connection",
        "test_lost_requests_are_answered_elsewhere",
        (
            "upstream.py",
            (
                "                await self._send(stream, ask, request_id, stream.first_token)\n"
                "                lease.first_token()\n                return stream\n"
            ),
            (
                "            await self._send(stream, ask, request_id, stream.first_token)\n"
                "            lease.first_token()\n            return stream\n"
            ),
        ),
    ),
    _defect(
        "slow_start",
        "only a replica that a trial lets back in starts slowly, not one that its probe does",
        "test_a_cold_replica_gets_little_load",
        (
            "replica.py",
            'now_s - max(self._recovered_at_s, self.breaker.closed_at_s or float("-inf"))',
            'now_s - (self.breaker.closed_at_s or float("-inf"))',
        ),
    ),
    _defect(
        "keepalive",
        "comments keep a connection alive after the first event only",
        "test_late_answers_are_waited_for",
        (
            "client.py",
            "        if left_s <= 0 and (self._ping is None or self._ping.done()):\n",
            "        if self.started and left_s <= 0 and (self._ping is None or self._ping.done()):\n",
        ),
    ),
    _defect(
        "affinity",
        "the score of a replica leaves out the beginning, so that one replica comes first for all",
        "test_documents_stay_in_the_cache",
        (
            "affinity.py",
            "hashlib.blake2b(name.encode(), key=self.digest, digest_size=8)",
            "hashlib.blake2b(name.encode(), digest_size=8)",
        ),
        only="documents_stay",  # it costs a healthy system too, because the caches need no fault
    ),
    _defect(
        "gap_deadline",
        "a stream is checked for silence once, and not again",
        "test_stalled_answers_are_finished_elsewhere",
        (
            "relay.py",
            "        self._timer = asyncio.get_running_loop().call_later(left_s + 0.001 if left_s > 0 else self._gap_s, self._look)\n",
            "        self._timer = None\n",
        ),
    ),
    _defect(
        "cancel",
        "a client who leaves cancels a whole answer, and no stream that has begun",
        "test_clients_who_stay_get_the_places_of_those_who_left",
        (
            "gateway.py",
            (
                "        if self.settings.patterns.cancel:\n"
                "            return await self._chat(request, request_id)\n"
                "        return await asyncio.shield(asyncio.create_task(self._chat(request, request_id)))\n"
            ),
            (
                "        task = asyncio.create_task(self._chat(request, request_id))\n"
                "        try:\n"
                "            return await asyncio.shield(task)\n"
                "        except asyncio.CancelledError:\n"
                "            own = [one for one in self.board.exchanges if one.request_id == request_id]\n"
                "            if self.settings.patterns.cancel and not any(one.streaming for one in own):\n"
                "                task.cancel()\n"
                "            raise\n"
            ),
        ),
    ),
    _defect(
        "health_apart",
        "a gateway whose replicas all refuse connections reports itself unhealthy",
        "test_no_gateway_is_restarted_for_its_replicas",
        (
            "app.py",
            "    if gateway.settings.patterns.health_apart or gateway.pool.ready:\n",
            (
                "    refused = all(replica.refuses for replica in gateway.pool.replicas)\n"
                "    if (gateway.settings.patterns.health_apart and not refused) or gateway.pool.ready:\n"
            ),
        ),
    ),
    _defect(
        "latency_ejection",
        "a replica is one of its own peers, so that no late one of two is an outlier",
        "test_a_late_replica_is_left_out",
        ("outliers.py", "if peer is not replica and peer.usable(now_s)", "if peer.usable(now_s)"),
    ),
    _defect(
        "shed",
        "the prediction leaves out the waiting requests, and no wait ends before the queue's timeout",
        "test_those_who_wait_are_answered_in_time",
        ("shed.py", "(before + 1) * step_s / max", "step_s / max"),
        ("pool.py", "self.forecast.patience_s(self._shedding.ttft_s)", "self._admission.queue_timeout_s"),
    ),
    _defect(
        "queue",
        "the bound of the queue counts the waiting requests of the lowest class alone",
        "test_an_overload_leaves_answers_in_time",
        (
            "pool.py",
            "len(self.queue) >= self._admission.queue_max:\n",
            "self.queue.depth(Priority.LOW) >= self._admission.queue_max:\n",
        ),
    ),
    _defect(
        "priority",
        "a free place is offered to the lowest class first",
        "test_the_high_class_is_answered_in_time",
        (
            "queue.py",
            "*(one for one in Priority if one not in owed)",
            "*(one for one in reversed(Priority) if one not in owed)",
        ),
    ),
)
