"""The engine as clients see it: OpenAI's API, checkable tokens, vLLM's metrics."""

import asyncio
import hashlib
import json
import math
import re
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lab_engine_world import World, world
from support.waiting import until_async

from lab_engine.names.rows import one_two_five
from lab_engine.tokens import stopped_at

# From vLLM's documentation of its metrics.
FIRST_TOKEN_EDGES = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)


def sim_v1(prompt: str, count: int) -> list[str]:
    """The scheme as documented for clients, written a second time."""
    return [hashlib.sha256(f"{prompt}\x1f{index}".encode()).hexdigest()[:6] + " " for index in range(count)]


def contents(events: list) -> list[str]:
    pieces = [event["choices"][0]["delta"]["content"] for event in events if event != "[DONE]" and event["choices"]]
    return [piece for piece in pieces if piece]


def test_a_stream_is_the_tokens_of_the_last_user_message_one_an_event_and_ends_properly() -> None:
    async def scenario() -> None:
        async with world() as lab:
            messages = [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "zweite Frage ✓"},
            ]
            events = await lab.events(messages=messages, max_tokens=20)

            assert contents(events) == sim_v1("zweite Frage ✓", 20)
            assert events[-1] == "[DONE]"
            assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 20 + ["length"]
            assert events[0]["choices"][0]["delta"]["role"] == "assistant"
            assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
            assert len({event["id"] for event in events[:-1]}) == 1

    asyncio.run(scenario())


def test_a_whole_answer_is_the_same_text_with_its_usage() -> None:
    async def scenario() -> None:
        async with world() as lab:
            status, body = await lab.chat("hello", max_tokens=5)

            assert status == 200
            assert body["choices"][0]["message"]["content"] == "".join(sim_v1("hello", 5))
            assert body["choices"][0]["finish_reason"] == "length"
            assert body["usage"]["completion_tokens"] == 5
            assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 5

    asyncio.run(scenario())


def test_usage_comes_last_in_a_stream_that_requests_it() -> None:
    async def scenario() -> None:
        async with world() as lab:
            events = await lab.events(stream_options={"include_usage": True})

            assert events[-2]["choices"] == []
            assert events[-2]["usage"]["completion_tokens"] == 4

    asyncio.run(scenario())


def test_usage_counts_the_tokens_up_to_a_stop_string_and_comes_only_on_request() -> None:
    async def scenario() -> None:
        async with world() as lab:
            stop = sim_v1("hello", 10)[3].strip()
            asked = await lab.events("hello", max_tokens=10, stop=stop, stream_options={"include_usage": True})
            not_asked = await lab.events("hello", max_tokens=10, stop=stop)

            assert asked[-2]["usage"]["completion_tokens"] == 4
            assert asked[-2]["usage"]["total_tokens"] == asked[-2]["usage"]["prompt_tokens"] + 4
            assert not any(event.get("usage") for event in not_asked[:-1])
            assert contents(asked) == contents(not_asked) == sim_v1("hello", 3)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_the_newer_name_of_max_tokens_wins_over_the_older_one(stream: bool) -> None:
    async def scenario() -> None:
        async with world() as lab:
            bounds = {"max_completion_tokens": 3, "max_tokens": 9}
            if stream:
                assert contents(await lab.events("hello", **bounds)) == sim_v1("hello", 3)
            else:
                status, body = await lab.chat("hello", **bounds)
                assert (status, body["usage"]["completion_tokens"]) == (200, 3)

    asyncio.run(scenario())


def test_the_seed_gives_a_stream_and_a_whole_answer_the_same_length_and_changes_no_token() -> None:
    async def scenario() -> None:
        async with world(LAB_TOKEN_GAP_S="0.001") as lab:
            status, body = await lab.chat("hello", max_tokens=None, seed=5)
            count = body["usage"]["completion_tokens"]

            assert (status, body["choices"][0]["message"]["content"]) == (200, "".join(sim_v1("hello", count)))
            assert contents(await lab.events("hello", max_tokens=None, seed=5)) == sim_v1("hello", count)

    asyncio.run(scenario())


