"""The scoreboard of examples/gateways: its verdicts, its page and its files."""

import asyncio
import hashlib
import importlib.util
import re
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import scoreboard
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from scoreboard_cases import (
    CHANGED,
    DISAGREE,
    GATEWAYS,
    HELD,
    NOT_RUN,
    NOTHING,
    REFUTED,
    SCENARIOS,
    SWITCHES,
    UNCHANGED,
    UNSEEN,
    WORDS,
    Board,
    Result,
    differs,
    results_of,
    seen_change,
)
from scoreboard_page import render

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


SMG = GATEWAYS[0]
NAMES = [one.name for one in GATEWAYS]

JUNIT = """<testsuites><testsuite>
<testcase name="test_truncated"><properties>
<property name="offered" value="40"/><property name="clients" value="23 ok, 17 truncated"/>
<property name="numbers" value='{"ended_early": 17, "hit": 17, "ok": 23}'/></properties>
<failure message="AssertionError: assert 17 == 0&#10; + where"/></testcase>
<testcase name="test_storm"><error message='failed on setup with "LoadNotHeld: the load ran   late"'/></testcase>
<testcase name="test_reset"><skipped message="needs proxy"/></testcase>
<testcase name="test_errors"/>
</testsuite></testsuites>"""


def result(verdict=HELD, **numbers):
    return Result(verdict=verdict, offered=40, clients="40 ok", numbers=numbers)


def switch(**changes):
    made = next(one for one in SWITCHES if one.gateway == "smg" and one.scenario == "storm")
    return replace(made, **{"clients": "longest_s"} | changes)


def board(**changes):
    made = Board(
        versions=dict.fromkeys(NAMES, "1.0"),
        results={name: {"truncated": result(ended_early=0, hit=9)} for name in NAMES},
        arms=[],
        machine="2 cores",
        took_s=780,
        commit="abc1234",
        day="2026-01-02",
    )
    return replace(made, **changes)


def test_verdicts_are_those_of_pytest():
    found = results_of(JUNIT)

    assert {name: one.verdict for name, one in found.items()} == {
        "truncated": REFUTED,
        "storm": NOTHING,
        "reset": NOTHING,
        "errors": HELD,
    }
    assert found["truncated"].numbers == {"ended_early": 17, "hit": 17, "ok": 23}
    assert found["truncated"].offered == 40
    assert found["truncated"].reason == "AssertionError: assert 17 == 0"
    assert found["storm"].reason == "LoadNotHeld: the load ran late"


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("failed", 20, 4, True),
        ("failed", 20, 17, False),
        ("failed", 3, 5, False),
        ("failed", 0, 9, True),
        ("failed", 0, 1, False),
        ("replicas after", 1, 2, True),
        ("replicas after", 2, 2, False),
        ("longest_s", 10.2, 2.1, True),
        ("longest_s", 1, 2, True),
        ("longest_s", 0.31, 0.12, False),
        ("failed", None, 3, False),
    ],
)
def test_a_change_is_more_than_two_runs_differ_by(name, before, after, expected):
    assert differs(name, before, after) is expected
    assert differs(name, after, before) is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (result(longest_s=3.5, met=90), result(longest_s=0.2, met=24), CHANGED),
        (result(longest_s=3.5, met=90), result(longest_s=3.4, met=24), DISAGREE),
        (result(longest_s=3.5, met=90), result(longest_s=3.4, met=88), UNCHANGED),
        (result(longest_s=3.5, met=90), result(NOTHING), NOTHING),
        (result(longest_s=3.5, met=90), result(NOT_RUN), NOT_RUN),
        (result(NOTHING), result(NOT_RUN), NOT_RUN),
        (result(met=90), result(met=24), UNSEEN),
        (result(longest_s=None, met=90), result(longest_s=None, met=24), UNSEEN),
    ],
)
def test_both_witnesses_have_to_see_a_change(before, after, expected):
    assert seen_change(switch(), before, after) == expected


def test_the_page_has_a_row_for_each_scenario_and_a_column_for_each_gateway():
    results = {
        "smg": {"truncated": result(REFUTED, ended_early=17, hit=17), "storm": Result(verdict=NOTHING, reason="a | b")},
        "lab": {"truncated": result(ended_early=0, hit=9), "returns": result(**{"replicas after": None, "ended by model-1": 4})},
    }  # fmt: skip
    page = render(board(results=results))

    assert "- **smg**, 1.0: `smg launch --host 0.0.0.0 --port 8000 --prometheus-host" in page
    assert "${" not in page
    assert "LiteLLM proxy" not in page
    assert "This run had no time for them." in page
    assert "Measured on 2026-01-02, commit `abc1234`, 2 cores, in 13 minutes." in page
    assert "| scenario | smg | this project's lab |" in page
    assert ("| `truncated` | **refuted**: ended early 17 of 40, hit 17 | held: ended early 0 of 40, hit 9 |") in page
    assert "| `storm` | proves nothing | not run |" in page
    assert "| held: replicas after cannot be seen, ended by model-1 4 |" in page
    assert "- `storm`, smg: a \\| b" in page
    assert all(f"| `{one.name}` | {one.statement} |" in page for one in SCENARIOS)


