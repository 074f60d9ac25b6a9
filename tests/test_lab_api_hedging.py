"""Hedging of late first tokens: races, counts and budget."""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiohttp import web
from support import virtual_time
from support.lab_api_world import DONE, World, answers, ask, chunk, good, hangs, in_world, sends, whole
from support.waiting import until_async

from lab_api.breaker import Cause, RetryBudget
from lab_api.exchange import Board, Exchange
from lab_api.hedging import FirstTokenTimes, Hedger
from lab_api.metrics import Metrics
from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Lease, Pool
from lab_api.replica import Probed
from lab_api.settings import Admission, Ejection, Hedging, Patterns, Probing, Shedding

ENOUGH = 20  # requests after which the usual time to first token is known
ON = {"LAB_HEDGING": "on", "LAB_HEDGE_MIN_S": "0.1"}


async def _learn(it: World) -> None:
    """Let the gateway measure enough first tokens."""
    assert all(answer.complete for answer in await asyncio.gather(*(it.chat() for _ in range(ENOUGH))))
    for model in it.models:
        model.asked.clear()


async def _hedges(it: World) -> dict[tuple[str, str], int]:
    """Hedges by replica and outcome, without those that did not occur."""
    counts = {
        (model.name, outcome): int(await it.metric("llmlab_hedges_total", replica=model.name, outcome=outcome))
        for model in it.models
        for outcome in ("won", "lost", "failed", "cancelled")
    }
    return {key: count for key, count in counts.items() if count}


async def _settled(it: World) -> None:
    await until_async(
        lambda: [replica.in_flight for replica in it.gateway.pool.replicas] == [0] * len(it.models),
        "every place is free",
    )


