"""Prefix affinity of the gateway, with lost, full, ejected and failing replicas."""

import asyncio
from types import SimpleNamespace

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support.lab_api_world import World, answers, ask, chunk, good, hangs, in_world, sends, world
from support.waiting import until_async

from lab_api.affinity import Prefix
from lab_api.pool import Pool
from lab_api.replica import Probed
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding

SYSTEM = {"role": "system", "content": "You are a helpful assistant. "}


def _about(topic: object) -> dict:
    """A request whose prompt starts with the topic."""
    return ask(messages=[SYSTEM, {"role": "user", "content": f"{topic}: go on"}])


async def _replicas_of(it: World, topic: object, count: int) -> set[str]:
    return {(await it.chat(_about(topic))).headers["x-llmlab-replica"] for _ in range(count)}


@in_world(replicas=3, LAB_AFFINITY="on")
async def test_prefixes_are_spread_over_the_replicas(it: World) -> None:
    used = [await _replicas_of(it, topic, 3) for topic in range(12)]

    assert {len(names) for names in used} == {1}
    assert set().union(*used) == {"model-1", "model-2", "model-3"}


@in_world(replicas=3, LAB_AFFINITY="on")
async def test_a_lost_replica_moves_only_its_own_prefixes_and_gets_them_back(it: World) -> None:
    async def placed() -> list[str]:
        return [(await it.chat(_about(topic))).headers["x-llmlab-replica"] for topic in range(12)]

    before = await placed()
    await it.models[0].stop()
    await until_async(lambda: not it.replica(0).healthy, "the probe sees it")
    without = await placed()
    await it.models[0].start()
    await until_async(lambda: it.replica(0).healthy, "the probe sees it again")

    assert "model-1" not in without
    kept = [(was, now) for was, now in zip(before, without, strict=True) if was != "model-1"]
    assert [was for was, _ in kept] == [now for _, now in kept]
    assert await placed() == before


@pytest.mark.parametrize(
    ("env", "most"),
    [
        pytest.param({"LAB_AFFINITY": "on", "LAB_AFFINITY_FACTOR": "1.25"}, 5, id="at most 1.25 times the mean"),
        pytest.param({"LAB_AFFINITY": "on", "LAB_AFFINITY_FACTOR": "100"}, 8, id="without a bound"),
        pytest.param({"LAB_AFFINITY": "on", "LAB_CONCURRENCY": "4"}, 4, id="no room"),
        pytest.param({"LAB_AFFINITY": "off"}, 4, id="off"),
    ],
)
def test_a_popular_prefix_does_not_overload_its_replica(env: dict[str, str], most: int) -> None:
    async def story() -> None:
        async with world(replicas=2, **env) as it:
            for model in it.models:
                model.behaviour = hangs
            tasks = [asyncio.ensure_future(it.chat(_about("news"))) for _ in range(8)]
            await until_async(lambda: sum(len(model.asked) for model in it.models) == 8, "all have reached replicas")

            assert sorted(len(model.asked) for model in it.models) == [8 - most, most]
            for task in tasks:
                task.cancel()

    uvloop.run(story())


@in_world(LAB_AFFINITY="on", LAB_EJECT_MIN_REQUESTS="100000")
async def test_a_retry_goes_to_another_replica_than_that_of_the_prefix(it: World) -> None:
    (name,) = await _replicas_of(it, "news", 1)
    own, other = sorted(it.models, key=lambda model: model.name != name)
    own.behaviour = answers(500)

    assert await _replicas_of(it, "news", 3) == {other.name}
    assert await it.failures() == {(name, "upstream_5xx"): 3}


@in_world(LAB_AFFINITY="on", LAB_EJECT_MIN_REQUESTS="2", LAB_EJECT_S="60", LAB_RETRY_BURST="0")
async def test_an_ejected_replica_loses_its_prefixes_until_all_look_bad(it: World) -> None:
    (name,) = await _replicas_of(it, "news", 1)
    own, other = sorted(it.models, key=lambda model: model.name != name)
    own.behaviour = answers(500)
    for _ in range(2):
        await it.chat(_about("news"))
    own.behaviour = good

    assert await _replicas_of(it, "news", 3) == {other.name}

    other.behaviour = answers(500)
    for _ in range(6):
        await it.chat(_about("news"))
    other.behaviour = good
    clock = it.gateway.pool.clock
    assert [replica.breaker.state(clock()).name for replica in it.gateway.pool.replicas] == ["OPEN", "OPEN"]
    assert await _replicas_of(it, "news", 3) == {name}


@in_world(replicas=3, LAB_AFFINITY="on")
async def test_the_turns_of_a_conversation_go_to_one_replica(it: World) -> None:
    for topic in range(6):
        messages = [SYSTEM, {"role": "user", "content": f"{topic}?"}]
        used = set()
        for turn in range(4):
            answer = await it.chat(ask(messages=messages))
            used.add(answer.headers["x-llmlab-replica"])
            messages += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": f"and then, {turn}?"},
            ]
        assert len(used) == 1


