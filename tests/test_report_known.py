"""Known refutations in the report, the terminal's lines and Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence.trial_result import RunResult
from pytest_llmchaos.report.summary import headline, markdown

ISSUE = "https://example.org/issues/17?a=1&copy=2"
LATE = ("test_it_is_late", "failed", "assert 7 <= 5")
NEW = ("test_it_is_new", "failed", "assert 9 <= 5")
GOOD = ("test_it_is_good", "passed", None)
KNOWN = Made(claims=[LATE, GOOD], known={"test_it_is_late": ISSUE})
VANISHED = Made(scenario="kill_model", claims=[GOOD], known={"test_it_is_good": ISSUE})


def run_of(tmp_path: Path, *trials: Made, status: int = 0) -> tuple[RunResult, str]:
    """The run and its page."""
    page = report.build(reportdata.run_dir(tmp_path, trials, status=status))
    return report.read_run(page.with_name("run.json")), page.read_text(encoding="utf-8")


def test_a_known_refutation_has_a_line_with_its_link(tmp_path: Path) -> None:
    run, page = run_of(tmp_path, KNOWN)

    lines = report.summary_lines(run)

    assert lines[1] == f"{'':<15}known: test_it_is_late: slow alerts ({ISSUE})"
    assert headline(run) == "1 of 1 refuted (1 known)"
    (head, *_) = re.findall(r'<p class="listed">(.*?)</p>', page)
    link = '<a href="https://example.org/issues/17?a=1&amp;copy=2" rel="noreferrer">it is late</a>'
    assert head == f"1 known refutation: <span>{link} <small>slow alerts</small></span>"
    assert f"failed, {link.replace('it is late', 'known')}" in page
    assert "vanished" not in page


def test_a_new_refutation_in_the_same_trial_is_not_known(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, Made(claims=[LATE, NEW], known={"test_it_is_late": ISSUE}), KNOWN)

    assert headline(run) == "2 of 2 refuted (1 known)"


def test_what_the_judge_refuted_without_a_claim_is_not_known(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, Made(verdict="refuted", reason="it paged", claims=[GOOD]))

    assert headline(run) == "1 of 1 refuted"


def test_a_refutation_that_has_vanished_is_named(tmp_path: Path) -> None:
    run, page = run_of(tmp_path, VANISHED, status=1)

    lines = report.summary_lines(run)

    assert lines[1] == f"{'':<15}known refutation has vanished: test_it_is_good: slow alerts ({ISSUE})"
    assert headline(run) == "The experiment held, and pytest ended with status 1: 1 known refutation vanished"
    assert '<p class="listed">1 vanished refutation: <span><a href="https://example.org/' in page
    assert ">the known refutation has vanished</a>" in page


def test_a_claim_about_two_loads_is_listed_once(tmp_path: Path) -> None:
    run, page = run_of(tmp_path, KNOWN, KNOWN)

    assert "1 known refutation:" in page
    assert markdown(run).count("issues/17") == 1


def test_markdown_has_links_that_end_where_they_should(tmp_path: Path) -> None:
    odd = "https://example.org/a)b>c|d`e_f"
    run, _ = run_of(
        tmp_path, Made(claims=[LATE, NEW], known={"test_it_is_late": odd, "test_it_is_new": ISSUE}), VANISHED
    )

    text = markdown(run)

    nodeid = r"scenarios/test\_kill\_api.py::test\_it\_is"
    assert (
        f"\n2 known refutations:\n\n- [{nodeid}\\_late](<https://example.org/a%29b%3Ec%7Cd%60e_f>): slow alerts\n"
        f"- [{nodeid}\\_new](<https://example.org/issues/17?a=1&amp;copy=2>): slow alerts\n"
        "\n1 vanished refutation:\n\n- ["
    ) in text


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "https://a b", "//example.org", "ISSUE-1"])
def test_what_is_no_web_page_is_no_link(tmp_path: Path, url: str) -> None:
    run, page = run_of(tmp_path, Made(claims=[LATE], known={"test_it_is_late": url}))

    assert "1 known refutation: <span>it is late <small>slow alerts</small></span>" in page
    assert "noreferrer" not in page
    assert "](" not in markdown(run)
