"""A claim's outcome and its trial's verdict, on a fake stack."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.plugin_double import put_journalled_double

from pytest_llmchaos.evidence.trial_result import SloVerdict
from pytest_llmchaos.session.run import Run

HEAD = """
import pytest
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill("api"))

"""


@pytest.fixture
def double(monkeypatch):
    """Trials that hold until a claim fails, written to the run's journal."""
    return put_journalled_double(monkeypatch)


@pytest.fixture
def chaos(pytester, double, monkeypatch):
    """Run pytest, with no other plugin, on one scenario."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *args):
        pytester.makepyfile(test_it=HEAD + text)
        common = ("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", "-o", "llmchaos_runtime=local")
        return pytester.runpytest_inprocess(*common, *args)

    return run


@pytest.fixture
def trials(pytester):
    """Return the trials of the run."""

    def read():
        (run,) = pytester.path.glob("reports/2*/run.json")
        return json.loads(run.read_text())["trials"]

    return read


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param("def test_x(trial): pass", id="no value"),
        pytest.param("def test_x(trial): assert trial.name and trial.plan and not trial.is_control", id="the plan"),
        pytest.param("def test_x(trial): assert trial.slo", id="a method that is not called"),
        pytest.param("@pytest.mark.usefixtures('trial')\ndef test_x(): pass", id="by name"),
        pytest.param("class TestX:\n    def test_x(self, trial): pass", id="in a class"),
        pytest.param(
            "@pytest.fixture\ndef mine(trial):\n    yield trial\n\ndef test_x(mine): pass", id="through a fixture"
        ),
        pytest.param("@pytest.mark.xfail(strict=False)\ndef test_x(trial): pass", id="expected to fail"),
    ],
)
def test_a_claim_that_reads_nothing_of_its_trial_proves_nothing(chaos, trials, claim):
    result = chaos(f"def test_first(trial): assert trial.repaired_by == 'remediator'\n\n{claim}\n")

    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*VacuousClaim: this claim uses `trial` and reads no value of it*", "∅ invalid *"])
    (trial,) = trials()
    assert [claim["outcome"] for claim in trial["claims"]] == ["passed", "error"]
    assert trial["reason"].startswith("VacuousClaim: this claim uses `trial` and reads no value of it")


NO_SLO = "def test_x(trial):\n    assert trial.repaired_by == 'remediator'\n"
ON_SLO = "def test_y(trial):\n    with pytest.raises(Exception):\n        trial.slo('gone').met\n"


@pytest.mark.parametrize(
    ("text", "args", "is_asked"),
    [
        (NO_SLO, (), False),
        (NO_SLO + ON_SLO, (), True),
        (ON_SLO.replace("gone", "other").replace("_y", "_z") + NO_SLO, (), False),
        (NO_SLO + "@pytest.mark.skip\n" + ON_SLO, (), True),
        (NO_SLO + ON_SLO, ("-k", "test_x"), False),
    ],
    ids=["none", "one", "about another", "skipped", "not selected"],
)
def test_a_missed_objective_that_no_claim_reads_is_in_the_summary(chaos, double, text, args, is_asked):
    double.slos = (
        SloVerdict(name="gone", objective=0.995, value=0.913, met=False),
        SloVerdict(name="reached", objective=0.995, value=1.0, met=True),
    )

    result = chaos(text, *args)

    line = "objective missed, and no claim reads it: gone 91.3 % (objective 99.5 %)"
    assert [one.strip() for one in result.outlines if "objective missed" in one] == ([] if is_asked else [line])
    (summary,) = Path.cwd().glob("reports/2*/summary.md")
    assert ("objective missed" in summary.read_text()) is not is_asked
    (page,) = Path.cwd().glob("reports/2*/report.html")
    assert ("below its objective, and no claim reads it" in page.read_text()) is not is_asked


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(
            "def check(one):\n    assert one.time_to_detect_s < 9\n\ndef test_x(trial):\n    check(trial)",
            id="a helper",
        ),
        pytest.param(
            "@pytest.fixture\ndef mine(trial):\n    return trial.time_to_detect_s\n\ndef test_x(mine): assert mine < 9",
            id="a fixture",
        ),
        pytest.param("def test_x(trial):\n    trial.time_to_detect_s", id="a time that may not exist"),
        pytest.param("def test_x(trial): assert trial.findings == ()", id="a field"),
        pytest.param(
            "def test_x(trial):\n    with pytest.raises(Exception):\n        trial.slo('gone').met", id="raises"
        ),
        pytest.param(
            "class TestX:\n    def test_x(self, trial):\n        assert not trial.relapsed_s", id="in a class"
        ),
        pytest.param(
            "def test_x(trial, subtests):\n"
            "    with subtests.test('nothing yet'):\n        pass\n"
            "    with subtests.test('then'):\n        assert trial.findings == ()",
            id="subtests",
            marks=pytest.mark.skipif(pytest.version_tuple < (9,), reason="this pytest has no fixture for subtests"),
        ),
    ],
)
def test_a_claim_that_reads_a_value_may_pass(chaos, trials, claim):
    assert chaos(f"{claim}\n").ret == 0

    (trial,) = trials()
    assert trial["verdict"] == "held"


ARMS = "arms = experiment(load=loads.open_loop(rate_rps=2), fault=[faults.kill('api'), faults.none()])\n\n"


def test_a_claim_may_distinguish_the_arms_of_its_experiment(chaos, trials):
    detected = "@arms\ndef test_x(trial):\n    assert trial.is_control or trial.detected_by\n\n"
    quiet = "@arms\ndef test_y(trial):\n    assert not trial.is_control or trial.findings == ()\n"

    chaos(ARMS + detected + quiet).assert_outcomes(passed=4)

    assert [trial["verdict"] for trial in trials()] == ["held", "held"]


def test_an_arm_that_no_claim_reads_does_not_hold(chaos, trials):
    quiet = "    assert not trial.is_control or trial.findings == ()\n\n"
    result = chaos(f"{ARMS}@arms\ndef test_x(trial):\n{quiet}@arms\ndef test_y(trial):\n{quiet}")

    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*VacuousClaim: no claim of this arm reads a value of its trial*"])
    assert [(trial["fault"], trial["verdict"]) for trial in trials()] == [("kill api", "invalid"), ("none", "held")]


def test_an_arm_that_a_claim_refutes_is_judged(chaos, trials):
    late = "    assert trial.is_control or trial.detect_s > 5\n\n"
    quiet = "    assert not trial.is_control or trial.findings == ()\n"

    chaos(f"{ARMS}@arms\ndef test_x(trial):\n{late}@arms\ndef test_y(trial):\n{quiet}").assert_outcomes(
        passed=3, failed=1
    )

    assert [trial["verdict"] for trial in trials()] == ["refuted", "held"]


def test_a_claim_may_distinguish_arms_by_their_fault(chaos, trials):
    arms = ARMS.replace("faults.none()", "faults.kill('model-1')")
    text = arms + "".join(
        f"@arms\ndef test_{name[:3]}(trial):\n    if str(trial.plan.fault) == 'kill {name}':\n        assert trial.detected_by\n\n"
        for name in ("api", "model-1")
    )

    chaos(text).assert_outcomes(passed=4)

    assert [trial["verdict"] for trial in trials()] == ["held", "held"]


THROWN_AWAY = [
    ("trial.detect_s <= 5", "trial.detect_s <= 5"),
    ("trial.detect_s <= 5, 'late'", "trial.detect_s <= 5"),
    ("assert (trial.detect_s <= 5, 'late')", "trial.detect_s <= 5"),
    ("assert (bool(trial.findings), 'none')", "bool(trial.findings)"),
    ("return trial.detect_s <= 5", "trial.detect_s <= 5"),
    ("all(one == 'api' for one in trial.victims)", "all((one == 'api' for one in trial.victims))"),
    ("trial.findings or trial.detect_s > 5", "trial.findings or trial.detect_s > 5"),
    ("not trial.findings", "not trial.findings"),
    ("trial.findings or trial.events", "trial.findings or trial.events"),
]


@pytest.mark.parametrize(
    ("claim", "line", "advice"),
    [
        *((f"def test_x(trial):\n    {line}", 2, f"assert {advice}") for line, advice in THROWN_AWAY),
        (
            "def test_x(trial):\n    assert trial.victims\n    for one in trial.victims:\n        one == 'api'",
            4,
            "assert one == 'api'",
        ),
        (
            "class TestX:\n    @pytest.mark.parametrize('n', [1])\n    def test_x(self, trial, n):\n        trial.detect_s <= n",
            4,
            "assert trial.detect_s <= n",
        ),
        (
            (
                "from functools import wraps\n\ndef quick(test):\n    return wraps(test)(lambda trial: test(trial))\n\n@quick\n"
                "def test_x(trial):\n    text = '''\nflush left\n'''\n    trial.detect_s <= 5"
            ),
            11,
            "assert trial.detect_s <= 5",
        ),
    ],
)
def test_a_comparison_that_is_thrown_away_is_an_error_with_its_line(chaos, trials, claim, line, advice):
    result = chaos(f"{claim}\n", "-Wignore")  # Python warns of an assert with brackets around both

    result.assert_outcomes(errors=1)
    line += HEAD.lstrip("\n").count("\n")
    why = f"VacuousClaim: line {line} compares and discards the result: write `{advice}`"
    result.stdout.fnmatch_lines([f"test_it.py: {why}"])
    (trial,) = trials()
    assert (trial["verdict"], trial["reason"]) == ("invalid", why)


@pytest.mark.parametrize(
    ("asserted", "what"),
    [
        ("(one == 'api' for one in trial.victims)", "a generator: write `assert all(...)` or `assert any(...)`"),
        ("lambda: trial.detect_s > 5", "a function that is not called"),
        ("'trial.detect_s > 5'", "a string: drop its quotes"),
    ],
)
def test_a_claim_that_is_always_true_is_an_error_with_its_line(chaos, trials, asserted, what):
    result = chaos(f"def test_x(trial):\n    assert trial.detected_by\n    assert {asserted}\n")

    result.assert_outcomes(errors=1)
    line = 3 + HEAD.lstrip("\n").count("\n")
    why = f"VacuousClaim: line {line} asserts a value that is always true, {what}"
    result.stdout.fnmatch_lines([f"test_it.py: {why}"])
    (trial,) = trials()
    assert (trial["verdict"], trial["reason"]) == ("invalid", why)


@pytest.mark.parametrize(
    ("body", "outcomes"),
    [
        ("pass", {"errors": 1}),
        ("trial.detect_s <= 5", {"errors": 1}),
        ("assert trial.fialed", {"errors": 1}),
        ("assert trial.detect_s > 5", {"failed": 1}),
        ("assert trial.detect_s <= 5", {"passed": 1}),
    ],
)
def test_a_claim_that_is_a_coroutine_is_judged_alike(chaos, body, outcomes):
    text = f"@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n@pytest.mark.anyio\nasync def test_x(trial):\n    {body}\n"

    chaos(text, "-p", "anyio.pytest_plugin").assert_outcomes(**outcomes)


@pytest.mark.parametrize(
    "body",
    [
        "with pytest.raises(Exception):\n        trial.time_to_recover_s <= 5",
        "with pytest.RaisesGroup(KeyError):\n        trial.detect_s <= 5\n        raise ExceptionGroup('', [KeyError()])",
        "late = trial.detect_s > 5",
        "trial.time_to_detect_s",
        "'a text', print(trial.detect_s)",
        "assert (lambda: trial.detect_s > 1)()",
        "if trial.detect_s > 5:\n        return",
        "assert True",
        "exec('trial.detect_s > 5')",
        "trial.detect_s <= 5 or pytest.fail('late')",
        "trial.detected_by and print(trial.detected_by)",
        "any(print(one) for one in trial.victims)",
        "def late():\n        return trial.detect_s > 5\n    assert not late()",
    ],
)
def test_a_claim_that_uses_its_answer_may_pass(chaos, trials, body):
    assert chaos(f"def test_x(trial):\n    assert trial.detected_by\n    {body}\n").ret == 0

    (trial,) = trials()
    assert trial["verdict"] == "held"


def test_a_decorator_may_assert_the_return_value_of_a_claim(chaos):
    asserts = "def asserted(test):\n    @functools.wraps(test)\n    def wrapper(trial):\n        assert test(trial)\n    return wrapper\n\n"

    chaos(
        f"import functools\n\n{asserts}@asserted\ndef test_x(trial):\n    return trial.detect_s < 5\n"
    ).assert_outcomes(passed=1)


def test_a_claim_without_source_gets_no_warning(chaos):
    made = "def make():\n    made = {}\n    exec('def test_x(trial): trial.detect_s > 5', made)\n    return made['test_x']\n\n"

    chaos(f"{made}test_x = make()\n").assert_outcomes(passed=1)


ODD = {
    "trial.fialed == 0": "AttributeError: 'Trial' object has no attribute 'fialed'. Did you mean: 'failed'?",
    "trial.restarts['apo'] == 1": "KeyError: 'apo'",
    "trial.detect_s <= '5'": "TypeError: '<=' not supported between instances of 'float' and 'str'",
    "tril.detect_s <= 5": "NameError: name 'tril' is not defined. Did you mean: 'trial'?",
}


@pytest.mark.parametrize(("wrong", "said"), ODD.items())
def test_another_exception_in_a_claim_is_an_error_and_not_a_refutation(chaos, trials, pytester, wrong, said):
    result = chaos(f"def test_x(trial):\n    assert {wrong}\n", "--junitxml=it.xml")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f">*assert {wrong.replace('[', '[[]')}", f"E*{said.partition(':')[0]}: *"])
    result.stdout.no_fnmatch_line("*__getattribute__*")
    guess = re.search(r"Did you mean: .*", said)
    (error,) = ET.parse(pytester.path / "it.xml").iter("error")
    if guess is not None:
        result.stdout.fnmatch_lines([f"E *{guess[0]}"])
        assert error.get("message").count(guess[0]) == 1
    (trial,) = trials()
    assert (trial["verdict"], trial["reason"]) == ("invalid", f"the claim raised an error before its assertion: {said}")
    assert [claim["outcome"] for claim in trial["claims"]] == ["error"]


@pytest.mark.parametrize(
    ("ends", "outcome", "verdict"),
    [
        ("assert trial.detect_s > 5", "failed", "refuted"),
        ("assert trial.time_to_recover_s <= 5", "failed", "refuted"),
        ("pytest.fail('late')", "failed", "refuted"),
        ("raise ExceptionGroup('two', [AssertionError('a'), AssertionError('b')])", "failed", "refuted"),
        ("raise ExceptionGroup('two', [AssertionError('a'), KeyError('b')])", "error", "invalid"),
        ("with pytest.raises(KeyError):\n        pass", "failed", "refuted"),
        ("pytest.skip('not today')", "skipped", "invalid"),
        ("pytest.xfail('known')", "skipped", "invalid"),
    ],
)
def test_only_an_assertion_and_what_pytest_calls_a_failure_refute(chaos, trials, ends, outcome, verdict):
    chaos(f"def test_x(trial):\n    {ends}\n")

    (trial,) = trials()
    assert ([claim["outcome"] for claim in trial["claims"]], trial["verdict"]) == ([outcome], verdict)


@pytest.mark.parametrize(("marked", "outcome"), [("KeyError", "skipped"), ("AssertionError", "error")])
def test_an_error_that_was_expected_is_an_xfail_as_before(chaos, trials, marked, outcome):
    chaos(f"@pytest.mark.xfail(raises={marked})\ndef test_x(trial):\n    raise KeyError('x')\n")

    (trial,) = trials()
    assert [claim["outcome"] for claim in trial["claims"]] == [outcome]


def test_a_test_without_a_trial_fails_as_in_plain_pytest(chaos):
    text = "def test_x(trial): assert trial.detected_by\n\ndef test_plain():\n    {}['x']\n\ndef test_idle():\n    1 == 2\n"

    chaos(text).assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize(
    "other",
    [
        "def test_plain():\n    assert 1 == 2",
        "def test_lab(lab):\n    pass",
        "@pytest.fixture\ndef after():\n    yield\n    raise OSError('x')\n\ndef test_plain(after):\n    pass",
    ],
    ids=["a test", "a test of lab", "a fixture"],
)
def test_the_headline_names_failed_tests_if_all_trials_held(chaos, trials, monkeypatch, other):
    monkeypatch.setattr(Run, "lab", lambda _: 1 / 0)  # before the machine's measurement slot is requested
    result = chaos(f"def test_x(trial): assert trial.detected_by\n\n{other}\n")

    said = "The experiment held, and pytest ended with status 1: other tests, or fixtures, failed"
    result.stdout.fnmatch_lines(["✓ held *", said])
    assert trials()[0]["verdict"] == "held"


WORKERS = f"""
import os, sys
from dataclasses import replace

