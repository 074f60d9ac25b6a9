"""Plans depend on the seed alone, not on the selection of tests."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos import BadScenario, experiment, faults, loads
from pytest_llmchaos.errors import NoVictim
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.model import Injection
from pytest_llmchaos.plan.schedule import (
    ScheduledAct,
    described,
    entry_of,
    plan_trial,
    require_capacity,
    schedule,
    schedule_bytes,
)
from pytest_llmchaos.plan.seeds import MAX_SEED, parse_seed, rng_for

SERVICES = ("api", "model-1", "model-2")


def planned(*, seed=42, scenario="kill_any", fault=None, repeat=0, load=None, **more):
    chosen = fault or faults.random(n=4, among=[faults.kill("api"), faults.kill("model-*")], within_s=20)
    made = experiment(load=load or loads.open_loop(rate_rps=2, max_tokens=8), fault=chosen, **more).kwargs["experiment"]
    return plan_trial(
        scenario=scenario, hypothesis="", experiment=made, fault=chosen, repeat=repeat, seed=seed, services=SERVICES
    )


def test_a_backend_that_is_declared_for_less_gets_the_light_load():
    heavy, light = (loads.open_loop(rate_rps=rate, max_tokens=tokens) for rate, tokens in ((12, 64), (2, 8)))
    both = experiment(load=heavy, light_load=light, fault=faults.kill("api")).kwargs["experiment"]
    alone = experiment(load=heavy, fault=faults.kill("api")).kwargs["experiment"]

    def load_of(made, capacity_tokens_per_s):
        about = {"scenario": "s", "hypothesis": "", "experiment": made, "fault": made.faults[0], "repeat": 0, "seed": 1}
        return plan_trial(**about, services=SERVICES, capacity_tokens_per_s=capacity_tokens_per_s).load

    assert [load_of(both, capacity) for capacity in (4000, 768, 767, 45)] == [heavy, heavy, light, light]
    assert load_of(alone, 45) == heavy


def test_a_trial_for_the_simulated_engine_needs_it_also_without_a_fault_of_its_own():
    assert planned(fault=faults.none()).needs == frozenset()
    assert planned(fault=faults.none(), simulated_engine=True).needs == {"engine"}
    assert planned(fault=faults.kill("api"), simulated_engine=True).needs == faults.kill("api").needs | {"engine"}


@pytest.mark.parametrize(
    ("fault", "more", "arm"),
    [
        (faults.kill("api"), {}, (True, False, False)),
        (faults.pause("api"), {"fault_s": 2}, (False, True, False)),
        (faults.none(), {}, (False, False, True)),
    ],
    ids=str,
)
def test_a_plan_has_the_end_of_its_fault(fault, more, arm):
    plan = planned(fault=fault, **more)

    assert (plan.is_lasting, plan.is_passing, plan.is_control) == arm


def bytes_of(plans):
    return schedule_bytes([trial.entry for trial in schedule(plans)])


def test_the_same_seed_gives_the_same_bytes():
    assert schedule_bytes([entry_of(planned())]) == schedule_bytes([entry_of(planned())])


@pytest.mark.parametrize("other", [{"seed": 43}, {"scenario": "kill_other"}, {"repeat": 1}])
def test_another_identity_draws_other_things(other):
    assert entry_of(planned()).injections != entry_of(planned(**other)).injections


def test_the_schedule_does_not_depend_on_the_order_or_on_repetition():
    plans = [planned(scenario=name) for name in ("a", "b", "c")]
    shuffled = [plans[2], plans[0], plans[1], plans[0]]

    assert bytes_of(plans) == bytes_of(shuffled)


def test_the_global_generator_is_neither_used_nor_touched():
    random.seed(1)
    first = schedule_bytes([entry_of(planned())])
    state = random.getstate()
    random.seed(2)

    assert schedule_bytes([entry_of(planned())]) == first
    random.seed(1)
    assert random.getstate() == state


def test_two_experiments_of_one_file_that_share_a_fault_both_stand_in_the_schedule_in_one_order():
    slow, fast = (planned(load=loads.open_loop(rate_rps=rate, max_tokens=8)) for rate in (1, 2))

    assert len(schedule([slow, fast])) == 2
    assert bytes_of([slow, fast]) == bytes_of([fast, slow, fast])


@pytest.mark.parametrize(
    "other",
    [
        {"fault": faults.limit_cpu("api", cores=0.2)},
        {"fault": faults.limit_memory("api", mebibytes=64)},
        {"steady_s": 9},
        {"fault_s": 6},
        {"settle_within_s": 41},
        {"stable_s": 5},
        {"remediator": False},
        {"load": loads.open_loop(rate_rps=3, max_tokens=8)},
        {"load": loads.open_loop(rate_rps=2, max_tokens=9)},
        {"load": loads.poisson(rate_rps=2, max_tokens=8)},
    ],
    ids=", ".join,
)
def test_whatever_is_changed_in_a_scenario_changes_its_schedule(other):
    same = {"fault": faults.limit_cpu("api", cores=0.1), "fault_s": 5}

    assert entry_of(planned(**same)) == entry_of(planned(**same))
    assert entry_of(planned(**same)) != entry_of(planned(**{**same, **other}))


def test_the_strength_of_a_fault_stands_in_the_schedule():
    (limit,) = entry_of(planned(fault=faults.limit_cpu("api", cores=0.1), fault_s=5)).injections
    (share,) = entry_of(planned(fault=faults.gpu_saturation("model-1", share=0.5), fault_s=5)).injections

    assert limit == ScheduledAct(after_s=0.0, fault="limit_cpu", victim="api", options={"cores": 0.1})
    assert share.options == {"options": [["share", 0.5]], "lease_s": 300.0}


def test_a_value_without_stable_text_is_shown_by_its_type():
    @dataclass(frozen=True, kw_only=True)
    class Odd(Kill):
        how: object = object()
        when: tuple[object, ...] = (None, 1, object())

    odd, plain = (OnTarget(primitive=one, target="api") for one in (Odd(), Kill()))
    assert entry_of(planned(fault=odd)).injections[0].options == {"how": "object", "when": [None, 1, "object"]}
    assert entry_of(planned(fault=plain)).injections[0].options == {}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.kill("api"), "kill api at +0 s"),
        (faults.flaky("api", status=529, share=0.3), "flaky(status=529, share=0.3) api at +0 s"),
        (
            faults.flaky("api", match=faults.match(path="/v1/*", streaming=True)),
            "flaky(status=503, share=0.3, match=path=/v1/*, streaming=True) api at +0 s",
        ),
        (
            faults.timed(faults.kill("api"), at="after:chat#3.first_token"),
            "kill api at +0 s, begins after:chat#3.first_token",
        ),
    ],
    ids=str,
)
def test_an_act_is_described_with_its_options(fault, words):
    (act,) = fault.plan(random.Random(1), SERVICES)

    assert described(act) == words


def test_more_victims_at_once_than_the_blast_radius_allows_are_refused():
    two = faults.together(faults.kill("api"), faults.kill("model-1"))
    made = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("api")).kwargs["experiment"]

    with pytest.raises(BadScenario, match="would hit 2 services at once, blast_radius allows 1"):
        plan_trial(scenario="s", hypothesis="", experiment=made, fault=two, repeat=0, seed=1, services=SERVICES)


def test_a_control_arm_gets_the_same_load_as_the_experiment():
    broken = planned(fault=faults.kill("api"), repair_within_s=40)
    control = planned(fault=faults.none(), repair_within_s=40)

    assert entry_of(broken).arrivals_sha256 == entry_of(control).arrivals_sha256


def test_each_repeat_of_a_trial_has_requests_of_its_own_and_the_same_in_every_run():
    once, again, same = (
        entry_of(planned(load=loads.open_loop(rate_rps=2), repeat=repeat)).arrivals_sha256 for repeat in (0, 1, 0)
    )

    assert once == same != again


def test_an_unknown_target_names_the_services():
    with pytest.raises(
        NoVictim, match=r"scenario '\w+', kill worker-9: target 'worker-9'.* available: api, model-1, model-2"
    ):
        planned(fault=faults.kill("worker-9"))


class WiderThanItSays(OnTarget):
    """A fault that hits two services and declares one."""

    def plan(self, _rng, services):
        return tuple(Injection(after_s=0.0, fault=faults.kill("api").primitive, victim=name) for name in services[:2])

    def __str__(self):
        return "wide"


def test_a_trial_that_names_two_containers_of_a_service_is_refused():
    with pytest.raises(BadScenario, match="hits api#1 and api#2: a trial hits one container of a service, so name one"):
        planned(fault=faults.kill(["api#1", "api#2"]), blast_radius=2)


def test_a_plan_beyond_the_blast_radius_is_refused_whatever_the_fault_declares():
    with pytest.raises(BadScenario, match="wide would hit 2 services at once, blast_radius allows 1"):
        planned(fault=WiderThanItSays(primitive=Kill(), target="api"))


def test_a_load_beyond_the_backend_is_refused_with_both_numbers():
    plan = planned(load=loads.open_loop(rate_rps=100, max_tokens=10))

    with pytest.raises(BadScenario, match=r"offers 1000 tokens/s.*ollama backend is declared for 45"):
        require_capacity(plan, 45.0, "ollama")


def test_a_load_beyond_a_stack_of_ones_own_names_the_key_that_declares_its_capacity():
    plan = planned(load=loads.open_loop(rate_rps=100, max_tokens=10))

    with pytest.raises(
        BadScenario, match=r"llmchaos_tokens_per_s is 500: .* set llmchaos_tokens_per_s = 1000 in the ini file if "
    ):
        require_capacity(plan, 500.0, "own")


def test_a_load_of_just_what_the_backend_is_declared_for_may():
    plan = planned(load=loads.open_loop(rate_rps=5, max_tokens=9))

    assert require_capacity(plan, 45.0, "ollama") is None


@pytest.mark.parametrize(
    ("load", "more", "said"),
    [
        (
            loads.open_loop(rate_rps=0.1),
            {},
            r"'kill_any': constant 0\.1/s .* \d+ requests in \d+ s, never two within steady_s=8 of its first 44 s.* raise rate_rps",
        ),
        (
            loads.burst(base_rps=0.05, burst_rps=10, after_s=5, burst_s=5),
            {"repair_within_s": 20},
            r"none or one in .* s, so a service that recovers within 20 s could not .* raise rate_rps, repair_within_s",
        ),
    ],
    ids=["too thin to be steady", "thin after its burst"],
)
def test_a_load_too_thin_to_judge_by_is_refused_with_what_to_change(load, more, said):
    with pytest.raises(BadScenario, match=said):
        schedule([planned(load=load, fault=faults.kill("api"), **more)])


def test_a_load_that_is_just_dense_enough_may():
    assert schedule([planned(load=loads.open_loop(rate_rps=0.2), fault=faults.kill("api"))])


def test_a_load_that_declares_saturation_may_saturate():
    plan = planned(load=loads.open_loop(rate_rps=100, max_tokens=10, beyond_capacity=True))

    assert require_capacity(plan, 45.0, "ollama") is None


@given(st.integers(min_value=0, max_value=MAX_SEED))
def test_every_seed_in_range_is_read_and_gives_a_generator_of_its_own(seed):
    assert parse_seed(str(seed)) == seed
    assert rng_for(seed, "s", "f", 0).random() == rng_for(seed, "s", "f", 0).random()
    assert rng_for(seed, "s", "f", 0).random() != rng_for(seed, "s", "f", 1).random()


@pytest.mark.parametrize("text", ["", "-1", "4.2", "forty-two", "0x10", str(MAX_SEED + 1), "1e3"])
def test_an_invalid_seed_is_refused_with_its_value(text):
    with pytest.raises(BadScenario, match="must be a whole number from 0"):
        parse_seed(text)
