"""Larger reads while the gateway's event loop is busy."""

import asyncio
import json
from collections import Counter

import pytest
from aiohttp import web
from support.lab_api_world import DONE, World, chunk, in_world
from support.virtual_time import run

from lab_api.pacing import AT_ONCE, DOWN_S, LOOK_S, MAX_S, UP_S, Pace


def _rests_s(*ratios: float, late_s: float = 0.0) -> list[float]:
    """The pace after each look at a thread that used these shares of its core."""
    used_s = [0.0]
    found = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        late = [0.0]
        pace = Pace(clock=lambda: loop.time() + late[0], cpu_clock=lambda: used_s[0])
        pace.start()
        for ratio in ratios:
            used_s[0] += ratio * (LOOK_S + late_s)
            late[0] += late_s
            await asyncio.sleep(LOOK_S)
            found.append(pace.rest_s)
        pace.stop()

    run(story())
    return found


def test_an_idle_gateway_reads_each_event_at_once() -> None:
    assert _rests_s(0.1, 0.4, 0.6) == [0, 0, 0]


def test_a_busy_gateway_rests_longer_step_by_step_and_shorter_again() -> None:
    rests_s = _rests_s(*[0.9] * 4, *[0.3] * 12)

    assert rests_s[:4] == pytest.approx([UP_S, 2 * UP_S, MAX_S, MAX_S])
    assert rests_s[4:6] == pytest.approx([MAX_S - DOWN_S, MAX_S - 2 * DOWN_S])
    assert rests_s[-1] == pytest.approx(0, abs=1e-9)


def test_between_the_bounds_the_pace_stays() -> None:
    assert _rests_s(0.9, 0.5, 0.6) == [UP_S] * 3


def test_a_late_timer_is_a_busy_loop_though_other_programs_have_the_core() -> None:
    assert _rests_s(0.1, late_s=0.02) == [UP_S]


def test_streams_that_rested_are_read_a_few_in_each_turn_of_the_loop() -> None:
    count = 3 * AT_ONCE + 1

    async def story() -> None:
        pace, turn = Pace(), 0
        resumed: list[tuple[int, int]] = []
        pace.rest_s = 0.001
        for number in range(count):
            pace.rest(lambda number=number: resumed.append((number, turn)))
        while len(resumed) < count:
            await asyncio.sleep(0)
            turn += 1

        assert [number for number, _ in resumed] == list(range(count))
        assert max(Counter(turn for _, turn in resumed).values()) == AT_ONCE

    asyncio.run(story())


async def _pieces(it: World, words: list[str], *, every_s: float, rest_s: float) -> list[bytes]:
    """A stream with one word at a time, as the client received it."""
    it.gateway.pace.stop()
    it.gateway.pace.rest_s = rest_s

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for word in words:
            await response.write(chunk(word))
            await asyncio.sleep(every_s)
        await response.write(chunk(finish="stop") + DONE)
        return response

    it.models[0].behaviour = behave
    pieces = []
    async with it.post() as response:
        async for piece, _ in response.content.iter_chunks():
            pieces.append(piece)
    return pieces


@in_world(replicas=1)
async def test_a_paced_stream_arrives_whole_and_in_fewer_pieces(it: World) -> None:
    words = [f"{number} " for number in range(200)]

    pieces = await _pieces(it, words, every_s=0.0005, rest_s=0.05)

    body = b"".join(pieces)
    events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "".join(words)
    assert body.endswith(DONE)
    assert len(pieces) < len(words) / 4


@in_world(replicas=1)
async def test_a_stream_slower_than_the_pace_is_not_held_up(it: World) -> None:
    words = [f"{number} " for number in range(10)]

    pieces = await _pieces(it, words, every_s=0.05, rest_s=0.01)

    assert len(pieces) >= len(words)
