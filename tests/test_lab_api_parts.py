"""The gateway's parts: event scanner, circuits, retry budget, settings."""

import asyncio
import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.lab_api_world import DONE, chunk

from lab_api.breaker import Breaker, Circuit, RetryBudget
from lab_api.exchange import Board
from lab_api.metrics import Metrics
from lab_api.outcomes import RETRYABLE, GatewayError, Outcome
from lab_api.pool import Pool
from lab_api.replica import Probed
from lab_api.settings import Admission, Ejection, Patterns, Probing, Settings, Shedding, unknown_variables
from lab_api.sse import EVENT_MAX_BYTES, Scanner
from lab_common.settings import SettingsError

TEXTS = st.text(min_size=1, max_size=20)


@st.composite
def _cut_streams(draw) -> tuple[list[str], bytes, list[bytes]]:
    """Tokens, their stream, and the same stream cut into arbitrary pieces."""
    tokens = draw(st.lists(TEXTS, min_size=1, max_size=8))
    ends = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    events = [chunk(token) for token in tokens] + [chunk("", finish="stop"), DONE]
    extra = draw(
        st.lists(
            st.sampled_from(
                [b": ping\n\n", b"event: message\n" + chunk(""), b"retry: 3000\n\n", b"id: 7\nevent: ping\n\n"]
            ),
            max_size=3,
        )
    )
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    stream = b"".join([bom, *events[:1], *extra, *events[1:]]).replace(b"\n", ends)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return tokens, stream, pieces


def _said(events: bytes) -> str:
    return "".join(
        json.loads(line[6:])["choices"][0]["delta"]["content"]
        for line in events.split(b"\n")
        if line.startswith(b"data: ")
    )


@given(_cut_streams())
def test_however_a_stream_is_cut_its_tokens_come_out_whole_and_it_is_complete(cut) -> None:
    tokens, _, pieces = cut
    scanner = Scanner()
    given_back = [scanner.feed(piece) for piece in pieces]

    assert all(part == b"" or part.endswith(b"\n\n") for part in given_back)
    assert _said(b"".join(given_back)) == "".join(tokens)
    assert scanner.complete
    assert scanner.events >= len(tokens) + 1


@given(_cut_streams(), st.integers(min_value=1))
def test_a_stream_without_its_last_bytes_is_never_complete(cut, missing: int) -> None:
    _, stream, _ = cut
    assume(not (missing == 1 and stream.endswith(b"\r\n")))  # a CR alone ends a line as well
    scanner = Scanner()
    scanner.feed(stream[: -min(missing, len(stream))])

    assert not scanner.complete


@given(TEXTS)
def test_text_of_a_model_cannot_end_its_stream_or_make_it_an_error(said: str) -> None:
    for text in (said, '"finish_reason":"stop"', "data: [DONE]\n\n", '{"error": {"message": "x"}}', "\r\n\r\n"):
        scanner = Scanner()
        events = scanner.feed(chunk("a")) + scanner.feed(chunk(text))

        assert _said(events) == "a" + text
        assert not scanner.ended
        assert not scanner.finished


@pytest.mark.parametrize(
    "first",
    [
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [], "usage": {}},
        {"choices": None},
        {"choices": ["x", {"delta": "y"}]},
    ],
)
def test_an_empty_event_is_not_a_first_token(first: dict) -> None:
    scanner = Scanner()
    scanner.feed(b"data: " + json.dumps(first).encode() + b"\n\n")

    assert not scanner.started


@pytest.mark.parametrize(
    "field", ["content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call"]
)
def test_text_reasoning_and_tool_calls_are_first_tokens(field: str) -> None:
    scanner = Scanner()
    scanner.feed(b"data: " + json.dumps({"choices": [{"delta": {field: "x"}}]}).encode() + b"\n\n")

    assert scanner.started


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "boom"}}\n\n',
        b'data:{"error":"boom"}\n\n',
        b'event: error\ndata: {"message": "boom"}\n\n',
        b'error: {"message": "boom"}\n\n',
        b'data: {"object": "error", "message": "boom"}\n\n',
        b'id: 3\nevent: error\ndata: {"message": "boom"}\n\n',
    ],
)
def test_every_form_of_an_error_event_is_known_and_ends_the_stream(event: bytes) -> None:
    scanner = Scanner()
    events = scanner.feed(chunk("a") + event + chunk("b") + DONE)

    assert _said(events) == "a"
    assert scanner.error is not None
    assert "boom" in scanner.error
    assert not scanner.complete


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_its_server_gave_up_is_not_complete(reason: str) -> None:
    scanner = Scanner()
    events = scanner.feed(chunk("a") + chunk("", finish=reason) + DONE)

    assert _said(events) == "a"
    assert scanner.error == f"finish_reason {reason}"
    assert not scanner.complete


