"""Victims of compositions: patterns exclude what other parts name."""

import random

import pytest

from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.compositions import RandomFaults, Together

SERVICES = ("api", "model-1", "model-2")
KILL_API, KILL_2 = faults.kill("api"), faults.kill("model-2")


def test_together_hits_all_its_parts_at_once_and_two_patterns_hit_two_replicas():
    acts = faults.together(faults.kill("model-*"), faults.kill("model-*")).plan(random.Random(3), SERVICES)

    assert [act.after_s for act in acts] == [0.0, 0.0]
    assert {act.victim for act in acts} == {"model-1", "model-2"}


@pytest.mark.parametrize("parts", [(faults.none(), faults.none()), (KILL_API, faults.none())], ids=str)
def test_what_breaks_nothing_is_no_part_of_a_composition(parts):
    with pytest.raises(BadScenario, match=r"each part of faults\.together must be something that breaks"):
        faults.together(*parts)
    with pytest.raises(BadScenario, match=r"must be something that breaks"):
        faults.sequence(parts[0], then=parts[1], after_s=1)


KILL_BOTH = faults.kill(["model-2", "model-*"])


@pytest.mark.parametrize(
    ("fault", "hit"),
    [
        (faults.together(faults.kill("model-*"), faults.kill("model-1")), ["model-1", "model-2"]),
        (faults.together(faults.kill("model-*"), faults.pause("model-1")), ["model-1", "model-2"]),
        (faults.together(faults.kill("model-*"), faults.kill("model-1*")), ["model-1", "model-2"]),
        (
            faults.together(faults.pause(["api", "model-2"]), faults.kill(["api", "model-*"])),
            ["api", "api", "model-1", "model-2"],
        ),
        (faults.together(faults.kill("model-*"), faults.kill(["api", "model-2"])), ["api", "model-1", "model-2"]),
        (faults.together(faults.together(faults.kill("model-*"), KILL_API), KILL_2), ["api", "model-1", "model-2"]),
        (faults.sequence(KILL_BOTH, then=KILL_API, after_s=3), ["api", "model-1", "model-2"]),
    ],
    ids=str,
)
def test_a_pattern_leaves_to_all_parts_of_one_instant_what_they_name(fault, hit):
    for seed in range(20):
        victims = [act.victim for act in fault.plan(random.Random(seed), SERVICES)]

        assert sorted(victims) == hit


def test_a_draw_alongside_others_may_come_back_to_what_they_hit():
    drawn = faults.random(n=1, among=[faults.kill(["api", "model-*"])])
    fault = faults.together(KILL_API, faults.kill("model-1"), drawn)

    for seed in range(20):
        acts = fault.plan(random.Random(seed), SERVICES)
        assert sorted(act.victim for act in acts) == ["api", "api", "model-1", "model-2"]


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_that_hits_nothing_twice_is_drawn_in_the_order_of_the_parts(seed):
    services = (*SERVICES, "model-3")
    fault = faults.together(faults.kill("model-*"), faults.kill("model-1"), faults.pause("model-*"))

    rng = random.Random(seed)
    first = rng.choice(["model-1", "model-2", "model-3"])
    rng.choice(["model-1"])
    last = rng.choice([name for name in ("model-1", "model-2", "model-3") if name not in {first, "model-1"}])

    if first != "model-1":
        assert [act.victim for act in fault.plan(random.Random(seed), services)] == [first, "model-1", last]


def test_a_pattern_that_others_left_nothing_names_what_they_took():
    fault = faults.together(faults.kill("model-*"), faults.pause("model-1"), faults.kill("model-2"))

    with pytest.raises(NoVictim, match=r"'model-\*' matches no service that is left; model-1, model-2 are hit already"):
        fault.plan(random.Random(1), SERVICES)


def test_a_sequence_may_hit_a_service_again():
    fault = faults.sequence(KILL_API, then=KILL_API, after_s=3)

    assert [act.victim for act in fault.plan(random.Random(1), SERVICES)] == ["api", "api"]


def test_a_draw_alongside_others_excludes_what_they_hit_wherever_its_pattern_is():
    """Its targets are sorted: `model-*` stands before `worker`, and after `api`."""
    services = (*SERVICES, "worker")
    for name in ("api", "worker"):
        drawn = faults.random(n=1, among=[faults.kill([name, "model-*"])])
        fault = faults.together(faults.kill(name), faults.kill("model-1"), drawn)

        for seed in range(20):
            victims = [act.victim for act in fault.plan(random.Random(seed), services)]
            assert sorted(victims) == sorted([name, name, "model-1", "model-2"])


KILL_1, PAUSE_1 = faults.kill("model-1"), faults.pause("model-1")
NESTED = faults.sequence(KILL_API, then=faults.sequence(KILL_1, then=PAUSE_1, after_s=2), after_s=3)


def times(fault, seed=1):
    return [(act.after_s, act.victim) for act in fault.plan(random.Random(seed), SERVICES)]


def test_a_part_that_is_a_sequence_begins_at_the_time_of_its_part():
    assert times(NESTED) == [(0.0, "api"), (3.0, "model-1"), (5.0, "model-1")]
    assert NESTED.leaves() == ((0.0, KILL_API), (3.0, KILL_1), (5.0, PAUSE_1))
    assert NESTED.last_act_s == 5.0
    assert str(NESTED) == "sequence(kill api at +0 s, sequence(kill model-1 at +0 s, pause model-1 at +2 s) at +3 s)"


