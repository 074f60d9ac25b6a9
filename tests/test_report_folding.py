"""Journal lines in, run.json out: the format that other programs rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from support import reportdata
from support.journals import written
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import Written
from pytest_llmchaos.evidence.journal_lines import Intent
from pytest_llmchaos.evidence.trial_result import Anchor, RunResult
from pytest_llmchaos.model import UNDO_OPS
from pytest_llmchaos.report.fold import UNJUDGED
from pytest_llmchaos.report.journal_reader import journal

SCHEMA = json.loads(Path(report.__file__).with_name("run.schema.json").read_text())


def begun(**fields: Any) -> Written:
    about = {"schema": "llmchaos-journal/1", "run": "r", "seed": 0, "runtime": "", "backend": "", "schedule": []}
    return written("run", **{**about, **fields})


def folded(tmp_path: Path, *trials: Made, **options: Any) -> RunResult:
    return report.fold(journal(reportdata.run_dir(tmp_path, trials, **options)).lines)


def test_a_whole_run_keeps_to_the_schema(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [*reportdata.gallery(), Made(judged=False)])

    report.build(run_dir)

    run = json.loads((run_dir / "run.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(run)
    assert len(run["trials"]) == 9


def test_the_made_up_journal_is_one_that_a_run_writes(tmp_path: Path) -> None:
    found = journal(reportdata.run_dir(tmp_path, [*reportdata.gallery(), Made(judged=False)]))

    assert found.unreadable == ()
    assert {one.line.undo.op for one in found.lines if isinstance(one.line, Intent)} <= UNDO_OPS.keys()


def test_the_judges_words_are_repeated_unchanged(tmp_path: Path) -> None:
    (trial,) = folded(tmp_path, Made(detect_s=1.9, recover_s=4.2)).trials

    assert (trial.verdict, trial.reason) == ("held", None)
    assert (trial.time_to_detect_s, trial.detected_by) == (1.9, "alert AvailabilityFastBurn")
    assert (trial.time_to_recover_s, trial.repaired_by) == (4.2, "remediator")
    assert trial.anchor == Anchor(unix_s=reportdata.T0, monotonic_s=4711.5)
    assert [claim.outcome for claim in trial.claims] == ["passed"] * 3


@pytest.mark.parametrize(
    ("judged", "outcome", "becomes"),
    [
        pytest.param("held", "passed", "held", id="a claim that passed changes nothing"),
        pytest.param("held", "failed", "refuted", id="a claim that failed refutes"),
        pytest.param("held", "error", "invalid", id="a claim that did not run proves nothing"),
        pytest.param("invalid", "failed", "invalid", id="what proves nothing cannot be refuted"),
        pytest.param("inconclusive", "error", "inconclusive", id="an inconclusive trial stays so"),
        pytest.param("heal_failed", "failed", "heal_failed", id="a fault still in place outweighs a claim"),
        pytest.param("splendid", "passed", "invalid", id="a verdict that is not known proves nothing"),
    ],
)
def test_verdict_after_claims(tmp_path: Path, judged: str, outcome: str, becomes: str) -> None:
    message = None if outcome == "passed" else "assert 3 == 0"
    made = Made(verdict=judged, claims=[("test_first", "passed", None), ("test_second", outcome, message)])

    run = folded(tmp_path, made)

    assert run.trials[0].verdict == becomes
    assert run.counts.by_verdict()[becomes] == 1
    if judged == "held" and outcome != "passed":
        assert run.trials[0].reason == "assert 3 == 0"


def test_a_trial_whose_run_died_is_invalid_and_counted_from_its_samples(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made(judged=False, rate_rps=8, steady_s=8)], ended=False)

    report.build(run_dir)

    run = json.loads((run_dir / "run.json").read_text())
    (trial,) = run["trials"]
    assert (run["exit_status"], trial["judged"], trial["verdict"], trial["reason"]) == (
        None,
        False,
        "invalid",
        UNJUDGED,
    )
    steady, fault = trial["phases"]
    assert (steady["name"], steady["offered"], steady["ok"]) == ("steady", 64, 62)
    assert fault["name"] == "fault"
    assert fault["ok"] > 0
    # Its end and its open requests are unknown: they have no sample.
    assert (fault["from_s"], fault["to_s"], fault["offered"]) == (8, None, None)
    unknown = {"strength": {}, "counts": None}
    assert trial["undo"] == [{"fault": "kill", "victim": "api", "op": "ensure_running", "undone": False, **unknown}]


def test_journals_of_several_workers_become_one_run(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made(), Made(repeat=1)])
    whole = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    for worker, trial in (("gw0", "001"), ("gw1", "002")):
        own = [{**line, "trial": f"{worker}-{trial}"} for line in whole if line.get("trial") == trial]
        head = {**whole[0], "at_unix_s": reportdata.T0 + 1, "environment": {}}
        (run_dir / f"journal-{worker}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [head, *own]))
    main = [line for line in whole if "trial" not in line]
    (run_dir / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in main))

    run = report.fold(journal(run_dir).lines)

    assert [trial.trial for trial in run.trials] == ["gw0-001", "gw1-002"]
    assert run.environment["cores"] == 2
    assert run.run == run_dir.name


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([0, 0], 0),
        ([1, 0], 1),
        ([0, 1], 1),
        ([2, 1], 1),
        ([0, None], None),
        ([1, None], None),
        ([None, None], None),
        ([], None),
    ],
)
def test_a_run_of_several_workers_passed_if_each_of_them_did(statuses: list[int | None], status: int | None) -> None:
    begun = lines.RunBegin(schema=lines.SCHEMA, run="r", seed=1, runtime="local", backend="sim", schedule=())
    ended = [lines.RunEnd(exit_status=one) for one in statuses if one is not None]
    every = [*(begun for _ in statuses), *ended]

    run = report.fold(Written(at_unix_s=float(at), line=line) for at, line in enumerate(every))

    assert run.exit_status == status


def test_the_images_that_ran_and_the_stacks_own_times_are_part_of_the_run(tmp_path: Path) -> None:
    stack = folded(tmp_path, Made()).stack

    assert (stack.up_s, stack.down_s) == (3.412, 0.487)
    assert stack.images["model-1"] == "llmchaos/ollama:5b1e6cc2a9d0 sha256:30b6e59ba6cf"


def test_an_event_that_was_noted_and_judged_is_shown_once(tmp_path: Path) -> None:
    (trial,) = folded(tmp_path, Made()).trials

    told = [(event.at_s, event.what) for event in trial.events]
    assert len(told) == len(set(told)) == 5
    assert told == sorted(told)


def test_an_undo_counts_only_when_it_came_after_its_fault_and_worked() -> None:
    def undone(op: str = "start", *, ok: bool = True, **more: str) -> Written:
        return written("undone", trial="001", victim="api", op=op, ok=ok, **more)

    undo = {"op": "start", "service": "api", "args": {}}
    intent = written("intent", trial="001", victim="api", step="inject", fault="kill", undo=undo)

    def open_after(*lines: Written) -> list[bool]:
        return [not act.undone for act in report.fold(lines).trials[0].undo]

    assert open_after(intent, undone()) == [False]
    assert open_after(intent, undone(), intent) == [False, True]
    assert open_after(undone(), intent) == [True]
    assert open_after(intent, undone(ok=False)) == [True]
    assert open_after(intent, undone("unpause")) == [True]
    first, second = (structs.replace(intent, line=structs.replace(intent.line, id=one)) for one in ("001#1", "001#2"))
    assert open_after(first, second, undone(intent="001#2")) == [True, False]


def test_the_counts_of_a_fault_are_the_last_ones_of_its_own_proofs() -> None:
    undo = {"op": "wire_end", "service": "api", "args": {}}
    about = {"trial": "001", "victim": "api", "step": "inject", "fault": "flaky", "undo": undo}

    def proved(step: str, intent: str | None, **counters: float) -> Written:
        counts = {"counts": {"counters": counters}} if counters else {}
        known = {"intent": intent} if intent else {}
        return written("proof", trial="001", step=step, witness="w", at_s=1.0, **known, **counts)

    def counted(*lines: Written) -> list[dict[str, float] | None]:
        folded = report.fold(lines).trials[0].undo
        return [None if one.counts is None else one.counts.counters for one in folded]

    one, two = (written("intent", id=f"001#{number}", strength={"n": number}, **about) for number in (1, 2))
    first, last = proved("injected", "001#1", met=2), proved("healed", "001#1", met=9)

    assert counted(one, two, first, last) == [{"met": 9}, None]
    assert counted(one, first, proved("healed", "001#1")) == [{"met": 2}], "an agent that went has no later ones"
    assert counted(one, two, proved("injected", "001#2", met=3)) == [None, {"met": 3}]
    assert counted(written("intent", **about), proved("injected", None, met=2)) == [None], "no id, no match"
    assert [act.strength for act in report.fold([one, two]).trials[0].undo] == [{"n": 1}, {"n": 2}]


def test_what_is_unknown_stays_unknown() -> None:
    about = {"trial": "001", "scenario": "s", "hypothesis": "h", "fault": "none", "target": "", "fidelity": "real"}
    line = written("trial", **about, lifetime="none", remediator=None, repeat=None, samples="s")

    (trial,) = report.fold([begun(), line]).trials

    assert (trial.remediator, trial.repeat) == (None, None)


def test_each_trial_carries_the_line_that_repeats_its_experiment(tmp_path: Path) -> None:
    (trial,) = folded(tmp_path, Made()).trials

    expected = "pytest scenarios/test_kill_api.py --chaos-seed=42 --chaos-runtime=compose --chaos-backend=ollama"
    assert trial.replay == expected


def test_a_repeat_line_quotes_what_a_shell_would_run() -> None:
    claim = written("claim", trial="1", nodeid="a; rm -rf ~/test_x.py::test_y", outcome="passed")

    run = report.fold([begun(seed=7), claim])

    assert run.trials[0].replay == "pytest 'a; rm -rf ~/test_x.py' --chaos-seed=7"


def test_a_repeat_line_is_spelled_as_the_runs_own() -> None:
    claim = written("claim", trial="1", nodeid="a.py::test_y", outcome="passed")

    run = report.fold([begun(runtime="local", replay="pytest a.py --llmchaos-seed=0"), claim])

    assert run.trials[0].replay == "pytest a.py --llmchaos-seed=0 --llmchaos-runtime=local"


def test_a_number_without_a_finite_value_is_null_in_run_json(tmp_path: Path) -> None:
    run_dir = reportdata.run_dir(tmp_path, [Made(outage_s=14)])
    assert "Infinity" in (run_dir / "journal.jsonl").read_text()

    report.build(run_dir)

    text = (run_dir / "run.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    fault = json.loads(text)["trials"][0]["phases"][1]
    assert fault["ttft_p95_s"] is None
    assert fault["outcomes"]["refused"] > 100


def test_an_empty_journal_is_a_run_of_nothing() -> None:
    run = report.fold([])

    assert (run.trials, run.run, sum(run.counts.by_verdict().values())) == ((), "unknown", 0)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_field_holds_the_run_is_reported(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A journal of a later or broken version still has a report."""
    run_dir = reportdata.run_dir(tmp_path_factory.mktemp("run"), [Made(rate_rps=1, repeat=1)])
    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    for _ in range(data.draw(st.integers(1, 6))):
        line = data.draw(st.sampled_from(lines))
        holder = line
        inner = [
            value
            for value in line.values()
            if isinstance(value, list) and value and isinstance(value[0], dict) and value[0]
        ]
        if inner and data.draw(st.booleans()):
            holder = data.draw(st.sampled_from(inner))[0]
        holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JUNK)
    (run_dir / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    page = report.build(run_dir)

    run = json.loads((run_dir / "run.json").read_text(), parse_constant=pytest.fail)
    assert page.read_text().rstrip().endswith("</html>")
    assert report.summary_lines(msgspec.convert(run, RunResult))