def test_an_event_without_end_is_given_up() -> None:
    scanner = Scanner()
    scanner.feed(chunk("a"))
    scanner.feed(b"data: " + b"x" * EVENT_MAX_BYTES)

    assert scanner.corrupted is not None
    assert scanner.ended


@pytest.mark.parametrize("end", [DONE, b'data: {"error": "no"}\n\n', b"data: x\n\n"])
def test_nothing_after_the_end_of_a_stream_is_forwarded(end: bytes) -> None:
    scanner = Scanner()
    events = [scanner.feed(piece) for piece in (chunk("a"), end, chunk("b"), chunk("c") + b"data: ", b"x" * 100)]

    assert events == [chunk("a"), b"", b"", b"", b""]
    assert scanner.events == 1


# --- the circuit, on a clock that is an argument


def _breaker(**policy: float) -> Breaker:
    bounds = {"min_requests": 4, "error_ratio": 0.5, "connect_failures": 3, "open_s": 5} | policy
    return Breaker(Ejection(**bounds), Patterns())


def test_a_circuit_opens_by_error_ratio_only_with_enough_requests() -> None:
    breaker = _breaker()
    for _ in range(3):
        breaker.record(0, Outcome.STALL_TIMEOUT, trial=False)
    assert breaker.state(0) is Circuit.CLOSED

    breaker.record(0, Outcome.OK, trial=False)
    assert breaker.state(0) is Circuit.OPEN


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = _breaker(window_s=10)
    for _ in range(3):
        breaker.record(0, Outcome.TRUNCATED, trial=False)
    for _ in range(3):
        breaker.record(11, Outcome.OK, trial=False)
    breaker.record(11, Outcome.TRUNCATED, trial=False)

    assert breaker.state(11) is Circuit.CLOSED


def test_failures_to_connect_open_it_only_in_a_row() -> None:
    breaker = _breaker(min_requests=100)
    for outcome in (Outcome.CONNECT_ERROR, Outcome.CONNECT_ERROR, Outcome.OK) * 3:
        breaker.record(0, outcome, trial=False)
    assert breaker.state(0) is Circuit.CLOSED

    for _ in range(3):
        breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    assert breaker.state(0) is Circuit.OPEN


def test_each_failed_trial_doubles_the_time_up_to_its_limit_and_a_good_one_closes() -> None:
    breaker = _breaker(connect_failures=1, open_s=5, open_max_s=18)
    breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    now_s = 0.0
    for open_s in (5, 10, 18, 18):
        assert breaker.state(now_s + open_s - 0.01) is Circuit.OPEN
        now_s += open_s
        assert breaker.state(now_s) is Circuit.HALF_OPEN
        assert breaker.admit(now_s)
        assert not breaker.allows(now_s), "one trial at a time"
        breaker.record(now_s, Outcome.UPSTREAM_5XX, trial=True)

    now_s += 18
    assert breaker.admit(now_s)
    breaker.record(now_s, Outcome.OK, trial=True)
    assert breaker.state(now_s) is Circuit.CLOSED
    breaker.record(now_s, Outcome.CONNECT_ERROR, trial=False)
    assert breaker.state(now_s + 4.99) is Circuit.OPEN
    assert breaker.state(now_s + 5) is Circuit.HALF_OPEN


def test_a_trial_that_its_client_left_decides_nothing_and_lets_the_next_one_go() -> None:
    breaker = _breaker(connect_failures=1)
    breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    assert breaker.admit(5)
    breaker.record(6, Outcome.CLIENT_CANCELLED, trial=True)

    assert breaker.state(6) is Circuit.HALF_OPEN
    assert breaker.allows(6)


