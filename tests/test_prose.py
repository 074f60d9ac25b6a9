"""The rules of prose: each rule finds its example and leaves plain text alone."""

import pytest
from support import prose

BAD = {
    "a personified program": ('"""The journal tells what happened."""\n', "reports, returns"),
    "an unnamed actor": ("x = 1  # nobody reads it\n", "name the actor"),
    "a denial as a value": ('raise ValueError(f"{x} is none of ours")\n', "is not, lacks"),
    "a second clause": ('"""Reads a file; writes another."""\n', "semicolon"),
    "a question as a summary": ('def f():\n    """Whether it is so."""\n', "first word"),
    "an abstention": ('"""Arithmetic. Pure."""\n', "abstention"),
    "a long first line of a module": (f'"""{"word " * 20}."""\n', "first line of a module"),
    "a test name": ("def test_it_says_so(): ...\n", "reports, states"),
    "half a sentence as a test name": ("def test_that_differ_are_odd(): ...\n", "whole sentence"),
    "guillemets": ("x = 1  # «so»\n", "straight quotes"),
    "a fault that heals": ("x = 1  # the fault is healed\n", "reverts"),
}
GOOD = {
    "a noun phrase": '"""Arithmetic of error budgets."""\n',
    "names in backticks": '"""The step `healed` of a proof, and `llmchaos heal`."""\n',
    "code": 'if x is None:\n    say("yes;")\n',
    "a message with a way out": 'raise ValueError(f"expected a rate above 0, got {rate}; raise rate_rps")\n',
    "a known defect": "x = 1  # a known defect, its cause unknown\n",
}


@pytest.mark.parametrize(("text", "rule"), BAD.values(), ids=BAD)
def test_a_breach_is_found_and_names_its_rule(text, rule):
    assert rule in " ".join(str(one) for one in prose.breaches("pytest_llmchaos/x.py", text))


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_plain_text_has_no_breach(text):
    assert [str(one) for one in prose.breaches("pytest_llmchaos/x.py", text)] == []


def test_a_page_is_read_without_its_code_blocks():
    page = "# Title\n\nNobody reads this.\n\n```sh\necho nobody\n```\n\n`nobody` is a user.\n"

    assert [one.line for one in prose.breaches("docs/x.md", page)] == [3]


@pytest.mark.parametrize("name", ["stack/compose.yaml", "pyproject.toml", "Makefile", "stack/images/warm.sh"])
def test_settings_are_read_by_their_comments(name):
    text = "say: nobody\n# nobody reads it\nurl: http://x#nobody\nrate: 1 # one; two\n"

    assert [one.line for one in prose.breaches(name, text)] == [2, 4]


def test_the_median_of_a_folder_is_bounded():
    assert [one.path for one in prose.long_medians({"tests": [61, 61, 10], "stack": [60, 90, 10]})] == ["tests"]


def test_the_rules_cover_source_tests_pages_and_settings():
    covered = {"README.md", "pytest_llmchaos/plugin.py", "tests/test_docs.py", "stack/compose.yaml", "Makefile"}

    assert covered - set(prose.tracked()) == set()
