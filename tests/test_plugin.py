"""The plugin's options, marks, verdicts and plans, with a double for trials."""

import gc
import json
import os
import re
import subprocess
import sys
import textwrap
import weakref
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from msgspec import to_builtins
from support.fake_runtime import FakeRuntime
from support.plugin_double import SCENARIO, put_double

from pytest_llmchaos import errors, options
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.trial_result import TrialResult
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates, injector
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.model import Proof
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.replay import read_replay
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial.perform import Performed
from pytest_llmchaos.xdist import is_scenario


@pytest.fixture
def double(monkeypatch):
    return put_double(monkeypatch)


@pytest.fixture
def chaos(pytester, double, monkeypatch):
    """Run pytest without other plugins in a new folder.

    A double performs the trials.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(*args, fault='faults.kill("api")', text=SCENARIO, **files):
        pytester.makepyfile(**(files or {"test_scenario": text.format(fault=fault)}))
        # Any runtime will do, and this one needs no check of Docker.
        common = ("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", "-o", "llmchaos_runtime=local")
        return pytester.runpytest_inprocess(*common, *args)

    return run


def test_all_claims_of_a_file_are_judged_by_one_trial(chaos, double):
    chaos().assert_outcomes(passed=2)

    assert double.performed == ["kill api"]


def test_a_list_of_faults_is_one_trial_each_with_readable_ids(chaos, double):
    result = chaos("-v", fault='[faults.kill("api"), faults.kill("model-1")]')

    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_one?kill api?*", "*test_two?kill model-1?*"])
    assert double.performed == ["kill api", "kill model-1"]


def test_the_chosen_runtime_and_its_reason_are_printed(chaos, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")

    chosen, asked, quiet = chaos("--chaos-runtime=auto"), chaos("--chaos-runtime=local"), chaos("-q")

    nobody = "no Docker daemon answers at unix:///nonexistent/docker.sock"
    chosen.stdout.fnmatch_lines([f"llmchaos: runtime local ({nobody}), backend llamacpp, run *"])
    asked.stdout.fnmatch_lines(["llmchaos: runtime local (as configured), backend llamacpp, run *"])
    quiet.stdout.no_fnmatch_line("llmchaos: runtime*")


def test_repeat_performs_every_trial_again(chaos, double):
    chaos("--chaos-repeat=3").assert_outcomes(passed=6)

    assert double.performed == ["kill api"] * 3


def test_a_claim_that_does_not_hold_fails_and_shows_its_values(chaos, double):
    double.repaired_by = "unknown"

    result = chaos()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*'unknown' == 'remediator'*"])


def test_a_control_arm_that_its_judge_refutes_fails_and_is_no_error(chaos, double):
    double.error = errors.UnprovokedReaction("outside of any fault the remediator did restart api by rule x")

    result = chaos(fault="faults.none()")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*outside of any fault the remediator did restart api by rule x*"])


def test_a_trial_that_proves_nothing_is_an_error_for_every_claim_and_never_a_pass(chaos, double):
    double.error = errors.FaultNotObserved("kill api: no witness saw it")

    result = chaos()

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*FaultNotObserved: kill api: no witness saw it*"])
    assert double.performed == ["kill api"]


class Large:
    """A trial's results, which are as large as its samples."""


@pytest.mark.parametrize("ends_badly", [False, True])
def test_after_its_last_claim_nothing_holds_a_trial_s_numbers(chaos, double, monkeypatch, ends_badly):
    perform, held, alive = double.perform, [], []

    def performed(campaign, plan):
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        large = Large()
        held.append(weakref.ref(large))
        if not ends_badly:
            trial = perform(campaign, plan)
            object.__setattr__(trial.trial, "windows", {"whole": large})
            return trial
        try:
            raise errors.FaultNotObserved("no witness saw it")
        except errors.FaultNotObserved as error:
            return Performed(name="001", error=error)

    monkeypatch.setattr(double, "perform", performed)

    chaos(**{f"test_{name}": SCENARIO.format(fault='faults.kill("api")') for name in ("first", "second", "third")})
    assert alive == [0, 0, 0]


def test_missing_data_found_inside_a_claim_is_an_error_too(chaos):
    text = SCENARIO + '\ndef test_three(trial):\n    assert trial.slo("gone").value > 0\n'

    result = chaos(text=text)

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*NoData: no data for gone*"])


@pytest.mark.parametrize("wrong", ['trial.slo("availabilty").value > 0', "loads.open_loop(rate_rps=0)"])
def test_a_wrong_argument_inside_a_claim_is_an_error_too(chaos, wrong):
    text = SCENARIO + f"\ndef test_three(trial):\n    assert {wrong}\n"

    result = chaos(text=text)

    result.assert_outcomes(passed=2, errors=1)
    assert any(line.startswith("BadScenario: ") for line in result.outlines)


def test_a_value_that_does_not_exist_because_the_system_failed_is_a_failure(chaos):
    text = SCENARIO + "\ndef test_three(trial):\n    assert trial.time_to_recover_s <= 20\n"

    result = chaos(text=text)

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*NotRecovered: still down*"])


