"""Verdicts next to other pytest plugins, each alone and all at once."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support import plugin_double
from support.plugin_double import SCENARIO

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(plugin_double.__file__).parent.parent)!r})
from support.plugin_double import Double
from pytest_llmchaos.session.campaign import Campaign

class Held(Double):
    def perform(self, campaign, plan):
        with open("performed.txt", "a") as file:
            file.write(f"{{plan.scenario}}: {{plan.fault}}\\n")
        return super().perform(campaign, plan)

double = Held()
Campaign._perform = lambda campaign, plan: double.perform(campaign, plan)
Campaign.preflight = lambda campaign: None
"""
FAULTS = '[faults.kill("api"), faults.kill("model-1")]'
ONCE_EACH = sorted(f"{name}: {fault}" for name in ("one", "two") for fault in ("kill api", "kill model-1"))
NEIGHBOURS = {"xdist", "randomly", "timeout", "html", "metadata", "hypothesispytest", "locust"}


def without(*names):
    return [part for name in sorted(names) for part in ("-p", f"no:{name}")]


@pytest.fixture
def suite(pytester):
    """Two scenarios of two faults, a refuted claim, one without data, a plain test."""
    pytester.makeconftest(CONFTEST)
    text = SCENARIO.format(fault=FAULTS)
    bad = (
        "\ndef test_late(trial):\n    assert trial.time_to_detect_s <= 1\n"
        "\ndef test_blind(trial):\n    assert trial.slo('gone').value > 0\n"
    )
    pytester.makepyfile(test_one=text, test_two=text + bad, test_plain="def test_it():\n    pass\n")
    return pytester


def performed(suite):
    return sorted((suite.path / "performed.txt").read_text().splitlines())


EXPECTED = {"passed": 9, "failed": 2, "errors": 2}


def test_without_any_other_plugin(suite):
    result = suite.runpytest_subprocess(*without(*NEIGHBOURS))

    result.assert_outcomes(**EXPECTED)
    assert performed(suite) == ONCE_EACH


@pytest.mark.parametrize(
    ("neighbours", "options"),
    [
        ({"randomly"}, ["--randomly-seed=7"]),
        ({"timeout"}, ["--timeout=60", "--timeout-method=signal"]),
        ({"html", "metadata"}, ["--html=page.html", "--self-contained-html"]),
    ],
    ids=["randomly", "timeout", "html"],
)
def test_with_one_other_plugin(suite, neighbours, options):
    result = suite.runpytest_inprocess(*without(*NEIGHBOURS - neighbours), *options)

    result.assert_outcomes(**EXPECTED)
    assert performed(suite) == ONCE_EACH


def test_pytest_html_and_junit_files_distinguish_invalid_from_refuted(suite):
    html = ["--html=page.html", "--self-contained-html"]

    suite.runpytest_inprocess(*without(*NEIGHBOURS - {"html", "metadata"}), *html, "--junitxml=junit.xml")

    page = (suite.path / "page.html").read_text()
    (judged,) = ET.parse(suite.path / "junit.xml").getroot()
    assert page.count("NoData: no data for gone") == 2
    assert re.search(r"\b2\s+Errors\b", page)
    assert re.search(r"\b2\s+Failed\b", page)
    assert (judged.get("errors"), judged.get("failures"), judged.get("tests")) == ("2", "2", "13")
    assert all("NoData" in str(error.get("message")) for error in judged.iter("error"))


def test_a_trial_that_pytest_timeout_cuts_off_is_no_pass_and_the_next_one_is_performed(suite):
    suite.makeconftest(
        CONFTEST
        + """
import threading
perform = Campaign._perform
def hung_once(campaign, plan):
    if not campaign.__dict__.setdefault("hung", False):
        campaign.hung = True
        threading.Event().wait(60)
    return perform(campaign, plan)
Campaign._perform = hung_once
"""
    )

    result = suite.runpytest_inprocess(
        *without(*NEIGHBOURS - {"timeout"}), "--timeout=0.3", "--timeout-method=signal", "test_one.py"
    )

    result.stdout.fnmatch_lines(["*Timeout*0.3*"])
    outcomes = result.parseoutcomes()
    assert outcomes.get("errors", 0) >= 1
    assert performed(suite)[-1] == "one: kill model-1"


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_the_time_limit_of_pytest_timeout_begins_once_no_other_session_measures(suite, method):
    suite.makeconftest(
        CONFTEST
        + """
import time
from support.waiting import until

def waited(campaign, plan):
    # Another session's trial takes twice as long as a test may.
    ended = time.monotonic() + 1.0
    with campaign.test.waiting():
        until(lambda: time.monotonic() > ended, "the other trial's end", 10)
    return double.perform(campaign, plan)

Campaign._perform = waited
"""
    )

    # A time limit of the method `thread` ends the whole process.
    result = suite.runpytest_subprocess(
        *without(*NEIGHBOURS - {"timeout"}), "--timeout=0.5", f"--timeout-method={method}", "test_one.py"
    )

    result.assert_outcomes(passed=4)


def test_with_all_of_them_and_two_workers(suite, monkeypatch):
    """With Locust's own plugin, which must not import gevent here."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with (suite.path / "conftest.py").open("a") as file:
        file.write(
            "\n\ndef pytest_sessionfinish():\n    with open('gevent.txt', 'a') as file:\n"
            "        file.write('gevent\\n' if 'gevent' in sys.modules else 'none\\n')\n"
        )

    result = suite.runpytest_subprocess(
        "-n", "2", "--randomly-seed=7", "--timeout=60", "--html=page.html", "--self-contained-html"
    )

    result.assert_outcomes(**EXPECTED)
    assert performed(suite) == ONCE_EACH
    assert set((suite.path / "gevent.txt").read_text().split()) == {"none"}
    assert "test_two.py::test_blind" in (suite.path / "page.html").read_text()