def test_a_sequence_goes_on_after_its_last_part():
    longer = faults.sequence(faults.sequence(KILL_API, then=KILL_1, after_s=3), then=KILL_2, after_s=4)

    assert times(longer) == [(0.0, "api"), (3.0, "model-1"), (7.0, "model-2")]
    assert str(longer) == "sequence(kill api at +0 s, kill model-1 at +3 s, kill model-2 at +7 s)"


def test_what_begins_at_once_stays_one_part_of_a_sequence():
    both = faults.together(KILL_API, KILL_1)

    assert str(faults.sequence(both, then=KILL_2, after_s=2)) == (
        "sequence(together(kill api, kill model-1) at +0 s, kill model-2 at +2 s)"
    )


def test_the_acts_of_parts_are_in_the_order_of_time():
    fault = faults.together(NESTED, faults.sequence(KILL_2, then=faults.pause("api"), after_s=4))

    assert times(fault) == [(0.0, "api"), (0.0, "model-2"), (3.0, "model-1"), (4.0, "api"), (5.0, "model-1")]


def test_the_last_act_of_a_composition_is_that_of_its_latest_part():
    drawn = faults.random(n=2, among=[KILL_API, NESTED], within_s=20)

    assert drawn.last_act_s == 25.0
    assert faults.sequence(KILL_2, then=drawn, after_s=3).last_act_s == 28.0
    assert faults.together(NESTED, KILL_2).last_act_s == 5.0


@pytest.mark.parametrize("within_s", [7, 30.0])
def test_a_draw_is_spread_over_its_time_each_act_in_the_first_quarter_of_its_slot(within_s):
    n = 3
    fault = faults.random(n=n, among=[KILL_API], within_s=within_s)
    slot_s = within_s / n

    offsets_s = [
        act.after_s - index * slot_s
        for seed in range(200)
        for index, act in enumerate(fault.plan(random.Random(seed), SERVICES))
    ]

    assert -0.001 <= min(offsets_s) <= 0.01 * slot_s
    assert 0.24 * slot_s <= max(offsets_s) <= 0.25 * slot_s + 0.001
    assert sum(offsets_s) / len(offsets_s) == pytest.approx(slot_s / 8, rel=0.1)


def test_a_draw_is_in_whole_milliseconds():
    drawn = [at_s for seed in range(20) for at_s, _ in times(faults.random(n=3, among=[KILL_API], within_s=7), seed)]

    assert all(at_s == round(at_s, 3) for at_s in drawn)
    assert not all(at_s == round(at_s, 2) for at_s in drawn)


def test_the_acts_of_a_drawn_sequence_keep_their_gap():
    fault = faults.random(n=2, among=[faults.sequence(KILL_API, then=KILL_1, after_s=3)], within_s=4)

    for seed in range(20):
        acts = times(fault, seed)
        (first, second), (later, last) = ([at_s for at_s, name in acts if name == one] for one in ("api", "model-1"))
        assert (later - first, last - second) == (pytest.approx(3), pytest.approx(3))
        assert acts == sorted(acts, key=lambda act: act[0])


def test_a_draw_may_hit_all_that_its_passing_faults_leave_and_one_lasting_more():
    passing = [faults.pause("api"), faults.pause("model-1")]

    assert faults.random(n=9, among=passing).blast_radius == 2
    assert faults.random(n=9, among=[*passing, KILL_2]).blast_radius == 3
    assert faults.random(n=9, among=[*passing, faults.together(KILL_API, KILL_2)]).blast_radius == 4
    assert faults.random(n=9, among=[KILL_API, KILL_2]).blast_radius == 1
    assert faults.random(n=3, among=[faults.together(KILL_API, faults.pause("model-*"))]).blast_radius == 6


def test_a_composition_passes_where_one_of_its_parts_does():
    assert faults.together(KILL_API, KILL_2).lifetime == "lasting"
    assert faults.together(PAUSE_1, faults.pause("api")).lifetime == "passing"
    assert faults.together(KILL_API, PAUSE_1).lifetime == "passing"


def test_a_service_named_again_by_another_kind_or_at_another_time_is_no_second_act():
    once = faults.together(KILL_1, PAUSE_1, faults.sequence(KILL_API, then=KILL_1, after_s=2))

    assert [act.fault.kind for act in once.plan(random.Random(1), SERVICES)] == ["kill", "pause", "kill", "kill"]


@pytest.mark.parametrize("missing", ["members", "plan_beside"])
@pytest.mark.parametrize("composition", [Together, RandomFaults])
def test_a_composition_that_lacks_its_members_or_its_draw_cannot_be_made(composition, missing):
    of = type(
        "Of",
        (composition.__base__,),
        {name: vars(composition)[name] for name in {"members", "plan_beside"} - {missing}},
    )

    with pytest.raises(TypeError, match=missing):
        of()


def test_many_services_may_be_named():
    names = [f"replica-{number}" for number in range(300)]

    assert faults.kill(names).blast_radius == 300