def test_a_junit_file_has_the_verdict_of_each_claim(chaos, double, monkeypatch, pytester):
    perform = double.perform
    monkeypatch.setattr(
        double, "perform", lambda *args: replace(perform(*args), result=TrialResult(trial="001", verdict="held"))
    )
    double.repaired_by = "unknown"

    chaos("--junitxml=claims.xml")

    cases = ET.parse(pytester.path / "claims.xml").iter("testcase")
    assert {case.get("name"): case.find(".//property[@name='llmchaos_verdict']").get("value") for case in cases} == {
        "test_one": "held",
        "test_two": "refuted",
    }


@pytest.fixture
def on_a_fake(chaos, monkeypatch, tmp_path):
    """`chaos` with a lab on a fake runtime, without a load generator and open gates."""

    def judged(_lab, record, _load, _injected):
        return record.seen()

    def lab(run):
        run._lab = run._lab or Lab(
            runtime=FakeRuntime(),
            subject=replace(lab_subject("sim"), pushgateway=None, remediator=None),
            journal=run.journal,
            directory=run.settings.directory,
            seed=run.settings.seed,
            say=lambda *_: None,
            judge=judged,
            test=run.test,
        )
        return run._lab

    class Clients:
        pid, t0_unix_s, t0_monotonic_s = 1, 0.0, 0.0

        def __init__(self, *_, **__):
            self.launch = self.start = self.stop = self.check_alive = lambda **_: None

    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )
    monkeypatch.setattr(Run, "lab", lab)
    monkeypatch.setattr("pytest_llmchaos.lab.lab.RunningLoad", Clients)
    monkeypatch.setattr(gates, "require_clean", lambda _: None)
    monkeypatch.setattr(Lab, "read_clocks", lambda _: None)
    monkeypatch.setattr(injector, "prove_reverted", lambda *_: Proof(step="healed", witness="-", at_unix_s=0.0))
    monkeypatch.setattr(Kill, "observed", lambda *_: Proof(step="injected", witness="-", at_unix_s=0.0))
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")

    def run(text, *args):
        head = (
            "import pytest\nfrom pytest_llmchaos import faults, loads\nfrom pytest_llmchaos.errors import LoadNotHeld\n"
        )
        head += "LOAD = loads.open_loop(rate_rps=2)\n"
        return chaos("--chaos-backend=sim", *args, test_odd=head + text)

    return run


def test_a_load_outside_a_trial_is_judged_by_its_test(on_a_fake, pytester):
    result = on_a_fake(
        """
def test_good(lab):
    '''It holds.'''
    with lab.load(LOAD), lab.inject(faults.kill("api")):
        pass

def test_wrong(lab):
    with lab.load(LOAD):
        assert 1 == 2

def test_late(lab):
    with lab.load(LOAD):
        raise LoadNotHeld("late")

def test_skipped(lab):
    with lab.load(LOAD):
        pytest.skip("not today")
""",
        "--junitxml=odd.xml",
    )

    result.assert_outcomes(passed=1, failed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "✓ held * test_odd.py::test_good: kill api*",
            "✗ refuted * test_odd.py::test_wrong: none*assert 1 == 2*",
            "∅ invalid * test_odd.py::test_late: none*LoadNotHeld: late*",
            "∅ invalid * test_odd.py::test_skipped: none*not judged by test_odd.py::test_skipped: not today*",
        ]
    )
    run = next(pytester.path.glob("reports/*/run.json"))
    trials = json.loads(run.read_text())["trials"]
    assert trials[0]["hypothesis"] == "It holds."
    assert [[claim["nodeid"] for claim in trial["claims"]] for trial in trials] == [
        [trial["scenario"]] for trial in trials
    ]
    cases = ET.parse(pytester.path / "odd.xml").iter("testcase")
    shown = {case.get("name"): {one.get("name"): one.get("value") for one in case.iter("property")} for case in cases}
    assert shown["test_good"]["llmchaos_fault"] == "kill api"
    assert {name: of["llmchaos_verdict"] for name, of in shown.items()} == {
        "test_good": "held",
        "test_wrong": "refuted",
        "test_late": "invalid",
        "test_skipped": "invalid",
    }


def test_a_load_outside_a_trial_is_refuted_by_an_assertion_alone(on_a_fake, pytester):
    result = on_a_fake(
        """
def test_broken(lab):
    with lab.load(LOAD):
        {}["x"]

def test_thrown_away(lab):
    with lab.load(LOAD):
        1 == 2

def test_plain(lab):
    {}["x"]
"""
    )

    result.assert_outcomes(errors=2, failed=1)
    run = next(pytester.path.glob("reports/*/run.json"))
    assert [(trial["verdict"], trial["reason"]) for trial in json.loads(run.read_text())["trials"]] == [
        ("invalid", "the claim raised an error before its assertion: KeyError: 'x'"),
        ("invalid", "VacuousClaim: line 12 compares and discards the result: write `assert 1 == 2`"),
    ]


def test_a_block_of_the_lab_that_is_not_entered_is_an_error_and_no_pass(on_a_fake):
    result = on_a_fake(
        """
def test_load(lab):
    lab.load(LOAD)

def test_inject(lab):
    lab.inject(faults.kill("api"))

def test_kept(lab):
    load = lab.load(LOAD)
    with load:
        pass

def test_compared(lab):
    lab.slos == ("x",)
"""
    )

    result.assert_outcomes(errors=3, passed=1)
    vacuous = "test_odd.py: VacuousClaim: line"
    result.stdout.fnmatch_lines_random(
        [
            f"{vacuous} 7 does nothing without `with`: write `with lab.load(LOAD): ...`",
            f"{vacuous} 10 does nothing without `with`: write `with lab.inject(faults.kill('api')): ...`",
            f"{vacuous} 18 compares and discards the result: write `assert lab.slos == ('x',)`",
        ]
    )


