"""The ratchet: known refutations in sessions, on a fake stack."""

import datetime as dt
import json
from xml.etree import ElementTree as ET

import pytest
from support.plugin_double import put_journalled_double

from pytest_llmchaos import errors

HEAD = """
import pytest
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill("api"))

"""
LATE = "def test_late(trial):\n    assert trial.detect_s > 5\n\n"
QUICK = "def test_quick(trial):\n    assert trial.detect_s <= 5\n\n"
ARMS = "@experiment(load=loads.open_loop(rate_rps=2), fault=[faults.kill('api'), faults.kill('model-1')])\n"
ISSUE = "https://example.org/issues/17"
NAME = "known.toml"


@pytest.fixture
def double(monkeypatch):
    return put_journalled_double(monkeypatch)


@pytest.fixture
def chaos(pytester, double, monkeypatch):
    """Run pytest, with no other plugin, on one scenario and these known refutations."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *args, known=(), more="", ini=f"llmchaos_known = {NAME}\n"):
        pytester.makefile(".toml", known="".join(entry(test) for test in known) + more)
        pytester.makepyfile(test_it=HEAD + text)
        pytester.makeini(f"[pytest]\nllmchaos_runtime = local\n{ini}")
        return pytester.runpytest_inprocess("-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", *args)

    return run


def entry(test, more=""):
    return f'[[known]]\ntest = "test_it.py::{test}"\nissue = "{ISSUE}"\nwhy = "slow alerts"\n{more}\n'


@pytest.fixture
def trials(pytester):
    """Return the trials of the run."""

    def read():
        (run,) = pytester.path.glob("reports/2*/run.json")
        return json.loads(run.read_text())["trials"]

    return read


def require_refused(result, double, message):
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert double.performed == []


def test_a_known_refutation_is_an_expected_failure_and_stays_refuted(chaos, trials, pytester):
    result = chaos(LATE + QUICK, "-rx", "--junitxml=it.xml", known=["test_late"])

    result.assert_outcomes(xfailed=1, passed=1)
    assert result.ret == 0
    reason = f"known refutation: slow alerts ({ISSUE})"
    result.stdout.fnmatch_lines(
        ["✗ refuted *", f" *known: test_late: slow alerts ({ISSUE})", f"XFAIL test_it.py::test_late - {reason}"]
    )
    assert "1 of 1 refuted (1 known)" in result.outlines
    (trial,) = trials()
    late, quick = trial["claims"]
    assert (trial["verdict"], late["outcome"], quick["outcome"]) == ("refuted", "failed", "passed")
    assert (late["known"], quick["known"]) == ({"issue": ISSUE, "why": "slow alerts"}, None)
    (case,) = ET.parse(pytester.path / "it.xml").iterfind(".//testcase[@name='test_late']")
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert (case.find("skipped").get("type"), case.find("skipped").get("message")) == ("pytest.xfail", reason)
    assert properties["llmchaos_known"] == ISSUE


def test_a_new_refutation_fails_with_the_entry_that_would_list_it(chaos, trials):
    result = chaos(LATE + LATE.replace("late", "new"), known=["test_late"])

    result.assert_outcomes(xfailed=1, failed=1)
    way = f'if this is known, add to {NAME}: [[][[]known]] with test = "test_it.py::test_new", issue = "https://..." and why = "..."'
    result.stdout.fnmatch_lines(["*known refutations*", way])
    assert "1 of 1 refuted" in result.outlines
    assert [claim["known"] is None for claim in trials()[0]["claims"]] == [False, True]


def test_without_the_key_a_refutation_is_as_before(chaos):
    result = chaos(LATE, known=["test_late"], ini="")

    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*if this is known*")


def test_a_refutation_that_has_vanished_fails_and_its_trial_held(chaos, trials):
    result = chaos(QUICK, known=["test_quick"])

    result.assert_outcomes(failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            f"test_it.py::test_quick held, and {NAME} lists it as refuted ({ISSUE}): *has vanished, so remove its entry",
            "✓ held *",
            f" *known refutation has vanished: test_quick: slow alerts ({ISSUE})",
            "The experiment held, and pytest ended with status 1: 1 known refutation vanished",
        ]
    )
    (claim,) = trials()[0]["claims"]
    assert (claim["outcome"], claim["known"]["issue"]) == ("passed", ISSUE)


def test_an_entry_for_all_cases_may_name_those_that_are_still_refuted(chaos, double):
    text = f"{ARMS}def test_it(trial):\n    assert trial.detect_s > 5 or 'model' in str(trial.plan.fault)\n"

    result = chaos(text, known=["test_it"])

    result.assert_outcomes(xfailed=1, failed=1)
    way = "so remove its entry, or name the cases that are still refuted instead of all of test_it.py::test_it"
    result.stdout.fnmatch_lines([f"test_it.py::test_it[[]kill model-1] held, *{way}"])
    chaos(text, known=["test_it[kill api]"]).assert_outcomes(xfailed=1, passed=1)


@pytest.mark.parametrize(
    ("claim", "outcomes"),
    [
        ("raise KeyError('x')", {"errors": 1}),
        ("trial.detect_s <= 5", {"errors": 1}),
        ("pytest.skip('not today')", {"skipped": 1}),
        ("pytest.xfail('flaky')", {"xfailed": 1}),
        ("pytest.fail('late')", {"xfailed": 1}),
        ("assert trial.time_to_recover_s <= 5", {"xfailed": 1}),
        ("raise ExceptionGroup('two', [AssertionError('a'), KeyError('b')])", {"errors": 1}),
    ],
)
def test_only_a_refutation_is_forgiven(chaos, claim, outcomes):
    chaos(f"def test_late(trial):\n    {claim}\n", known=["test_late"]).assert_outcomes(**outcomes)


@pytest.mark.parametrize(
    ("error", "outcomes"),
    [
        (errors.InvalidExperiment("late load"), {"errors": 1}),
        (errors.Inconclusive("a gap"), {"errors": 1}),
        (errors.HealFailed("still paused"), {"errors": 1}),
        (errors.NotReady("no image"), {"errors": 1}),
        (errors.UnprovokedReaction("it paged"), {"xfailed": 1}),
    ],
)
def test_a_trial_that_proves_nothing_is_not_forgiven(chaos, double, error, outcomes):
    double.error = error
    double.perform = lambda campaign, plan: type(double).perform(double, campaign, plan)

    result = chaos(LATE, known=["test_late"])

    result.assert_outcomes(**outcomes)
    assert result.ret == (0 if "xfailed" in outcomes else 1)


def test_a_refutation_after_a_failed_revert_is_not_forgiven(chaos):
    text = "from pytest_llmchaos.errors import HealFailed\n\ndef test_late(trial):\n    try:\n        raise HealFailed('x')\n"

    result = chaos(f"{text}    except HealFailed:\n        assert trial.detect_s > 5\n", known=["test_late"])

    result.assert_outcomes(failed=1)


def test_a_teardown_that_fails_is_not_forgiven(chaos):
    broken = "@pytest.fixture\ndef after():\n    yield\n    raise OSError('x')\n\n"

    chaos(broken + LATE.replace("(trial", "(after, trial"), known=["test_late"]).assert_outcomes(xfailed=1, errors=1)


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="this pytest has no fixture for subtests")
@pytest.mark.parametrize(
    ("first", "second", "status", "kinds"),
    [
        ("assert trial.detect_s > 5", "assert trial.detect_s <= 5", 0, {"xfailed": 1, "failed": 0}),
        ("assert trial.detect_s <= 5", "assert trial.detected_by", 1, {"xfailed": 0, "failed": 1}),
        ("assert trial.detect_s > 5", "raise KeyError('x')", 1, {"xfailed": 1, "errors": 1}),
    ],
    ids=["refuted", "held", "broken off"],
)
def test_a_claim_with_subtests_is_judged_by_the_worst(chaos, first, second, status, kinds):
    parts = "".join(f"    with subtests.test('part'):\n        {part}\n" for part in (first, second))

    result = chaos(f"def test_late(trial, subtests):\n{parts}", known=["test_late"])

    found = result.parseoutcomes()
    assert {kind: found.get(kind, found.get(kind.removesuffix("s"), 0)) for kind in kinds} == kinds
    assert result.ret == status


@pytest.mark.parametrize(
    ("detects_s", "outcomes"),
    [
        ((1, 1, 1), {"xfailed": 3}),
        ((1, 9, 1), {"xfailed": 2, "passed": 1}),
        ((9, 9, 1), {"xfailed": 1, "passed": 2}),
        ((1, 9, 9), {"xfailed": 1, "passed": 2}),
        ((9, 9, 9), {"failed": 1, "passed": 2}),
    ],
    ids=["all refuted", "one held", "the last refuted", "the first refuted", "all held"],
)
def test_a_refutation_has_vanished_if_no_repeat_shows_it(chaos, double, detects_s, outcomes):
    left = list(detects_s)
    text = "def test_late(trial):\n    assert trial.detect_s > 5\n"
    perform = double.perform

    def performed(campaign, plan):
        double.detect_s = left.pop(0)
        return perform(campaign, plan)

    double.perform = performed

    chaos(text, "--chaos-repeat=3", known=["test_late"]).assert_outcomes(**outcomes)


def test_a_case_is_listed_as_it_is_without_repeats(chaos):
    result = chaos(f"{ARMS}{LATE}", "--chaos-repeat=2", known=["test_late[kill api]"])

    result.assert_outcomes(xfailed=2, failed=2)
    result.stdout.fnmatch_lines(['*with test = "test_it.py::test_late[[]kill model-1]", *'])


@pytest.mark.parametrize(
    ("more", "outcomes"),
    [
        ("runtime = 'local'", {"xfailed": 1}),
        ("runtime = 'compose'", {"failed": 1}),
        ("backend = 'llamacpp'", {"xfailed": 1}),
        ("backend = 'sim'", {"failed": 1}),
        (f"until = {dt.datetime.now(dt.UTC).date()}", {"xfailed": 1}),
        ("until = 2020-02-29", {"failed": 1}),
    ],
)
def test_an_entry_may_be_for_one_place_and_may_end(chaos, more, outcomes):
    chaos(LATE, more=entry("test_late", more)).assert_outcomes(**outcomes)


def test_a_refutation_after_the_end_of_its_entry_fails_with_both(chaos):
    result = chaos(LATE, more=entry("test_late", "until = 2020-02-29"))

    result.stdout.fnmatch_lines([f"{NAME} lists it until 2020-02-29 ({ISSUE}): fix it, or move the date"])


def test_an_entry_for_another_place_does_not_vanish(chaos):
    chaos(QUICK, more=entry("test_quick", "runtime = 'compose'")).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("args", "outcomes"),
    [(("-k", "quick"), {"passed": 1, "deselected": 1}), (("test_it.py::test_quick",), {"passed": 1})],
)
def test_a_listed_claim_that_is_not_selected_is_no_problem(chaos, args, outcomes):
    chaos(LATE + QUICK, *args, known=["test_late"]).assert_outcomes(**outcomes)


def test_runxfail_reports_listed_claims_as_if_they_were_not(chaos):
    chaos(LATE + QUICK, "--runxfail", known=["test_late", "test_quick"]).assert_outcomes(failed=1, passed=1)


@pytest.mark.parametrize(
    ("args", "known", "why"),
    [
        ((), "test_lat", "which is no test in test_it.py: did you mean test_it.py::test_late[?]"),
        (("-k", "quick"), "test_lat", "which is no test in test_it.py: did you mean *"),
        (("test_it.py::test_quick",), "test_lat", "which is no test in test_it.py: did you mean *"),
        ((), "TestC::test_e", "which is no test in test_it.py::TestC: did you mean test_it.py::TestC::test_d[?]"),
        ((), "test_plain", "which uses no `trial`, `arms` or `lab`, so it cannot be refuted: *"),
        (("--chaos-repeat=2",), "test_late[kill api #1]", "which is no test in test_it.py: *"),
    ],
)
def test_an_entry_without_its_test_ends_the_collection(chaos, double, args, known, why):
    text = f"{LATE}{QUICK}def test_plain(): pass\n\nclass TestC:\n    def test_d(self, trial): assert trial.victims\n"

    result = chaos(text, *args, known=[known])

    result.stdout.fnmatch_lines([f"{NAME} lists test_it.py::{known.replace('[', '[[]')}, {why}"])
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR}
    assert double.performed == []


PAIR = (
    "@experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill('api'),\n"
    "    arms={'on': arm(), 'off': arm(environment={'api': {'LAB_RETRY': 'off'}})})\n"
)


@pytest.mark.parametrize(
    ("fixture", "listed", "args", "outcomes"),
    [
        ("trial", "test_pair[off]", (), {"xfailed": 1, "failed": 1}),
        ("trial", "test_pair[off]", ("--chaos-repeat=2",), {"xfailed": 2, "failed": 2}),
        ("trial", "test_pair", (), {"xfailed": 2}),
        ("arms", "test_pair", (), {"xfailed": 1}),
        ("arms", "test_pair", ("--chaos-repeat=2",), {"xfailed": 2}),
    ],
)
def test_a_claim_about_arms_can_be_listed(chaos, fixture, listed, args, outcomes):
    late = {"trial": "trial.detect_s", "arms": "arms['on'].detect_s"}[fixture]
    text = f"from pytest_llmchaos import arm\n\n{PAIR}def test_pair({fixture}):\n    assert {late} > 5\n"

    chaos(text, *args, known=[listed]).assert_outcomes(**outcomes)


def test_a_test_of_lab_can_be_listed(chaos, double, monkeypatch):
    lab = "@pytest.fixture\ndef lab_late(lab):\n    return 9\n\ndef test_lab(lab_late): assert lab_late < 5\n"
    monkeypatch.setattr("pytest_llmchaos.session.run.Run.lab", lambda _: None)

    chaos(QUICK + lab, known=["test_lab"]).assert_outcomes(passed=1, xfailed=1)


def test_a_file_that_lf_leaves_away_lacks_no_test(chaos, pytester):
    pytester.makepyfile(test_plain="def test_plain():\n    assert 1 == 2\n")
    chaos(QUICK, "-p", "cacheprovider")

    result = chaos(QUICK, "-p", "cacheprovider", "--lf", known=["test_quick"])

    result.assert_outcomes(failed=1)


def test_a_listed_test_with_a_mark_xfail_is_refused(chaos, double):
    result = chaos(f"@pytest.mark.xfail\n{LATE}", known=["test_late"])

    require_refused(
        result, double, f"{NAME} lists test_it.py::test_late, so the test must not have the mark xfail: remove *"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry("test_late") * 2, f"{NAME}: entries 1 and 2 are both about test_it.py::test_late: remove one of them"),
        (entry("x").replace("test_it.py", "gone.py"), f"{NAME} lists gone.py::x, and there is no file gone.py in *"),
        (entry("x").replace("test_it", "x" * 300), f"{NAME} lists xxx*, and there is no file xxx*"),
        (f"{entry('x')}[[known]", f"{NAME} must be a TOML file *"),
    ],
    ids=["twice", "no file", "a long name", "no TOML"],
)
@pytest.mark.parametrize("args", [(), ("--chaos-plan",), ("--collect-only",)], ids=["run", "plan", "collect"])
def test_a_wrong_file_is_refused_before_anything_starts(chaos, double, text, message, args):
    require_refused(chaos(LATE, *args, more=text), double, message)


@pytest.mark.parametrize(
    ("name", "why"),
    [("gone.toml", "No such file or directory"), (".", "Is a directory"), ("bytes.toml", "it is not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_is_refused(chaos, double, pytester, name, why):
    (pytester.path / "bytes.toml").write_bytes(b"\xff")

    result = chaos(LATE, ini=f"llmchaos_known = {name}\n")

    require_refused(result, double, f"llmchaos_known must name a TOML file, got '{name}' in *: {why}; create it, *")


def test_the_file_stands_next_to_the_ini_file(chaos, pytester):
    folder = pytester.mkdir("below")

    with pytest.MonkeyPatch.context() as patch:
        chaos(LATE, known=["test_late"]).assert_outcomes(xfailed=1)
        patch.chdir(folder)
        result = pytester.runpytest_inprocess(
            "-p", "pytest_llmchaos.plugin", "-p", "no:cacheprovider", "../test_it.py", "--rootdir=.."
        )
        result.assert_outcomes(xfailed=1)
