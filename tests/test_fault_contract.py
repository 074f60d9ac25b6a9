"""The contract that every fault of the catalogue keeps."""

import functools
import json
import random
from dataclasses import replace

import pytest
from support.fake_runtime import FakeRuntime
from support.primitives import PRIMITIVES, REQUIRED

from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.base import plain, plain_strength
from pytest_llmchaos.lab.injector import undo_of
from pytest_llmchaos.model import FIDELITIES, Undo

SERVICES = ("api", "model-1", "model-2")


def armed(**settings):
    """A fake runtime with a fault agent in the way of each service."""
    runtime = FakeRuntime(**settings)
    runtime.wire_arm(runtime.targets())
    return runtime


@pytest.fixture(params=PRIMITIVES, ids=str)
def act(request):
    return request.param.plan(random.Random(1), SERVICES)[0]


KILL_API, KILL_ONE, KILL_2 = faults.kill("api"), faults.kill("model-1"), faults.kill("model-2")


def test_a_fault_declares_its_needs_and_properties(act):
    assert act.fault.needs
    assert act.fault.lifetime in {"lasting", "passing"}
    assert act.fault.fidelity in FIDELITIES
    assert act.fault.expects


def test_an_injected_fault_is_proven_by_the_runtime(act):
    runtime = armed()
    since = runtime.now()

    act.fault.inject(runtime, act.victim)

    proof = act.fault.observed(runtime, act.victim, since)
    assert proof is not None
    assert proof.step == "injected"
    assert proof.at_unix_s > since


def test_without_a_witness_there_is_no_proof(act):
    runtime = armed(deaf=True)

    act.fault.inject(runtime, act.victim)

    assert act.fault.observed(runtime, act.victim, 0.0) is None


def test_a_fault_that_was_not_injected_is_not_proven(act):
    assert act.fault.observed(armed(), act.victim, 0.0) is None


def test_events_from_before_the_injection_prove_nothing(act):
    runtime = armed()
    act.fault.inject(runtime, act.victim)
    runtime.undo(act.fault.undo(act.victim))

    assert act.fault.observed(runtime, act.victim, runtime.now()) is None


def test_the_revert_works_and_is_proven(act):
    runtime = armed()
    since = runtime.now()
    act.fault.inject(runtime, act.victim)

    runtime.undo(act.fault.undo(act.victim))

    assert act.fault.healed(runtime, act.victim, since) is not None
    assert runtime.state(act.victim).running
    assert not runtime.state(act.victim).paused


def test_a_fault_in_force_is_no_proof_of_a_revert():
    runtime = armed()
    act = faults.overload("api").plan(random.Random(1), SERVICES)[0]
    act.fault.inject(runtime, act.victim)

    assert act.fault.healed(runtime, act.victim, 0.0) is None


def test_an_overload_that_is_not_proven_has_the_runtimes_report():
    act = faults.overload("api").plan(random.Random(1), SERVICES)[0]

    assert act.fault.counted(armed(), act.victim) == "no request waits at api"


@pytest.mark.parametrize("fault", [fault for fault in PRIMITIVES if "overload" not in fault.needs], ids=str)
def test_a_victim_that_is_down_is_no_proof_of_a_revert(fault):
    act = fault.plan(random.Random(1), SERVICES)[0]
    runtime = armed()
    since = runtime.now()
    act.fault.inject(runtime, act.victim)
    runtime.undo(act.fault.undo(act.victim))
    runtime.crash(act.victim)

    assert act.fault.healed(runtime, act.victim, since) is None


def test_a_second_undo_changes_nothing(act):
    runtime = armed()
    act.fault.inject(runtime, act.victim)
    undo = act.fault.undo(act.victim)
    runtime.undo(undo)
    acted = len(runtime.touched)

    runtime.undo(undo)

    assert len(runtime.touched) == acted


