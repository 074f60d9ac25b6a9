"""The file of known refutations: its entries, and what makes one wrong."""

import datetime as dt
import re

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan.known import KnownRefutation, is_web_link, parse_known, unknown_test, without_repeat

CHOICES = {"runtime": ("compose", "local"), "backend": ("ollama", "sim")}
TEST = 'test = "scenarios/test_a.py::test_b"\n'
ISSUE = 'issue = "https://example.org/issues/1"\n'
WHY = 'why = "the retry budget is not read"\n'
ENTRY = f"[[known]]\n{TEST}{ISSUE}{WHY}"


def parse(text):
    return parse_known(text, "known.toml", CHOICES)


def test_an_entry_has_a_test_an_issue_and_a_reason_and_may_have_a_place_and_an_end():
    first, second = parse(
        f"{ENTRY}runtime = 'local'\nbackend = 'sim'\nuntil = 2026-12-31\n{ENTRY}runtime = 'compose'\n"
    )

    assert first == KnownRefutation(
        test="scenarios/test_a.py::test_b",
        issue="https://example.org/issues/1",
        why="the retry budget is not read",
        runtime="local",
        backend="sim",
        until=dt.date(2026, 12, 31),
    )
    assert first.file == "scenarios/test_a.py"
    assert (second.runtime, second.backend, second.until) == ("compose", None, None)


def test_a_file_without_entries_lists_nothing():
    assert parse("# none\n") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[known]\n", r"known\.toml must be a TOML file with \[\[known\]\] entries: .*at line 1"),
        (f"[[knwon]]\n{TEST}", r"must hold \[\[known\]\] entries and nothing else, got knwon: begin each with \[\[known\]\]"),
        ("known = 1\n", r"got known = 1: begin each"),
        ("known = ['a']\n", r"got known = \['a'\]: begin each"),
        (f"{ENTRY}isue = 1\n", r"entry 1 has the unknown key 'isue'; did you mean issue\?"),
        (f"{ENTRY}zzz = 1\n", r"unknown key 'zzz'; the keys are backend, issue, runtime, test, until, why"),
        (f"[[known]]\n{ISSUE}{WHY}", r"entry 1: test must be one line of text with at most 500 characters, got none: write"),
        (f"[[known]]\n{TEST}{WHY}", r"issue must be one line of text .*, got none: write issue = \"https://github"),
        (f"{ENTRY}[[known]]\n{TEST}{ISSUE}", r"entry 2: why must be one line of text .*, got none: write why = "),
        (f"[[known]]\n{TEST}{ISSUE}why = 1\n", r"why must be one line of text .*, got 1: write"),
        (f"[[known]]\n{TEST}{ISSUE}why = ' '\n", r"why must be one line of text .*, got ' ': write"),
        (f"[[known]]\n{TEST}{ISSUE}why = 'a{'b' * 500}'\n", r"why must be one line of text with at most 500"),
        (f'[[known]]\n{TEST}{ISSUE}why = "a\\nb"\n', r"why must be one line of text .*, got 'a\\nb': write"),
        (f"[[known]]\ntest = 'test_a.py'\n{ISSUE}{WHY}", r"test must be an id as `pytest -v` prints it, got 'test_a\.py'"),
        (f"[[known]]\ntest = '/a/test_a.py::test_b'\n{ISSUE}{WHY}", r"test must be an id .*, got '/a/test_a\.py::"),
        (f"[[known]]\ntest = './test_a.py::test_b'\n{ISSUE}{WHY}", r"test must be an id .*, got '\./test_a\.py::"),
        (f"[[known]]\ntest = 'b/../test_a.py::test_b'\n{ISSUE}{WHY}", r"test must be an id .*, got 'b/\.\./test"),
        (f"[[known]]\n{TEST}issue = 'ISSUE-1'\n{WHY}", r"issue must be an http or https link .*, got 'ISSUE-1': write"),
        (f"{ENTRY}runtime = 'docker'\n", r"runtime must be one of compose, local, got 'docker'"),
        (f"{ENTRY}backend = 1\n", r"backend must be one of ollama, sim, got 1"),
        (f"{ENTRY}until = '2026-12-31'\n", r"until must be a date without quotes, got 2026-12-31: write until = 2026-12-31"),
        (f"{ENTRY}until = 2026-12-31T00:00:00\n", r"until must be a date without quotes, got 2026-12-31 00:00:00"),
        (f"{ENTRY}{ENTRY}", r"entries 1 and 2 are both about scenarios/test_a\.py::test_b: remove one"),
        (f"{ENTRY}{ENTRY}runtime = 'local'\n", "entries 1 and 2 are both about"),
        (f"{ENTRY}{ENTRY}".replace("test_b", "test_b[kill api]", 1), "entries 1 and 2 are both about"),
        (f"{ENTRY}{ENTRY}".replace("test_b", "test_b[kill api]").replace("[kill api]", "", 1), "entries 1 and 2 are both"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_error(text, message):
    with pytest.raises(BadScenario, match=message) as caught:
        parse(text)

    assert "known.toml" in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        ("test_b", "test_c"),
        ("test_b", "test_bb"),
        ("test_b", "test_b[kill api]", "test_b[kill model-1]"),
        ("why", "runtime = 'compose'\nwhy", "runtime = 'local'\nwhy"),
        ("why", "runtime = 'local'\nbackend = 'sim'\nwhy", "backend = 'ollama'\nwhy"),
    ],
)
def test_entries_about_different_claims_or_places_stand_side_by_side(changed):
    old, one, *other = changed

    assert len(parse(ENTRY.replace(old, one) + ENTRY.replace(old, other[0] if other else old))) == 2