@in_world(replicas=1, LAB_AFFINITY="on")
async def test_every_form_of_content_has_a_prefix_and_reaches_the_replica_unchanged(it: World) -> None:
    for content in ("\ud800", None, [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}]):
        assert (await it.chat(ask(messages=[{"role": "tool", "content": content}]))).complete
    it.models[0].behaviour = sends(chunk("a "), then="reset")
    assert (await it.chat()).error["code"] == "truncated"


def _prefix(*said: object, chars: int = 100) -> bytes:
    messages = [{"role": role, "content": content} for role, content in said]
    return Prefix.of(messages, chars=chars, factor=1).digest


def test_a_prefix_ends_with_the_first_words_of_the_user_or_at_its_length() -> None:
    start = (("system", "be kind"), ("user", "hello"))

    assert _prefix(*start) == _prefix(*start, ("assistant", "hi"), ("user", "more"))
    assert _prefix(*start) != _prefix(start[0], ("user", "hallo"))
    assert _prefix(*start) != _prefix(("user", "hello"))
    assert _prefix(("system", "x" * 100), ("user", "a")) == _prefix(("system", "x" * 100), ("user", "b"))
    assert _prefix(("user", "x" * 60), chars=20) == _prefix(("user", "x" * 50), chars=20)
    assert _prefix(("user", [{"type": "text", "text": "a"}])) != _prefix(("user", [{"type": "text", "text": "b"}]))


def _replica(name: str, in_flight: int = 0) -> SimpleNamespace:
    return SimpleNamespace(name=name, in_flight=in_flight)


def test_a_prefix_has_the_same_replica_in_every_process() -> None:
    replicas = [_replica(f"model-{number}") for number in range(1, 5)]
    chosen = [
        min(replicas, key=Prefix(digest=bytes([number]), factor=1.25).order(replicas)).name for number in range(8)
    ]

    assert [name.removeprefix("model-") for name in chosen] == ["1", "4", "3", "2", "2", "1", "2", "1"]


@given(
    loads=st.lists(st.integers(0, 50), min_size=2, max_size=6),
    digest=st.binary(min_size=16, max_size=16),
    factor=st.floats(1, 3),
)
def test_no_replica_gets_more_than_the_factor_times_the_mean(loads: list[int], digest: bytes, factor: float) -> None:
    replicas = [_replica(f"model-{number}", load) for number, load in enumerate(loads)]

    chosen = min(replicas, key=Prefix(digest=digest, factor=factor).order(replicas))

    assert chosen.in_flight + 1 <= factor * (sum(loads) + 1) / len(loads) + 1


def test_a_request_that_waited_goes_to_the_replica_of_its_prefix() -> None:
    async def taken(prefix: Prefix | None) -> str:
        names = ("a", "b", "c")
        pool = Pool(
            dict.fromkeys(names, "http://h:1"),
            admission=Admission(concurrency=1),
            shedding=Shedding(),
            probing=Probing(),
            ejection=Ejection(slow_start_s=0),
            patterns=Patterns(),
            clock=lambda: 0.0,
        )
        pool.replicas[0].probed(Probed.GOOD, 0, took_s=0)
        await pool.acquire()
        waiting = asyncio.ensure_future(pool.acquire(prefix=prefix))
        await asyncio.sleep(0)
        assert pool.queue_depth == 1
        for replica in pool.replicas[1:]:
            replica.probed(Probed.GOOD, 0, took_s=0)
        pool.wake()
        return (await waiting).replica.name

    async def story() -> None:
        assert await taken(None) == "b"
        replicas = [_replica("b"), _replica("c")]
        for number in range(8):
            prefix = Prefix(digest=bytes([number]), factor=1.25)
            assert await taken(prefix) == min(replicas, key=prefix.order(replicas)).name

    asyncio.run(story())


def test_the_mean_includes_replicas_without_room() -> None:
    async def story() -> None:
        pool = Pool(
            dict.fromkeys("abc", "http://h:1"),
            admission=Admission(concurrency=10),
            shedding=Shedding(),
            probing=Probing(),
            ejection=Ejection(slow_start_s=0),
            patterns=Patterns(),
        )
        for replica, in_flight in zip(pool.replicas, (10, 5, 0), strict=True):
            replica.probed(Probed.GOOD, 0, took_s=0)
            replica.in_flight = in_flight
        prefixes = [Prefix(digest=bytes([number]), factor=1.25) for number in range(100)]
        idle = [_replica("b"), _replica("c")]
        prefix = next(one for one in prefixes if min(idle, key=one.order(idle)) is idle[0])

        assert (await pool.acquire(prefix=prefix)).replica.name == "b"

    asyncio.run(story())


def test_above_the_bound_the_least_loaded_one_with_room_is_taken() -> None:
    full, half, most = _replica("a", 0), _replica("b", 8), _replica("c", 9)

    for number in range(8):
        order = Prefix(digest=bytes([number]), factor=1).order([full, half, most])
        assert min([half, most], key=order) is half
