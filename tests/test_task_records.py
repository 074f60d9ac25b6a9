"""The file of an agent's tasks."""

import msgspec
import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.evidence import task_records
from pytest_llmchaos.evidence.task_records import TaskRecord

DONE = TaskRecord(
    id="t-1",
    plan=("find_order 17", "refund 17"),
    due_s=0.5,
    sent_s=0.501,
    accepted_s=0.51,
    ended_s=1.25,
    cancelled_s=None,
    status="completed",
    steps=2,
    tokens=40,
    model_calls=3,
    tool_calls=2,
    error=None,
    left_s=1.25,
)


def test_records_are_read_by_due_time_without_a_torn_last_line(tmp_path):
    later = msgspec.structs.replace(DONE, id="t-2", due_s=2.0, ended_s=None, status="stuck", error="no end")
    lines = task_records.line(later) + task_records.line(DONE) + task_records.line(DONE)[:-20]
    (tmp_path / task_records.NAME).write_bytes(lines)

    assert task_records.load(tmp_path) == (DONE, later)


def test_a_load_without_tasks_has_no_records(tmp_path):
    assert task_records.load(tmp_path) == ()
    (tmp_path / task_records.NAME).touch()
    assert task_records.load(tmp_path) == ()


@pytest.mark.parametrize("text", [b"{}", b"[]", b"x", b'{"id": 1}'])
def test_another_line_is_refused_with_its_number(tmp_path, text):
    (tmp_path / task_records.NAME).write_bytes(task_records.line(DONE) + text + b"\n")

    with pytest.raises(BadScenario, match=r"line 2: expected a task's record, got"):
        task_records.load(tmp_path)
