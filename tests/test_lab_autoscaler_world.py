"""The simulated world of the autoscaler."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.autoscaler_world import arrivals, fixed, run, steps, world
from support.lab_engine_world import machine, poisson, request

from lab_autoscaler import leap
from lab_autoscaler.arrivals import Arrival
from lab_autoscaler.decoding import Decoding
from lab_autoscaler.engine import Engine
from lab_engine import virtual
from lab_engine.profiles import PROFILES
from lab_engine.scheduler import Scheduler
from lab_engine.work import Sequence

if TYPE_CHECKING:
    from lab_autoscaler.outcome import Outcome
    from lab_autoscaler.requests import Request

LLAMA, FAST = "llama-3.1-8b-a100-40gb", "fast"


def engine_state(scheduler: Scheduler) -> list[object]:
    """All that decides the scheduler's future, and its requests' times."""
    pool = scheduler.pool
    return [
        [[getattr(one, name) for name in Sequence.__slots__] for one in scheduler.all_unfinished()],
        list(pool._free),
        pool._references,
        pool._hash_of,
    ]


def batch_state(scheduler: Scheduler) -> list[object]:
    return [(one.name, one.computed, one.generated, one.last_token_s, tuple(one.blocks)) for one in scheduler.running]


def run_by_leaps(
    scheduler: Scheduler, requests: list[Sequence], slowdown: float, states: dict[float, list[object]]
) -> float:
    """`lab_engine.virtual.run` with leaps, cut at each arrival.

    After each leap the batch is that of `states` at the same time.
    """
    coming, now_s, last_s = list(reversed(requests)), 0.0, 0.0

    def add_until(until_s: float) -> None:
        while coming and coming[-1].arrived_s <= until_s:
            scheduler.add(coming.pop())

    while True:
        add_until(now_s)
        planned = leap.plan(scheduler, now_s, slowdown)
        if planned is not None:
            while coming and coming[-1].arrived_s <= planned.end_s:
                at_s = coming[-1].arrived_s
                add_until(at_s)
                if len(scheduler.running) < scheduler.limits.slots:
                    planned.cut(at_s + scheduler.speed.frontend_s)
            now_s = last_s = planned.end_s
            leap.book(scheduler, planned)
            assert batch_state(scheduler) == states[now_s]
            add_until(now_s)
            continue
        step = scheduler.begin(now_s, slowdown=slowdown)
        if step is None:
            times = [scheduler.next_ready_s, coming[-1].arrived_s if coming else None]
            known = [one for one in times if one is not None]
            if not known:
                return last_s
            now_s = max(now_s, min(known))
            continue
        now_s = last_s = step.end_s
        add_until(now_s)
        scheduler.finish(step)


def run_by_engine(engine: Engine, requests: list[Sequence], frontend_s: float, slowdown: float) -> None:
    """`lab_engine.virtual.run` with the engine's steps, cut at each arrival."""
    coming, now_s = list(reversed(requests)), 0.0

    def add() -> float:
        engine.add(coming[-1])
        return coming.pop().arrived_s + frontend_s

    while True:
        while coming and coming[-1].arrived_s <= now_s:
            add()
        end_s = engine.begin(now_s, slowdown)
        if end_s is None:
            times = [engine.next_ready_s, coming[-1].arrived_s if coming else None]
            known = [one for one in times if one is not None]
            if not known:
                return
            now_s = max(now_s, min(known))
            continue
        while coming and coming[-1].arrived_s <= end_s:
            end_s = engine.cut(add(), to_enter=True) or end_s
        now_s = end_s
        engine.finish()
        if (decoding := engine._decoding) is not None:
            computed = [one.prompt_tokens + decoding._steps - first for one, first in decoding._running.values()]
            assert decoding._free == decoding._limits.blocks - sum(-(-count // 16) for count in computed)
            assert decoding._context == sum(computed)


def engine_of(scheduler: Scheduler) -> Engine:
    return Engine(lambda: scheduler, scheduler.speed, scheduler.limits, prefix_cache=False)


def times_of(requests: list[Sequence]) -> list[tuple[float, float]]:
    return [(one.first_token_s, one.last_token_s) for one in requests]


SPEED = {
    "step_s": 0.1,
    "sequence_s": 0.013,
    "weights_s": 0.3,
    "context_token_s": 0.0011,
    "pair_s": 0.0009,
    "token_s": 0.07,
}
# One token a step costs the same for any context.
FLAT = {"step_s": 0.1, "sequence_s": 0.013}


class TestEngine:
    @settings(max_examples=80)
    @given(
        rate_rps=st.sampled_from([0.03, 0.1, 0.3, 1.0, 3.0]),
        limits=st.tuples(st.integers(1, 8), st.sampled_from([26, 34, 50, 90, 400]), st.sampled_from([64, 700])),
        seed=st.integers(0, 10**6),
        frontend_s=st.sampled_from([0.0, 0.7]),
        slowdown=st.sampled_from([1.0, 1.7]),
        speed=st.sampled_from([SPEED, FLAT]),
        most_prompt=st.sampled_from([20, 200]),
    )
    def test_its_token_times_are_the_schedulers_bit_by_bit(  # noqa: PLR0917 - hypothesis gives them by name
        self,
        rate_rps: float,
        limits: tuple[int, int, int],
        seed: int,
        frontend_s: float,
        slowdown: float,
        speed: dict[str, float],
        most_prompt: int,
    ) -> None:
        def scheduler() -> Scheduler:
            slots, blocks, batch_tokens = limits
            return machine(slots=slots, blocks=blocks, batch_tokens=batch_tokens, frontend_s=frontend_s, **speed)

        slow, quick = (list(poisson(rate_rps, 20, seed, prompt=(1, most_prompt), answer=(1, 200))) for _ in range(2))
        virtual.run(scheduler(), slow, slowdown=slowdown)
        run_by_engine(engine_of(scheduler()), quick, frontend_s, slowdown)

        assert times_of(quick) == times_of(slow)

    def test_a_batch_leaves_the_usual_case_without_memory_and_returns_to_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moves, originals = list[str](), dict[str, Callable[..., None]]()
        for name in ("hand_over", "take_over"):

            def spied(decoding: Decoding, *given: object, name: str = name) -> None:
                moves.append(name)
                originals[name](decoding, *given)

            originals[name] = getattr(Decoding, name)
            monkeypatch.setattr(Decoding, name, spied)
        # Three that need more than all blocks, and one after two of them have ended.
        slow, quick = (
            [
                request("a", prompt=100, answer=300),
                *(request(name, prompt=100, answer=120) for name in "bc"),
                request("d", 500),
            ]
            for _ in range(2)
        )
        virtual.run(machine(blocks=34, batch_tokens=400), slow)
        run_by_engine(engine_of(machine(blocks=34, batch_tokens=400)), quick, 0.0, 1.0)

        assert sum(one.preemptions for one in slow) >= 1
        assert times_of(quick) == times_of(slow)
        assert moves == ["hand_over", "take_over"]


class TestLeaps:
    @settings(max_examples=40)
    @given(
        rate_rps=st.floats(0.05, 3),
        slots=st.integers(1, 8),
        blocks=st.integers(30, 200),
        seed=st.integers(0, 10**6),
        frontend_s=st.sampled_from([0.0, 0.7]),
        slowdown=st.sampled_from([1.0, 1.7]),
        shared=st.integers(0, 6),
    )
    def test_a_leap_equals_its_steps_bit_by_bit(  # noqa: PLR0917 - hypothesis gives them by name
        self, rate_rps: float, slots: int, blocks: int, seed: int, frontend_s: float, slowdown: float, shared: int
    ) -> None:
        def engine() -> Scheduler:
            return machine(slots=slots, blocks=blocks, frontend_s=frontend_s, **SPEED)

        prefix = tuple(bytes([index]) for index in range(shared))

        def requests() -> list[Sequence]:
            made = list(poisson(rate_rps, 15, seed, prompt=(1, 200), answer=(1, 200)))
            for one in made:
                one.prefix = prefix[: one.prompt_tokens // 16]
            return made

        one_by_one, states = engine(), dict[float, list[object]]()
        slow = requests()

        def note(sequence: Sequence, now_s: float) -> None:
            if now_s not in states:  # the first token of a step
                states[now_s] = batch_state(one_by_one)

        end_s = virtual.run(one_by_one, slow, slowdown=slowdown, on_token=note)
        fast, quick = engine(), requests()

        assert run_by_leaps(fast, quick, slowdown, states) == end_s

        assert [(one.first_token_s, one.last_token_s, one.preemptions) for one in quick] == [
            (one.first_token_s, one.last_token_s, one.preemptions) for one in slow
        ]
        assert engine_state(fast) == engine_state(one_by_one)

    def test_a_leap_is_cut_at_the_end_of_the_step_in_progress(self) -> None:
        scheduler = machine(step_s=1.0)
        scheduler.add(request("a", answer=9))
        step = scheduler.begin(0.0)
        assert step is not None
        scheduler.finish(step)
        found = leap.plan(scheduler, 1.0, 1.0)

        assert found is not None
        assert found.ends == [2, 3, 4, 5, 6, 7, 8, 9]
        assert found.cut(4.5)
        assert found.ends == [2, 3, 4, 5]
        assert not found.cut(4.5)
        assert leap.book(scheduler, found) == []
        assert [(one.generated, one.last_token_s) for one in scheduler.running] == [(5, 5.0)]


class TestOneReplica:
    @pytest.mark.parametrize("jitter", [0.0, 0.2])
    @pytest.mark.parametrize(("profile", "rate_rps"), [(FAST, 12.0), (LLAMA, 6.0)])
    def test_it_equals_the_engine_on_its_virtual_clock_bit_by_bit(
        self, profile: str, rate_rps: float, jitter: float
    ) -> None:
        requests = arrivals(rate_rps, 30, seed=5, answer=(1, 150))
        alone = world(requests, fixed(1), profile=profile, jitter=jitter, initial=1, concurrency=10_000, until_s=1000)
        alone.run()
        limits = replace(PROFILES[profile].limits, jitter=jitter)
        scheduler = Scheduler(speed=PROFILES[profile].speed, limits=limits, seed=1)
        expected = [
            Sequence(
                name=str(index), arrived_s=one.at_s, prompt_tokens=one.prompt_tokens, answer_tokens=one.answer_tokens
            )
            for index, one in enumerate(requests)
        ]
        virtual.run(scheduler, expected)

        assert len(expected) > 100
        assert [(one.first_token_s, one.end_s) for one in alone.requests] == [
            (one.first_token_s, one.last_token_s) for one in expected
        ]

    def test_a_cold_replica_computes_the_shared_start_of_the_prompts_once(self) -> None:
        requests = [Arrival(at_s=at_s, prompt_tokens=4000, answer_tokens=1) for at_s in (1.0, 3.0, 20.0)]
        options = {"profile": LLAMA, "shared_prompt_tokens": 3200, "initial": 1, "load_s": 0.0, "spread": 0.0}
        warm = world(requests, fixed(1), **options)
        warm.run()
        cold = world(requests, fixed(1), "kill(at_s=10)", **options)
        cold.run()

        def took_s(index: int, of: list[Request]) -> float:
            assert of[index].first_token_s is not None
            return of[index].first_token_s - of[index].at_s

        assert took_s(1, warm.requests) < 0.5 * took_s(0, warm.requests)
        assert took_s(2, warm.requests) == pytest.approx(took_s(1, warm.requests))
        assert took_s(2, cold.requests) == pytest.approx(took_s(0, cold.requests))


def erlang_c(servers: int, load: float) -> float:
    """Probability that a request waits in M/M/c (Erlang 1917). `load` is in servers."""
    terms = [load**count / math.factorial(count) for count in range(servers)]
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(terms) + last)


def waits_of(servers: int, load: float, count: int, seed: int, mean_tokens: int) -> list[float]:
    """Seconds in the gateway's queue before each request, of one-slot engines.

    One step for each token makes the time of a geometric answer exponential, nearly.
    """
    rng, now_s, requests = random.Random(seed), 0.0, list[Arrival]()
    mean_s = 0.01 * mean_tokens
    while len(requests) < count:
        now_s += rng.expovariate(load / mean_s)
        tokens = 1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / mean_tokens))
        requests.append(Arrival(at_s=now_s, prompt_tokens=1, answer_tokens=tokens))
    made = world(
        requests,
        fixed(servers),
        until_s=now_s + 1000,
        first_token_s=1e-6,
        token_gap_s=0.01,
        tokens_per_s=1e6,
        initial=servers,
        maximum=servers,
        concurrency=1,
        queue_max=10**6,
        queue_timeout_s=86_400.0,
        probe_s=60.0,
        scrape_s=60.0,
        sync_s=3600.0,
    )
    outcome = made.run()
    assert outcome.served == count
    return [math.nan if one.sent_s is None else one.sent_s - one.at_s for one in made.requests]