def test_a_claim_that_is_expected_to_fail_lets_nothing_hold(on_a_fake, pytester):
    result = on_a_fake(
        """
@pytest.mark.xfail(reason="known")
def test_known(lab):
    with lab.load(LOAD):
        assert 1 == 2
"""
    )

    result.assert_outcomes(xfailed=1)
    run = next(pytester.path.glob("reports/*/run.json"))
    (trial,) = json.loads(run.read_text())["trials"]
    assert [claim["outcome"] for claim in trial["claims"]] == ["skipped"]
    assert trial["verdict"] == "invalid"


@pytest.mark.parametrize("first", ["unasked", "asked"])
def test_a_claim_that_ended_before_its_trial_counts_as_its_claim(chaos, monkeypatch, pytester, first):
    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )
    asked = SCENARIO.partition("def test_two")[0]
    unasked = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no disk")

def test_broken(broken, trial):
    pass

@pytest.mark.skip(reason="not today")
def test_skipped(trial):
    pass
"""
    head, sep, body = asked.partition("def test_one")
    text = head + unasked + sep + body if first == "unasked" else asked + unasked

    chaos(text=text).assert_outcomes(passed=1, errors=1, skipped=1)

    run = next(pytester.path.glob("reports/*/run.json"))
    (trial,) = json.loads(run.read_text())["trials"]
    assert sorted((claim["nodeid"].split("::")[1], claim["outcome"]) for claim in trial["claims"]) == [
        ("test_broken", "error"),
        ("test_one", "passed"),
        ("test_skipped", "skipped"),
    ]


def test_a_gate_that_makes_a_test_void_does_not_hide_what_the_test_had_found(on_a_fake, pytester):
    result = on_a_fake(
        """
def test_it(lab):
    try:
        with lab.load(LOAD):
            assert 1 == 2
    finally:
        raise LoadNotHeld("late")
"""
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["LoadNotHeld: late", "before that, the test had failed: AssertionError: assert 1 == 2"]
    )


DRAWS = """
def draw(lab, what):
    with lab.load(loads.poisson(rate_rps=5)), lab.inject(faults.kill("model-*")) as injected:
        pass
    with open("drawn.txt", "a") as file:
        file.write(f"{what} {injected.victims[0]}\\n")

@pytest.fixture(scope="module", params=range(6))
def shared(lab, request):
    draw(lab, f"shared {request.param}")

@pytest.fixture
def own(lab, request):
    draw(lab, f"own of {request.node.name}")

@pytest.mark.parametrize("number", range(8))
def test_one(lab, own, number):
    for again in range(2):
        draw(lab, f"one {number} {again}")

def test_two(lab, shared):
    pass

def test_three(lab, shared):
    pass
"""


def test_what_lab_draws_depends_on_neither_order_nor_selection(on_a_fake, pytester):
    def drawn(*args, text=DRAWS):
        (pytester.path / "drawn.txt").unlink(missing_ok=True)
        assert on_a_fake(text, "--chaos-seed=7", *args).ret == 0
        return set((pytester.path / "drawn.txt").read_text().splitlines())

    whole = drawn()
    swapped = DRAWS.replace("test_two", "test_2").replace("test_three", "test_two").replace("test_2", "test_three")

    assert len({line.split()[-1] for line in whole}) == 2
    assert drawn("-k", "test_three") | drawn("-k", "test_one and 5") < whole
    assert drawn(text=swapped) == whole
    assert drawn("--chaos-seed=8") != whole


RUNS_AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for report in [*runtestprotocol(item, nextitem=nextitem, log=False), *runtestprotocol(item, nextitem=nextitem, log=False)]:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_a_test_with_a_lab_is_not_run_again_so_that_no_second_load_hides_the_first(on_a_fake, pytester):
    """pytest-rerunfailures runs tests again as this conftest.py does."""
    pytester.makeconftest(RUNS_AGAIN)

    result = on_a_fake(
        """
def test_without_a_lab():
    assert 1 == 2

def test_it(lab):
    with lab.load(LOAD):
        pass
    assert 1 == 2

def test_open(lab, load):
    assert 1 == 2

@pytest.fixture(scope="module")
def load(lab):
    with lab.load(LOAD):
        yield
""",
        "--junitxml=odd.xml",
    )

    result.assert_outcomes(failed=4)  # the one without a lab twice
    run = next(pytester.path.glob("reports/*/run.json"))
    trials = json.loads(run.read_text())["trials"]
    assert [[claim["nodeid"] for claim in trial["claims"]] for trial in trials] == [
        ["test_odd.py::test_it"],
        ["test_odd.py::test_open"],
    ]
    assert trials[1]["scenario"] == "test_odd.py::load"
    cases = [case.get("name") for case in ET.parse(pytester.path / "odd.xml").iter("testcase")]
    assert cases.count("test_it") == cases.count("test_open") == 1


def test_a_need_that_the_runtime_lacks_is_a_skip_that_names_it(chaos, double):
    double.error = errors.Unsupported("the local runtime cannot partition, which this fault needs")

    result = chaos("-rs")

    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*cannot partition*"])


def test_a_need_that_the_runtime_lacks_is_a_skip_for_a_load_outside_a_trial_too(on_a_fake):
    result = on_a_fake(
        """
