"""Claims on the arms of an experiment: plan, trials, outcomes and verdicts."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec import structs
from support.plugin_double import put_double

from pytest_llmchaos import errors
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.model import ABILITIES, Sample
from pytest_llmchaos.session import campaign as campaigns
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.stats.windows import windows
from pytest_llmchaos.trial.perform import Performed
from pytest_llmchaos.trial.result import plan_note

HEAD = """
import pytest
from pytest_llmchaos import arm, experiment, faults, loads

ARMS = {"on": arm(), "off": arm(environment={"api": {"LAB_BREAKER": "off"}})}
LOAD = loads.open_loop(rate_rps=2, max_tokens=8)
pytestmark = experiment(load=LOAD, fault=FAULT, arms=ARMS, fault_s=FAULT_S)

"""
KILL = ('faults.kill("api")', "None")
TWO = ('[faults.pause("api"), faults.pause("model-1")]', "2")
EFFECT = "def test_effect(arms):\n    assert arms.during_fault.availability.low >= 0.05\n\n"
EACH = "def test_each(trial):\n    assert trial.repaired_by == 'remediator'\n\n"
PARTS = [("before", 0.0, 10.0), ("during", 10.0, 20.0), ("after", 20.0, 30.0), ("whole", 0.0, 30.0)]


def seen(failed):
    """Windows of 300 requests, of which the first ones during the fault failed."""
    due_s = [number / 10 for number in range(300)]
    samples = [
        Sample(due, due, None, due + 1, 0.0, 8, "refused", "", "")
        if 10 <= due < 10 + failed / 10
        else Sample(due, due, due + 0.1, due + 0.5, 0.0, 8, "ok", "", "")
        for due in due_s
    ]
    return {one.name: one for one in windows(samples, PARTS)}


@pytest.fixture
def double(monkeypatch):
    """Trials that hold until a claim fails, written to the run's journal.

    Those of the arm "off" fail a third of the requests.
    """
    made = put_double(monkeypatch)
    made.windows = {"on": seen(2), "off": seen(33)}
    made.errors = {}  # by arm

    def perform(campaign, plan):
        begun = replace(made.perform(campaign, plan), name=f"{len(made.performed):03}")
        about = structs.asdict(plan_note(plan)) | {"trial": begun.name}
        campaign.run.journal.write(lines.TrialBegin(samples="", **about))
        error = made.errors.get(plan.arm)
        verdict = errors.verdict_of(error) if error else "held"
        result = lines.Judged(verdict=verdict, reason=error and str(error), **about)
        campaign.run.journal.write(result)
        return Performed(name=begun.name, error=error, result=result) if error else replace(begun, result=result)

    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )
    monkeypatch.setattr(Campaign, "_perform", perform)
    grant(monkeypatch, "configure")
    return made


def grant(monkeypatch, *abilities):
    """Give the runtime of the sessions all abilities of faults, and these."""
    monkeypatch.setattr(campaigns, "abilities_of", lambda _: frozenset({*ABILITIES} - {"configure"} | {*abilities}))


@pytest.fixture
def chaos(pytester, double, monkeypatch):
    """Run pytest, with no other plugin, on one scenario."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *args, fault=KILL, off="off"):
        head = HEAD.replace("FAULT_S", fault[1]).replace("FAULT", fault[0]).replace('"off"}', f'"{off}"}}')
        pytester.makepyfile(test_it=head + text)
        common = ("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", "-o", "llmchaos_runtime=local")
        return pytester.runpytest_inprocess(*common, *args)

    return run


@pytest.fixture
def run(pytester):
    """Return run.json."""

    def read():
        (path,) = pytester.path.glob("reports/2*/run.json")
        return json.loads(path.read_text())

    return read


def test_each_arm_is_performed_once_for_all_claims(chaos, double):
    result = chaos(EFFECT + EACH + EFFECT.replace("effect", "effect_too"), "-v")

    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_effect PASSED*", "*test_each?on? PASSED*", "*test_each?off? PASSED*"])
    assert double.performed == ["kill api on", "kill api off"]


def test_arms_are_parametrized_by_fault_and_repeat_and_trials_by_arm_too(chaos, double):
    result = chaos(EACH + EFFECT, "-v", "--chaos-repeat=2", fault=TWO)

    result.assert_outcomes(passed=12)
    result.stdout.fnmatch_lines(
        [
            "*test_each?pause api #1-on?*",
            "*test_each?pause api #1-off?*",
            "*test_each?pause api #2-off?*",
            "*test_each?pause api #2-on?*",
            "*test_each?pause model-1 #1-on?*",
            "*test_effect?pause api #1?*",
        ]
    )
    assert double.performed[:4] == ["pause api on", "pause api off", "pause api off", "pause api on"]
    assert len(double.performed) == 8


