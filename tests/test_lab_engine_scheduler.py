"""The machine on a virtual clock: order, memory, repeatability, queueing."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lab_engine_world import machine, poisson, request

from lab_common.values import InvalidValueError
from lab_engine import virtual
from lab_engine.profiles import PROFILES
from lab_engine.scheduler import Scheduler
from lab_engine.work import Limits, Sequence


def times(scheduler: Scheduler, arrivals: list[Sequence]) -> list[tuple[str, int, float]]:
    seen: list[tuple[str, int, float]] = []
    virtual.run(scheduler, arrivals, on_token=lambda each, now_s: seen.append((each.name, each.generated, now_s)))
    return seen


def test_a_lone_request_gets_its_first_token_after_one_step_and_one_more_each_step() -> None:
    seen = times(machine(), [request("a", 5.0, answer=3)])

    assert seen == [("a", 1, 6.0), ("a", 2, 7.0), ("a", 3, 8.0)]


def test_the_front_end_delays_a_request_without_delaying_others() -> None:
    seen = times(machine(step_s=1.0, frontend_s=0.5), [request("a", 0.0, answer=2), request("b", 1.0, answer=1)])

    assert seen == [("a", 1, 1.5), ("a", 2, 2.5), ("b", 1, 2.5)]


def test_a_long_prompt_is_computed_in_chunks_while_others_go_on() -> None:
    seen = times(machine(batch_tokens=64), [request("a", 0.0, answer=9), request("b", 0.5, prompt=200, answer=1)])

    assert [now_s for name, _, now_s in seen if name == "a"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [now_s for name, _, now_s in seen if name == "b"] == [5]  # 63 + 63 + 63 + 11 tokens from the step at 1 s on


def test_requests_beyond_the_slots_wait_in_the_order_of_arrival() -> None:
    seen = times(machine(slots=1), [request(name, answer=2) for name in "abc"])

    assert [name for name, _, _ in seen] == ["a", "a", "b", "b", "c", "c"]


def test_the_youngest_is_preempted_when_blocks_run_out_and_computes_everything_again() -> None:
    scheduler = machine(blocks=4)  # 64 tokens
    old, young = request("old", prompt=30, answer=30), request("young", prompt=30, answer=10)
    seen = times(scheduler, [old, young])

    assert (old.preemptions, young.preemptions) == (0, 1)
    assert scheduler.stats.preemptions == 1
    assert [now_s for name, _, now_s in seen if name == "old"] == list(range(1, 31))
    assert [index for name, index, _ in seen if name == "young"] == list(range(1, 11))
    assert seen[-1] == ("young", 10, 37.0)  # it returns when the old one has ended, and loses no token


def test_a_preempted_request_runs_again_before_those_that_wait() -> None:
    scheduler = machine(blocks=4)
    arrivals = [
        request("old", prompt=30, answer=10),
        request("young", prompt=30, answer=10),
        request("later", 1.0, prompt=40, answer=2),
    ]
    seen = times(scheduler, arrivals)
    last = {name: now_s for name, _, now_s in seen}

    assert scheduler.stats.preemptions == 1
    assert last["old"] < last["young"] < last["later"]


def test_a_shared_prefix_is_computed_once() -> None:
    shared = tuple(bytes([index]) for index in range(4))
    scheduler = machine(token_s=1.0, blocks=64)
    seen = times(
        scheduler,
        [
            request("first", 0.0, prompt=64, answer=1, prefix=shared),
            request("again", 100.0, prompt=64, answer=1, prefix=shared),
            request("other", 200.0, prompt=64, answer=1, prefix=(b"x", *shared[1:])),
        ],
    )

    assert [now_s for _, _, now_s in seen] == [64.0, 116.0, 264.0]  # the last block is computed for its logits
    assert (scheduler.stats.prefix_queries, scheduler.stats.prefix_hits) == (192, 48)


def test_an_aborted_request_gives_its_blocks_back_at_once() -> None:
    scheduler = machine()
    gone = request("gone", prompt=40)
    scheduler.add(gone)
    step = scheduler.begin(0.0)

    assert step is not None
    assert scheduler.pool.used_ratio > 0
    assert scheduler.abort(gone)
    assert scheduler.pool.used_ratio == 0
    assert scheduler.finish(step) == []
    assert not scheduler.abort(gone)  # a second abort changes nothing
    assert scheduler.stats.finished == {"stop": 0, "length": 0, "abort": 1, "error": 0}


def test_taken_blocks_stop_admission_and_returned_ones_restore_it() -> None:
    scheduler = machine(blocks=4)
    scheduler.add(request("a"))
    scheduler.pool.withheld = 4

    assert scheduler.begin(0.0) is None
    assert scheduler.pool.used_ratio == 1

    scheduler.pool.withheld = 0

    assert scheduler.begin(1.0) is not None


def test_a_request_that_could_never_fit_is_refused_by_name_and_numbers() -> None:
    with pytest.raises(InvalidValueError, match="big: 2000 tokens exceed max_model_tokens 1024"):
        machine(blocks=64).add(request("big", prompt=1000, answer=1000))


def test_the_same_seed_and_arrivals_give_every_token_the_same_time() -> None:
    def once(seed: int) -> list[tuple[str, int, float]]:
        arrivals = list(poisson(0.4, 200, seed=3, prompt=(10, 300), answer=(5, 60)))
        return times(machine(jitter=0.2, seed=seed, step_s=1.0, token_s=0.001), arrivals)

    assert once(7) == once(7)
    assert once(7) != once(8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 200), st.integers(1, 60), st.booleans()), min_size=1, max_size=25
    ),
    st.integers(1, 6),
    st.integers(17, 40),
    st.integers(1, 80),
)
def test_every_request_gets_exactly_its_tokens_and_no_block_is_lost(
    asked: list[tuple[float, int, int, bool]], slots: int, blocks: int, batch_tokens: int
) -> None:
    scheduler = machine(slots=slots, blocks=blocks, batch_tokens=batch_tokens)
    shared = tuple(bytes([index]) for index in range(20))
    arrivals = [
        request(f"r{index}", at_s, prompt=prompt, answer=answer, prefix=shared[: prompt // 16] if share else ())
        for index, (at_s, prompt, answer, share) in enumerate(sorted(asked))
    ]
    seen = times(scheduler, arrivals)

    for each in arrivals:
        assert [index for name, index, _ in seen if name == each.name] == list(range(1, each.answer_tokens + 1))
    assert all(earlier[2] <= later[2] for earlier, later in pairwise(seen))
    assert scheduler.pool.free == blocks
    assert scheduler.unfinished == 0
    assert scheduler.stats.generated_tokens == sum(each.answer_tokens for each in arrivals)


def test_waiting_with_one_slot_and_equal_answers_is_that_of_lindleys_recursion() -> None:
    arrivals = list(poisson(0.7, 5000, seed=11))
    scheduler = machine(slots=1)
    virtual.run(scheduler, arrivals)
    waits, free_s = [], 0.0
    for each in arrivals:
        waits.append(max(0.0, free_s - each.arrived_s))
        free_s = max(free_s, each.arrived_s) + 1.0

    assert scheduler.stats.queue_s.mean == pytest.approx(sum(waits) / len(waits), rel=1e-9)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mean_waiting_with_one_slot_is_within_5_percent_of_m_d_1(load: float) -> None:
    total = count = 0.0
    for seed in range(5):
        scheduler = machine(slots=1)
        virtual.run(scheduler, poisson(load, 8_000, seed=seed))
        total += scheduler.stats.queue_s.total
        count += scheduler.stats.queue_s.count

    assert total / count == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_mean_waiting_with_one_slot_is_within_5_percent_of_m_g_1() -> None:
    total = count = 0.0
    for seed in range(5):
        scheduler = machine(slots=1)
        virtual.run(scheduler, poisson(0.2, 6_000, seed=seed, answer=(1, 5)))
        total += scheduler.stats.queue_s.total
        count += scheduler.stats.queue_s.count
    second_moment = sum(length**2 for length in range(1, 6)) / 5  # Pollaczek-Khinchine

    assert total / count == pytest.approx(0.2 * second_moment / (2 * (1 - 0.2 * 3)), rel=0.05)


@pytest.mark.parametrize("profile", ["llama-3.1-8b-a100-40gb", "gpt-oss-120b-h200"])
def test_littles_law_holds(profile: str) -> None:
    """Little's law: mean number inside = arrival rate x mean time inside."""
    chosen = PROFILES[profile]
    scheduler = Scheduler(speed=chosen.speed, limits=chosen.limits)
    arrivals = list(poisson(4, 600, seed=5, prompt=(50, 2000), answer=(10, 200)))
    changes = [(each.arrived_s, 1) for each in arrivals]

    def leaves(each: Sequence, now_s: float) -> None:
        if each.state == "finished":
            changes.append((now_s, -1))

    end_s = virtual.run(scheduler, arrivals, on_token=leaves)
    inside, area, before_s = 0, 0.0, 0.0
    for now_s, change in sorted(changes):
        area += inside * (now_s - before_s)
        inside, before_s = inside + change, now_s

    assert area / end_s == pytest.approx(len(arrivals) / end_s * scheduler.stats.request_s.mean, rel=0.05)