sys.path.insert(0, {str(Path(__file__).parent)!r})
from support.plugin_double import Double
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.session.campaign import Campaign

def perform(campaign, plan):
    about = dict(trial="001", scenario=plan.scenario, fault=str(plan.fault))
    campaign.run.journal.write(lines.TrialBegin(samples="", **about))
    campaign.run.journal.write(lines.Judged(verdict="held", **about))
    return replace(Double().perform(campaign, plan), name="001")

Campaign._perform = perform
Campaign.preflight = lambda self: self.run.announce([trial.entry for trial in self.schedule()])
"""


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ("assert True", "The experiment held"),
        ("assert False", "The experiment held, and pytest ended with status 1: other tests, or fixtures, failed"),
        ("import os; os._exit(9)", "The experiment held until the run was cut off"),
    ],
    ids=["passed", "failed", "died"],
)
def test_with_workers_too(pytester, monkeypatch, plain, said):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(WORKERS)
    pytester.makepyfile(
        test_it=f"{HEAD}def test_x(trial): assert trial.detected_by\n", test_plain=f"def test_plain():\n    {plain}\n"
    )
    plugins = ("-p", "xdist.plugin", "-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider")

    result = pytester.runpytest_subprocess(*plugins, "-n2", "-o", "llmchaos_runtime=local")

    assert said in result.outlines
    (run,) = pytester.path.glob("reports/2*")
    assert (pytester.path / "reports/latest").resolve() == run
