"""Wrong scenarios are refused on reading, with value, expectation and remedy."""

import inspect
from types import SimpleNamespace

import pytest

import pytest_llmchaos
from pytest_llmchaos import BadScenario, experiment, faults, loads
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.plan import experiment as plan
from pytest_llmchaos.plan.experiment import SETTLE_S, hypothesis_of

LOAD = loads.open_loop(rate_rps=2)
KILL = faults.kill("api")
CPU = faults.limit_cpu("api", cores=0.1)


def made(**arguments):
    return experiment(**{"load": LOAD, "fault": KILL, **arguments}).kwargs["experiment"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steady_s": 0}, r"steady_s=\.\.\.\) must be a number of seconds from 1 to 3600, got 0"),
        ({"steady_s": -3}, "got -3"),
        ({"steady_s": "8"}, "got '8'"),
        ({"steady_s": True}, "got True"),
        ({"steady_s": float("nan")}, "got nan"),
        ({"steady_s": float("inf")}, "got inf"),
        ({"steady_s": 3601}, "got 3601"),
        *(
            (
                {"fault": [KILL, faults.pause("api")], "fault_s": 9, name: 10**400},
                rf"{name}=.* number of seconds .* got 10{{400}}",
            )
            for name in ("steady_s", "stable_s", "fault_s", "repair_within_s", "settle_within_s")
        ),
        ({"repair_within_s": 0}, r"repair_within_s=\.\.\.\) must be .* got 0"),
        ({"repair_within_s": "soon"}, "got 'soon'"),
        (
            {"settle_within_s": 9},
            r"settle_within_s=\.\.\.\) is for passing faults, and 'kill api' lasts: give repair_within_s, the seconds from",
        ),
        (
            {"fault": [faults.pause("api"), faults.none()], "fault_s": 2, "repair_within_s": 9},
            r"repair_within_s=\.\.\.\) is for lasting faults, and 'pause api' passes: give settle_within_s, the seconds from",
        ),
        (
            {"fault": [faults.none(), faults.pause("api")], "fault_s": 2, "repair_within_s": 9},
            "and 'pause api' passes",
        ),
        ({"fault": [faults.none(), KILL], "settle_within_s": 9}, "and 'kill api' lasts"),
        (
            {"fault": faults.pause("api"), "fault_s": 2, "settle_within_s": True},
            r"settle_within_s=\.\.\.\) must be .* True",
        ),
        ({"stable_s": 0.1}, r"stable_s=\.\.\.\) must be .* from 0.5"),
        ({"fault_s": 0.1}, r"fault_s=\.\.\.\) must be"),
        ({"fault_s": "long"}, "got 'long'"),
        (
            {"fault": [KILL, faults.kill("model-1")], "fault_s": 9},
            r"fault_s=\.\.\.\) is for passing faults, and 'kill api' lasts: give repair_within_s, the seconds from",
        ),
        ({"fault": faults.pause("api")}, "fault_s=.* is missing: 'pause api' passes"),
        ({"fault": None}, "must be a fault such as"),
        ({"fault": "kill api"}, "got 'kill api'"),
        ({"fault": []}, "is empty"),
        ({"fault": [KILL, "kill"]}, "must be a fault such as"),
        ({"fault": [KILL, faults.kill("api")]}, "names a fault twice"),
        (
            {
                "fault": [faults.together(KILL, CPU), faults.together(KILL, faults.limit_cpu("api", cores=0.5))],
                "fault_s": 9,
            },
            "2 different faults with the name 'together.*', and results are keyed by name: give each a scenario file",
        ),
        (
            {"fault": faults.hang("model-1"), "repair_within_s": 3560},
            "'hang model-1' for 3620 s, .* after 3600 s: shorten",
        ),
        ({"fault": faults.gpu_saturation("model-1"), "fault_s": 3600}, "'gpu_saturation model-1' for 3660 s"),
        (
            {"fault": faults.sequence(KILL, then=faults.hang("model-1"), after_s=3000), "repair_within_s": 300},
            "'hang model-1' for 3660 s",
        ),
        ({"load": None}, "must be a load such as"),
        ({"load": 8}, "got 8"),
        (
            {"load": SimpleNamespace(schedule=print)},
            r"must be a load such as loads.open_loop\(rate_rps=8\), got namespace",
        ),
        ({"load": loads.Load}, "got <class"),
        ({"remediator": "no"}, "must be True or False, got 'no'"),
        ({"remediator": None}, "got None"),
        ({"simulated_engine": "sim"}, r"simulated_engine=\.\.\.\) must be True or False, got 'sim'"),
        ({"light_load": "2 rps"}, r"light_load=\.\.\.\) must be a load such as loads.open_loop.*got '2 rps'"),
        ({"light_load": LOAD}, r"light_load=\.\.\.\) must offer fewer tokens a second than load \(24\), got 24"),
        ({"abort_if": "availability < 0.5"}, "must be a function"),
        (
            {"abort_if": lambda: True},
            "must be a function of the live window, .* got <function .*lambda.* with the parameters ..$",
        ),
        ({"abort_if": lambda window, least: True}, r"with the parameters \(window, least\)"),
        ({"abort_if": lambda *, window: True}, "with the parameters"),
        ({"blast_radius": -1}, "must be a whole number of services, got -1"),
        ({"blast_radius": 1.5}, "got 1.5"),
        ({"blast_radius": True}, "got True"),
        ({"blast_radius": 0}, "is smaller than what 'kill api' may hit"),
        ({"fault": faults.together(KILL, faults.kill("model-1")), "blast_radius": 1}, "may hit .2 services."),
        ({"fault": [KILL, faults.together(KILL, faults.kill("model-1"))], "blast_radius": 1}, "than what 'together"),
        ({"fidelity": "perfect"}, "must be one of real, kernel, proxy, simulated"),
        ({"fault": faults.hang("model-1"), "fidelity": "real"}, "needs more than 'hang model-1' has"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(BadScenario, match=message):
        made(**arguments)


@pytest.mark.parametrize("missing", ["load", "fault"])
def test_what_is_missing_is_the_type_error_of_python(missing):
    arguments = {"load": LOAD, "fault": KILL}
    del arguments[missing]

    with pytest.raises(TypeError, match=rf"experiment\(\) missing 1 required keyword-only argument: '{missing}'"):
        experiment(**arguments)


@pytest.mark.parametrize("unknown", ["steady", "recovery_s"])
def test_what_is_unknown_is_the_type_error_of_python(unknown):
    with pytest.raises(TypeError, match=rf"experiment\(\) got an unexpected keyword argument '{unknown}'"):
        made(**{unknown: 8})


def test_the_mark_has_the_signature_and_the_docstring_of_the_plan():
    assert inspect.signature(experiment).parameters == inspect.signature(plan.experiment).parameters
    assert experiment.__doc__ == plan.experiment.__doc__


@pytest.mark.parametrize(
    ("arguments", "deadlines_s"),
    [
        ({}, [40]),
        ({"repair_within_s": 7}, [7]),
        ({"fault": faults.pause("api"), "fault_s": 2}, [40]),
        ({"fault": faults.pause("api"), "fault_s": 2, "settle_within_s": 8}, [8]),
        ({"fault": [KILL, faults.none()], "repair_within_s": 7}, [7, 7]),
        ({"fault": faults.none(), "repair_within_s": 7}, [7]),
        ({"fault": faults.none(), "settle_within_s": 8}, [8]),
        (
            {
                "fault": [KILL, faults.pause("api"), faults.none()],
                "fault_s": 2,
                "repair_within_s": 7,
                "settle_within_s": 8,
            },
            [7, 8, 8],
        ),
    ],
)
def test_lasting_faults_have_one_deadline_and_passing_ones_another_and_a_control_arm_that_of_its_fault(
    arguments, deadlines_s
):
    experiment = made(**arguments)

    assert [experiment.deadline_s(fault) for fault in experiment.faults] == deadlines_s


@pytest.mark.parametrize("abort_if", [lambda window: True, lambda window, least=0.5: True, lambda *any_: True, bool])
def test_what_can_be_called_with_a_window_may_abort(abort_if):
    assert made(abort_if=abort_if).abort_if is abort_if


@pytest.mark.parametrize("other", [faults.pause("model-1"), faults.none()], ids=str)
def test_a_lasting_fault_may_stand_next_to_one_that_has_a_length(other):
    assert made(fault=[KILL, other], fault_s=9).fault_s == 9


def test_an_experiment_is_a_mark_with_checked_values():
    mark = experiment(load=LOAD, fault=KILL, steady_s=5)

    assert mark.name == "llmchaos"
    assert mark.kwargs["experiment"].steady_s == 5.0
    assert mark.kwargs["experiment"].faults == (KILL,)
    assert mark.kwargs["experiment"].blast_radius == 1


def test_a_fault_may_be_as_faithful_as_required_or_more():
    assert made(fidelity="real").faults == (KILL,)
    assert made(fidelity="simulated", fault=[KILL, faults.hang("model-1")]).faults[0] == KILL


def test_an_experiment_decorates_a_function():
    @experiment(load=LOAD, fault=KILL)
    def scenario():
        return 7

    assert scenario() == 7
    assert scenario.pytestmark[0].name == "llmchaos"


def test_a_list_of_faults_is_one_trial_each():
    assert [str(f) for f in made(fault=[KILL, faults.kill("model-1")]).faults] == ["kill api", "kill model-1"]


@pytest.mark.parametrize(
    ("alike", "names"),
    [
        (
            [CPU, faults.limit_cpu("api", cores=0.5), KILL],
            ["limit_cpu(cores=0.1) api", "limit_cpu(cores=0.5) api", "kill api"],
        ),
        (
            [faults.xid("model-1", code=48, engine=fate) for fate in ("errors", "survives")],
            ["xid(engine=errors) model-1", "xid(engine=survives) model-1"],
        ),
        (
            [faults.gpu_saturation("model-1", share=share) for share in (0.5, 0.8)],
            ["gpu_saturation(share=0.5) model-1", "gpu_saturation(share=0.8) model-1"],
        ),
        ([CPU, faults.limit_cpu("model-1", cores=0.5)], ["limit_cpu api", "limit_cpu model-1"]),
        (
            [faults.limit_cpu("api", cores=cores) for cores in (0.5, 0.1, 0.3)],
            ["limit_cpu(cores=0.5) api", "limit_cpu(cores=0.1) api", "limit_cpu(cores=0.3) api"],
        ),
        (
            [faults.corrupted_output("model-1", how=how, share=1) for how in ("wrong", "garbage")],
            ["corrupted_output(how=wrong) model-1", "corrupted_output(how=garbage) model-1"],
        ),
        ([KILL, faults.pause("api"), CPU], ["kill api", "pause api", "limit_cpu api"]),
    ],
    ids=["cores", "fate", "share", "another target needs no more", "three", "what is equal stays away", "other kinds"],
)
def test_faults_that_differ_in_strength_alone_have_it_in_their_names(alike, names):
    assert [
        str(one)
        for one in made(fault=alike, fault_s=9 if any(one.lifetime == "passing" for one in alike) else None).faults
    ] == names


def test_foreign_faults_without_a_strength_are_not_taken_for_one():
    class Odd:
        kind, lifetime, needs, fidelity = "odd", "lasting", frozenset({"kill"}), "real"

    with pytest.raises(BadScenario, match="2 different faults with the name 'odd api'"):
        made(fault=[OnTarget(primitive=Odd(), target="api"), OnTarget(primitive=Odd(), target="api")])


def leases(fault):
    """The lease of each fault, in the given order."""
    if isinstance(fault, OnTarget):
        return [getattr(fault.primitive, "lease_s", None)]
    return [lease_s for part in fault.members for lease_s in leases(part)]


HANG, BUSY = faults.hang("model-1"), faults.gpu_saturation("model-1")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"fault": HANG}, [300.0]),
        ({"fault": HANG, "repair_within_s": 600}, [660.0]),
        ({"fault": [HANG, BUSY], "fault_s": 900, "repair_within_s": 600}, [660.0]),
        ({"fault": BUSY, "fault_s": 3500}, [3560.0]),
        ({"fault": BUSY, "fault_s": 9, "settle_within_s": 3600}, [300.0]),
        (
            {"fault": faults.sequence(BUSY, then=KILL, after_s=200), "fault_s": 100, "settle_within_s": 40},
            [400.0, None],
        ),
        ({"fault": faults.random(n=2, among=[HANG, KILL], within_s=200)}, [340.0, None]),
        (
            {"fault": faults.random(n=1, among=[KILL, faults.random(n=1, among=[HANG], within_s=300)], within_s=200)},
            [None, 640.0],
        ),
        ({"fault": faults.crash_on_boot("model-1", for_s=6), "repair_within_s": 600}, [6.0]),
        ({"fault": faults.xid("model-1"), "repair_within_s": 600}, [300.0]),
    ],
)
def test_a_fault_of_the_engine_does_not_end_by_itself_before_its_trial_has_ended_it(arguments, expected):
    assert leases(made(**arguments).faults[0]) == expected