def test_requests_that_began_before_the_circuit_opened_do_not_count_twice() -> None:
    breaker = _breaker(connect_failures=1)
    breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    breaker.record(4, Outcome.CONNECT_ERROR, trial=False)

    assert breaker.state(5) is Circuit.HALF_OPEN


def test_a_retry_budget_is_a_share_of_the_requests() -> None:
    budget = RetryBudget(ratio=0.2, burst=1)
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()

    assert spent == 200
    assert not RetryBudget(ratio=1, burst=0).spend()


def test_a_retry_budget_earns_nothing_while_nearly_all_requests_fail() -> None:
    budget = RetryBudget(ratio=0.2, burst=10)
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
        budget.ended(Outcome.UPSTREAM_5XX)
    assert 10 <= spent <= 20

    for _ in range(10):
        budget.ended(Outcome.OK)
    budget.earn()
    assert budget.saved_ratio > 0


def test_a_retry_budget_is_earned_as_before_if_half_of_the_requests_fail() -> None:
    budget = RetryBudget(ratio=0.2, burst=1)
    spent = 0
    for number in range(1000):
        budget.earn()
        spent += budget.spend()
        budget.ended(Outcome.UPSTREAM_5XX if number % 2 else Outcome.OK)

    assert spent == 200


def test_requests_that_no_replica_failed_do_not_end_the_earning_of_retries() -> None:
    budget = RetryBudget(ratio=0.2, burst=1)
    for outcome in (Outcome.CLIENT_CANCELLED, Outcome.REJECTED_QUEUE_FULL, Outcome.INVALID_REQUEST):
        for _ in range(1000):
            budget.ended(outcome)
    assert budget.spend()

    budget.earn()
    assert budget.saved_ratio > 0


def test_a_stall_is_never_retried_because_the_client_has_seen_tokens() -> None:
    assert Outcome.STALL_TIMEOUT not in RETRYABLE
    assert Outcome.INVALID_REQUEST not in RETRYABLE
    assert Outcome.CLIENT_CANCELLED not in RETRYABLE


# --- the pool, on a clock of its own


def _unprobed(**admission: float) -> Pool:
    return Pool(
        {"a": "http://a", "b": "http://b"},
        admission=Admission(**{"concurrency": 1, "queue_timeout_s": 5} | admission),
        shedding=Shedding(),
        probing=Probing(),
        ejection=Ejection(slow_start_s=0),
        patterns=Patterns(),
        clock=lambda: 0.0,
    )


def _pool(**admission: float) -> Pool:
    pool = _unprobed(**admission)
    for replica in pool.replicas:
        replica.probed(Probed.GOOD, 0, took_s=0)
    return pool


def test_a_replica_has_no_duration_of_a_health_check_until_one_succeeds() -> None:
    pool = _unprobed()
    metrics = Metrics(model="m", pool=pool, board=Board(), budget=RetryBudget(ratio=0.2, burst=1))

    def durations() -> list[str]:
        return re.findall(r"llmlab_probe_duration_seconds{.*", asyncio.run(metrics.exposition()).decode())

    for verdict in (Probed.BAD, Probed.REFUSED):
        pool.replicas[0].probed(verdict, 0, took_s=1)
    assert durations() == []

    pool.replicas[0].probed(Probed.GOOD, 0, took_s=0.125)
    pool.replicas[0].probed(Probed.BAD, 0, took_s=1)
    assert durations() == ['llmlab_probe_duration_seconds{replica="a"} 0.125']


def test_a_place_given_to_one_who_has_just_left_goes_to_the_next() -> None:
    async def story() -> None:
        pool = _pool()
        held = [await pool.acquire(), await pool.acquire()]
        left = asyncio.ensure_future(pool.acquire())
        next_one = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)
        held[0].end(Outcome.OK)
        left.cancel()  # in the same turn of the loop: the place is on its way already

        lease = await next_one
        with pytest.raises(asyncio.CancelledError):
            await left
        assert lease.replica is held[0].replica
        assert [replica.in_flight for replica in pool.replicas] == [1, 1]

    asyncio.run(story())