def test_the_undo_survives_json_and_is_content_with_a_container_that_is_gone(act):
    runtime = armed()
    act.fault.inject(runtime, act.victim)
    runtime.remove(act.victim)

    runtime.undo(Undo.from_json(json.loads(json.dumps(act.fault.undo(act.victim).as_json()))))

    assert act.victim not in runtime.states()


def test_the_undo_of_one_of_several_containers_finds_it_from_another_process(act):
    numbers = {act.victim: (1, 2, 3)}
    runtime, other = armed(scaled=numbers), armed(scaled=numbers)
    aimed = replace(act, replica=runtime.aim(act.victim, random.Random(1), 3))
    for one in (runtime, other):
        act.fault.inject(one, act.victim)
    other.hit.clear()

    other.undo(Undo.from_json(json.loads(json.dumps(undo_of(aimed).as_json()))))

    assert set(runtime.hit) == {f"{act.victim}#3"}
    assert set(other.hit) <= {f"{act.victim}#3"}
    assert (other.hit == []) == (act.fault.kind == "restart")
    assert {**act.fault.undo(act.victim).args, "replica": 3} == undo_of(aimed).args


def test_only_the_victim_is_touched(act):
    runtime = armed()

    act.fault.inject(runtime, act.victim)
    runtime.undo(act.fault.undo(act.victim))

    assert set(runtime.touched) == {act.victim}


@pytest.mark.parametrize("make", [faults.kill, faults.crash, faults.pause, faults.restart, faults.partition])
def test_an_unknown_target_names_the_services_there_are(make):
    with pytest.raises(NoVictim, match=r"'worker-9' matches no service.*api, model-1, model-2"):
        make("worker-9").plan(random.Random(1), SERVICES)


@pytest.mark.parametrize(
    "target",
    ["", "a b", None, 7, "*", "api;rm", "../api", ["api", 7], "api#", "api#0", "api#x", "#1", "api-*#1", "api#1*"],
)
def test_a_target_that_is_no_service_name_is_refused(target):
    with pytest.raises(BadScenario, match="must be a service name"):
        faults.kill(target)


def test_a_pattern_draws_one_of_several_by_the_seed():
    drawn = {faults.kill("model-*").plan(random.Random(seed), SERVICES)[0].victim for seed in range(20)}

    assert drawn == {"model-1", "model-2"}


def test_a_target_may_name_one_container_of_a_service():
    (act,) = faults.kill("model-1#2").plan(random.Random(1), SERVICES)

    assert (act.victim, act.replica) == ("model-1", 2)
    assert str(faults.kill("model-1#2")) == "kill model-1#2"
    with pytest.raises(NoVictim, match="target 'worker#2' matches no service that may be hit"):
        faults.kill("worker#2").plan(random.Random(1), SERVICES)


def test_no_fault_injects_nothing():
    assert faults.none().plan(random.Random(1), SERVICES) == ()
    assert str(faults.none()) == "none"
    assert (faults.none().blast_radius, faults.none().needs, faults.none().target) == (0, frozenset(), "")


def test_a_sequence_keeps_its_gaps():
    fault = faults.sequence(faults.restart("model-1"), then=faults.restart("model-2"), after_s=3)
    longer = faults.sequence(fault, then=faults.kill("api"), after_s=2)

    assert [(act.after_s, act.victim) for act in longer.plan(random.Random(1), SERVICES)] == [
        (0.0, "model-1"),
        (3.0, "model-2"),
        (5.0, "api"),
    ]


