"""The scoreboard of examples/gateways: its verdicts, its page and its files."""

import importlib.util
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_llmchaos.errors import Inconclusive
from pytest_llmchaos.runtime.local.own_compose import OwnCompose
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "gateways"


def load(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


board_of = load("scoreboard", FOLDER / "scoreboard.py")
Result, HELD, REFUTED, NOTHING = board_of.Result, board_of.HELD, board_of.REFUTED, board_of.NOTHING
NAMES = [one.name for one in board_of.GATEWAYS]

JUNIT = """<testsuites><testsuite>
<testcase name="test_truncated"><properties>
<property name="offered" value="40"/><property name="clients" value="23 ok, 17 truncated"/>
<property name="numbers" value='{"passed_as_whole": 17, "hit": 17, "ok": 23}'/></properties>
<failure message="AssertionError: assert 17 == 0&#10; + where"/></testcase>
<testcase name="test_storm"><error message='failed on setup with "LoadNotHeld: the load ran   late"'/></testcase>
<testcase name="test_reset"><skipped message="needs proxy"/></testcase>
<testcase name="test_errors"/>
</testsuite></testsuites>"""


def result(verdict=HELD, **numbers):
    return Result(verdict=verdict, offered=40, clients="40 ok", numbers=numbers)


def switch(**changes):
    made = next(one for one in board_of.SWITCHES if one.gateway == "smg" and one.scenario == "storm")
    return replace(made, **changes)


def board(**changes):
    made = board_of.Board(
        versions=dict.fromkeys(NAMES, "1.0"),
        results={name: {"truncated": result(passed_as_whole=0, hit=9)} for name in NAMES},
        arms=[],
        machine="2 cores",
        took_s=780,
    )
    return replace(made, **changes)


def test_verdicts_are_those_of_pytest():
    found = board_of.results_of(JUNIT)

    assert {name: one.verdict for name, one in found.items()} == {
        "truncated": REFUTED,
        "storm": NOTHING,
        "reset": NOTHING,
        "errors": HELD,
    }
    assert found["truncated"].numbers == {"passed_as_whole": 17, "hit": 17, "ok": 23}
    assert found["truncated"].offered == 40
    assert found["truncated"].reason == "AssertionError: assert 17 == 0"
    assert found["storm"].reason == "LoadNotHeld: the load ran late"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (20, 4, True),
        (20, 17, False),
        (3, 5, False),
        (0, 9, True),
        (0, 1, True),
        (1, 2, True),
        (10.2, 2.1, True),
        (0.31, 0.12, False),
        (None, 3, False),
    ],
)
def test_a_change_is_more_than_two_runs_differ_by(before, after, expected):
    assert board_of.differs(before, after) is expected
    assert board_of.differs(after, before) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (result(longest_s=3.5, met=90), result(longest_s=0.2, met=24), board_of.CHANGED),
        (result(longest_s=3.5, met=90), result(longest_s=3.4, met=24), board_of.DISAGREE),
        (result(longest_s=3.5, met=90), result(longest_s=3.4, met=88), board_of.UNCHANGED),
        (result(longest_s=3.5, met=90), result(NOTHING), NOTHING),
        (result(met=90), result(met=24), board_of.CHANGED),
        (result(), result(), board_of.UNCHANGED),
    ],
)
def test_both_witnesses_have_to_see_a_change(before, after, expected):
    assert board_of.seen_change(switch(), before, after) == expected


def test_the_page_has_a_row_for_each_scenario_and_a_column_for_each_gateway():
    results = {
        "smg": {"truncated": result(REFUTED, passed_as_whole=17, hit=17, doubled=2), "storm": Result(verdict=NOTHING, reason="a | b")},
        "lab": {"truncated": result(passed_as_whole=0, hit=9)},
    }  # fmt: skip
    page = board_of.render(board(results=results))

    assert "| smg | 1.0 |" in page
    assert "LiteLLM" not in page
    assert "This run had no time for them." in page
    assert "| scenario | smg | this project's lab |" in page
    assert (
        "| `truncated` | refuted (2 doubled, 17 passed as whole, 17 hit of 40) | held (0 passed as whole, 9 hit of 40) |"
        in page
    )
    assert "| `storm` | proves nothing | not run |" in page
    assert "smg: a \\| b" in page
    assert all(f"| `{one.name}` |" in page for one in board_of.SCENARIOS)


