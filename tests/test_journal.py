"""The journal survives the death of its writer: every line is on disk before it returns, at most the last is torn."""

import ast
import errno
import json
import os
from pathlib import Path

import jsonschema
import pytest

import pytest_llmchaos
from pytest_llmchaos.errors import EvidenceLost
from pytest_llmchaos.evidence.journal import Journal, open_intents, read


def test_lines_are_read_back_in_order(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    journal.write("run", seed=42)
    journal.write("event", trial="001", what="snowman ☃ and \n newline")
    journal.close()

    lines = list(read(journal.path))

    assert [line["kind"] for line in lines] == ["run", "event"]
    assert lines[1]["what"] == "snowman ☃ and \n newline"
    assert lines[0]["at_unix_s"] <= lines[1]["at_unix_s"]


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"kind":"run"}\n{"kind":"phase","na')

    assert [line["kind"] for line in read(path)] == ["run"]


def test_a_line_that_is_no_object_is_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'[1]\nnot json\n{"kind":"run"}\n')

    assert [line["kind"] for line in read(path)] == ["run"]


def test_every_line_is_synced_before_write_returns(tmp_path, monkeypatch):
    synced = []
    journal = Journal(tmp_path / "journal.jsonl")
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(journal.path.read_bytes()))

    journal.write("intent", victim="api")

    assert json.loads(synced[0])["victim"] == "api"


def test_a_full_disk_is_an_error_and_not_silence(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")

    def full(_fd, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(
        EvidenceLost, match=r"the line 'intent' cannot be written to .*: No space left on device: make room"
    ):
        journal.write("intent", victim="api")


def test_on_the_way_out_a_full_disk_stops_nothing_and_is_remembered(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    write, room = os.write, [10]

    def full(fd, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        part, room[0] = data[: room[0]], 0
        return write(fd, part)

    monkeypatch.setattr(os, "write", full)
    journal.note("undone", victim="api")
    monkeypatch.undo()
    journal.note("stack_down")

    assert "'undone' cannot be written" in str(journal.lost)
    assert [line["kind"] for line in read(journal.path)] == ["stack_down"]


def intent(journal, victim, op="ensure_running"):
    journal.write("intent", trial="001", victim=victim, undo={"op": op, "service": victim, "args": {}})


def test_open_intents_are_those_not_undone_newest_first(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intent(journal, "api")
    intent(journal, "model-1", "ensure_unpaused")
    intent(journal, "model-2")
    journal.write("undone", trial="001", victim="model-1", op="ensure_unpaused", ok=True)

    assert [(u["op"], u["service"]) for u in open_intents(journal.path)] == [
        ("ensure_running", "model-2"),
        ("ensure_running", "api"),
    ]


def test_an_undo_that_failed_leaves_its_intent_open(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intent(journal, "api")
    journal.write("undone", trial="001", victim="api", op="ensure_running", ok=False)

    assert len(open_intents(journal.path)) == 1


PACKAGE = Path(pytest_llmchaos.__file__).parent


def schema():
    return json.loads((PACKAGE / "evidence" / "journal.schema.json").read_text())


def test_the_schema_names_every_kind_of_line_that_the_package_writes():
    written = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            owner = ast.unparse(node.func.value).rpartition(".")[2] if called in {"write", "note"} else ""
            if owner in {"journal", "_journal", "record", "self"} and isinstance(node.args[0], ast.Constant):
                written.add(node.args[0].value)
    written.add("proof")  # chosen between both ways of writing

    jsonschema.Draft202012Validator.check_schema(schema())
    assert {one["properties"]["kind"]["const"] for one in schema()["oneOf"]} == written


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "intent", "trial": "001", "step": "inject", "fault": "kill", "victim": "api"},
        {"kind": "undone", "trial": "001", "victim": "api", "op": "ensure_running", "ok": "yes"},
        {"kind": "stack", "project": "p"},
        {"kind": "unheard of"},
    ],
    ids=lambda line: line["kind"],
)
def test_a_line_that_could_not_be_healed_from_is_not_in_the_schema(line):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"at_unix_s": 1.0, **line}, schema())