def _once(condition: Callable[[], bool], then: Callable[[web.Request], object]) -> Callable[[web.Request], object]:
    """A behaviour that waits for a condition before it answers."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await until_async(condition, "the condition for an answer")
        return await then(request)

    return behave


@in_world(**ON)
async def test_the_loser_is_cancelled_at_its_replica_and_counts_for_nothing(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = hangs
    it.replica(0).turn = -1

    assert (await it.chat()).complete

    await until_async(lambda: it.models[0].cancelled == 1, "the first attempt is cancelled at its replica")
    await _settled(it)
    assert await it.failures() == {}
    assert await it.outcomes() == {"ok": ENOUGH + 1}
    assert await it.metric("llmlab_retry_budget_ratio") == 1
    assert await it.metric("llmlab_upstream_attempts_total", replica="model-2", reason="hedge") == 1


@in_world(
    **ON,
    LAB_EJECT_LATENCY_MIN_REQUESTS="1",
    LAB_EJECT_LATENCY_FACTOR="1.1",  # its peer may be slow on a busy machine
    LAB_EJECT_LATENCY_FLOOR_S="0.09",
    LAB_EJECT_S="600",
)
async def test_a_replica_that_loses_again_and_again_is_ejected_for_its_latency(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = hangs
    for _ in range(3):  # of the 5 times that are kept
        it.replica(0).turn = -1
        assert (await it.chat()).complete

    assert await it.metric("llmlab_ejections_total", replica="model-1", cause="latency") == 1
    assert await it.metric("llmlab_ejections_total") == 1
    assert await it.failures() == {}


@in_world(**ON)
async def test_a_hedge_that_comes_second_is_cancelled_and_counts_as_lost(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = _once(lambda: len(it.models[1].asked) == 1, good)
    it.models[1].behaviour = hangs
    it.replica(0).turn = -1

    answer = await it.chat()

    assert (answer.headers["x-llmlab-replica"], answer.complete) == ("model-1", True)
    await until_async(lambda: it.models[1].cancelled == 1, "the hedge is cancelled at its replica")
    await _settled(it)
    assert await _hedges(it) == {("model-2", "lost"): 1}
    assert await it.failures() == {}
    assert await it.outcomes() == {"ok": ENOUGH + 1}


@in_world(**ON)
async def test_the_first_token_decides_and_the_winners_answer_is_whole(it: World) -> None:
    words = [f"word-{number} " for number in range(300)]
    long = sends(*(chunk(word) for word in words), chunk("", finish="stop"), DONE)
    await _learn(it)
    # The loser has sent its role, and would have the shorter answer.
    it.models[0].behaviour = sends(chunk("", role="assistant"), then="hang")
    it.models[1].behaviour = long
    it.replica(0).turn = -1

    answer = await it.chat()

    assert answer.text == "".join(words)
    assert answer.body == b"".join([*(chunk(word) for word in words), chunk("", finish="stop"), DONE])
    assert await _hedges(it) == {("model-2", "won"): 1}


@in_world(**ON)
async def test_a_winner_that_breaks_off_is_an_incomplete_answer_and_never_mixed_with_the_losers(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = hangs
    it.models[1].behaviour = sends(chunk("a "), then="reset")
    it.replica(0).turn = -1

    answer = await it.chat()

    assert (answer.text, answer.error["code"]) == ("a ", "truncated")
    assert await it.failures() == {("model-2", "truncated"): 1}
    assert [len(model.asked) for model in it.models] == [1, 1]


@in_world(replicas=1, **ON | {"LAB_TTFT_TIMEOUT_S": "0.5"})
async def test_a_replica_without_another_is_not_hedged(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = hangs

    assert (await it.chat()).error["code"] == "ttft_timeout"
    assert len(it.models[0].asked) == 1
    assert await _hedges(it) == {}


@in_world(**ON | {"LAB_HEDGE_RATIO": "0", "LAB_HEDGE_BURST": "1", "LAB_TTFT_TIMEOUT_S": "1"})
async def test_hedges_stay_within_their_budget(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = hangs
    for _ in range(2):
        it.replica(0).turn = -1
        assert (await it.chat()).complete

    assert await _hedges(it) == {("model-2", "won"): 1}
    assert await it.failures() == {("model-1", "ttft_timeout"): 1}
    await _settled(it)


@in_world(**ON)
async def test_whole_answers_are_sent_once(it: World) -> None:
    await _learn(it)
    for model in it.models:
        model.behaviour = whole("hi")
    before = await it.metric("llmlab_upstream_attempts_total")

    assert b"hi" in (await it.chat(ask(stream=False))).body
    assert await it.metric("llmlab_upstream_attempts_total") == before + 1
    assert not it.gateway.hedger._ending


@in_world(**ON)
async def test_an_attempt_that_fails_while_the_other_runs_is_no_failure_of_the_request(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = _once(lambda: len(it.models[1].asked) == 1, answers(500))
    it.models[1].behaviour = _once(lambda: it.replica(0).in_flight == 0, good)
    it.replica(0).turn = -1

    assert (await it.chat()).headers["x-llmlab-replica"] == "model-2"

    assert await _hedges(it) == {("model-2", "won"): 1}
    assert await it.failures() == {("model-1", "upstream_5xx"): 1}
    assert await it.metric("llmlab_retry_budget_ratio") == 1


@in_world(replicas=3, **ON, LAB_MIGRATION="on")
async def test_a_hedge_that_failed_counts_for_the_attempts_of_a_migration(it: World) -> None:
    await _learn(it)
    it.models[1].behaviour = answers(500)
    it.models[0].behaviour = _once(
        lambda: it.replica(1).failures[Outcome.UPSTREAM_5XX] == 1, sends(chunk("a"), then="reset")
    )
    it.replica(0).turn, it.replica(1).turn = -2, -1

    assert (await it.chat()).error["code"] == "truncated"
    assert await it.metric("llmlab_migrations_total", outcome="denied") == 1
    assert it.models[2].asked == []


@in_world(**ON)
async def test_a_hedge_that_fails_leaves_the_first_attempt_alone(it: World) -> None:
    await _learn(it)
    it.models[1].behaviour = answers(500)
    it.models[0].behaviour = _once(lambda: it.replica(1).failures[Outcome.UPSTREAM_5XX] == 1, good)
    it.replica(0).turn = -1

    assert (await it.chat()).headers["x-llmlab-replica"] == "model-1"
    assert await _hedges(it) == {("model-2", "failed"): 1}
    assert await it.failures() == {("model-2", "upstream_5xx"): 1}
    assert await it.outcomes() == {"ok": ENOUGH + 1}


@in_world(replicas=3, **ON)
async def test_if_both_attempts_fail_no_third_replica_is_tried(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = _once(lambda: len(it.models[1].asked) == 1, answers(500))
    it.models[1].behaviour = _once(lambda: it.replica(0).in_flight == 0, answers(503))
    for turn, index in enumerate((0, 1)):
        it.replica(index).turn = turn - 2

    answer = await it.chat()

    assert (answer.status, answer.error["code"]) == (502, "upstream_5xx")
    assert "model-2 answered 503" in answer.error["message"]
    assert [len(model.asked) for model in it.models] == [1, 1, 0]


@in_world(**ON)
async def test_a_clients_mistake_ends_both_attempts(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = _once(lambda: len(it.models[1].asked) == 1, answers(400))
    it.models[1].behaviour = hangs
    it.replica(0).turn = -1

    assert (await it.chat()).status == 400
    await until_async(lambda: it.models[1].cancelled == 1, "the hedge is cancelled at its replica")
    await _settled(it)
    assert await _hedges(it) == {("model-2", "cancelled"): 1}
    assert await it.failures() == {}


@in_world(**ON)
async def test_a_client_who_leaves_ends_both_attempts(it: World) -> None:
    await _learn(it)
    for model in it.models:
        model.behaviour = hangs
    left = asyncio.ensure_future(it.chat())
    await until_async(lambda: [len(model.asked) for model in it.models] == [1, 1], "both attempts run")
    left.cancel()

    await until_async(lambda: [model.cancelled for model in it.models] == [1, 1], "both are cancelled")
    await _settled(it)
    assert await it.outcomes() == {"ok": ENOUGH, "client_cancelled": 1}
    assert sorted(outcome for _, outcome in await _hedges(it)) == ["cancelled"]
    assert await it.failures() == {}


@in_world(replicas=3, **ON)
async def test_a_retry_is_hedged_on_a_replica_that_was_not_tried(it: World) -> None:
    await _learn(it)
    it.models[0].behaviour = answers(500)
    it.models[1].behaviour = hangs
    for turn, replica in enumerate(it.gateway.pool.replicas):
        replica.turn = turn + 10**6 * (turn == 2)  # the last choice, except among those not tried

    assert (await it.chat()).headers["x-llmlab-replica"] == "model-3"
    assert [len(model.asked) for model in it.models] == [1, 1, 1]
    assert await _hedges(it) == {("model-3", "won"): 1}


@in_world(replicas=3, **ON | {"LAB_AFFINITY": "on"})
async def test_a_hedge_goes_to_the_prefixs_next_replica(it: World) -> None:
    await _learn(it)
    (own,) = {(await it.chat()).headers["x-llmlab-replica"]}
    held = next(model for model in it.models if model.name == own)
    held.behaviour = answers(500)
    (following,) = {(await it.chat()).headers["x-llmlab-replica"]}
    held.behaviour = hangs

    answer = await it.chat()

    assert answer.headers["x-llmlab-replica"] == following != own
    assert await _hedges(it) == {(following, "won"): 1}


# --- parts


def _pool(concurrency: int = 1, clock: Callable[[], float] = time.monotonic, ejection: Ejection | None = None) -> Pool:
    pool = Pool(
        {"a": "http://h:1", "b": "http://h:2"},
        admission=Admission(concurrency=concurrency),
        shedding=Shedding(),
        probing=Probing(),
        ejection=ejection or Ejection(slow_start_s=0),
        patterns=Patterns(),
        clock=clock,
    )
    for replica in pool.replicas:
        replica.probed(Probed.GOOD, 0, took_s=0)
    return pool


def test_a_place_is_spare_if_no_request_waits_for_one_and_another_replica_has_room() -> None:
    async def story() -> None:
        pool = _pool()
        assert pool.has_spare(["a"])
        assert not pool.has_spare(["a", "b"]), "no other replica"
        first, second = await pool.acquire(), await pool.acquire()
        assert not pool.has_spare(["a"]), "b has no room"

        retry = asyncio.ensure_future(pool.acquire(excluding=["b"], retry=True))
        await asyncio.sleep(0)
        second.end(Outcome.OK)
        assert pool.queue_depth == 1
        assert not pool.has_spare(["a"]), "a request waits"

        first.end(Outcome.OK)
        assert (await retry).replica.name == "a"
        assert pool.has_spare(["a"])
        for replica in pool.replicas:
            replica.probed(Probed.BAD, 0, took_s=0)
            replica.probed(Probed.BAD, 0, took_s=0)
        assert not pool.has_spare(["a"]), "b looks bad"

    asyncio.run(story())


def test_the_delay_is_a_multiple_of_the_usual_time_of_recent_requests() -> None:
    times = FirstTokenTimes(Hedging(quantile=0.9, factor=2, min_s=0.1))
    for number in range(ENOUGH - 1):
        times.add(number)
    assert times.delay_s is None

    times.add(ENOUGH - 1)
    assert times.delay_s == 2 * 17
    for _ in range(256):
        times.add(0.01)
    assert times.delay_s == 0.1
    for number in range(256):
        times.add(number)
    assert times.delay_s == 2 * 229


def _hedger(policy: Hedging, pool: Pool, release: Callable[[Any], None] = lambda _: None) -> Hedger:
    metrics = Metrics(model="m", pool=pool, board=Board(), budget=RetryBudget(ratio=0.2, burst=1))
    return Hedger(policy, pool=pool, metrics=metrics, release=release)


async def _offer(requests: int, *, hedging: bool, seed: int = 1) -> tuple[int, float]:
    """Attempts and p99 of the time to first token, with 5 % stragglers.

    A straggler takes 1 s. The others take 50 ms, with a spread.
    """
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    pool = _pool(concurrency=1000, clock=loop.time)
    hedger = _hedger(Hedging(), pool)
    attempts = 0
    times_s = []

    async def send(lease: Lease) -> SimpleNamespace:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(1.0 if rng.random() < 0.05 else 0.05 * rng.lognormvariate(0, 0.2))
        return SimpleNamespace(lease=lease)

    async def request() -> None:
        began_s = loop.time()
        lease = await pool.acquire()
        stream = await (hedger.race(lease, Exchange(request_id="x"), send) if hedging else send(lease))
        times_s.append(loop.time() - began_s)
        stream.lease.end(Outcome.OK)

    tasks = []
    for _ in range(requests):
        await asyncio.sleep(rng.expovariate(50))
        tasks.append(asyncio.ensure_future(request()))
    await asyncio.gather(*tasks)
    assert [replica.in_flight for replica in pool.replicas] == [0, 0]
    return attempts, sorted(times_s)[int(0.99 * requests)]


def test_with_5_percent_stragglers_hedging_halves_p99_for_at_most_7_percent_more_load() -> None:
    requests = 3000

    attempts, p99_s = virtual_time.run(_offer(requests, hedging=True))
    alone, unhedged_p99_s = virtual_time.run(_offer(requests, hedging=False))

    assert alone == requests
    assert attempts <= 1.07 * requests
    assert p99_s <= 0.5 * unhedged_p99_s


class _Race:
    """A hedged stream whose two attempts are futures."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pool = _pool()
        self.released: list[object] = []
        self.sent: dict[str, asyncio.Future] = {}
        self.tasks: dict[str, asyncio.Task | None] = {}
        self.hedger = _hedger(Hedging(min_s=0.001), self.pool, self.released.append)
        for _ in range(ENOUGH):
            self.hedger._times.add(0)

    async def send(self, lease: Lease) -> object:
        lease.sent()
        self.sent[lease.replica.name] = asyncio.get_running_loop().create_future()
        self.tasks[lease.replica.name] = asyncio.current_task()
        return await self.sent[lease.replica.name]

    async def run(self, tried: list[str] | None = None) -> asyncio.Future:
        exchange = Exchange(request_id="x", tried=tried or [])
        task = asyncio.ensure_future(self.hedger.race(await self.pool.acquire(), exchange, self.send))
        await until_async(lambda: len(self.sent) == 2, "both attempts run")
        return task

    @property
    def in_flight(self) -> list[int]:
        return [replica.in_flight for replica in self.pool.replicas]