def test_a_stop_string_ends_the_answer_before_itself_even_across_two_tokens() -> None:
    async def scenario() -> None:
        async with world() as lab:
            tokens = sim_v1("hello", 10)
            stop = tokens[3][3:] + tokens[4][:2]
            events = await lab.events("hello", max_tokens=10, stop=[stop, "never"])

            assert "".join(contents(events)) == "".join(tokens).split(stop)[0]
            assert events[-2]["choices"][0]["finish_reason"] == "stop"

            status, body = await lab.chat("hello", max_tokens=10, stop=stop)

            assert status == 200
            assert body["choices"][0]["message"]["content"] == "".join(tokens).split(stop)[0]
            assert body["usage"]["completion_tokens"] == 5

    asyncio.run(scenario())


@given(st.text(max_size=8), st.lists(st.text("0123456789abcdef ", min_size=1, max_size=9), min_size=1, max_size=3))
def test_stop_strings_cut_where_a_search_of_the_whole_text_would(prompt: str, stops: list[str]) -> None:
    whole = "".join(sim_v1(prompt, 30))
    ends = {stop: whole.find(stop) + len(stop) for stop in stops if stop in whole}
    cut = stopped_at(prompt, tuple(stops), 30)

    if not ends:
        assert cut is None
        return
    tokens = -(-min(ends.values()) // 7)  # the token in which the first of them is complete
    complete = [whole.find(stop) for stop, end in ends.items() if end <= tokens * 7]
    assert cut == (tokens, min(complete))


def test_without_max_tokens_the_model_ends_by_itself_at_a_length_that_the_seed_repeats() -> None:
    async def scenario() -> None:
        async with world(LAB_TOKEN_GAP_S="0.001") as lab:
            lengths = []
            for seed in (1, 1, 2, 3):
                status, body = await lab.chat("hello", max_tokens=None, seed=seed)
                assert status == 200
                assert body["choices"][0]["finish_reason"] == "stop"
                lengths.append(body["usage"]["completion_tokens"])

            assert lengths[0] == lengths[1]
            assert len(set(lengths)) > 1

    asyncio.run(scenario())


def test_many_streams_at_once_never_mix_their_tokens() -> None:
    async def scenario() -> None:
        async with world() as lab:
            prompts = [f"client {number}" for number in range(60)]
            answers = await asyncio.gather(*(lab.events(prompt, max_tokens=12) for prompt in prompts))

            assert [contents(events) for events in answers] == [sim_v1(prompt, 12) for prompt in prompts]
            assert lab.engine.scheduler.pool.used_ratio == 0

    asyncio.run(scenario())


def test_a_client_that_leaves_frees_its_place_in_queue_before_the_first_token_and_in_mid_stream() -> None:
    async def left(lab: World, *, after_bytes: bool, stream: bool = True) -> None:
        running = lab.http.post(f"{lab.url}/v1/chat/completions", json=lab.ask("bye", stream=stream, max_tokens=5000))
        if not stream:
            task = asyncio.ensure_future(running.__aenter__())
            await until_async(lambda: lab.engine.scheduler.unfinished == 1, "the request is in")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            async with running as response:
                await until_async(lambda: lab.engine.scheduler.unfinished == 1, "the request is in")
                if after_bytes:
                    await response.content.readuntil(b"\n\n")
                response.close()
        await until_async(lambda: lab.engine.scheduler.unfinished == 0, "its place is free")

    async def scenario() -> None:
        async with world() as lab:
            await left(lab, after_bytes=True)
            await left(lab, after_bytes=False, stream=False)
            await lab.fault("hang")
            await left(lab, after_bytes=False)
            metrics = await lab.metrics()

            assert metrics["vllm:request_success_total[abort]"] == 3
            assert lab.engine.scheduler.pool.used_ratio == 0

    asyncio.run(scenario())


def test_an_http_1_0_client_gets_its_stream_without_chunk_framing() -> None:
    async def scenario() -> None:
        async with world() as lab:
            host, port = lab.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = (
                b'{"model":"smollm2:135m","stream":true,"max_tokens":2,"messages":[{"role":"user","content":"hello"}]}'
            )
            writer.write(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = (await reader.read()).decode()
            writer.close()

            assert "".join(sim_v1("hello", 1))[:-1] in answer
            assert answer.split("\r\n\r\n", 1)[1].startswith("data: ")
            assert answer.endswith("data: [DONE]\n\n")

    asyncio.run(scenario())


def test_a_client_that_does_not_read_is_cut_off_before_it_fills_the_memory() -> None:
    model = "m" * 4096  # each event carries it: one answer has 35 MB, more than any machine's kernel holds for it

    async def scenario() -> None:
        async with world(
            LAB_TOKEN_GAP_S="0.0001", LAB_TOKENS_PER_S="1000000", LAB_FIRST_TOKEN_S="0.001", LAB_MODEL=model
        ) as lab:
            host, port = lab.url.removeprefix("http://").split(":")
            client = socket.socket()
            # Without a bound some kernels let this buffer grow to 32 MB.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            reader, writer = await asyncio.open_connection(sock=client, limit=1024)
            body = json.dumps(lab.ask("x", model=model, stream=True, max_tokens=8000)).encode()
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            stats = lab.engine.scheduler.stats
            await until_async(
                lambda: stats.finished["abort"] == 1, "the engine gives up on it", 20, seen=lambda: stats.finished
            )
            writer.close()
            del reader

            assert stats.finished["length"] == 0
            assert lab.engine.scheduler.unfinished == 0

    asyncio.run(scenario())


def test_the_engine_shows_in_every_place_that_it_is_simulated() -> None:
    async def scenario() -> None:
        async with world() as lab:
            async with lab.http.get(f"{lab.url}/v1/models") as response:
                models = await response.json()
            async with lab.http.get(f"{lab.url}/metrics") as response:
                metrics = await response.text()
            gpu_names = set(re.findall(r'modelName="([^"]*)"', metrics))

            assert models["data"][0]["owned_by"] == "llmchaos-sim"
            assert models["data"][0]["simulated"] is True
            assert "\nllmchaos_simulated 1.0\n" in metrics
            assert len(gpu_names) == 1
            assert gpu_names.pop().endswith("(simulated)")

    asyncio.run(scenario())


def test_metrics_carry_vllms_names_and_buckets_and_agree_with_what_was_served() -> None:
    async def scenario() -> None:
        async with world() as lab:
            for _ in range(3):
                await lab.chat(
                    "hello there, this prompt is long enough to fill a block of the cache " * 3, max_tokens=6
                )
            await lab.events(max_tokens=2)
            metrics = await lab.metrics()

            assert metrics["vllm:request_success_total[length]"] == 4
            assert metrics["vllm:generation_tokens_total"] == 20
            assert metrics["vllm:time_to_first_token_seconds_count"] == 4
            assert metrics["vllm:inter_token_latency_seconds_count"] == 16
            assert metrics["vllm:e2e_request_latency_seconds_count"] == 4
            assert metrics["vllm:iteration_tokens_total_count"] == lab.engine.scheduler.stats.steps
            assert metrics["vllm:iteration_tokens_total_sum"] == 20 + metrics["vllm:prompt_tokens_total"]
            assert 0 < metrics["vllm:prefix_cache_hits_total"] < metrics["vllm:prefix_cache_queries_total"]
            assert metrics["vllm:num_requests_running"] == metrics["vllm:num_requests_waiting"] == 0
            assert metrics["vllm:kv_cache_usage_perc"] == 0
            assert metrics["process_start_time_seconds"] > 0
            for name in ("request_queue_time", "request_prefill_time", "request_decode_time", "request_inference_time"):
                assert metrics[f"vllm:{name}_seconds_count"] == 4
            bounds = [name for name in metrics if name.startswith("vllm:time_to_first_token_seconds_bucket")]
            assert [float(name.split("[")[1][:-1]) for name in bounds] == [*FIRST_TOKEN_EDGES, math.inf]
            buckets = [
                value for name, value in metrics.items() if name.startswith("vllm:e2e_request_latency_seconds_b")
            ]
            assert all(one <= more for one, more in pairwise(buckets))

    asyncio.run(scenario())


def test_token_count_buckets_are_the_1_2_5_series_up_to_the_models_length() -> None:
    assert one_two_five(131_072)[-4:] == (10_000, 20_000, 50_000, 100_000)
    assert one_two_five(20) == (1, 2, 5, 10, 20)
