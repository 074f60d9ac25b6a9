"""Classes of requests and predicted waits, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from support import virtual_time
from support.lab_api_world import World, answers, in_world

from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Lease, Pool
from lab_api.priority import Priority, requested
from lab_api.queue import Queue, Waiter
from lab_api.replica import Probed
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding
from lab_api.shed import Forecast, refusal

HIGH, NORMAL, LOW = Priority


# --- the class of a request


@pytest.mark.parametrize(
    ("header", "field", "priority"),
    [
        (None, 0, NORMAL),
        (None, -3, HIGH),
        (None, 1, LOW),
        ("high", 1, HIGH),
        (" Low ", 0, LOW),
        ("normal", -1, NORMAL),
    ],
)
def test_the_header_comes_before_the_field(header: str | None, field: int, priority: Priority) -> None:
    assert requested(header, field) is priority


def test_a_header_that_names_no_class_is_refused() -> None:
    with pytest.raises(GatewayError, match="must be high, normal or low, got 'urgent'") as error:
        requested("urgent", 0)

    assert error.value.status == 400


@in_world(LAB_RETRY_BURST="1", LAB_RETRY_RATIO="0.2")
async def test_a_request_without_a_place_earns_no_retry(it: World) -> None:
    it.models[0].behaviour = answers(500)
    assert (await it.chat()).complete
    assert await it.metric("llmlab_retry_budget_ratio") == 0
    for _ in range(5):
        assert (await it.chat(headers={"x-llmlab-priority": "urgent"})).status == 400

    assert await it.metric("llmlab_retry_budget_ratio") == 0


# --- the order of the queue


def _in_queue(story) -> None:
    async def run() -> None:
        story(Queue(0.1))

    virtual_time.run(run())


def _add(queue: Queue[None], priority: Priority, count: int = 1, *, first: bool = False) -> list[Waiter[None]]:
    waiters: list[Waiter[None]] = [Waiter((), priority, is_admitted=first) for _ in range(count)]
    for waiter in waiters:
        queue.add(waiter)
    return waiters


def test_higher_classes_come_first_each_in_the_order_of_arrival_and_retries_at_the_head_of_theirs() -> None:
    def story(queue: Queue[None]) -> None:
        low, normal, high = (_add(queue, one, 2) for one in (LOW, NORMAL, HIGH))
        retry = _add(queue, NORMAL, first=True)

        assert list(queue.in_turn()) == [*high, *retry, *normal, *low]
        assert [queue.before(one) for one in Priority] == [2, 5, 7]
        assert len(queue) == 7

    _in_queue(story)


def test_each_lower_class_gets_its_tenth_of_the_places() -> None:
    def story(queue: Queue[None]) -> None:
        for priority in Priority:
            _add(queue, priority, 1000)
        served = []
        for _ in range(1010):
            waiter = next(queue.in_turn())
            queue.served(waiter)
            served.append(waiter.priority)

        assert Counter(served) == {HIGH: 810, NORMAL: 100, LOW: 100}
        assert LOW in served[:12], "and not only at the end"

    _in_queue(story)


def test_a_class_that_was_served_saves_no_places_while_it_is_empty() -> None:
    def story(queue: Queue[None]) -> None:
        _add(queue, HIGH, 100)
        _add(queue, LOW)
        for _ in range(19):
            queue.served(next(queue.in_turn()))
        assert queue.depth(LOW) == 0
        _add(queue, LOW, 5)
        for _ in range(9):
            queue.served(next(queue.in_turn()))

        assert queue.depth(LOW) == 5

    _in_queue(story)


def test_a_waiter_who_is_alone_in_its_class_and_leaves_in_time_does_not_starve() -> None:
    """It waits for 9 places each time, and every tenth is its class'."""

    def story(queue: Queue[None]) -> None:
        _add(queue, HIGH, 1000)
        served = 0
        for _ in range(50):
            (low,) = _add(queue, LOW)
            for _ in range(9):
                queue.served(next(queue.in_turn()))
            served += queue.depth(LOW) == 0
            queue.remove(low)
            queue.remove(low)

        assert served >= 25
        assert queue.depth(LOW) == 0

    _in_queue(story)