def test_the_page_shows_both_arms_of_a_switch():
    arms = [
        (switch(), result(longest_s=3.5, met=90), result(longest_s=0.2, met=24)),
        (switch(shown="--x"), result(longest_s=3.5, met=90), result(longest_s=3.5, met=90, doubled=3)),
    ]
    page = board_of.render(board(arms=arms))

    assert "| longest s: 3.5 → 0.2 | met: 90 → 24 | changed |" in page
    assert "| longest s: 3.5 → 3.5, 3 doubled | met: 90 → 90 | **no change** |" in page


def test_scenarios_and_switches_name_files_that_exist():
    files = {file.stem.removeprefix("test_") for file in (FOLDER / "scenarios").glob("test_*.py")}

    assert files == {one.name for one in board_of.SCENARIOS} | {one.scenario for one in board_of.SWITCHES}
    assert {one.gateway for one in board_of.SWITCHES} == set(NAMES)
    for one in board_of.SWITCHES:
        config = one.settings.get("GATEWAY_CONFIG")
        assert config is None or Path(config).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_each_gateway_is_a_stack_that_runs_as_processes(name):
    table = tomllib.loads((FOLDER / name / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert table.pop("llmchaos_runtime") == "local"
    known = set(OwnKeys.__dataclass_fields__)
    keys = {key.removeprefix("llmchaos_"): value for key, value in table.items() if key.startswith("llmchaos_")}

    assert set(keys) <= known
    subject = own_subject(
        OwnKeys(**{key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}),
        FOLDER / name,
        toml=True,
    )
    examined = OwnCompose(subject.compose_files, {}).examine(subject)
    assert examined.ports[0] == ("gateway", "", 8000)
    assert examined.targets == ("gateway", "model-1", "model-2")


@pytest.mark.parametrize("gateway", [one for one in board_of.GATEWAYS if one.package])
def test_each_foreign_gateway_is_pinned_with_hashes(gateway):
    lines = (FOLDER / f"{gateway.name}.lock").read_text().splitlines()
    pinned = [line for line in lines if line.startswith(f"{gateway.package}==")]
    written = [line for line in (FOLDER / f"{gateway.name}.in").read_text().splitlines() if "==" in line]

    assert len(pinned) == 1
    assert pinned[0].removesuffix(" \\") in written
    assert any("--hash=sha256:" in line for line in lines)


def sample(outcome="ok", tokens=16, **times):
    times = {"due_s": 1.0, "sent_s": 1.0, "first_s": 1.1, "end_s": 1.5, **times}
    return SimpleNamespace(outcome=outcome, tokens=tokens, replica="", **times)


def seen(*samples, open_=()):
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    made = witnesses.Seen(
        samples=samples, open=open_, later=(), tokens=16, met=9, hit=4, engines={"model-1": 3}, aborted=2
    )
    return made, witnesses.numbers(made)


def test_an_answer_that_ends_early_without_an_error_was_passed_on_as_whole():
    found, _ = seen(sample(), sample("truncated", 3), sample("ok", 7), sample("inband_error", 3), sample("cut", 3))

    assert found.passed_as_whole == 2
    assert found.ok == 1
    assert found.offered == 5


def test_doubled_text_shows_in_the_number_of_tokens():
    found, _ = seen(sample(tokens=16), sample(tokens=19))

    assert found.doubled == 1
    assert found.ok == 1


def test_waits_count_from_the_due_time():
    found, numbers = seen(sample(), sample(first_s=4.0, end_s=9.0), sample("unfinished", 0, first_s=None, end_s=11.0))

    assert found.begun_within(2) == 1
    assert found.ended_within(6) == 1
    assert numbers["longest_s"] == 10
    assert numbers["failed"] == 1


def test_answers_in_progress_that_did_not_end_are_broken():
    _, numbers = seen(sample(), open_=(sample(), sample("cut", 5)))

    assert numbers["open"] == 2
    assert numbers["broken"] == 1
    assert numbers["aborted"] == 2
    assert numbers["ended by model-1"] == 3


def test_two_witnesses_that_differ_prove_nothing():
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    witnesses.require_agreement(True, "the same")

    with pytest.raises(Inconclusive, match="two witnesses differ: 3 and 4"):
        witnesses.require_agreement(False, "3 and 4")
