"""Defects of the lab's gateway."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

API = "stack/services/lab_api"


def _defect(
    name: str, what: str, scenario: str, caught_by: str, *changes: tuple[str, str, str], only: str = ""
) -> SubjectDefect:
    """A defect of the gateway; each change is a file of it, what stands there, and what stands there instead."""
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
        "test_one_lost_replica_hardly_shows_to_callers",
        (
            "relay.py",
            (
                '        message = f"{name} broke off in the middle of its answer: {type(error).__name__}"\n'
                "        raise GatewayError(outcome=Outcome.TRUNCATED, message=message) from error\n"
            ),
            "        return await caller.end(DONE)\n",
        ),
    ),
    _defect(
        "first-token-late",
        "the first token of a stream waits 0.3 s for more to come along",
        "hung_model",
        "test_without_a_fault_nothing_happens",
        (
            "caller.py",
            "await response.prepare(self._request)",
            "await asyncio.sleep(0.3)\n                await response.prepare(self._request)",
        ),
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
                "            error.outcome in RETRYABLE\n            and len(tried) < self.settings.retrying.attempts_max\n"
                "            and self.pool.has_candidate(tried)\n            and self.budget.spend()\n"
            ),
            "            error.outcome in RETRYABLE and len(tried) < 100\n",
        ),
        ("gateway.py", "acquire(excluding=tried, retry=bool(tried))", "acquire(retry=bool(tried))"),
    ),
    _defect(
        "retry-budget-not-asked",
        "retries are no longer bounded by a share of the requests",
        "engine_errors",
        "test_retries_do_not_double_the_load",
        ("breaker.py", "        if self._saved < 1 - 1e-9:\n            return False\n", ""),
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
        "ready-without-replicas",
        "/readyz answers 200 whatever the replicas do",
        "kill_model",
        "test_a_service_without_replicas_says_so",
        ("app.py", "status=200 if ready else 503)", "status=200)"),
    ),
)

_ADMISSION = ()

_COUNTS = (
    _defect(
        "failures-not-counted",
        "requests that the gateway answers with 5xx are not counted",
        "kill_model",
        "TruthsDisagree",
        (
            "metrics.py",
            "        self._requests.labels(outcome.value).inc()\n",
            (
                "        if outcome not in {Outcome.NO_REPLICA, Outcome.CONNECT_ERROR, Outcome.QUEUE_TIMEOUT, Outcome.TTFT_TIMEOUT}:\n"
                "            self._requests.labels(outcome.value).inc()\n"
            ),
        ),
        only="service_without_replicas",
    ),
)

GATEWAY: tuple[SubjectDefect, ...] = (*_ANSWERS, *_RETRIES, *_HEALTH, *_ADMISSION, *_COUNTS)