def test_a_place_is_not_offered_to_one_who_is_leaving() -> None:
    async def story() -> None:
        pool = _pool()
        held = [await pool.acquire(), await pool.acquire()]
        left = asyncio.ensure_future(pool.acquire())
        next_one = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)
        left.cancel()
        held[0].end(Outcome.OK)  # in the same turn of the loop: it is still in the queue

        assert (await next_one).replica is held[0].replica
        assert left.cancelled()

    asyncio.run(story())


def test_a_first_token_after_the_end_changes_nothing() -> None:
    async def story() -> None:
        now_s = [0.0]
        pool = _pool()
        pool.clock = lambda: now_s[0]
        lease = await pool.acquire()
        lease.sent()
        lease.end(Outcome.CLIENT_CANCELLED)
        now_s[0] = 1.0
        lease.first_token()
        assert pool.forecast.patience_s(2.0) == 2.0

    asyncio.run(story())


def test_a_choosy_retry_at_the_head_does_not_block_those_who_are_not() -> None:
    async def story() -> None:
        pool = _pool()
        held = {lease.replica.name: lease for lease in (await pool.acquire(), await pool.acquire())}
        retry = asyncio.ensure_future(pool.acquire(excluding=["a"], retry=True))
        plain = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)
        held["a"].end(Outcome.OK)
        assert (await plain).replica.name == "a"
        held["b"].end(Outcome.OK)
        assert (await retry).replica.name == "b"

    asyncio.run(story())


def test_a_second_end_of_a_lease_changes_nothing() -> None:
    async def story() -> None:
        pool = _pool()
        lease = await pool.acquire()
        lease.end(Outcome.OK)
        lease.end(Outcome.OK)
        assert lease.replica.in_flight == 0

    asyncio.run(story())


def test_a_retry_is_not_turned_away_by_a_full_queue() -> None:
    async def story() -> None:
        pool = _pool(queue_max=0)
        held = [await pool.acquire(), await pool.acquire()]
        with pytest.raises(GatewayError, match="already waiting"):
            await pool.acquire()
        retry = asyncio.ensure_future(pool.acquire(excluding=["a"], retry=True))
        await asyncio.sleep(0)
        held[1].end(Outcome.OK)
        assert (await retry).replica.name == "b"

    asyncio.run(story())


# --- settings

RIGHT = {"LAB_MODEL": "m", "LAB_REPLICAS": "a=http://h:1, b=http://h:2/"}


def test_settings_have_the_environments_values_and_hide_the_key() -> None:
    settings = Settings.from_env(RIGHT | {"LAB_API_KEY": "s3cret", "LAB_CONCURRENCY": "7", "LAB_QUEUE_MAX": ""})

    assert settings.replicas == {"a": "http://h:1", "b": "http://h:2"}
    assert (settings.admission.concurrency, settings.admission.queue_max) == (7, 64)
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAB_MODEL", " "),
        ("LAB_REPLICAS", ""),
        ("LAB_REPLICAS", "a"),
        ("LAB_REPLICAS", "A=http://h"),
        ("LAB_REPLICAS", "a=http://h,a=http://i"),
        ("LAB_REPLICAS", "a=http://"),
        ("LAB_REPLICAS", "a=http://h:999999"),
        ("LAB_PORT", "-1"),
        ("LAB_PORT", "http"),
        ("LAB_QUEUE_MAX", "1.5"),
        ("LAB_QUEUE_MAX", "-1"),
        ("LAB_TTFT_TIMEOUT_S", "nan"),
        ("LAB_TTFT_TIMEOUT_S", "inf"),
        ("LAB_RETRY_RATIO", "2"),
        ("LAB_HEALTH_PATH", "health"),
        ("LAB_LOG_LEVEL", "loud"),
        ("LAB_API_KEY", "two words"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env(RIGHT | {variable: value})


def test_a_misspelt_variable_is_noticed() -> None:
    assert unknown_variables({"LAB_QUEU_MAX": "1", "LAB_QUEUE_MAX": "1", "PATH": "x"}) == ["LAB_QUEU_MAX"]