def test_more_load_never_gives_lower_latency() -> None:
    chosen = PROFILES["llama-3.1-8b-a100-40gb"]
    means = []
    for rate_rps in (0.5, 1, 2, 4, 6, 8):
        scheduler = Scheduler(speed=chosen.speed, limits=chosen.limits)
        rng = random.Random(1)  # the same requests at every rate, only closer together
        arrivals = [
            request(f"r{index}", index / rate_rps, prompt=rng.randint(50, 1500), answer=rng.randint(20, 200))
            for index in range(400)
        ]
        virtual.run(scheduler, arrivals)
        means.append((scheduler.stats.first_token_s.mean, scheduler.stats.request_s.mean))

    assert all(one[0] <= more[0] and one[1] <= more[1] for one, more in pairwise(means))


def test_a_slower_machine_is_later_with_every_single_token() -> None:
    def ends(slowdown: float) -> list[float]:
        arrivals = [request(f"r{index}", 0.0, prompt=40, answer=20) for index in range(20)]
        seen: list[float] = []
        virtual.run(machine(), arrivals, on_token=lambda _, now_s: seen.append(now_s), slowdown=slowdown)
        return seen

    assert [now_s * 20 for now_s in ends(1)] == pytest.approx(ends(20))


def test_twice_the_blocks_never_give_more_preemptions() -> None:
    """Over batches, as one more block may admit one sequence too many."""

    def preemptions(blocks: int) -> int:
        limits = Limits(slots=32, batch_tokens=2048, max_model_tokens=600, blocks=blocks)
        total = 0
        for seed in range(5):
            scheduler = Scheduler(speed=machine().speed, limits=limits)
            rng = random.Random(seed)
            virtual.run(scheduler, [request(f"r{i}", prompt=rng.randint(20, 200), answer=200) for i in range(64)])
            total += scheduler.stats.preemptions
        return total

    counts = [preemptions(blocks) for blocks in (50, 100, 200, 400, 800)]

    assert counts[0] > 0
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0  # 32 slots of at most 25 blocks fit at once
