"""An agent's tasks in `run.json` and on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import msgspec
from support import reportdata
from support.reportdata import Made

from pytest_llmchaos import report
from pytest_llmchaos.evidence.trial_result import TasksResult
from pytest_llmchaos.report.task_lanes import describe, task_lanes, task_rows

SCHEMA = Path(__file__).parent.parent / "pytest_llmchaos" / "report" / "run.schema.json"
TASKS = msgspec.convert(reportdata.tasks(), TasksResult)


def test_tasks_are_in_run_json_and_on_the_page(tmp_path: Path) -> None:
    page = report.build(
        reportdata.run_dir(tmp_path, [Made(extra={"tasks": reportdata.tasks()}), Made(scenario="chat")])
    )

    run = json.loads(page.with_name("run.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(run)
    with_tasks, without = run["trials"]
    assert (with_tasks["tasks"]["duplicate_effects"], without["tasks"]) == (1, None)
    text = page.read_text()
    assert text.count("Tasks of the agent") == 1
    assert "Effects unknown: row 3 is missing" in text
    assert "t-17 duplicate: refund 17 once too often" in text


def test_the_table_has_the_values_that_the_evidence_has() -> None:
    rows = {name: value for name, value, _ in task_rows(TASKS)}

    assert rows == {
        "completed": "18",
        "stuck": "1",
        "cancelled": "1",
        "duplicate effects": "1",
        "missing effects": "0",
        "false success": "0",
        "tool amplification": "1.025",
        "latency p50": "0.52 s",
        "longest resume": "1.4 s",
        "Retry-After honoured": "yes",
    }
    assert task_rows(TasksResult(offered=0, statuses={"lost": 0}, retry_after_honoured=False)) == [
        ("lost", "0", ""),
        ("Retry-After honoured", "no", "by all calls"),
    ]


def test_a_lane_has_calls_effects_and_the_kill() -> None:
    drawn = str(task_lanes(TASKS))

    assert len(re.findall('class="task-call"', drawn)) == 3
    assert (len(re.findall('class="task-effect"', drawn)), len(re.findall('class="task-surplus"', drawn))) == (1, 1)
    assert drawn.count("kill of agent") == 1, "a kill outside the picture is not drawn"
    assert "t-17: refund 17 received 8.100 s, effect 5 at 8.110 s, no answer, key t-17/1" in drawn
    assert drawn.index("t-17") < drawn.index("t-18") < drawn.index("t-19")
    assert describe(TASKS) == "3 tasks of 20; t-17 duplicate: refund 17 once too often; t-18 stuck."
    assert task_lanes(TasksResult(offered=0, statuses={})) is None


def test_a_repeated_key_that_shows_the_first_effect_is_no_duplicate() -> None:
    _, first, later = TASKS.worst[0].calls
    again = msgspec.structs.replace(first, received_s=9.0)
    task = msgspec.structs.replace(TASKS.worst[0], calls=(first, again, later, later))

    drawn = str(task_lanes(TasksResult(offered=1, statuses={}, worst=(task,))))

    assert (len(re.findall('class="task-effect"', drawn)), len(re.findall('class="task-surplus"', drawn))) == (2, 2)


def test_lanes_of_tasks_without_a_length_are_drawn() -> None:
    task = msgspec.structs.replace(TASKS.worst[2], ended_s=None, cancelled_s=None, status="<b>")

    drawn = str(task_lanes(TasksResult(offered=1, statuses={}, worst=(task,))))

    assert "<b>" not in drawn
    assert "task-other" in drawn
    assert "nan" not in drawn


def test_a_long_id_is_shown_by_its_end() -> None:
    """Ids of a load differ there."""
    named = [msgspec.structs.replace(TASKS.worst[0], id=name) for name in ("x" * 18, f"llmchaos-83047a2b-{'9' * 9}-17")]

    drawn = str(task_lanes(TasksResult(offered=2, statuses={}, worst=tuple(named))))

    assert re.findall(r'class="tick">([^<]*-17|x+)<', drawn) == ["x" * 18, "…7a2b-999999999-17"]