def test_random_faults_are_the_same_for_the_same_seed_and_stay_within_their_time():
    fault = faults.random(n=5, among=[faults.kill("api"), faults.kill("model-*")], within_s=30)

    first = fault.plan(random.Random(42), SERVICES)

    assert first == fault.plan(random.Random(42), SERVICES)
    assert first != fault.plan(random.Random(43), SERVICES)
    assert len(first) == 5
    assert all(0 <= act.after_s <= 30 for act in first)
    assert [act.after_s for act in first] == sorted(act.after_s for act in first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: faults.together(faults.kill("api")), "needs at least two faults, got 1"),
        (lambda: faults.together(faults.kill("api"), "kill model-1"), "must be a fault such as"),
        (
            lambda: faults.together(KILL_API, KILL_API),
            r"faults.together\(...\) has kill of 'api' twice at \+0 s: name it",
        ),
        (lambda: faults.together(KILL_2, faults.kill(["api", "model-2"])), "has kill of 'model-2' twice"),
        (
            lambda: faults.together(
                faults.sequence(KILL_API, then=KILL_2, after_s=3), faults.sequence(KILL_ONE, then=KILL_2, after_s=3)
            ),
            r"has kill of 'model-2' twice at \+3 s",
        ),
        (lambda: faults.sequence(faults.kill("api"), then=faults.kill("api"), after_s=0), "above 0"),
        (lambda: faults.sequence(faults.kill("api"), then=None, after_s=1), "must be a fault such as"),
        (lambda: faults.random(n=0, among=[faults.kill("api")]), "whole number from 1 to 1000, got 0"),
        (lambda: faults.random(n=2, among=[]), "is empty"),
        (lambda: faults.random(n=2, among=faults.kill("api")), r"must be a list of faults.*target='api'"),
        (lambda: faults.random(n=2, among=[faults.kill("api")], within_s=-1), "above 0"),
        (lambda: faults.random(n=2, among=[KILL_API], within_s=10**400), r"below 86400, got 10{400}"),
        (
            lambda: faults.together(faults.none(), KILL_API),
            "each part of faults.together must .*none.. is the control arm",
        ),
        (
            lambda: faults.sequence(faults.none(), then=KILL_API, after_s=1),
            r"faults.sequence\(first\) must be .* control arm",
        ),
        (lambda: faults.sequence(KILL_API, then=faults.none(), after_s=1), r"faults.sequence\(then=...\) must be"),
        (lambda: faults.random(n=3, among=[KILL_API, faults.none()]), r"among=...\) must be .* control arm"),
        (lambda: faults.random(n=True, among=[faults.kill("api")]), "whole number"),
    ],
)
def test_a_wrong_composition_is_refused_with_its_value(make, message):
    with pytest.raises(BadScenario, match=message):
        make()


def test_a_composition_is_as_faithful_as_its_weakest_part_and_as_wide_as_all_of_them():
    both = faults.together(faults.kill("api"), faults.kill("model-1"))

    assert both.fidelity == "real"
    assert both.blast_radius == 2
    assert both.lifetime == "lasting"
    assert both.target == "api,model-1"
    assert both.needs == faults.kill("api").needs
    assert str(both) == "together(kill api, kill model-1)"


def test_a_draw_is_as_faithful_as_the_weakest_of_its_faults_and_as_wide_as_the_widest():
    drawn = faults.random(n=3, among=[faults.kill("api"), faults.hang("model-1"), faults.pause("model-2")], within_s=9)

    assert drawn.fidelity == "simulated"
    assert drawn.blast_radius == 2  # the pause stays while one of the others is in force
    assert drawn.lifetime == "passing"
    assert drawn.target == "api,model-1,model-2"
    assert drawn.needs == faults.kill("api").needs | faults.hang("model-1").needs | faults.pause("model-2").needs
    assert str(drawn) == "random(3 among kill api, hang model-1, pause model-2 within 9 s)"


def test_a_sequence_and_an_act_print_with_their_times():
    fault = faults.sequence(faults.kill("api"), then=faults.pause("model-1"), after_s=2.5)

    assert str(fault) == "sequence(kill api at +0 s, pause model-1 at +2.5 s)"
    assert [str(act) for act in fault.plan(random.Random(1), SERVICES)] == [
        "kill api at +0 s",
        "pause model-1 at +2.5 s",
    ]


def test_a_fault_expects_what_its_primitive_does():
    assert faults.kill("api").expects == faults.kill("api").primitive.expects