class TestQueueing:
    def check(self, servers: int, load: float, count: int, mean_tokens: int) -> None:
        waits = waits_of(servers, load, count, 11, mean_tokens)
        mean_s = 0.01 * mean_tokens
        waiting = erlang_c(servers, load)

        assert sum(wait_s > 0 for wait_s in waits) / count == pytest.approx(waiting, rel=0.05)
        assert sum(waits) / count == pytest.approx(waiting * mean_s / (servers - load), rel=0.05)

    def test_a_fixed_fleet_waits_as_erlang_c_computes(self) -> None:
        self.check(3, 1.8, 40_000, 50)

    @pytest.mark.nightly("test_a_fixed_fleet_waits_as_erlang_c_computes: the same at one load with fewer requests")
    @pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (2, 1.5), (4, 3.0), (8, 6.4)])
    def test_fleets_of_any_size_wait_as_erlang_c_computes(self, servers: int, load: float) -> None:
        self.check(servers, load, 200_000, 60)


# A steady load for two replicas, with a third to spare.
STEADY = arrivals(14, 119, seed=2)
THREE = {"initial": 3, "maximum": 6, "load_s": 4.0}
FAULTS = (
    "kill(at_s=40)",
    "kill(at_s=peak, replica=all)",
    "crash_on_boot(at_s=20, for_s=50)",
    "nan(at_s=10, for_s=60)",
    "slow_load(at_s=0, for_s=90, factor=5)",
    "scrape_gap(at_s=10, for_s=60)",
    "throttle(at_s=30, for_s=50, factor=8, replica=all)",
)