def test_a_class_has_its_share_of_a_small_queue_too() -> None:
    def story(queue: Queue[None]) -> None:
        *_, youngest = _add(queue, HIGH, 8)

        assert queue.to_drop_for(LOW, 8) is youngest
        assert queue.to_drop_for(LOW, 4) is None, "a tenth of 4 is no whole place"

    _in_queue(story)


def test_those_who_were_admitted_before_keep_their_order_and_are_never_dropped() -> None:
    def story(queue: Queue[None]) -> None:
        (new,) = _add(queue, LOW)
        retries = _add(queue, LOW, 3, first=True)

        assert list(queue.in_turn()) == [*retries, new]
        assert queue.to_drop_for(HIGH, 4) is new
        queue.remove(new)
        assert queue.to_drop_for(HIGH, 3) is None

    _in_queue(story)


def test_a_full_queue_drops_the_youngest_of_the_lowest_class_for_a_higher_one_only() -> None:
    def story(queue: Queue[None]) -> None:
        _, youngest_low = _add(queue, LOW, 2)
        (normal,) = _add(queue, NORMAL)

        assert queue.to_drop_for(HIGH, 3) is youngest_low
        assert queue.to_drop_for(NORMAL, 3) is youngest_low
        assert queue.to_drop_for(LOW, 3) is None
        for waiter in list(queue.in_turn()):
            if waiter is not normal:
                queue.remove(waiter)
        assert queue.to_drop_for(HIGH, 3) is normal
        assert queue.to_drop_for(NORMAL, 3) is None

    _in_queue(story)


def test_each_class_keeps_its_share_of_a_full_queue() -> None:
    def story(queue: Queue[None]) -> None:
        _add(queue, LOW, 2)
        normal = _add(queue, NORMAL, 18)

        assert queue.to_drop_for(HIGH, 20) is normal[-1], "two of 20 are low"
        _add(queue, LOW)
        assert queue.to_drop_for(HIGH, 20) is not normal[-1]
        while queue.depth(LOW) > 1:
            queue.remove(list(queue.in_turn())[-1])
        assert queue.to_drop_for(LOW, 20) is normal[-1], "a second low one is within its share"

    _in_queue(story)


# --- the prediction


def _forecast(share: float = 0.1) -> Forecast:
    forecast = Forecast(share=share)
    for _ in range(200):
        forecast.ended(4.0)
        forecast.first_token(0.5)
        forecast.granted(NORMAL)
    return forecast


def _predicted(forecast: Forecast, priority: Priority = NORMAL, **more: float) -> float:
    known = {"before": 3, "depth": 3, "places": 8, "running_s": 2.0} | more
    predicted_s = forecast.first_token_s(priority, **known)  # type: ignore[arg-type] # numbers of either kind
    assert predicted_s is not None
    return predicted_s


def test_a_wait_is_the_requests_before_it_times_the_step_and_the_first_token_itself() -> None:
    assert _predicted(_forecast()) == pytest.approx(4 * 4.0 / 8 + 0.5, abs=0.01)


def test_before_any_request_has_ended_nothing_is_predicted() -> None:
    assert Forecast(share=0.1).first_token_s(NORMAL, before=9, depth=9, places=1, running_s=9) is None


def test_a_stall_shows_in_the_age_of_the_running() -> None:
    assert _predicted(_forecast(), running_s=80.0) == pytest.approx(4 * 40 / 8 + 0.5, abs=0.01)


def test_a_lower_class_waits_for_what_higher_classes_leave_or_for_its_share() -> None:
    forecast = _forecast()

    assert _predicted(forecast, LOW, before=3, depth=0) == pytest.approx(4.0 / 8 / 0.1 + 0.5, abs=0.01)
    assert _predicted(_forecast(share=0), LOW, before=0, depth=0) > 5
    for _ in range(200):
        forecast.granted(LOW)
    assert _predicted(forecast, LOW) == pytest.approx(4 * 4.0 / 8 + 0.5, abs=0.01)


def test_a_refusal_names_the_predicted_time_rounded_up() -> None:
    error = refusal(Shedding(status=529), 2.2)

    assert (error.status, error.retry_after_s, error.outcome) == (529, 3, Outcome.REJECTED_PREDICTED)
    assert "after 2.2 s, later than the limit of 2 s" in error.message
    assert refusal(Shedding(), 1e9).retry_after_s == 3600