@pytest.mark.parametrize("times", [1, 0.5, 11, pytest.param(10**400, id="huge"), "2", True, None, float("nan")])
def test_an_overload_is_more_than_the_capacity_and_not_absurd(times):
    with pytest.raises(BadScenario, match="must be above 1 and at most 10"):
        faults.overload("api", times=times)


@pytest.mark.parametrize("max_tokens", [0, -1, 2.5, True, "8", 5000])
def test_an_overload_needs_a_whole_number_of_tokens(max_tokens):
    with pytest.raises(BadScenario, match="whole number from 1 to 4096"):
        faults.overload("api", max_tokens=max_tokens)


@pytest.mark.parametrize("cores", [0, 0.001, -1, True, "1", None, float("nan"), 2000, pytest.param(10**400, id="huge")])
def test_a_share_of_the_processor_is_a_number_that_the_engine_takes(cores):
    with pytest.raises(BadScenario, match=r"cores=.* must be a number from 0.01 to 1024"):
        faults.limit_cpu("api", cores=cores)


@pytest.mark.parametrize("grace_s", [0, -1, 0.5, True, "5", None, 61])
def test_a_grace_is_whole_seconds_that_end(grace_s):
    with pytest.raises(BadScenario, match=r"stop\(grace_s=\.\.\.\) must be a whole number from 1 to 60"):
        faults.stop("api", grace_s=grace_s)


def test_a_stop_begins_with_sigterm_and_is_proven_by_the_death_and_its_time():
    runtime, act = armed(), faults.stop("api", grace_s=5).plan(random.Random(1), SERVICES)[0]
    since = runtime.now()

    act.fault.inject(runtime, "api")

    asked, died = runtime.events(since, float("inf"))
    proof = act.fault.observed(runtime, "api", since)
    assert (asked.attributes, died.attributes) == ({"signal": "15"}, {"exitCode": "0"})
    assert proof.at_unix_s == asked.at_unix_s
    assert proof.witness == "runtime events kill signal=15, then die exitCode=0 after 1.00 s"
    assert act.fault.undo("api").args == {"grace_s": 5}


def test_a_death_without_sigterm_is_no_stop():
    runtime, act = armed(), faults.stop("api").plan(random.Random(1), SERVICES)[0]

    runtime.kill("api")

    assert act.fault.observed(runtime, "api", 0.0) is None


@pytest.mark.parametrize("mebibytes", [0, 5, -1, 64.0, True, "64", None, 2**25])
def test_a_limit_of_memory_is_a_whole_number_that_the_engine_takes(mebibytes):
    with pytest.raises(BadScenario, match=r"mebibytes=.* must be a whole number from 6 .* to 16777216, got"):
        faults.limit_memory("api", mebibytes=mebibytes)


def test_a_weaker_limit_than_the_requested_one_is_no_proof():
    runtime = armed()
    strong = faults.limit_cpu("api", cores=0.1).plan(random.Random(1), SERVICES)[0]
    runtime.limit_cpu("api", 0.5)

    assert strong.fault.observed(runtime, "api", 0.0) is None


@pytest.mark.parametrize(
    ("among", "widest"),
    [
        ([faults.pause("api")], 1),
        ([faults.pause("model-*")], 4),
        ([faults.pause("api"), faults.kill("model-1")], 2),
        ([faults.random(n=1, among=[faults.pause("api")])], 1),
        ([faults.random(n=1, among=[faults.pause("api"), faults.kill("model-1")])], 2),
        ([faults.together(faults.pause("api"), faults.pause("model-1"))], 2),
        ([faults.together(faults.pause("api"), faults.pause("model-*"))], 8),
    ],
    ids=["one service", "a pattern", "two", "a draw of one", "a draw of two", "both", "one and a pattern"],
)
def test_a_draw_of_four_may_hit_whatever_its_passing_faults_leave_behind(among, widest):
    assert faults.random(n=4, among=among).blast_radius == widest


