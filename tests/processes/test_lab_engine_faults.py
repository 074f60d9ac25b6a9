"""Every fault of the engine: effect, evidence and end."""

import asyncio
import hashlib
import time

import pytest
from support.lab_engine_world import World, world
from support.waiting import until_async

from lab_engine.faults import KINDS, parse
from lab_engine.gpu import HW_THERMAL, Gpu
from lab_engine.leases import Faults
from lab_engine.profiles import A100_40GB

SIM_V1_HELLO = "".join(hashlib.sha256(f"hello\x1f{index}".encode()).hexdigest()[:6] + " " for index in range(4))


async def says_hello(lab: World) -> str:
    status, body = await lab.chat("hello")
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def hold_streams(lab: World, count: int, *, max_tokens: int = 4000) -> list[asyncio.Task]:
    """Streams that are being decoded when this returns."""
    tasks = [asyncio.create_task(lab.events(f"client {each}", max_tokens=max_tokens)) for each in range(count)]
    await until_async(lambda: len(lab.engine.scheduler.running) == count, f"{count} streams run")
    return tasks


def drop(tasks: list[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()


def test_a_hung_engine_answers_health_and_freezes_its_heartbeat_until_the_lease_ends() -> None:
    async def scenario() -> None:
        async with world() as lab:
            tasks = await hold_streams(lab, 3)
            fault = await lab.fault("hang", lease_s=0.6)
            before = await lab.metrics()
            late = asyncio.create_task(lab.chat("hello"))
            done, _ = await asyncio.wait([late], timeout=0.2)
            after = await lab.metrics()

            assert not done
            assert await lab.health() == 200
            for name in ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total"):
                assert after[name] == before[name]
            assert after["vllm:num_requests_running"] == 3
            assert after["llmchaos_engine_fault_active[hang]"] == 1

            status, _ = await late  # the lease alone ends the fault
            async with lab.http.get(f"{lab.admin_url}/faults/{fault['id']}") as response:
                shown = await response.json()

            assert status == 200
            assert (shown["state"], shown["ended_by"]) == ("ended", "lease")
            drop(tasks)

    asyncio.run(scenario())


def test_a_neighbour_on_the_gpu_stretches_every_step_and_shows_as_utilisation() -> None:
    async def scenario() -> None:
        async with world(LAB_FIRST_TOKEN_S="0.03", LAB_TOKEN_GAP_S="0.02") as lab:
            await lab.fault("gpu_saturation", share=0.75)
            start_s = time.monotonic()
            text = await says_hello(lab)
            took_s = time.monotonic() - start_s
            metrics = await lab.metrics()

            assert text == SIM_V1_HELLO
            assert took_s >= 4 * 0.02 * 4
            assert metrics["DCGM_FI_DEV_GPU_UTIL"] >= 75
            assert await lab.health() == 200

    asyncio.run(scenario())


def test_an_exhausted_kv_cache_preempts_and_queues_and_loses_no_answer() -> None:
    async def scenario() -> None:
        async with world(LAB_KV_BLOCKS="512", LAB_MAX_MODEL_TOKENS="1024", LAB_TOKEN_GAP_S="0.001") as lab:
            tasks = await hold_streams(lab, 20, max_tokens=400)
            fault = await lab.fault("gpu_exhaustion", what="kv_cache", ratio=0.9)
            stats = lab.engine.scheduler.stats
            await until_async(lambda: stats.preemptions > 0, "something is preempted")
            await until_async(lambda: lab.engine.gauges().waiting > 0, "something waits")
            metrics = await lab.metrics()

            assert metrics["vllm:kv_cache_usage_perc"] > 0.9
            assert metrics["vllm:num_preemptions_total"] > 0

            await lab.heal(fault)
            answers = await asyncio.gather(*tasks)

            assert all(events[-1] == "[DONE]" and len(events) == 402 for events in answers)

    asyncio.run(scenario())


def test_out_of_device_memory_fails_requests_in_flight_and_ends_the_process_with_status_1() -> None:
    async def scenario() -> None:
        async with world() as lab:
            tasks = await hold_streams(lab, 2)
            fault = await lab.fault("gpu_exhaustion", what="device_memory", then="die", linger_s=0.3)
            streams = await asyncio.gather(*tasks)
            status, body = await lab.chat()
            metrics = await lab.metrics()

            assert fault["counters"] == {"requests_failed": 2}
            assert [events[-2]["error"]["code"] for events in streams] == [500, 500]
            assert (status, body["error"]["type"]) == (500, "InternalServerError")
            assert "EngineCore encountered an issue" in body["error"]["message"]
            assert await lab.health() == 503
            assert metrics["DCGM_FI_DEV_FB_FREE"] == 0
            assert await asyncio.wait_for(lab.chaos.exit_status, 5) == 1

    asyncio.run(scenario())


def test_out_of_device_memory_can_recover_once_the_memory_is_free_again() -> None:
    async def scenario() -> None:
        async with world() as lab:
            fault = await lab.fault("gpu_exhaustion", what="device_memory", then="recover")
            status, body = await lab.chat()

            assert (status, body["error"]["message"]) == (503, "the model is still loading")
            assert await lab.health() == 503

            await lab.heal(fault)
            await until_async(lambda: lab.engine.life == "serving", "the model is loaded anew")

            assert await says_hello(lab) == SIM_V1_HELLO
            assert not lab.chaos.exit_status.done()

    asyncio.run(scenario())


def test_an_xid_alone_changes_nothing_but_the_gauge() -> None:
    async def scenario() -> None:
        async with world() as lab:
            fault = await lab.fault("xid", code=13, engine="survives")
            metrics = await lab.metrics()

            assert metrics["DCGM_FI_DEV_XID_ERRORS"] == 13
            assert "DCGM_FI_DEV_GPU_UTIL" in metrics
            assert await says_hello(lab) == SIM_V1_HELLO

            await lab.heal(fault)

            assert (await lab.metrics())["DCGM_FI_DEV_XID_ERRORS"] == 0

    asyncio.run(scenario())


def test_a_gpu_that_fell_off_the_bus_can_be_read_no_more_and_takes_the_engine_with_it() -> None:
    async def scenario() -> None:
        async with world() as lab:
            await lab.fault("xid", code=79, engine="dies", linger_s=0.1)
            metrics = await lab.metrics()

            assert metrics["DCGM_FI_DEV_XID_ERRORS"] == 79
            assert "DCGM_FI_DEV_GPU_UTIL" not in metrics
            assert await asyncio.wait_for(lab.chaos.exit_status, 5) == 1

    asyncio.run(scenario())


def test_after_an_xid_the_process_can_stay_up_healthy_and_answer_every_request_with_500() -> None:
    async def scenario() -> None:
        async with world() as lab:
            fault = await lab.fault("xid", code=31, engine="errors")
            statuses = [(await lab.chat())[0] for _ in range(3)]

            assert statuses == [500, 500, 500]
            assert await lab.health() == 200
            assert (await lab.heal(fault))["counters"]["requests_failed"] == 3
            assert await says_hello(lab) == SIM_V1_HELLO

    asyncio.run(scenario())


def test_on_the_cpu_every_answer_is_right_and_20_times_later_and_the_gpu_idles() -> None:
    async def scenario() -> None:
        async with world(LAB_FIRST_TOKEN_S="0.003", LAB_TOKEN_GAP_S="0.002") as lab:
            await lab.fault("cpu_fallback")
            start_s = time.monotonic()
            text = await says_hello(lab)
            took_s = time.monotonic() - start_s
            metrics = await lab.metrics()

            assert text == SIM_V1_HELLO
            assert took_s >= 4 * 0.002 * 20
            assert (metrics["DCGM_FI_DEV_GPU_UTIL"], metrics["DCGM_FI_DEV_FB_USED"]) == (0, 0)

    asyncio.run(scenario())


def test_a_hot_gpu_lowers_its_clocks_names_the_reason_and_is_slower() -> None:
    async def scenario() -> None:
        async with world(LAB_FIRST_TOKEN_S="0.03", LAB_TOKEN_GAP_S="0.02") as lab:
            cool = await lab.metrics()
            await lab.fault("thermal_throttling", clock_ratio=0.25)
            start_s = time.monotonic()
            await says_hello(lab)
            took_s = time.monotonic() - start_s
            hot = await lab.metrics()

            assert hot["DCGM_FI_DEV_SM_CLOCK"] == cool["DCGM_FI_DEV_SM_CLOCK"] / 4
            assert int(hot["DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"]) & HW_THERMAL
            assert hot["DCGM_FI_DEV_GPU_TEMP"] > cool["DCGM_FI_DEV_GPU_TEMP"]
            assert took_s >= 4 * 0.02 * 4

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["garbage", "wrong", "swapped"])
@pytest.mark.parametrize("stream", [True, False])
def test_corrupted_answers_are_complete_and_wrong_without_another_sign(how: str, stream: bool) -> None:
    async def scenario() -> None:
        async with world() as lab:
            fault = await lab.fault("corrupted_output", how=how)
            if stream:
                events = await lab.events("hello")
                assert events[-1] == "[DONE]"
                text = "".join(event["choices"][0]["delta"]["content"] for event in events[:-1])
            else:
                text = await says_hello(lab)

            assert len(text) == len(SIM_V1_HELLO)
            assert all(text[at : at + 7] != SIM_V1_HELLO[at : at + 7] for at in range(0, len(text), 7))
            assert await lab.health() == 200
            assert (await lab.heal(fault))["counters"] == {"requests": 1, "tokens": 4, "steps": 4}
            assert await says_hello(lab) == SIM_V1_HELLO

    asyncio.run(scenario())


def test_swapped_answers_are_those_of_another_client() -> None:
    async def scenario() -> None:
        async with world() as lab:
            tasks = await hold_streams(lab, 1)
            await lab.fault("corrupted_output", how="swapped")
            expected = "".join(
                hashlib.sha256(f"client 0\x1f{index}".encode()).hexdigest()[:6] + " " for index in range(4)
            )

            assert await says_hello(lab) == expected
            drop(tasks)

    asyncio.run(scenario())


def test_corruption_hits_about_the_requested_share() -> None:
    async def scenario() -> None:
        async with world(LAB_SEED="3") as lab:
            fault = await lab.fault("corrupted_output", share=0.3)
            texts = await asyncio.gather(*(says_hello(lab) for _ in range(100)))
            wrong = sum(text != SIM_V1_HELLO for text in texts)

            assert 15 <= wrong <= 45
            assert (await lab.heal(fault))["counters"]["requests"] == wrong

    asyncio.run(scenario())


def test_a_slow_load_drops_the_model_and_fails_what_is_in_flight() -> None:
    async def scenario() -> None:
        async with world() as lab:
            tasks = await hold_streams(lab, 1)
            fault = await lab.fault("slow_load", load_s=20)
            (events,) = await asyncio.gather(*tasks)

            assert events[-2]["error"]["code"] == 503
            assert await lab.health() == 503
            assert (await lab.chat())[0] == 503
            assert (await lab.metrics())["DCGM_FI_DEV_FB_FREE"] > 0

            await lab.heal(fault)  # loading goes on at its own speed, which is at once here
            await until_async(lambda: lab.engine.life == "serving", "the model is loaded")

            assert await says_hello(lab) == SIM_V1_HELLO

    asyncio.run(scenario())


def test_a_memory_leak_takes_real_memory_up_to_its_bound_and_gives_it_back() -> None:
    async def scenario() -> None:
        async with world() as lab:
            before = (await lab.metrics())["process_resident_memory_bytes"]
            fault = await lab.fault("memory_leak", bytes_per_s=1 << 30, at_most_bytes=64 << 20)
            lease = lab.engine.faults.find(fault["id"])
            await until_async(lambda: lease.counters["bytes"] == 64 << 20, "the bound is reached")
            during = (await lab.metrics())["process_resident_memory_bytes"]
            await lab.heal(fault)
            after = (await lab.metrics())["process_resident_memory_bytes"]

            assert during - before > 48 << 20
            assert during - after > 48 << 20

    asyncio.run(scenario())


def test_faults_add_up_and_come_apart_in_any_order() -> None:
    faults = Faults()
    slow, _ = faults.start(*parse({"kind": "cpu_fallback", "lease_s": 9, "slowdown": 20}), 0.0), None
    hot = faults.start(*parse({"kind": "thermal_throttling", "lease_s": 9, "clock_ratio": 0.5}), 0.0)

    assert faults.effects.slowdown == 40
    faults.end(slow.id, 1.0, "request")
    assert faults.effects.slowdown == 2
    faults.end(hot.id, 1.0, "request")
    assert faults.effects == Faults().effects


def test_a_second_end_changes_nothing() -> None:
    async def scenario() -> None:
        async with world() as lab:
            first = await lab.fault("hang")
            ended = await lab.heal(first)
            again = await lab.fault("hang")

            assert await lab.heal(first) == ended
            assert lab.engine.faults.effects.hung
            assert (await lab.heal(again))["ended_by"] == "request"

    asyncio.run(scenario())


def test_every_kind_can_be_listed_with_its_options_and_counters() -> None:
    async def scenario() -> None:
        async with world() as lab:
            for kind in set(KINDS) - {"crash_on_boot", "slow_load", "xid", "gpu_exhaustion"}:
                await lab.fault(kind)
            async with lab.http.get(f"{lab.admin_url}/faults") as response:
                listed = await response.json()

            assert len(listed["faults"]) == len(KINDS) - 4
            assert all(each["state"] == "active" and 0 < each["left_s"] <= 30 for each in listed["faults"])
            assert {frozenset(each) for each in listed["faults"]} == {
                frozenset(("id", "kind", "state", "ended_by", "lease_s", "left_s", "options", "counters", "simulated"))
            }

    asyncio.run(scenario())


def test_utilisation_power_and_heat_follow_how_busy_the_engine_was() -> None:
    gpu, effects = Gpu(A100_40GB, 0.0), Faults().effects
    idle = gpu.read(10.0, 0.0, reserved_bytes=36 << 30, effects=effects)
    half = gpu.read(20.0, 5.0, reserved_bytes=36 << 30, effects=effects)
    full = gpu.read(120.0, 105.0, reserved_bytes=36 << 30, effects=effects)

    assert (idle.utilisation_percent, half.utilisation_percent, full.utilisation_percent) == (0, 50, 100)
    assert idle.power_w == 50
    assert full.power_w == 400
    assert idle.temperature_c < half.temperature_c < full.temperature_c < A100_40GB.slowdown_c
    assert half.memory_used_mib == 36 << 10
    assert half.memory_used_mib + half.memory_free_mib == A100_40GB.memory_bytes >> 20
    assert idle.energy_mj < half.energy_mj < full.energy_mj