def test_a_hedges_first_token_that_comes_at_once_with_the_first_attempts_is_released() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["b"].set_result(spare := object())
        race.sent["a"].set_result(stream := object())

        assert await task is stream
        await until_async(lambda: race.released == [spare], "the other is released")
        assert race.in_flight == [1, 0]

    asyncio.run(story())


def test_a_failure_that_comes_with_the_others_first_token_is_counted() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["b"].set_exception(GatewayError(outcome=Outcome.UPSTREAM_5XX, message="b failed"))
        race.sent["a"].set_result(stream := object())

        assert await task is stream
        await until_async(lambda: race.in_flight == [1, 0], "the place of the failed attempt is free")
        assert race.pool.replicas[1].failures[Outcome.UPSTREAM_5XX] == 1
        assert race.released == []

    asyncio.run(story())


def test_a_losers_late_wait_is_no_failure_of_its_replica_and_that_of_a_client_who_leaves_is_one() -> None:
    async def ejections(ends: Callable[[_Race, asyncio.Future], object]) -> dict[str, int]:
        race = _Race()
        policy = Ejection(min_requests=1, latency_min_requests=2)
        race.pool = _pool(clock=lambda: race.now_s, ejection=policy)
        race.hedger._pool = race.pool
        for replica in race.pool.replicas * 2:
            race.pool.outliers.heard(replica, 0.1, 0, trial=False)
        task = await race.run()
        race.now_s = 5.0
        ends(race, task)
        await asyncio.wait([task])
        return {replica.name: replica.breaker.ejections[Cause.ERRORS] for replica in race.pool.replicas}

    async def story() -> None:
        assert {
            "the first attempt wins": await ejections(lambda race, _: race.sent["a"].set_result(object())),
            "the hedge wins": await ejections(lambda race, _: race.sent["b"].set_result(object())),
            "the client leaves": await ejections(lambda _, task: task.cancel()),
        } == {
            "the first attempt wins": {"a": 0, "b": 0},
            "the hedge wins": {"a": 0, "b": 0},
            "the client leaves": {"a": 1, "b": 0},
        }

    asyncio.run(story())