WITH_A_TARGET = [
    name
    for name in faults.__all__
    if name not in {"every_boundary", "match", "none", "random", "sequence", "timed", "together"}
]


def test_every_fault_is_in_the_catalogue_of_reports_and_among_those_that_are_proven_here():
    assert sorted(faults.CATALOGUE) == WITH_A_TARGET
    assert sorted({fault.primitive.kind for fault in PRIMITIVES}) == WITH_A_TARGET


def everything_with_a_target():
    return [functools.partial(getattr(faults, name), **REQUIRED.get(name, {})) for name in WITH_A_TARGET]


@pytest.mark.parametrize("make", everything_with_a_target(), ids=lambda make: make.func.__name__)
def test_several_targets_are_all_hit_at_once_as_by_together(make):
    both = make(["model-1", "model-2"])

    assert both == faults.together(make("model-1"), make("model-2"))
    assert both.blast_radius == 2
    assert [(act.after_s, act.victim) for act in both.plan(random.Random(1), SERVICES)] == [
        (0.0, "model-1"),
        (0.0, "model-2"),
    ]


def test_a_list_of_one_target_is_that_target_and_patterns_in_a_list_draw_one_service_each():
    drawn = faults.kill(["model-*", "model-*"]).plan(random.Random(1), SERVICES)

    assert faults.kill(["api"]) == faults.kill("api")
    assert {act.victim for act in drawn} == {"model-1", "model-2"}


@pytest.mark.parametrize("targets", [["model-*", "model-1"], ["model-*", "model-1*"], ["m*", "model-*", "model-2"]])
def test_a_pattern_in_a_list_leaves_what_others_in_the_list_name(targets):
    for seed in range(10):
        services = (*SERVICES, "mirror")
        victims = [act.victim for act in faults.kill(targets).plan(random.Random(seed), services)]

        assert len(set(victims)) == len(targets)


@pytest.mark.parametrize("targets", [[], ["api", "api"]])
def test_targets_are_one_or_more_services_each_named_once(targets):
    with pytest.raises(BadScenario, match=r"faults\.kill\(target\) must name at least one service, and each once"):
        faults.kill(targets)


def test_a_fault_answers_for_its_last_act_its_strength_and_its_lease():
    late = faults.sequence(faults.kill("api"), then=faults.together(faults.hang("model-1"), KILLS), after_s=3)
    drawn = faults.random(n=2, among=[faults.hang("model-1")], within_s=20)

    assert [one.last_act_s for one in (faults.none(), faults.kill("api"), late, drawn)] == [0.0, 0.0, 3.0, 20.0]
    assert faults.limit_cpu("api", cores=0.1).strength == {"cores": 0.1}
    assert faults.gpu_saturation("model-1", share=0.5).strength == {"share": 0.5}
    assert [dict(one.strength) for one in (faults.none(), faults.kill("api"), late, drawn)] == [{}] * 4
    assert faults.none().named_by(["cores"]) == faults.none()
    assert faults.none().with_lease(900) == faults.none()
    assert late.named_by(["cores"]) == late
    assert faults.crash_on_boot("model-1", for_s=4).strength == {"for_s": 4.0}
    assert drawn.with_lease(400).among[0].primitive.lease_s == 400


def test_the_options_of_a_fault_are_json_values_as_users_write_them():
    chosen = faults.match(path="/v1/*", streaming=True)
    flaky, late = (one.plan(random.Random(1), ("api",))[0].fault for one in (faults.flaky("api", match=chosen), LATE))

    assert plain_strength(flaky) == {"status": 503, "share": 0.3, "match": "path=/v1/*, streaming=True"}
    assert plain_strength(late) == {"at": "after:chat#2.answered", "grace_s": 3}
    assert plain((1, [None, "a", object()])) == [1, [None, "a", "object"]]


LATE = faults.timed(faults.stop("api", grace_s=3), at="after:chat#2.answered")


KILLS = faults.kill(["model-2", "api"])