# --- the pool


def _pool(*, patterns: Patterns, **admission: float) -> Pool:
    pool = Pool(
        {"a": "http://a", "b": "http://b"},
        admission=Admission(**{"concurrency": 8} | admission),
        shedding=Shedding(ttft_s=2.0),
        probing=Probing(),
        ejection=Ejection(slow_start_s=0),
        patterns=patterns,
        clock=asyncio.get_running_loop().time,
    )
    for replica in pool.replicas:
        replica.probed(Probed.GOOD, 0, took_s=0)
    return pool


async def _all_taken(pool: Pool, count: int) -> list[Lease]:
    return [await pool.acquire() for _ in range(count)]


def test_one_who_is_dropped_for_a_higher_class_is_refused_as_for_a_full_queue() -> None:
    async def story() -> None:
        pool = _pool(patterns=Patterns(), concurrency=1, queue_max=1)
        held = await _all_taken(pool, 2)
        low = asyncio.ensure_future(pool.acquire(priority=LOW))
        await asyncio.sleep(0)
        high = asyncio.ensure_future(pool.acquire(priority=HIGH))
        with pytest.raises(GatewayError, match="1 requests are already waiting") as error:
            await low
        with pytest.raises(GatewayError):
            await pool.acquire(priority=HIGH)
        held[0].end(Outcome.OK)
        await high

        assert error.value.outcome is Outcome.REJECTED_QUEUE_FULL
        assert pool.queue_depth == 0

    virtual_time.run(story())


def test_a_retry_is_not_dropped_for_a_higher_class() -> None:
    async def story() -> None:
        pool = _pool(patterns=Patterns(), concurrency=1, queue_max=1)
        held = await _all_taken(pool, 2)
        retry = asyncio.ensure_future(pool.acquire(excluding=[held[1].replica.name], retry=True, priority=LOW))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError) as error:
            await pool.acquire(priority=HIGH)
        for lease in held:
            lease.end(Outcome.OK)

        assert error.value.outcome is Outcome.REJECTED_QUEUE_FULL
        assert (await retry).replica is held[0].replica

    virtual_time.run(story())


@pytest.mark.parametrize("patterns", [Patterns(), Patterns(shed=True)])
def test_a_free_place_that_no_waiter_accepts_is_taken(patterns: Patterns) -> None:
    async def story() -> None:
        pool = _pool(patterns=patterns, concurrency=1, queue_max=1)
        first, second = await _all_taken(pool, 2)
        await asyncio.sleep(4)
        free = second.replica.name
        second.end(Outcome.OK)
        retry = asyncio.ensure_future(pool.acquire(excluding=[free], retry=True))
        await asyncio.sleep(0)

        assert (await pool.acquire()).replica.name == free
        first.end(Outcome.OK)
        await retry

    virtual_time.run(story())


def test_with_shedding_a_request_waits_no_longer_than_the_limit_allows() -> None:
    async def story() -> None:
        pool = _pool(patterns=Patterns(shed=True, queue=False), concurrency=1)
        for lease in await _all_taken(pool, 2):
            lease.sent()
            await asyncio.sleep(0.25)
            lease.first_token()
            lease.end(Outcome.OK)
        await _all_taken(pool, 2)
        began_s = pool.clock()
        with pytest.raises(GatewayError, match="no replica had room") as error:
            await pool.acquire()

        assert error.value.outcome is Outcome.QUEUE_TIMEOUT
        assert pool.clock() - began_s == pytest.approx(2.0 - 0.2625, abs=0.01)

    virtual_time.run(story())


def test_a_free_place_is_taken_whatever_is_predicted() -> None:
    async def story() -> None:
        pool = _pool(patterns=Patterns(shed=True), concurrency=1)
        (lease,) = await _all_taken(pool, 1)
        await asyncio.sleep(900)
        lease.end(Outcome.OK)

        assert (pool.predicted_s(NORMAL) or 0) > 400
        await _all_taken(pool, 2)
        with pytest.raises(GatewayError) as error:
            await pool.acquire()
        assert error.value.outcome is Outcome.REJECTED_PREDICTED

    virtual_time.run(story())