def test_an_unexpected_error_ends_the_race_and_frees_both_places() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["b"].set_exception(RuntimeError("a mistake in the gateway"))

        with pytest.raises(RuntimeError, match="a mistake"):
            await task
        await until_async(lambda: race.in_flight == [0, 0], "both places are free")
        assert race.sent["a"].cancelled()

    asyncio.run(story())


def test_a_race_that_is_cancelled_with_a_hedges_first_token_on_its_way_releases_the_stream() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["b"].set_result(stream := object())
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await until_async(lambda: race.in_flight == [0, 0], "both places are free")
        assert race.released == [stream]

    asyncio.run(story())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_first_token_that_a_late_loop_has_not_read_yet_needs_no_hedge(run: Callable[..., None]) -> None:
    async def story() -> None:
        race, loop = _Race(), asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        hedges: list[object] = []
        race.hedger.start = lambda *given: hedges.append(given)

        async def send(_: Lease) -> bytes:
            return await loop.sock_recv(ours, 1)

        with ours, theirs:
            lease = await race.pool.acquire()
            task = asyncio.ensure_future(race.hedger.race(lease, Exchange(request_id="x"), send))
            await asyncio.sleep(0)  # the first attempt begins
            theirs.send(b"x")
            late_s = time.monotonic() + 0.01  # beyond the hedge's delay of 1 ms
            while time.monotonic() < late_s:
                pass

            assert await task == b"x"
        assert hedges == []

    run(story())