def test_it(lab):
    lab.runtime.abilities = frozenset()
    with lab.load(LOAD), lab.inject(faults.kill("api")):
        pass
""",
        "-rs",
    )

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*test_odd.py:*the fake runtime cannot *, which this fault needs"])


def test_a_failed_revert_stops_the_session(chaos, double):
    one = SCENARIO.format(fault='faults.kill("api")')
    double.error = errors.HealFailed("could not undo")

    result = chaos(test_a=one, test_b=one)

    result.stdout.fnmatch_lines(["*heal_failed: could not undo*"])
    assert double.performed == ["kill api"]
    assert result.ret != 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("    raise HealFailed('api stays down')", "heal_failed: api stays down", id="a failed revert"),
        pytest.param(
            "    raise EvidenceLost('the disk is full')", "evidence lost: the session stops", id="lost evidence"
        ),
        pytest.param(
            "    try:\n        raise HealFailed('api stays down')\n    finally:\n        raise ValueError('the load broke off')",
            "heal_failed: api stays down",
            id="a failed revert behind another error",
        ),
        pytest.param(
            "    raise ExceptionGroup('teardown', [ValueError(), HealFailed('api stays down')])",
            "heal_failed: api stays down",
            id="a failed revert in a group",
        ),
    ],
)
@pytest.mark.parametrize("where", ["test", "setup", "teardown"])
def test_after_a_failed_revert_or_lost_evidence_nothing_more_runs(chaos, double, body, reason, where):
    head = "import pytest\nfrom pytest_llmchaos.errors import EvidenceLost, HealFailed\n\n"
    fixture = {"setup": f"{body}\n    yield", "teardown": f"    yield\n{body}"}.get(where, "    yield")
    test = body if where == "test" else "    pass"
    first = f"{head}@pytest.fixture\ndef around():\n{fixture}\n\ndef test_it(around):\n{test}\n"

    result = chaos(test_a=first, test_b=SCENARIO.format(fault='faults.kill("api")'))

    result.stdout.fnmatch_lines([f"*{reason}*"])
    assert double.performed == []
    assert result.ret != 0


def test_other_errors_of_a_test_stop_nothing(chaos, double):
    first = "from pytest_llmchaos.errors import NotReady\n\ndef test_it():\n    raise NotReady('no engine')\n"

    chaos(test_a=first, test_b=SCENARIO.format(fault='faults.kill("api")')).assert_outcomes(errors=1, passed=2)

    assert double.performed == ["kill api"]


@pytest.mark.parametrize("seed", [("--chaos-seed=9",), ("--chaos-seed", "9"), ("--llmchaos-seed", "9")], ids=" ".join)
def test_the_terminal_shows_the_findings_and_the_line_that_repeats_them(chaos, double, monkeypatch, seed):
    """A failing campaign, journalled as on a stack and performed by the double."""

    def perform(campaign, plan):
        journal = campaign.run.journal
        planned = {"trial": "001", "scenario": plan.scenario, "fault": str(plan.fault), "repeat": plan.repeat}
        journal.write(lines.TrialBegin(samples="", **planned))
        journal.write(lines.Judged(verdict="held", time_to_detect_s=1.5, detected_by="alert X", **planned))
        return double.perform(campaign, plan)

    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )
    monkeypatch.setattr(Campaign, "_perform", perform)
    double.repaired_by = "unknown"

    result = chaos("--chaos-runtime=compose", "--chaos-backend=sim", *seed, "-k", "test_one or test_two")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*= reliability =*",
            "✗ refuted *scenario: kill api*detected 1.5 s (alert X)*assert 'unknown' == 'remediator'*",
            "1 of 1 refuted (simulated engine)",
            "repeat: pytest *--chaos-runtime=compose --chaos-backend=sim -k 'test_one or test_two' --*chaos-seed=9",
            "report: *report.html",
        ]
    )


def test_claims_of_a_scenario_share_a_scope_and_other_tests_are_spread(tmp_path):
    (tmp_path / "test_chaos.py").write_text("from pytest_llmchaos import experiment\n")
    (tmp_path / "test_plain.py").write_text("def test_it(): ...\n")

    assert is_scenario(tmp_path / "test_chaos.py")
    assert not is_scenario(tmp_path / "test_plain.py")
    assert not is_scenario(tmp_path / "gone.py")


def test_the_plan_is_printed_and_nothing_is_performed(chaos, double):
    result = chaos("--chaos-plan", "--chaos-seed=42")

    result.stdout.fnmatch_lines(
        ["*scenario: kill api at +0 s*", "*1 trial planned with --chaos-seed=42; nothing was touched*"]
    )
    assert double.performed == []
    assert result.ret == 0


@pytest.mark.parametrize(
    ("fault", "arguments", "says"),
    [
        ('faults.hang("model-1")', ("--chaos-backend=sim",), ""),
        ('faults.hang("model-1")', ("--chaos-runtime=compose", "--chaos-backend=ollama"), " (skipped: needs engine)"),
        ('faults.memory_leak("model-1")', ("--chaos-backend=sim",), " (skipped: needs oom_kill)"),
        ('faults.memory_leak("model-1")', (), " (skipped: needs engine, oom_kill)"),
        ('faults.memory_leak("model-1")', ("--chaos-runtime=compose", "--chaos-backend=sim"), ""),
        ('faults.overload("api"), fault_s=5', (), ""),
    ],
)
def test_the_plan_names_skipped_trials_and_their_reasons(chaos, fault, arguments, says):
    result = chaos("--chaos-plan", "--chaos-seed=42", *arguments, fault=fault)

    (line,) = [line for line in result.outlines if " arrivals " in line]
    assert result.ret == 0
    assert line.partition(" (")[1] + line.partition(" (")[2] == says


def test_the_same_seed_prints_the_same_plan_whatever_is_selected_and_in_any_order(chaos, pytester):
    fault = 'faults.random(n=3, among=[faults.kill("api"), faults.kill("model-*")], within_s=20)'
    files = {f"test_{name}": SCENARIO.format(fault=fault) for name in "ab"}

    def plan(*args):
        result = chaos("--chaos-plan", "--chaos-seed=7", *args, **files)
        return [line for line in result.outlines if " arrivals " in line]

    everything = plan()
    assert len(everything) == 2
    assert plan("test_b.py", "test_a.py") == everything
    assert plan("-k", "test_a") == everything[:1]
    shuffled = pytester.runpytest_inprocess(
        "-p", "pytest_llmchaos.plugin", "--chaos-plan", "--chaos-seed=7", "-p", "pytest_randomly"
    )
    assert [line for line in shuffled.outlines if " arrivals " in line] == everything


def test_a_plan_performs_nothing_without_a_terminal(chaos, double):
    chaos("--chaos-plan", "-p", "no:terminal")

    assert double.performed == []


def test_the_canonical_names_work_as_well(chaos):
    chaos("--llmchaos-plan", "--llmchaos-seed=42").stdout.fnmatch_lines(["*--llmchaos-seed=42; nothing was touched*"])
    wrong = chaos("--llmchaos-repeat=0").stderr.str()
    assert "--llmchaos-repeat must be a whole number from 1 to 1000, got '0'" in wrong


@pytest.mark.sampled(share=0.5)
@pytest.mark.parametrize("registers", ["installed", "installed in a group", "later", "later in a group"])
def test_an_alias_that_another_plugin_owns_is_given_up(pytester, monkeypatch, registers):
    """Plugins of PYTEST_PLUGINS are loaded after all that are installed."""
    if registers.startswith("installed"):
        about = pytester.mkdir("other_chaos-1.0.dist-info")
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-chaos\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[pytest11]\nother_chaos = other_chaos\n")
    else:
        monkeypatch.setenv("PYTEST_PLUGINS", "other_chaos")
    where = 'parser.getgroup("other")' if registers.endswith("group") else "parser"
    pytester.makepyfile(
        other_chaos=f"""
        def pytest_addoption(parser):
            {where}.addoption("--chaos-seed", default=None)

        def pytest_report_header(config):
            return f"other chaos: {{config.getoption('--chaos-seed')}}"
        """,
        test_scenario=SCENARIO.format(fault='faults.kill("api")'),
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)

    result = pytester.runpytest_subprocess(
        "-p", "no:locust", "--chaos-seed=theirs", "--llmchaos-seed=3", "--chaos-runtime=local", "--chaos-plan"
    )

    assert result.ret == 0
    result.stdout.fnmatch_lines_random(
        [
            "other chaos: theirs",
            "llmchaos: --llmchaos-seed=3, runtime local, *",
            "1 trial planned with --llmchaos-seed=3; nothing was touched",
        ]
    )


def test_a_value_after_a_blank_is_no_path_so_that_testpaths_keeps_its_conftest(pytester):
    """With a path, pytest does not read the conftest.py files of `testpaths`."""
    pytester.makeini("[pytest]\ntestpaths = checks\nllmchaos_runtime = local\n")
    folder = pytester.mkdir("checks")
    (folder / "conftest.py").write_text("def pytest_addoption(parser):\n    parser.addoption('--theirs')\n")
    (folder / "test_scenario.py").write_text(SCENARIO.format(fault='faults.kill("api")'))

    result = pytester.runpytest_inprocess("--chaos-seed", "42", "--theirs=x", "--chaos-plan")

    result.stdout.fnmatch_lines(["1 trial planned with --chaos-seed=42; nothing was touched"])


def test_a_plugin_that_a_conftest_names_has_its_options(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest("pytest_plugins = ['pytest_llmchaos.plugin']")
    pytester.makepyfile(SCENARIO.format(fault='faults.kill("api")'))

    result = pytester.runpytest_inprocess("--chaos-seed=42", "--chaos-plan", "-o", "llmchaos_runtime=local")

    result.stdout.fnmatch_lines(["1 trial planned with --chaos-seed=42; nothing was touched"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--chaos-seed=forty"], "--chaos-seed must be a whole number*'forty'"),
        (["--chaos-seed="], "--chaos-seed must be a whole number*''"),
        (["--chaos-seed=-1"], "--chaos-seed must be a whole number from 0*'-1'"),
        (["--chaos-seed=1.5"], "--chaos-seed must be a whole number*'1.5'"),
        (["--chaos-backend=gpt"], "--chaos-backend must be one of ollama, llamacpp, sim, got 'gpt'"),
        (["--chaos-runtime=k8s"], "--chaos-runtime must be one of auto, compose, local, got 'k8s'"),
        (["--chaos-repeat=0"], "--chaos-repeat must be a whole number from 1 to 1000, got '0'"),
        (["--chaos-repeat=-2"], "--chaos-repeat must be a whole number from 1 to 1000, got '-2'"),
        (["--chaos-repeat=1.5"], "--chaos-repeat must be a whole number from 1 to 1000, got '1.5'"),
        (["--chaos-repeat=1001"], "--chaos-repeat must be a whole number from 1 to 1000, got '1001'"),
        (["--chaos-repeat=\u00b2"], "--chaos-repeat must be a whole number from 1 to 1000, got '\u00b2'"),
        (["--chaos-replay=none.json"], "cannot read none.json"),
        (["--chaos-replay=."], "cannot read .: Is a directory"),
        (["-o", "llmchaos_runtime=k8s"], "llmchaos_runtime must be one of auto, compose, local, got 'k8s'"),
        (["-o", "llmchaos_backend=gpt"], "llmchaos_backend must be one of ollama, llamacpp, sim, got 'gpt'"),
        (["-o", "llmchaos_attach=maybe"], "llmchaos_attach must be true or false: invalid truth value 'maybe'"),
        (["-o", "llmchaos_attach=true"], "llmchaos_attach needs llmchaos_compose"),
        (["-o", "llmchaos_slo=slo.yaml"], "llmchaos_slo needs llmchaos_compose"),
        (["-o", "llmchaos_api=web"], "llmchaos_api needs llmchaos_compose"),
        (["-o", "llmchaos_compose=none.yaml"], "llmchaos_api is missing, the service that takes the clients' requests"),
        (["-o", "llmchaos_tokens_per_s=many"], "llmchaos_tokens_per_s must be a number: *many"),
        (["-o", "llmchaos_services=api: web"], "llmchaos_services is not an ini key: each role has its own, so write"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_clear_error(chaos, double, args, message):
    result = chaos(*args)

    result.stderr.fnmatch_lines([f"ERROR: *{message}*"])
    assert result.stderr.str().count("ERROR") == 1
    assert "INTERNALERROR" not in result.stdout.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert double.performed == []


def test_evidence_that_cannot_be_written_is_one_clear_error_before_anything_starts(
    chaos, double, monkeypatch, tmp_path
):
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr(
        Campaign, "preflight", lambda self: self.run.announce([trial.entry for trial in self.schedule()])
    )

    result = chaos("--chaos-runtime=compose", f"--chaos-report={tmp_path / 'taken'}")

    result.stderr.fnmatch_lines(
        ["ERROR: cannot write the run's evidence to *taken/*: Not a directory; give a writable folder*"]
    )
    assert double.performed == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            'faults.kill("worker-9")',
            "test_scenario.py: scenario 'scenario', kill worker-9: target 'worker-9' matches no service*api, model-1, model-2",
        ),
        ('faults.kill("api"), steady_s=0', "steady_s=...) must be a number of seconds from 1 to 3600, got 0"),
    ],
)
def test_a_wrong_scenario_is_one_clear_error_before_anything_starts(chaos, double, fault, message):
    result = chaos(fault=fault)

    assert result.ret != 0
    assert any(message.split("*")[0] in line for line in [*result.outlines, *result.errlines])
    assert double.performed == []


def test_a_file_that_cannot_be_collected_ends_the_session_before_it_writes_a_folder(chaos, pytester, monkeypatch):
    monkeypatch.setattr(Campaign, "preflight", lambda self: self.run.announce([]))
    files = {"test_scenario": SCENARIO.format(fault='faults.kill("api")'), "test_wrong": "import nothing_of_the_sort"}

    assert chaos(**files).ret == 2
    assert not (pytester.path / "reports").exists()

    chaos("--continue-on-collection-errors", **files).assert_outcomes(passed=2, errors=1)
    assert (pytester.path / "reports/latest").exists()


def test_a_file_that_the_machine_refuses_is_one_line(chaos, double, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", "/home/me/.cache")

    monkeypatch.setattr(Campaign, "preflight", refuse)

    result = chaos()

    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: the run cannot be prepared: /home/me/.cache: Permission denied"])


def test_a_trial_without_an_experiment_is_an_error_that_shows_what_to_add(chaos):
    result = chaos(test_bare="def test_bare(trial):\n    assert trial\n")

    assert "lacks an experiment: add `pytestmark = pytest_llmchaos.experiment" in result.stderr.str()


HEAD = """
    import pytest
    from pytest_llmchaos import experiment, faults, loads
    one, other = (experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill(name)) for name in ("api", "model-1"))