@pytest.mark.parametrize("queued", [False, True])
def test_places_that_the_high_class_took_make_the_low_class_wait(queued: bool) -> None:
    async def story() -> None:
        pool = _pool(patterns=Patterns(), concurrency=1, priority_share=0)
        if queued:
            lease, _ = await _all_taken(pool, 2)
        for _ in range(100):
            high = asyncio.ensure_future(pool.acquire(priority=HIGH))
            await asyncio.sleep(1)
            if queued:
                lease.end(Outcome.OK)
            lease = await high
            if not queued:
                lease.end(Outcome.OK)

        assert (pool.predicted_s(LOW) or 0) > 10 * (pool.predicted_s(HIGH) or 0) > 0

    virtual_time.run(story())


# --- three times more than the capacity

SLO_S, FIRST_TOKEN_S, ANSWER_S = 2.0, 0.1, 1.0
CONCURRENCY, REPLICAS = 8, 2
CAPACITY_RPS = REPLICAS * CONCURRENCY / (FIRST_TOKEN_S + ANSWER_S)
SECONDS = 30
MIX = {HIGH: 0.2, NORMAL: 0.5, LOW: 0.3}


@dataclass(frozen=True, kw_only=True)
class Count:
    """Requests of a class: sent, answered, and answered within the SLO."""

    sent: int
    answered: int
    good: int


def _offered(times: float, patterns: Patterns) -> dict[Priority, Count]:
    """The counts by class of Poisson arrivals at this multiple of the capacity."""
    drawn = random.Random(7)
    firsts: list[tuple[Priority, float | None]] = []

    async def request(pool: Pool, priority: Priority, answer_s: float) -> None:
        began_s = pool.clock()
        try:
            lease = await pool.acquire(priority=priority if patterns.priority else NORMAL)
        except GatewayError:
            firsts.append((priority, None))
            return
        lease.sent()
        await asyncio.sleep(FIRST_TOKEN_S)
        lease.first_token()
        firsts.append((priority, pool.clock() - began_s))
        await asyncio.sleep(answer_s)
        lease.end(Outcome.OK)

    async def story() -> None:
        pool = _pool(patterns=patterns, concurrency=CONCURRENCY)
        async with asyncio.TaskGroup() as tasks:
            while pool.clock() < SECONDS:
                await asyncio.sleep(drawn.expovariate(times * CAPACITY_RPS))
                (priority,) = drawn.choices(list(MIX), list(MIX.values()))
                tasks.create_task(request(pool, priority, drawn.expovariate(1 / ANSWER_S)))

    virtual_time.run(story())
    return {
        one: Count(
            sent=sum(priority is one for priority, _ in firsts),
            answered=sum(priority is one and first_s is not None for priority, first_s in firsts),
            good=sum(priority is one and first_s is not None and first_s <= SLO_S for priority, first_s in firsts),
        )
        for one in Priority
    }


def _goodput_rps(counts: dict[Priority, Count]) -> float:
    return sum(count.good for count in counts.values()) / SECONDS


def test_at_three_times_the_capacity_the_high_class_keeps_its_slo_none_starves_and_goodput_stays() -> None:
    patterns = Patterns(priority=True, shed=True)
    peak_rps = max(_goodput_rps(_offered(times, patterns)) for times in (0.8, 1, 1.2))
    counts = _offered(3, patterns)
    answered = sum(count.answered for count in counts.values())

    assert counts[HIGH].good >= 0.99 * counts[HIGH].sent
    assert _goodput_rps(counts) >= 0.8 * peak_rps
    assert counts[LOW].answered >= 0.08 * answered
    assert counts[NORMAL].answered >= counts[LOW].answered


def test_without_priority_the_high_class_fares_as_all_do() -> None:
    counts = _offered(3, Patterns(priority=False, shed=True))

    assert counts[HIGH].good < 0.5 * counts[HIGH].sent


def test_without_shedding_the_lower_classes_wait_too_long_for_goodput() -> None:
    counts = _offered(3, Patterns(priority=True, shed=False))

    assert counts[HIGH].good >= 0.99 * counts[HIGH].sent
    assert counts[NORMAL].good < 0.2 * counts[NORMAL].answered
    assert counts[LOW].answered >= 0.08 * sum(count.answered for count in counts.values())