def test_only_a_hedge_has_a_task_of_its_own() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["a"].set_result(object())
        await task

        assert race.tasks["a"] is task
        assert race.tasks["b"] is not task

    asyncio.run(story())


def test_a_request_that_is_cancelled_while_only_its_hedge_runs_cancels_the_hedge() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["a"].set_exception(GatewayError(outcome=Outcome.UPSTREAM_5XX, message="a failed"))
        await until_async(lambda: race.in_flight == [0, 1], "the first attempt has failed")
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await until_async(lambda: race.in_flight == [0, 0], "both places are free")
        assert race.sent["b"].cancelled()

    asyncio.run(story())


def test_a_task_that_a_hedge_has_won_is_not_cancelled() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["b"].set_result(stream := object())

        assert await task is stream
        assert task.cancelling() == 0
        assert race.sent["a"].cancelled()
        assert race.in_flight == [0, 1]
        assert race.released == []

    asyncio.run(story())


def test_a_timeout_of_an_attempt_is_not_taken_for_its_hedges_first_token() -> None:
    async def story() -> None:
        race = _Race()
        task = await race.run()
        race.sent["a"].set_exception(TimeoutError("a mistake in the gateway"))

        with pytest.raises(TimeoutError, match="a mistake"):
            await task
        await until_async(lambda: race.in_flight == [0, 0], "both places are free")

    asyncio.run(story())
