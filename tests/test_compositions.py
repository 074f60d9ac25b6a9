"""What parts of one composition may hit: patterns leave out what the others name."""

import random

import pytest

from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario, NoVictim

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


def test_a_draw_beside_others_may_come_back_to_what_they_hit():
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


def test_a_pattern_that_others_left_nothing_says_what_they_took():
    fault = faults.together(faults.kill("model-*"), faults.pause("model-1"), faults.kill("model-2"))

    with pytest.raises(NoVictim, match=r"'model-\*' matches no service that is left; model-1, model-2 are hit already"):
        fault.plan(random.Random(1), SERVICES)


def test_a_sequence_may_hit_a_service_again():
    fault = faults.sequence(KILL_API, then=KILL_API, after_s=3)

    assert [act.victim for act in fault.plan(random.Random(1), SERVICES)] == ["api", "api"]
