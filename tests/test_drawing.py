"""The selection of tests that a commit draws."""

import subprocess

import pytest
from support.drawing import NO_COMMIT, Case, commit_of, draw

CASES = [Case(name=f"{fault}-{line}", stratum=fault) for fault in ("kill", "pause") for line in range(20)]
SUITE = """
import pytest

@pytest.mark.sampled(share=0.25, by="fault")
@pytest.mark.parametrize("line", range(5))
@pytest.mark.parametrize("fault", ["kill", "pause", "limit"])
def test_dies(fault, line): ...

@pytest.mark.sampled(by=lambda case: case["arm"] > 2)
@pytest.mark.parametrize("arm", range(5))
def test_arms(arm): ...

@pytest.mark.nightly("test_stays catches the same")
def test_long(): ...

def test_stays(): ...
"""


def names(drawn):
    return {name.partition("-")[0] for name in drawn}


def test_the_same_commit_draws_the_same_whatever_the_order():
    assert draw(CASES, commit="c0ffee", share=0.2) == draw(reversed(CASES), commit="c0ffee", share=0.2)
    assert draw(CASES, commit="c0ffee", share=0.2) != draw(CASES, commit="decade", share=0.2)


@pytest.mark.parametrize(("share", "count"), [(0, 2), (0.01, 2), (0.2, 8), (0.21, 9), (1, 40)])
def test_a_share_is_drawn_and_one_of_every_stratum_at_least(share, count):
    for commit in range(50):
        drawn = draw(CASES, commit=str(commit), share=share)

        assert len(drawn) == count
        assert names(drawn) == {"kill", "pause"}


def test_every_case_is_drawn_by_some_commit():
    drawn = [draw(CASES, commit=str(commit), share=0.1) for commit in range(100)]

    assert set.union(*drawn) == {case.name for case in CASES}


def git(folder, *words):
    alone = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *alone, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_clone_has_the_same_commit_and_without_a_repository_there_is_a_constant(tmp_path):
    assert commit_of("HEAD", tmp_path) == NO_COMMIT
    assert commit_of("c0ffee", tmp_path) == "c0ffee"
    first = tmp_path / "first"
    first.mkdir()
    git(first, "init", "--quiet")
    git(first, "commit", "--quiet", "--allow-empty", "--message", "one")
    git(tmp_path, "clone", "--quiet", str(first), "second")
    (first / "not committed").touch()

    assert commit_of("HEAD", first) == commit_of("HEAD", tmp_path / "second") == git(first, "rev-parse", "HEAD")


@pytest.fixture
def suite(pytester):
    pytester.makeconftest("from support.drawing import *")
    pytester.makepyfile(test_suite=SUITE)
    return lambda *more: pytester.runpytest_inprocess(
        "-p", "no:llmchaos", "-p", "no:randomly", "-p", "no:cacheprovider", *more
    )


def test_without_a_commit_all_tests_run(suite):
    suite().assert_outcomes(passed=22)


def test_the_rest_is_deselected_and_the_counts_are_printed(suite):
    done = suite("--drawn-by=c0ffee")

    done.assert_outcomes(passed=4 + 2 + 1, deselected=15)
    done.stdout.fnmatch_lines(
        [
            "drawn by c0ffee; without --drawn-by all tests run",
            "  2 of 5 of test_suite.py::test_arms",
            "  4 of 15 of test_suite.py::test_dies",
            "  none of 1 nightly tests",
        ]
    )


def test_a_choice_of_names_changes_no_draw(suite):
    wholly = suite("--drawn-by=c0ffee", "-v", "-k", "dies").outlines
    alone = suite("--drawn-by=c0ffee", "-v").outlines

    assert [line.split()[0] for line in wholly if "test_dies" in line and "PASSED" in line] == [
        line.split()[0] for line in alone if "test_dies" in line and "PASSED" in line
    ]


def test_a_nightly_test_names_what_catches_its_defect_instead(suite, pytester):
    pytester.makepyfile(test_other="import pytest\n@pytest.mark.nightly\ndef test_it(): ...")

    done = suite("--drawn-by=c0ffee")

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "nightly(instead) needs the name" in done.stderr.str() + done.stdout.str()
