"""Defects of the lab's gateway."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

API = "stack/services/lab_api"


def _defect(
    name: str, what: str, scenario: str, caught_by: str, *changes: tuple[str, str, str], only: str = ""
) -> SubjectDefect:
    """A defect of the gateway. Each change is (file, old text, new text)."""
    return SubjectDefect(
        name=name,
        part="gateway",
        what=what,
        patches=tuple(Patch(file=f"{API}/{file}", old=old, new=new) for file, old, new in changes),
        scenario=scenario,
        caught_by=caught_by,
        only=only or caught_by.removeprefix("test_"),
    )


_ANSWERS = (
    _defect(
        "truncated-stream-counted-ok",
        "a stream that its replica broke off is ended with [DONE] and counted ok",
        "kill_model",
        "test_one_lost_replica_hardly_shows_to_clients",
        (
            "relay.py",
            "        raise stream.failure()\n",
            (
                '        if stream.ended is not None and stream.ended.value == "lost":\n'
                "            return await splice.end(DONE)\n        raise stream.failure()\n"
            ),
        ),
    ),
    _defect(
        "broken-stream-ends-in-silence",
        "clients of a broken stream get no error event, only a clean end",
        "kill_model",
        "test_one_lost_replica_hardly_shows_to_clients",
        ("client.py", 'return await self.end(f"data: {body}\\n\\n".encode())', 'return await self.end(b"")'),
    ),
    _defect(
        "done-after-an-error",
        "a stream that fails is ended with [DONE] in place of the error",
        "kill_model",
        "test_one_lost_replica_hardly_shows_to_clients",
        (
            "client.py",
            'return await self.end(f"data: {body}\\n\\n".encode())',
            'return await self.end(f": {body}\\n\\ndata: [DONE]\\n\\n".encode())',
        ),
    ),
    _defect(
        "inband-error-dropped",
        "an error event of a replica is passed over: [DONE] alone makes an answer whole",
        "gpu_exhaustion",
        "test_an_engine_out_of_memory_costs_little",
        ("sse.py", "return self.done and self.finished and self.error is None and", "return self.done and"),
        (
            "sse.py",
            "if not self._understood(event, data):\n                break\n",
            "if not self._understood(event, data):\n                continue\n",
        ),
    ),
    _defect(
        "retry-after-the-first-byte",
        "a stream that broke in the middle is begun again behind what its client has already",
        "kill_model",
        "test_one_lost_replica_hardly_shows_to_clients",
        (
            "gateway.py",
            (
                "            stream.lease.end(error.outcome)\n            raise\n        except BaseException:\n"
                "            stream.lease.end(Outcome.CLIENT_CANCELLED)\n            raise\n        else:"
            ),
            (
                "            stream.lease.end(error.outcome)\n            return await self._stream(ask, exchange, client)\n"
                "        except BaseException:\n            stream.lease.end(Outcome.CLIENT_CANCELLED)\n            raise\n        else:"
            ),
        ),
    ),
    _defect(
        "retry-sends-another-request",
        "a request that is tried again is sent with the body of the one before it",
        "kill_model",
        "test_the_other_replica_serves_while_nothing_repairs_the_lost_one",
        (
            "gateway.py",
            "lambda lease: self.upstream.stream(lease, ask, exchange.request_id))",
            (
                "lambda lease: self.upstream.stream(\n"
                "            lease, ask if exchange.attempts < 2 else self._asks[0], exchange.request_id))"
            ),
        ),
        (
            "gateway.py",
            "                self.budget.earn()\n",
            "                self.budget.earn()\n                self._asks = [*getattr(self, '_asks', [])[-1:], ask]\n",
        ),
    ),
    _defect(
        "first-token-late",
        "the first token of a stream waits 0.3 s for more to come along",
        "hung_model",
        "test_without_a_fault_nothing_happens",
        (
            "client.py",
            "await response.prepare(self._request)",
            "await asyncio.sleep(0.3)\n                await response.prepare(self._request)",
        ),
    ),
    _defect(
        "errors-with-status-200",
        "a refusal is an error object with status 200",
        "kill_model",
        "test_a_service_without_replicas_reports_it",
        (
            "gateway.py",
            "web.json_response(error.body(request_id), status=error.status)",
            "web.json_response(error.body(request_id))",
        ),
    ),
    _defect(
        "stall-unnoticed",
        "a stream that falls silent is given up after minutes, not seconds",
        "both_hung",
        "test_clients_get_a_refusal_or_an_error_and_never_half_an_answer",
        ("relay.py", "self._gap_s = gap_s\n", "self._gap_s = gap_s and gap_s * 60\n"),
    ),
)

_RETRIES = (
    _defect(
        "retries-without-end",
        "a failed request is tried again for as long as it fails, on any replica",
        "engine_errors",
        "test_retries_do_not_double_the_load",
        (
            "gateway.py",
            (
                "            and error.outcome in RETRYABLE\n            and len(tried) < self.settings.retrying.attempts_max\n"
                "            and self.pool.has_good_candidate(tried)\n"
                "            and (not patterns.retry_budget or self.budget.spend())\n"
            ),
            "            and error.outcome in RETRYABLE\n            and len(tried) < 100\n",
        ),
        ("gateway.py", "excluding=tried, retry=bool(tried), ", "retry=bool(tried), "),
    ),
    _defect(
        "retry-budget-not-asked",
        "retries are no longer bounded by a share of the requests",
        "engine_errors",
        "test_retries_do_not_double_the_load",
        ("breaker.py", "        if self._saved < 1 - 1e-9:\n            return False\n", ""),
    ),
    _defect(
        "retries-cost-nothing",
        "a retry takes nothing from the budget, so that each failure of a storm is sent twice",
        "retry_storm",
        "test_retries_stay_within_their_budget",
        ("breaker.py", "        self._saved = max(0.0, self._saved - 1)\n", ""),
        only="within_their_budget",
    ),
)

_HEALTH = (
    _defect(
        "breaker-off",
        "no failure takes a replica out",
        "engine_errors",
        "test_two_failing_engines_are_taken_out",
        ("breaker.py", "        self._opened = (now_s, open_s)\n", "        self._opened = None\n"),
    ),
    _defect(
        "all-out-is-all-lost",
        "while every replica is ejected, none is tried, although the cause may be gone",
        "retry_storm",
        "test_the_service_comes_back_when_the_trigger_is_gone",
        ("pool.py", "        if not chosen and self._patterns.fail_open:\n", "        if False:\n"),
        only="comes_back_when",
    ),
    _defect(
        "probe-gives-up",
        "a replica that was up and went away is never probed again",
        "kill_model",
        "test_one_lost_replica_is_repaired_by_the_remediator",
        (
            "probe.py",
            "        while True:\n",
            (
                "        was_up = False\n        while not (was_up and replica.refuses):\n"
                "            was_up = was_up or replica.healthy\n"
            ),
        ),
    ),
    _defect(
        "no-slow-start",
        "a replica that comes back is given all of its places at once",
        "rotation",
        "test_a_replica_that_comes_back_is_given_its_share_little_by_little",
        ("replica.py", "share = 1.0 if since_s >= self._slow_start_s else", "share = 1.0 if since_s >= 0 else"),
    ),
    _defect(
        "ready-without-replicas",
        "/readyz answers 200 whatever the replicas do",
        "kill_model",
        "test_a_service_without_replicas_reports_it",
        ("app.py", "status=200 if ready else 503)", "status=200)"),
    ),
    _defect(
        "always-the-first-replica",
        "requests go to the first replica that has room",
        "kill_model",
        "test_without_a_fault_nothing_happens",
        ("pool.py", "replica = min(free, key=lambda one: (one.in_flight, one.turn))", "replica = free[0]"),
    ),
    _defect(
        "wrong-replica-header",
        "answers name the first replica, whichever gave them",
        "kill_model",
        "test_without_a_fault_nothing_happens",
        (
            "gateway.py",
            "exchange.enter(Phase.DECODE, stream.lease.replica.name)",
            "exchange.enter(Phase.DECODE, self.pool.replicas[0].name)",
        ),
    ),
)

_ADMISSION = (
    _defect(
        "429-without-retry-after",
        "a client who is refused for a full queue gets no Retry-After",
        "request_saturation",
        "test_every_refusal_has_a_retry_after",
        (
            "outcomes.py",
            "        Outcome.REJECTED_QUEUE_FULL,\n        Outcome.REJECTED_PREDICTED,\n        Outcome.QUEUE_TIMEOUT",
            "        Outcome.REJECTED_PREDICTED,\n        Outcome.QUEUE_TIMEOUT",
        ),
    ),
    _defect(
        "slot-leaked-per-failure",
        "the place of a request that failed is never free again",
        "kill_model",
        "test_one_lost_replica_is_repaired_by_the_remediator",
        (
            "pool.py",
            "        self.replica.in_flight -= 1\n",
            "        self.replica.in_flight -= outcome in {Outcome.OK, Outcome.CLIENT_CANCELLED}\n",
        ),
    ),
    _defect(
        "work-for-clients-who-left",
        "the stream of a client who left is read to its end",
        "impatient_clients",
        "test_the_engines_do_not_work_for_clients_who_left",
        (
            "upstream.py",
            "        if stream.scanner.complete:\n            stream.connection.release(_END_S)\n",
            "        if stream.scanner is not None:\n            stream.connection.release(_END_S)\n",
        ),
        ("upstream.py", "_END_S = 0.2\n", "_END_S = 60.0\n"),
    ),
    _defect(
        "drain-cuts-at-once",
        "a gateway that gets SIGTERM ends its streams without waiting",
        "graceful_stop",
        "test_a_stopped_api_lets_its_streams_end",
        ("__main__.py", "emptied(gateway.settings.deadlines.drain_s)", "emptied(0.0)"),
    ),
    _defect(
        "drain-takes-new-requests",
        "a gateway that gets SIGTERM still accepts requests, and cuts them off",
        "graceful_stop",
        "test_a_stopped_api_lets_its_streams_end",
        ("__main__.py", "    gateway.draining = True\n", ""),
    ),
)

_COUNTS = (
    _defect(
        "requests-counted-twice",
        "each request is counted when it ends and when its stream is counted",
        "hung_model",
        "TruthsDisagree",
        (
            "metrics.py",
            "            self._count_stream(exchange, labels, now_s)\n",
            "            self._count_stream(exchange, labels, now_s)\n            self._ended[outcome].inc()\n",
        ),
        only="without_a_fault",
    ),
    _defect(
        "failures-not-counted",
        "requests that the gateway answers with 5xx are not counted",
        "kill_model",
        "TruthsDisagree",
        (
            "metrics.py",
            "        self._ended[outcome].inc()\n",
            (
                "        if outcome not in {Outcome.NO_REPLICA, Outcome.CONNECT_ERROR, Outcome.QUEUE_TIMEOUT, Outcome.TTFT_TIMEOUT}:\n"
                "            self._ended[outcome].inc()\n"
            ),
        ),
        only="service_without_replicas",
    ),
    _defect(
        "latency-of-successes-only",
        "a request that failed is in no latency histogram",
        "kill_model",
        "TruthsDisagree",
        (
            "metrics.py",
            "        labels = (OPERATION, self._model, error_type)\n",
            "        labels = (OPERATION, self._model, error_type)\n        if error_type:\n            return\n",
        ),
        only="service_without_replicas",
    ),
    _defect(
        "queue-depth-stuck",
        "the gauge of the queue stays at 0",
        "request_saturation",
        "test_saturation_is_detected",
        ("metrics.py", "value=self._pool.queue_depth", "value=0"),
    ),
    _defect(
        "ages-always-0",
        "the gauges of the oldest request and the longest silence stay at 0",
        "hung_model",
        "FaultNotObserved",
        ("metrics.py", "self._oldest(time.monotonic())", "self._oldest(0.0)"),
        only="nothing_repairs",
    ),
    _defect(
        "failed-attempts-not-counted",
        "an attempt that failed at a replica is not counted as a failure of the replica",
        "flaky_model",
        "test_failures_that_retries_hide_are_detected",
        ("pool.py", "self.replica.failures[outcome] += 1", "self.replica.failures[outcome] += 0"),
        only="retries_hide",
    ),
    _defect(
        "attempts-not-counted",
        "a second attempt is not counted",
        "engine_errors",
        "test_retries_do_not_double_the_load",
        (
            "gateway.py",
            "            self.metrics.attempted(name, reason)\n",
            '            if reason == "first":\n                self.metrics.attempted(name, reason)\n',
        ),
    ),
)

# Those that show only on the wire between the gateway and a replica.
_WIRE = (
    _defect(
        "clean-end-is-a-whole-answer",
        "a stream that ends without a finish reason is ended with [DONE]",
        "truncated_streams",
        "TruthsDisagree",
        (
            "relay.py",
            "        raise stream.failure()\n",
            (
                '        if stream.ended is not None and stream.ended.value == "complete":\n'
                "            return await splice.end(DONE)\n        raise stream.failure()\n"
            ),
        ),
        only="no_client_takes_half",
    ),
    _defect(
        "comments-are-progress",
        "a stalled stream lives for as long as comments come",
        "stalled_streams",
        "TruthsDisagree",
        (
            "relay.py",
            "        exchange.tokens += arrived\n",
            "        exchange.tokens += arrived\n        self._touched_s = time.monotonic()\n",
        ),
        only="left_hanging",
    ),
    _defect(
        "inband-error-not-retried",
        "an error inside a stream is passed on, even if no token was sent",
        "inband_errors",
        "test_errors_before_the_first_token_are_retried",
        (
            "outcomes.py",
            "(REPLICA_FAILURES - {Outcome.STALL_TIMEOUT})",
            "(REPLICA_FAILURES - {Outcome.STALL_TIMEOUT, Outcome.INBAND_ERROR})",
        ),
        only="first_token_are_retried",
    ),
    _defect(
        "5xx-not-retried",
        "a replica's 503 is passed on to the client",
        "flaky_model",
        "test_clients_see_no_failure",
        (
            "outcomes.py",
            "(REPLICA_FAILURES - {Outcome.STALL_TIMEOUT})",
            "(REPLICA_FAILURES - {Outcome.STALL_TIMEOUT, Outcome.UPSTREAM_5XX})",
        ),
        only="see_no_failure",
    ),
    _defect(
        "replicas-take-turns",
        "requests go to the replicas in turn, and none has a bound on those in flight",
        "slow_model",
        "test_most_clients_notice_nothing",
        ("pool.py", "key=lambda one: (one.in_flight, one.turn)", "key=lambda one: one.turn"),
        ("replica.py", "return self.in_flight < self.places(now_s)", "return self.places(now_s) > 0"),
        only="notice_nothing",
    ),
    _defect(
        "probe-in-a-hurry",
        "a health probe that takes 0.3 s is a bad one",
        "latency_model",
        "test_a_distant_replica_is_left_alone",
        ("settings.py", '"LAB_PROBE_TIMEOUT_S", 1.0', '"LAB_PROBE_TIMEOUT_S", 0.3'),
        only="left_alone",
    ),
    _defect(
        "no-patience-for-a-first-token",
        "an attempt without a first token is given up after 2 s, and sent again",
        "late_first_token",
        "test_clients_wait_and_get_whole_answers",
        ("settings.py", '"LAB_TTFT_TIMEOUT_S", 10.0', '"LAB_TTFT_TIMEOUT_S", 2.0'),
        only="get_whole_answers",
    ),
    _defect(
        "silent-probe-is-a-good-one",
        "a health probe without an answer is a good one",
        "partition_model",
        "test_a_partition_is_detected",
        (
            "probe.py",
            '            return Probed.BAD, f"{self._path} did not',
            '            return Probed.GOOD, f"{self._path} did not',
        ),
        only="partition_is_detected",
    ),
)

GATEWAY: tuple[SubjectDefect, ...] = (*_ANSWERS, *_RETRIES, *_HEALTH, *_ADMISSION, *_COUNTS, *_WIRE)