@pytest.mark.parametrize(
    ("test", "is_about"),
    [("a.py::test_b", True), ("a.py::test_b[kill api]", True), ("a.py::test_bb", False), ("a.py::T::test_b", False)],
)
def test_an_entry_without_parameters_is_about_all_of_them(test, is_about):
    (entry,) = parse(ENTRY.replace("scenarios/test_a.py", "a.py"))

    assert entry.is_about(test) is is_about


@pytest.mark.parametrize(
    ("keys", "applies"),
    [
        ("", True),
        ("runtime = 'local'", True),
        ("runtime = 'compose'", False),
        ("backend = 'sim'", True),
        ("runtime = 'local'\nbackend = 'ollama'", False),
    ],
)
def test_an_entry_applies_where_the_refutation_is_known(keys, applies):
    (entry,) = parse(f"{ENTRY}{keys}\n")

    assert entry.applies_on("local", "sim") is applies


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://example.org/a?b=c#d", True),
        ("http://127.0.0.1:3000/issues/1", True),
        ("https://[::1]/1", True),
        ("HTTPS://example.org", False),
        ("javascript:alert(1)", False),
        ("https://", False),
        ("https:///path", False),
        ("https://[::1", False),
        ("https://user:secret@example.org/1", False),
        ("https://example.org/a b", False),
        ("https://example.org/\u202e", False),
        ("https://example.org/\n", False),
        ("https://example.org/ü", False),
    ],
)
def test_only_a_plain_web_page_is_a_link(text, is_link):
    assert is_web_link(text) is is_link


@pytest.mark.parametrize(
    ("test", "fault", "repeat", "is_only", "once"),
    [
        ("a.py::test_b[kill api #1]", "kill api", 0, True, "a.py::test_b"),
        ("a.py::test_b[kill api #2]", "kill api", 1, False, "a.py::test_b[kill api]"),
        ("a.py::test_b[x-kill api #2]", "kill api", 1, True, "a.py::test_b[x]"),
        ("a.py::test_b[kill api #2-x::y]", "kill api", 1, False, "a.py::test_b[kill api-x::y]"),
        ("a.py::T::test_b[kill api #12]", "kill api", 11, True, "a.py::T::test_b"),
        ("a.py::test_b[kill api #2-off]", "kill api", 1, True, "a.py::test_b[off]"),
    ],
)
def test_the_id_of_a_repeat_is_that_of_a_single_run(test, fault, repeat, is_only, once):
    assert without_repeat(test, fault, repeat, is_only=is_only) == once


CHILDREN = {"a.py::test_b[x]": True, "a.py::test_b[y]": True, "a.py::test_plain": False, "a.py::TestC": None}


@pytest.mark.parametrize(
    ("test", "parent", "children", "why"),
    [
        ("a.py::test_b", "a.py", CHILDREN, None),
        ("a.py::test_b[y]", "a.py", CHILDREN, None),
        ("a.py::test_b[z]", "a.py", CHILDREN, r"is no test in a\.py: did you mean a\.py::test_b\[[xy]\]\?"),
        ("a.py::test_bb", "a.py", CHILDREN, r"known\.toml lists a\.py::test_bb, which is no test in a\.py: did you mean"),
        ("a.py::other", "a.py", {}, "is no test in a.py: correct the id, or remove the entry"),
        ("a.py::test_plain", "a.py", CHILDREN, "uses no `trial`, `arms` or `lab`, so it cannot be refuted"),
        ("b.py::test_b", "a.py", CHILDREN, None),
        ("a.py::TestC::test_d", "a.py", CHILDREN, None),
        ("a.py::TestC", "a.py", CHILDREN, "is no test in a.py"),
        ("a.py::TestD::test_d", "a.py", CHILDREN, "is no test in a.py"),
        ("a.py::test_plain::test_d", "a.py", CHILDREN, "is no test in a.py"),
        ("a.py::TestC::test_d", "a.py::TestC", {"a.py::TestC::test_d": True}, None),
        ("a.py::TestC::test_e", "a.py::TestC", {"a.py::TestC::test_d": True}, r"did you mean a\.py::TestC::test_d\?"),
    ],
)  # fmt: skip
def test_an_entry_that_no_collected_claim_has_is_noticed(test, parent, children, why):
    entries = parse(f"[[known]]\ntest = 'c.py::test_x'\n{ISSUE}{WHY}[[known]]\ntest = '{test}'\n{ISSUE}{WHY}")

    found = unknown_test(entries, parent, children, "known.toml")

    assert (found is None) is (why is None)
    assert found is None or re.search(why, found)