"""
TWO = "has 2 experiments, and one trial performs one: give one experiment fault=[...] for several faults, or each experiment its own test"


WRITE = " write `pytestmark = pytest_llmchaos.experiment(load=..., fault=...)`"


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("pytestmark = [one, other]\ndef test_it(trial): pass", TWO),
        ("@one\n@other\ndef test_it(trial): pass", TWO),
        ("@one\n@pytest.mark.parametrize('a', [pytest.param(1, marks=other)])\ndef test_it(trial, a): pass", TWO),
        (
            "@pytest.mark.llmchaos(experiment='hello')\ndef test_it(trial): pass",
            "takes an experiment, got 'hello';" + WRITE,
        ),
        ("@pytest.mark.llmchaos\ndef test_it(trial): pass", "takes an experiment, got None;" + WRITE),
        ("@one\n@pytest.mark.llmchaos(8)\ndef test_it(trial): pass", "takes an experiment, got 8;" + WRITE),
    ],
)
def test_a_mark_that_is_not_one_experiment_is_one_clear_error(chaos, double, scenario, message):
    result = chaos(test_marks=textwrap.dedent(HEAD) + scenario)

    assert result.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED}
    assert [line for line in [*result.outlines, *result.errlines] if line.endswith(message)]
    assert "Traceback" not in result.stdout.str()
    assert "plugin.py:" not in result.stdout.str()
    assert double.performed == []


@pytest.mark.parametrize(
    ("scenario", "where"),
    [
        ("pytestmark = one\ndef test_it(lab): pass", "test_never.py"),
        ("pytestmark = one\ndef test_it(): pass", "test_never.py"),
        ("pytestmark = one\ndef kill_api_is_detected(trial): assert trial.detected_by", "test_never.py"),
        ("@one\nclass TestIt:\n    def test_it(self, lab): pass", "test_never.py::TestIt"),
        ("@one\ndef test_it(lab): pass\n\n@other\ndef test_b(trial): pass", "test_never.py::test_it"),
        (
            "@pytest.mark.parametrize('a', [pytest.param(1, marks=one)])\ndef test_it(a): pass",
            "test_never.py::test_it[1]",
        ),
    ],
)
def test_an_experiment_that_no_test_uses_is_one_clear_error(chaos, double, scenario, where):
    result = chaos(test_never=textwrap.dedent(HEAD) + scenario)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    said = f"{where.replace('[', '[[]')} has an experiment that is never performed, because no test uses its `trial`: name `trial` among*"
    result.stdout.fnmatch_lines([said])
    assert double.performed == []


@pytest.mark.parametrize(
    "scenario",
    [
        "pytestmark = one\ndef test_it(trial): trial.victims\n\ndef test_odd(): pass",
        "pytestmark = one\nclass TestIt:\n    def test_it(self, trial): trial.victims",
        "pytestmark = one\n@pytest.fixture\ndef mine(trial): return trial.victims\n\ndef test_it(mine): pass",
        "@one\nclass TestIt:\n    class TestPart:\n        def test_it(self, trial): trial.victims",
    ],
)
def test_an_experiment_that_one_test_uses_is_performed(chaos, double, scenario):
    assert chaos(test_never=textwrap.dedent(HEAD) + scenario).ret == 0

    assert double.performed == ["kill api"]


@pytest.mark.parametrize(
    "scenario",
    [
        "pytestmark = one\n@other\ndef test_it(trial): trial.victims",
        "@other\n@other\ndef test_it(trial): trial.victims",
    ],
    ids=["of the file and of the test", "the same one twice"],
)
def test_the_experiment_of_the_test_itself_is_the_one_performed(chaos, double, scenario):
    chaos(test_marks=textwrap.dedent(HEAD) + scenario).assert_outcomes(passed=1)

    assert double.performed == ["kill model-1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("null", "schema 'NoneType'"),
        ("[]", "schema 'list'"),
        ("{}", "schema None"),
        ('{"schema": "other/1"}', "schema 'other/1', expected 'llmchaos-run/1'"),
        ('{"schema": "llmchaos-run/2", "seed": 1, "schedule": []}', "schema 'llmchaos-run/2'"),
        ('{"schema": "llmchaos-run/1"}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": 1}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": "x", "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": null, "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": true, "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": 1.5, "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": -1, "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": 9223372036854775808, "schedule": []}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": 1, "schedule": {}}', "has no seed or schedule"),
        ('{"schema": "llmchaos-run/1", "seed": 1, "schedule": [1]}', "has no seed or schedule"),
    ],
    ids=lambda value: value[:60],
)
def test_a_replay_of_something_else_is_refused(tmp_path, text, message):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(BadScenario, match=message):
        read_replay(path)


def test_a_replay_of_a_folder_is_refused(tmp_path):
    with pytest.raises(BadScenario, match="Is a directory; give the run"):
        read_replay(tmp_path)


@pytest.fixture
def recorded(chaos, tmp_path):
    """The part of a run.json for a replay, with seed 5 and the plan of `fault`."""

    def record(fault='faults.kill("api")', **more):
        campaigns = []
        original = Campaign.take

        def take(campaign, plans, recorded=None):
            original(campaign, plans, recorded)
            campaigns.append(campaign)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Campaign, "take", take)
            chaos("--chaos-plan", "--chaos-seed=5", fault=fault)
        path = tmp_path / "run.json"
        run = {
            "schema": "llmchaos-run/1",
            "seed": 5,
            "runtime": campaigns[0].settings.runtime,
            "backend": campaigns[0].settings.backend,
            "schedule": to_builtins([trial.entry for trial in campaigns[0].schedule()]),
        } | more
        path.write_text(json.dumps(run))
        return f"--chaos-replay={path}"

    return record


def test_a_replay_takes_the_recorded_seed_and_performs_the_same(chaos, double, recorded):
    result = chaos(recorded())

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["llmchaos: --chaos-seed=5,*"])
    assert double.performed == ["kill api"]


@pytest.mark.parametrize(
    ("fault", "difference"),
    [
        (
            'faults.kill("model-1")',
            "'scenario' with 'kill model-1' differs from the recorded schedule: it has no repeat 0 of this trial",
        ),
        ('faults.kill("api"), steady_s=9', "phases is {'steady_s': 9.0, 'fault_s': None"),
        ('faults.kill("api"), remediator=False', "remediator is False, was True"),
    ],
)
def test_a_scenario_that_was_changed_since_is_refused(chaos, double, recorded, fault, difference):
    result = chaos(recorded(), fault=fault)

    assert difference in result.stderr.str()
    assert double.performed == []
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(("name", "was"), [("runtime", "elsewhere"), ("backend", "another")])
def test_a_run_on_another_runtime_or_backend_is_refused_with_the_option(chaos, double, recorded, name, was):
    result = chaos(recorded(**{name: was}))

    result.stderr.fnmatch_lines(
        [f"*--chaos-replay: the {name} is *, but the recorded run had {was}: give --chaos-{name}={was}"]
    )
    assert double.performed == []
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_run_that_names_neither_runtime_nor_backend_is_performed(chaos, double, recorded):
    chaos(recorded(runtime=None, backend=None)).assert_outcomes(passed=2)


def test_a_recorded_trial_that_is_not_selected_is_refused(chaos, double, recorded, tmp_path):
    option = recorded()
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    run["schedule"].append(run["schedule"][0] | {"scenario": "left_out"})
    path.write_text(json.dumps(run))

    result = chaos(option)

    said = result.stderr.str()
    assert "1 of the 2 recorded trials would not be performed, 'left_out' with 'kill api': select the same" in said
    assert double.performed == []


def test_a_victim_that_was_recorded_otherwise_is_refused(chaos, double, recorded, tmp_path):
    option = recorded('faults.kill("model-*")')
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    (act,) = run["schedule"][0]["injections"]
    act["victim"] = "model-2" if act["victim"] == "model-1" else "model-1"
    path.write_text(json.dumps(run))

    result = chaos(option, fault='faults.kill("model-*")')

    assert "injections is [{'after_s': 0.0, 'fault': 'kill', 'victim': " in result.stderr.str()
    assert double.performed == []


def test_a_seed_next_to_a_replay_must_be_the_recorded_one(chaos, double, recorded):
    option = recorded()

    other = chaos(option, "--chaos-seed=6")
    assert "--chaos-seed=6 contradicts --chaos-replay=" in other.stderr.str()
    assert "which has the seed 5: drop one of them" in other.stderr.str()
    assert double.performed == []

    chaos(option, "--chaos-seed=5").assert_outcomes(passed=2)


def test_more_repeats_than_were_recorded_are_refused(chaos, double, recorded):
    result = chaos(recorded(), "--chaos-repeat=2")

    assert "differs from the recorded schedule: it has no repeat 1 of this trial" in result.stderr.str()
    assert double.performed == []


def test_help_teaches_each_option_in_a_sentence(pytester):
    shown = pytester.runpytest_inprocess("--help", "-p", "no:locust").stdout.str()

    for name, _, text in options.OPTIONS:
        assert f"--llmchaos-{name}" in shown
        assert f"--chaos-{name}" in shown
        assert text in " ".join(shown.split())
        assert re.fullmatch(r"[A-Z].+\.", text)


HEAVY = {
    *("docker", "testcontainers", "locust", "gevent", "httpx", "requests", "prometheus_client", "yaml", "jinja2"),
    *(
        f"pytest_llmchaos.{name}"
        for name in (
            "faults",
            "loads",
            "model",
            "subject.own_stack",
            "plan.experiment",
            "session.campaign",
            "lab.lab",
            "report",
        )
    ),
    "pytest_llmchaos.chaos_session",
}


def test_importing_the_plugin_pulls_in_nothing_heavy():
    code = f"import sys, pytest, pytest_llmchaos.plugin; print(sorted({HEAVY!r} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_nor_does_a_whole_session_without_scenarios(pytester):
    pytester.makeconftest(
        f"import sys\n\ndef pytest_unconfigure():\n    print('heavy:', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    pytester.makepyfile("def test_it():\n    pass\n")

    result = pytester.runpytest_subprocess("-p", "no:locust", "-p", "no:html")  # these two import what they need

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["heavy: [[]]"])


def test_only_the_public_names_can_be_imported():
    import pytest_llmchaos  # noqa: PLC0415 - what is looked at

    assert [name for name in pytest_llmchaos.__all__ if not hasattr(pytest_llmchaos, name)] == []
    with pytest.raises(AttributeError, match="module 'pytest_llmchaos' has no attribute 'experimnt'"):
        _ = pytest_llmchaos.experimnt


@pytest.mark.parametrize(
    "asks",
    [
        'def test_late(request):\n    request.getfixturevalue("trial")\n',
        "import pytest\n@pytest.fixture\ndef trial(trial):\n    return trial\ndef test_late(trial):\n    assert trial\n",
    ],
    ids=["only while it runs", "through a fixture of its name"],
)
def test_a_trial_that_collection_does_not_show_is_an_error_that_shows_what_to_write(chaos, double, asks):
    result = chaos("-k", "late", test_scenario=SCENARIO.format(fault='faults.kill("api")') + asks)

    result.assert_outcomes(errors=1, deselected=2)
    result.stdout.fnmatch_lines(["*NotReady: *test_late* got no plan*name `trial` among the arguments*another name*"])
    assert double.performed == []


def test_a_fixture_of_the_same_name_that_a_suite_defines_itself_is_its_own(chaos, double):
    own = "import pytest\n\n@pytest.fixture\ndef {0}():\n    return 7\n\ndef test_it({0}):\n    assert {0} == 7\n"

    chaos(test_a=own.format("lab"), test_b=own.format("trial")).assert_outcomes(passed=2)

    assert double.performed == []