def test_doubled_text_is_on_the_page_even_if_its_length_is_right():
    bad = result(REFUTED, ended_early=0, hit=9, doubled=0, **{"text doubled": 4, "text whole": 4})
    long = result(REFUTED, ended_early=0, hit=9, doubled=2)
    page = render(board(results={"smg": {"inband_error": bad}, "lab": {"inband_error": long}}))

    assert "**refuted**: 4 answers with text doubled, ended early 0 of 40, hit 9" in page
    assert "**refuted**: 2 answers too long, ended early 0" in page


def test_the_page_shows_both_arms_of_a_switch():
    same = result(longest_s=3.5, met=90)
    arms = [
        (switch(), same, result(longest_s=0.2, met=24)),
        (switch(shown="--x"), same, result(longest_s=3.5, met=90, doubled=3)),
        (switch(shown="--z"), same, Result(verdict=NOT_RUN)),
    ]
    page = render(board(arms=arms))

    assert "| longest: 3.5 → 0.2 s | met: 90 → 24 | changed |" in page
    assert "| longest: 3.5 → 3.5 s, 3 answers too long | met: 90 → 90 | **no change** |" in page
    assert "| longest: 3.5 → - s | met: 90 → - | not run |" in page


def test_the_page_has_the_length_of_each_fault_that_is_not_3_s():
    text = " ".join(render(board()).split())
    given = {}
    for file in sorted((FOLDER / "scenarios").glob("test_*.py")):
        if found := re.search(r"fault_s=([0-9.]+)", file.read_text(encoding="utf-8")):
            given[file.stem.removeprefix("test_")] = found[1]

    assert given == {"stalled": "7.5", "silent": "5", "returns": "5", "errors_slowly": "5"}
    assert "A fault lasts 3 s (`stalled` 7.5 s, `silent`, `returns` and `errors_slowly` 5 s)." in text


def test_known_reports_are_seen_not_seen_or_unknown():
    window = next(one for one in SWITCHES if "--cb-window" in one.shown and one.gateway == "smg")
    continuation = next(one for one in SWITCHES if "continuation" in one.shown)
    bad = result(**{"text doubled": 4})
    results = {
        "smg": {"truncated": result(REFUTED), "returns": result(), "inband_error": result(ended_early=0)},
        "litellm": {"truncated": result(), "inband_error": result(ended_early=0), "returns": result(NOTHING)},
    }
    same = result(failed=5, met=5)
    page = render(board(results=results, arms=[(window, same, same), (continuation, result(), bad)]))

    assert "| a breaker window without effect | **seen** | no such switch |" in page
    assert "| a replica that is not tried again within 10 s of its return | not seen | proves nothing |" in page
    assert "| a truncated stream that is passed on without an error | **seen** | not seen |" in page
    doubled = "**seen** with `enable_mid_stream_fallback_continuation: true`"
    assert f"| text that is doubled after an error in mid-stream | not seen | {doubled} |" in page

    left = render(board(results=results, arms=[(continuation, result(), result(NOT_RUN))]))
    unknown = "not seen, `enable_mid_stream_fallback_continuation: true` not run"
    assert f"| text that is doubled after an error in mid-stream | not seen | {unknown} |" in left


@pytest.fixture
def runs(monkeypatch):
    """Calls of pytest, and the results that they return in order."""
    made, returned = [], []

    def run(gateway, names, settings, installed):
        made.append((tuple(names), dict(settings)))
        return returned.pop(0) if returned else {name: result() for name in names}

    monkeypatch.setattr(scoreboard, "run", run)
    return made, returned


def test_scenarios_with_the_same_settings_share_one_start(runs):
    made, _ = runs
    known = {}
    scoreboard.perform(
        SMG, [("storm", {}), ("storm", {"A": "1"}), ("errors", {}), ("storm", {})], known, float("inf"), "x"
    )

    assert made == [(("storm", "errors"), {}), (("storm",), {"A": "1"})]
    assert {one.verdict for one in known.values()} == {HELD}


def test_what_proves_nothing_or_has_no_result_is_repeated_once(runs):
    made, returned = runs
    returned += [{"storm": result(NOTHING), "reset": result()}, {"storm": result(), "errors": result(NOTHING)}]
    known = {}
    scoreboard.perform(SMG, [("storm", {}), ("reset", {}), ("errors", {})], known, float("inf"), "x")

    assert made == [(("storm", "reset", "errors"), {}), (("storm", "errors"), {})]
    assert {name: one.verdict for (name, _), one in known.items()} == {"storm": HELD, "reset": HELD, "errors": NOTHING}


