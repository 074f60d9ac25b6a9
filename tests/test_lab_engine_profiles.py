"""The profiles against published measurements and arithmetic."""

import random

import pytest
from support.lab_engine_world import request

from lab_common.values import InvalidValueError
from lab_engine.profiles import PROFILES, Profile
from lab_engine.scheduler import Scheduler
from lab_engine.speed import Speed


def tokens_per_s(profile: Profile, streams: int, *, cached_share: float) -> float:
    """Closed loop of 1,024 tokens in and 128 out with a share of repeated prompts."""
    scheduler = Scheduler(speed=profile.speed, limits=profile.limits)
    rng, now_s, count, finished = random.Random(1), 0.0, 0, 0
    seen = tuple(b"seen %d" % index for index in range(64))

    def another() -> None:
        nonlocal count
        count += 1
        fresh = tuple(b"%d %d" % (count, index) for index in range(64))
        prefix = seen if rng.random() < cached_share else fresh
        scheduler.add(request(f"r{count}", now_s, prompt=1024, answer=128, prefix=prefix))

    for _ in range(streams):
        another()
    while finished < 20 * streams:
        step = scheduler.begin(now_s)
        if step is None:
            now_s = max(now_s, scheduler.next_ready_s or 0.0)
            continue
        now_s = step.end_s
        for each in scheduler.finish(step):
            if each.state == "finished":
                finished += 1
                another()
    return scheduler.stats.generated_tokens / now_s


def test_an_8b_model_on_an_a100_decodes_75_tokens_a_second_for_one_stream() -> None:
    """johnmusgrave.com, "vLLM throughput-latency sweep on NVIDIA A100": 75 tokens/s."""
    profile = PROFILES["llama-3.1-8b-a100-40gb"]
    gap_s = profile.speed.duration_s(sequences=1, tokens=1, context_tokens=1088, pairs=1088)

    assert 1 / gap_s == pytest.approx(75, rel=0.03)


def test_an_8b_model_on_an_a100_gives_8_streams_6_6_times_the_tokens_of_one() -> None:
    """The same source: 6.6 times at concurrency 8, with half of the prompts cached."""
    profile = PROFILES["llama-3.1-8b-a100-40gb"]
    gain = tokens_per_s(profile, 8, cached_share=0.5) / tokens_per_s(profile, 1, cached_share=0.5)

    assert gain == pytest.approx(6.6, rel=0.10)


def test_a_120b_mixture_of_experts_reads_more_weights_the_more_tokens_a_step_has() -> None:
    speed = PROFILES["gpt-oss-120b-h200"].speed
    one = speed.duration_s(sequences=1, tokens=1, context_tokens=0, pairs=0)
    many = speed.duration_s(sequences=64, tokens=64, context_tokens=0, pairs=0)

    assert one == pytest.approx(0.001 + 0.00001 + (4.2e9 + 4 / 128 * 60.9e9) / (0.7 * 4.8e12), rel=0.01)
    assert many < 64 * one
    assert many > 4 * one


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_fits_its_model_and_cache_into_the_memory_of_its_gpu(name: str) -> None:
    profile = PROFILES[name]

    assert profile.reserved_bytes <= profile.gpu.memory_bytes
    assert profile.limits.blocks * profile.limits.block_tokens >= profile.limits.max_model_tokens
    assert profile.source


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_step_with_more_in_it_never_takes_less_time(name: str) -> None:
    speed = PROFILES[name].speed
    base = {"sequences": 4, "tokens": 100, "context_tokens": 4000, "pairs": 50_000.0}
    before_s = speed.duration_s(**base)

    for field, value in base.items():
        assert speed.duration_s(**(base | {field: value * 3})) >= before_s


def test_a_speed_that_is_no_speed_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidValueError, match=r"speed\.step_s must be at least 0, got -1"):
        Speed(step_s=-1)
    with pytest.raises(InvalidValueError, match=r"speed\.expert_share must be at most 1, got 2"):
        Speed(expert_share=2)