def test_the_load_lasts_for_all_deadlines():
    passing = made(fault=faults.pause("api"), fault_s=10)
    late = made(fault=faults.random(n=3, among=[KILL], within_s=60))
    composed = made(fault=faults.random(n=1, among=[KILL, faults.sequence(KILL, then=KILL, after_s=2000)], within_s=60))

    assert passing.longest_s(passing.faults[0]) >= 3 * 8 + 20 + 10 + 40
    assert late.longest_s(late.faults[0]) >= 60 + 40
    assert composed.longest_s(composed.faults[0]) == late.longest_s(late.faults[0]) + 2000


def test_a_fault_lasts_at_most_until_its_deadline_or_our_revert():
    passing, lasting = (
        made(fault=faults.pause("api"), fault_s=10, settle_within_s=7),
        made(fault=KILL, repair_within_s=9),
    )
    control = made(fault=faults.none(), fault_s=5, stable_s=4)

    assert passing.longest_fault_s(passing.faults[0]) == 10
    assert passing.longest_settle_s(passing.faults[0]) == 7
    assert lasting.longest_fault_s(lasting.faults[0]) == 9
    assert lasting.longest_settle_s(lasting.faults[0]) == SETTLE_S
    assert control.longest_fault_s(control.faults[0]) == 5


def test_a_hypothesis_is_the_first_paragraph_on_one_line():
    assert hypothesis_of("It holds\n  always.\n\nMore.") == "It holds always."
    assert hypothesis_of(None) == ""


def test_the_public_names_are_few_sorted_and_there():
    assert list(pytest_llmchaos.__all__) == sorted(pytest_llmchaos.__all__)
    assert len(pytest_llmchaos.__all__) <= 12
    assert all(hasattr(pytest_llmchaos, name) for name in pytest_llmchaos.__all__)