def test_what_the_budget_leaves_no_time_for_is_not_run(runs):
    made, _ = runs
    found = scoreboard.measure([GATEWAYS[-1]], 0, "x")

    assert made == []
    assert found.results == {"lab": {}}
    assert {(before.verdict, after.verdict) for _, before, after in found.arms} == {(NOT_RUN, NOT_RUN)}


def test_scenarios_and_switches_name_files_that_exist():
    files = {file.stem.removeprefix("test_") for file in (FOLDER / "scenarios").glob("test_*.py")}

    arms = [(one.scenario, settings) for one in SWITCHES for settings in (one.base, one.settings)]
    assert files == {one.name for one in SCENARIOS} | {scenario for scenario, _ in arms}
    assert {name for one in SCENARIOS for name in (one.clients, one.upstream)} <= set(WORDS)
    assert {one.gateway for one in SWITCHES} == set(NAMES)
    for _, settings in arms:
        config = settings.get("GATEWAY_CONFIG")
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


@pytest.mark.parametrize("gateway", [one for one in GATEWAYS if one.package])
def test_each_foreign_gateway_is_pinned_with_hashes(gateway):
    lines = (FOLDER / f"{gateway.name}.lock").read_text().splitlines()
    pinned = [line for line in lines if line.startswith(f"{gateway.package}==")]
    written = [line for line in (FOLDER / f"{gateway.name}.in").read_text().splitlines() if "==" in line]

    assert len(pinned) == 1
    assert pinned[0].removesuffix(" \\") in written
    assert any("--hash=sha256:" in line for line in lines)


def test_an_engine_names_itself_in_each_response():
    engine = load("named_engine", FOLDER / "engine.py")

    async def header():
        app = engine.named(lambda _engine: web.Application(), "model-2")(None)
        async with TestClient(TestServer(app)) as client, client.get("/missing") as response:
            return response.headers["x-engine"]

    assert asyncio.run(header()) == "model-2"


def sample(outcome="ok", tokens=16, replica="", **times):
    times = {"due_s": 1.0, "sent_s": 1.0, "first_s": 1.1, "end_s": 1.5, **times}
    return SimpleNamespace(outcome=outcome, tokens=tokens, replica=replica, **times)


def seen(*samples, open_=(), later=()):
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    made = witnesses.Seen(
        samples=samples,
        open=open_,
        later=later,
        tokens=16,
        met=9,
        hit=4,
        engines={"model-1": 3},
        aborted=2,
        got=5,
        text=Counter(whole=3),
    )
    return made, witnesses.numbers(made)


def test_an_answer_that_ends_early_without_an_error_was_passed_on_as_whole():
    found, _ = seen(sample(), sample("truncated", 3), sample("ok", 7), sample("inband_error", 3), sample("cut", 3))

    assert found.ended_early == 2
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
    assert [numbers[f"text {name}"] for name in ("whole", "part", "doubled", "foreign")] == [3, 0, 0, 0]


def test_two_witnesses_that_differ_prove_nothing():
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    witnesses.require_agreement(True, "the same")

    with pytest.raises(Inconclusive, match="two witnesses differ: 3 and 4"):
        witnesses.require_agreement(False, "3 and 4")


def test_replicas_that_no_answer_names_cannot_be_seen():
    assert seen(later=(sample(replica="a"), sample(replica="b"), sample("cut", replica="c")))[1]["replicas after"] == 2
    assert seen(later=(sample(),))[1]["replicas after"] is None
    assert seen()[1]["replicas after"] is None


def test_counters_are_differences_and_begin_anew_with_their_engine():
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    before = {("model-1", "done"): 40, ("model-2", "done"): 50, ("model-2", "aborted"): 7}
    after = {("model-1", "done"): 3, ("model-2", "done"): 70, ("model-2", "aborted"): 9}
    ended = witnesses.since(before, after, started_again={"model-1"})

    assert witnesses.by_engine(ended) == {"model-1": 3, "model-2": 20}
    assert witnesses.given_up(ended) == 2


def test_clients_and_engines_have_to_count_the_same_answers():
    witnesses = load("witnesses", FOLDER / "scenarios" / "conftest.py")
    witnesses.require_same_answers(40, {"model-1": 3, "model-2": 45})

    with pytest.raises(Inconclusive, match="clients got 20 whole answers, and the engines ended 48"):
        witnesses.require_same_answers(20, {"model-1": 3, "model-2": 45})


def test_a_text_is_compared_with_the_tokens_of_the_engine():
    kind = load("witnesses", FOLDER / "scenarios" / "conftest.py").kind
    words = [hashlib.sha256(f"x\x1f{index}".encode()).hexdigest()[:6] for index in range(16)]

    assert kind(" ".join(words), "x") == "whole"
    assert kind(" ".join(words[:3]), "x") == "part"
    assert kind("", "x") == "part"
    assert kind(" ".join([*words[:3], *words[:13]]), "x") == "doubled"
    assert kind(" ".join(words), "y") == "foreign"