class TestConservation:
    @settings(max_examples=40)
    @given(
        faults=st.lists(st.sampled_from(FAULTS), max_size=4, unique=True),
        policy=st.sampled_from(["fixed(1)", "hpa()", "kpa(minimum=0)", "keda(minimum=0)", "queue()", "slo()"]),
        rate_rps=st.floats(0.5, 40),
        seed=st.integers(0, 1000),
        options=st.fixed_dictionaries(
            {
                "at_zero": st.sampled_from(["refuse", "queue"]),
                "retries": st.integers(0, 2),
                "drain_s": st.sampled_from([0.0, 1.0, 30.0]),
                "repair_s": st.sampled_from([None, 0.5, 20.0]),
                "queue_max": st.integers(0, 40),
                "queue_timeout_s": st.sampled_from([0.2, 5.0]),
                "concurrency": st.integers(1, 9),
                "sync_s": st.sampled_from([1.0, 15.0]),
                "scrape_delay_s": st.sampled_from([0.0, 0.7]),
            }
        ),
    )
    def test_every_request_has_one_fate_under_any_faults_and_policy(
        self, faults: list[str], policy: str, rate_rps: float, seed: int, options: dict[str, object]
    ) -> None:
        requests = arrivals(rate_rps, 90, seed=seed)[:600] or [Arrival(at_s=1.0, prompt_tokens=9, answer_tokens=9)]
        outcome = run(requests, policy, *faults, until_s=100, seed=seed, minimum=0, initial=1, load_s=3.0, **options)

        assert outcome.offered == len(requests)
        assert outcome.offered == outcome.served + outcome.shed + outcome.lost + outcome.open
        assert outcome.queue_timeouts <= outcome.shed
        assert outcome.lost_at_zero <= outcome.lost
        assert options["retries"] or outcome.cut_by_scale_down <= outcome.lost
        assert 0 <= outcome.cold_s <= outcome.replica_s <= 100 * outcome.max_replicas + 1e-9
        assert outcome.censored <= outcome.open
        assert len(outcome.scale_events) <= outcome.syncs


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "shows"),
        [
            ("kill(at_s=40)", lambda out: out.lost >= 1 and out.min_ready == 2),
            ("kill(at_s=peak, replica=all)", lambda out: out.lost_at_zero >= 10 and out.min_ready == 0),
            ("kill(at_s=40, replica='model-2')", lambda out: out.lost >= 1 and out.min_ready == 2),
            ("throttle(at_s=30, for_s=60, factor=9, replica=all)", lambda out: out.first_token_p99_s > 0.5),
            ("throttle(at_s=30, for_s=60, factor=30)", lambda out: out.token_gap_attained < 0.99),
            ("scrape_gap(at_s=20, for_s=60)", lambda out: out.blind_syncs >= 3),
            ("nan(at_s=20, for_s=60)", lambda out: out.blind_syncs >= 3),
        ],
    )
    def test_a_fault_shows_and_its_absence_does_not(self, fault: str, shows: Callable[[Outcome], bool]) -> None:
        struck, control = run(STEADY, "fixed(3)", fault, **THREE), run(STEADY, "fixed(3)", "none", **THREE)

        assert shows(struck)
        assert not shows(control)
        assert sum(struck.fault_acts.values()) >= 1
        assert control.fault_acts == {}

    @pytest.mark.parametrize(
        ("fault", "shows"),
        [
            ("crash_on_boot(at_s=0, for_s=119)", lambda out: max(one.ready for one in out.trajectory) == 1),
            ("slow_load(at_s=0, for_s=100, factor=30)", lambda out: out.cold_s > 60),
        ],
    )
    def test_a_fault_of_starts_shows_where_replicas_start(self, fault: str, shows: Callable[[Outcome], bool]) -> None:
        options = {**THREE, "initial": 1}
        struck, control = run(STEADY, "fixed(3)", fault, **options), run(STEADY, "fixed(3)", **options)

        assert shows(struck)
        assert not shows(control)
        assert sum(struck.fault_acts.values()) >= 1

    def test_a_dead_replica_is_replaced_after_the_repair_time_and_never_without_one(self) -> None:
        def ready_again_s(repair_s: float | None) -> list[float]:
            out = run(STEADY, fixed(3), "kill(at_s=40)", repair_s=repair_s, spread=0.0, warmup_s=1.0, **THREE)
            return [one.at_s for one in out.trajectory if one.at_s > 40 and one.ready == 3][:1]

        assert ready_again_s(5.0) == [pytest.approx(40 + 5 + 4 + 1)]
        assert ready_again_s(None) == []

    def test_requests_without_a_first_token_are_retried_as_set(self) -> None:
        """One slow engine has them in its queue for a second at least."""
        options = {**THREE, "profile": LLAMA, "slots": 2, "concurrency": 30, "until_s": 119.5}
        without, with_retries = (
            run(STEADY, fixed(3), "kill(at_s=40)", retries=retries, **options) for retries in (0, 1)
        )

        assert 0 < with_retries.lost < without.lost