def test_a_pair_begins_with_the_settings_that_the_stack_has(chaos, double):
    chaos(EFFECT, "--chaos-repeat=2").assert_outcomes(passed=2)

    assert double.performed == ["kill api on", "kill api off", "kill api off", "kill api on"]


@pytest.mark.parametrize(
    ("selected", "performed"),
    [("test_each and off", ["kill api off"]), ("test_effect", ["kill api on", "kill api off"])],
)
def test_a_selection_performs_the_arms_that_it_needs(chaos, double, selected, performed):
    assert chaos(EACH + EFFECT, "-k", selected).ret == 0

    assert double.performed == performed


def test_an_effect_that_is_not_shown_refutes_both_trials(chaos, run, pytester):
    result = chaos(EFFECT.replace("0.05", "0.5"), "--junitxml=it.xml")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*where 0.*<availability on - off: +0.31 (95 % +0.21* 100 and 100 requests>.low"])
    assert [(trial["arm"], trial["verdict"]) for trial in run()["trials"]] == [("on", "refuted"), ("off", "refuted")]
    (case,) = ET.parse(pytester.path / "it.xml").iter("testcase")
    found = [(one.get("name"), one.get("value")) for one in case.iter("property")]
    assert [value for name, value in found if name == "llmchaos_arm"] == ["on", "off"]
    assert [value for name, value in found if name == "llmchaos_verdict"] == ["refuted", "refuted"]


def test_the_run_has_arms_variables_and_the_effects_that_claims_read(chaos, run):
    chaos(EFFECT + EACH)
    found = run()
    on, off = found["trials"]

    assert (on["arm"], on["environment"], on["verdict"]) == ("on", {}, "held")
    assert (off["arm"], off["environment"], off["verdict"]) == ("off", {"api": {"LAB_BREAKER": "off"}}, "held")
    (effect,) = on["claims"][0]["effects"]
    assert (effect["measure"], effect["first"], effect["second"], effect["value"]) == (
        "during_fault.availability",
        "on",
        "off",
        0.31,
    )
    assert on["claims"][0] == off["claims"][0]
    assert [len(claim["effects"]) for claim in (*on["claims"], *off["claims"])] == [1, 0, 1, 0]
    assert [(one["arm"], one.get("environment")) for one in found["schedule"]] == [
        ("on", None),
        ("off", {"api": {"LAB_BREAKER": "off"}}),
    ]


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("pass", "this claim uses `arms` and reads no value of it, so it always passes: assert a value, such as"),
        ("assert list(arms) and arms['on'].arm == 'on'", "this claim uses `arms` and reads no value of it"),
        ("arms.during_fault.availability.low >= 0.05", "compares and discards the result: write `assert arms.during"),
    ],
    ids=["nothing", "the plan", "thrown away"],
)
def test_a_claim_that_no_arms_could_break_is_an_error(chaos, run, claim, said):
    result = chaos(f"def test_x(arms):\n    {claim}\n")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*VacuousClaim: *{said}*"])
    assert [trial["verdict"] for trial in run()["trials"]] == ["invalid", "invalid"]


@pytest.mark.parametrize(
    "claim",
    [
        "assert arms.during_fault.availability >= 0.05",
        "assert arms.during_fault",
        "assert arms.during_fault.availability.low >= -1",
    ],
)
def test_a_claim_without_an_end_of_the_interval_is_an_error(chaos, claim):
    chaos(f"def test_x(arms):\n    {claim}\n").assert_outcomes(errors=1)


def test_a_claim_on_one_arm_of_both_is_a_claim(chaos):
    chaos("def test_x(arms):\n    assert arms['off'].during_fault.failed == 33\n").assert_outcomes(passed=1)


def test_a_claim_about_another_arm_needs_one_that_reads_a_value(chaos):
    text = "def test_x(trial):\n    if trial.arm == 'off':\n        assert trial.during_fault.failed == 33\n\n"

    alone, both = chaos(text), chaos(text + EACH)

    alone.assert_outcomes(passed=1, errors=1)
    alone.stdout.fnmatch_lines(["*no claim of this arm reads a value of its trial*"])
    both.assert_outcomes(passed=4)