class TestScaling:
    def test_a_drain_cuts_nothing_if_there_is_time_and_everything_without_any(self) -> None:
        def cut(drain_s: float) -> Outcome:
            return run(STEADY, steps((0, 3), (50, 2)), drain_s=drain_s, profile=LLAMA, **{**THREE, "load_s": 0.0})

        assert (cut(60.0).cut_by_scale_down, cut(60.0).lost) == (0, 0)
        assert cut(0.0).cut_by_scale_down == cut(0.0).lost >= 1

    def test_the_wanted_count_stays_within_the_fleets_bounds(self) -> None:
        out = run(STEADY[:300], steps((0, 99), (20, -3)), minimum=1, maximum=5, until_s=30.0)

        assert [(one.before, one.after) for one in out.scale_events] == [(2, 5), (5, 1)]

    def test_the_syncs_have_a_phase(self) -> None:
        def synced(**settings: object) -> list[float]:
            seen: list[float] = []
            run(
                STEADY[:300],
                lambda observed: (seen.append(observed.now_s) or 2, ""),
                until_s=30.0,
                sync_s=10.0,
                **settings,
            )
            return seen

        assert synced() == [10.0, 20.0, 30.0]
        assert synced(first_sync_s=3.5) == [3.5, 13.5, 23.5]

    def test_a_scale_down_takes_dead_places_then_cold_replicas_then_the_youngest(self) -> None:
        def left(*faults: str, at_s: float, load_s: float = 4.0) -> tuple[int, list[str]]:
            options = {"initial": 1, "maximum": 6, "spread": 0.0, "repair_s": None, "until_s": 110.0}
            made = world(STEADY[:900], steps((0, 1), (20, 3), (at_s, 2)), *faults, load_s=load_s, **options)
            outcome = made.run()
            return outcome.cut_by_scale_down, [one.name for one in made.fleet.alive]

        assert left(at_s=60.0) == (0, ["model-1", "model-2"])
        assert left(at_s=25.0, load_s=8.0) == (0, ["model-1", "model-2"])
        # The first is dead and not replaced, so that its place is the one to go.
        assert left("kill(at_s=40, replica='model-1')", at_s=60.0) == (0, ["model-2", "model-3"])

    @pytest.mark.parametrize(("at_zero", "lost"), [("refuse", True), ("queue", False)])
    def test_requests_at_zero_replicas_are_lost_or_queued_as_set(self, at_zero: str, lost: bool) -> None:
        requests = arrivals(1, 100, seed=4)
        out = run(
            requests,
            steps((0, 1), (30, 0), (45, 1)),
            at_zero=at_zero,
            minimum=0,
            initial=1,
            sync_s=5.0,
            load_s=2.0,
            queue_timeout_s=60.0,
        )

        assert out.min_ready == 0
        assert (out.lost_at_zero > 0) is lost
        assert out.lost == out.lost_at_zero
        assert out.served + out.lost == len(requests)

    def test_a_queue_that_no_replica_comes_for_is_lost_at_its_deadline(self) -> None:
        requests = arrivals(1, 100, seed=4)
        out = run(requests, steps((0, 1), (30, 0)), at_zero="queue", minimum=0, initial=1, until_s=200)

        assert out.lost == out.lost_at_zero == sum(one.at_s > 30 for one in requests)

    def test_a_law_that_reads_missing_data_as_zero_collapses_and_one_that_holds_does_not(self) -> None:
        requests = arrivals(10, 179, seed=3, answer=(200, 400))

        def blinded(policy: str) -> Outcome:
            return run(requests, policy, "scrape_gap(at_s=60, for_s=200)", initial=4, maximum=6, until_s=180.0)

        holds = blinded("hpa(maximum=6, scale_down_window_s=30)")
        collapses = blinded("hpa(maximum=6, scale_down_window_s=30, no_data_is_zero=True)")

        assert (holds.min_ready >= 3, collapses.min_ready) == (True, 1)
        assert holds.blind_syncs == collapses.blind_syncs >= 7
        assert holds.attained is not None
        assert holds.attained > 0.99
        assert collapses.attained is not None
        assert collapses.attained < 0.8

    def test_the_same_seed_gives_the_same_outcome_and_another_seed_other_starts(self) -> None:
        def once(seed: int) -> Outcome:
            return run(STEADY, "hpa(maximum=6)", "kill(at_s=peak)", seed=seed, **THREE)

        assert once(3) == once(3)
        assert once(3).cold_s != once(4).cold_s