@pytest.mark.parametrize("broken", ["on", "off"])
def test_an_arm_that_proves_nothing_makes_the_claim_an_error(chaos, double, run, broken):
    double.errors = {broken: errors.NotSteady("the service was not good")}

    chaos(EFFECT + EACH).assert_outcomes(errors=2, passed=1)

    assert {trial["arm"]: trial["verdict"] for trial in run()["trials"]} == {"on": "invalid", "off": "invalid"}


def test_an_arm_that_its_judge_refutes_fails_the_claim(chaos, double):
    double.errors = {"off": errors.UnprovokedReaction("the remediator did restart api")}

    chaos(EFFECT).assert_outcomes(failed=1)


def test_a_runtime_that_cannot_configure_skips_before_it_performs_an_arm(chaos, double, monkeypatch):
    grant(monkeypatch)
    double.errors = {"off": errors.Unsupported("the local runtime cannot configure, which s with kill api needs")}

    result = chaos(EFFECT + EACH, "-rs")

    result.assert_outcomes(skipped=2, passed=1)
    result.stdout.fnmatch_lines(["*SKIPPED*cannot configure*"])
    assert double.performed == ["kill api off", "kill api on"]


def test_a_plan_has_the_arms_and_their_variables(chaos, double, monkeypatch):
    planned = chaos(EFFECT, "--chaos-plan")
    grant(monkeypatch)
    lacking = chaos(EFFECT, "--chaos-plan")

    planned.stdout.fnmatch_lines(
        [
            "it, arm on: kill api at +0 s; *",
            "it, arm off (api: LAB_BREAKER=off): kill api at +0 s; *",
            "2 trials planned with *",
        ]
    )
    lacking.stdout.fnmatch_lines(["it, arm off *(skipped: needs configure)"])
    assert double.performed == []


def test_a_replay_repeats_both_arms_and_refuses_other_settings(chaos, double, pytester):
    chaos(EFFECT, "--chaos-seed=5").assert_outcomes(passed=1)
    (path,) = pytester.path.glob("reports/2*/run.json")
    path = path.rename(pytester.path / "run.json")

    same, other, less = (
        chaos(EFFECT, f"--chaos-replay={path}"),
        chaos(EFFECT, f"--chaos-replay={path}", off="half"),
        chaos(EACH, f"--chaos-replay={path}", "-k", "on"),
    )

    same.assert_outcomes(passed=1)
    assert "'it' with 'kill api' in arm 'off' differs from the recorded schedule: environment is" in other.stderr.str()
    assert "1 of the 2 recorded trials would not be performed, 'it' with 'kill api' in arm 'off'" in less.stderr.str()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{EFFECT[:-2]}\n\n@experiment(load=LOAD, fault=faults.kill('api'))\ndef test_x(arms): pass\n",
            "*test_it.py::test_x uses `arms`, and its experiment lacks arms: give experiment(arms={...}) two or more, or take*",
        ),
        (
            "def test_x(arms, trial): pass\n",
            "*::test_x uses `trial` and `arms`: use `arms` alone, arms?NAME? is one arm's trial",
        ),
    ],
    ids=["no arms", "both"],
)
def test_a_test_that_cannot_have_arms_is_one_clear_error(chaos, double, text, said):
    result = chaos(text)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([said])
    assert double.performed == []


@pytest.mark.parametrize(("named", "asks"), [("arms", "trial"), ("trial", "arms")])
def test_a_fixture_that_collection_does_not_show_is_an_error(chaos, named, asks):
    result = chaos(f"def test_x(request, {named}):\n    request.getfixturevalue('{asks}')\n")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*without this plugin's `{asks}`: name `{asks}` among*"])


def test_arms_that_no_test_compares_are_performed_for_trials(chaos, double):
    chaos(EACH).assert_outcomes(passed=2)

    assert double.performed == ["kill api on", "kill api off"]


def test_a_fixture_of_the_user_with_that_name_is_their_own(chaos, double):
    own = "@pytest.fixture\ndef arms():\n    return 2\n\ndef test_x(arms, trial):\n    assert arms == 2 and trial.detected_by\n"

    chaos(own).assert_outcomes(passed=2)


def test_the_terminal_and_the_summary_name_the_arm(chaos, pytester):
    result = chaos(EFFECT)

    result.stdout.fnmatch_lines(["✓ held * it: kill api, arm on", "✓ held * it: kill api, arm off"])
    (summary,) = Path(pytester.path).glob("reports/2*/summary.md")
    assert "it, arm off" in summary.read_text()
