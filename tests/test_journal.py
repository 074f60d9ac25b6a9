"""The journal survives the death of its writer: every line is on disk before it returns, at most the last is torn."""

import errno
import json
import os
import re
import typing
from pathlib import Path

import jsonschema
import msgspec
import pytest
from support.journals import intend, undo

import pytest_llmchaos
from pytest_llmchaos.errors import EvidenceLost
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import FOREIGN, NAMES, Journal, open_intents, read
from pytest_llmchaos.evidence.journal import lines as lines_of
from pytest_llmchaos.plan.seeds import MAX_SEED


def test_lines_are_read_back_in_order(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    journal.write(lines.StackDown(took_s=1.5))
    journal.write(lines.Finding(trial="001", what="snowman ☃ and \n newline"))
    journal.close()

    found = list(read(journal.path))

    assert [line["kind"] for line in found] == ["stack_down", "finding"]
    assert found[1]["what"] == "snowman ☃ and \n newline"
    assert found[0]["at_unix_s"] <= found[1]["at_unix_s"]


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

    intend(journal, "api")

    assert json.loads(synced[0])["victim"] == "api"


def test_a_full_disk_is_an_error_and_not_silence(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")

    def full(_fd, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(
        EvidenceLost, match=r"the line 'intent' cannot be written to .*: No space left on device: make room"
    ):
        intend(journal, "api")


def test_on_the_way_out_a_full_disk_stops_nothing_and_is_remembered(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    write, room = os.write, [10]

    def full(fd, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        part, room[0] = data[: room[0]], 0
        return write(fd, part)

    monkeypatch.setattr(os, "write", full)
    journal.note(lines.Undone(trial="001", victim="api", op="ensure_running", ok=True))
    monkeypatch.undo()
    journal.note(lines.StackDown(took_s=1.5))

    assert "'undone' cannot be written" in str(journal.lost)
    assert [line["kind"] for line in read(journal.path)] == ["stack_down"]


def test_open_intents_are_those_not_undone_newest_first(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "api")
    intend(journal, "model-1", "ensure_unpaused")
    intend(journal, "model-2")
    undo(journal, "model-1", "ensure_unpaused")

    assert [(u.op, u.service) for u in open_intents(journal.path).undos] == [
        ("ensure_running", "model-2"),
        ("ensure_running", "api"),
    ]


def test_an_undo_that_failed_leaves_its_intent_open(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "api")
    undo(journal, "api", ok=False)

    assert len(open_intents(journal.path).undos) == 1


def test_of_two_intents_alike_the_one_is_open_whose_id_was_not_undone(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number, megabytes in ((1, "64"), (2, "32")):
        note = lines.UndoNote(op="ensure_memory", service="api", args={"had": megabytes})
        about = {"trial": "001", "step": "inject", "fault": "limit_memory", "victim": "api"}
        journal.write(lines.Intent(id=f"001#{number}", undo=note, **about))
    journal.write(lines.Undone(intent="001#2", trial="001", victim="api", op="ensure_memory", ok=True))

    assert [undo.args for undo in open_intents(journal.path).undos] == [{"had": "64"}]


def test_an_intent_whose_undo_is_no_undo_keeps_no_other_from_being_found(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "model-1")
    shapes = (
        "ensure_running",
        None,
        7,
        {},
        {"op": "ensure_running"},
        {"op": "thaw", "service": ""},
        {"op": "thaw", "service": "api", "args": 7},
    )
    odd = [{"kind": "intent", "fault": "kill", "victim": "api", "undo": undo} for undo in shapes]
    with journal.path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in odd)

    found = open_intents(journal.path)

    assert [undo.service for undo in found.undos] == ["model-1"]
    assert [one.partition(" of ")[0] for one in found.unreadable] == [f"line {n}" for n in range(8, 1, -1)]
    assert "announces 'kill api', expected an undo, got 7" in found.unreadable[4]


def test_an_intent_that_is_no_json_is_named_and_one_that_was_never_whole_is_not(tmp_path):
    path = tmp_path / "journal.jsonl"
    undo = {"op": "ensure_running", "service": "api", "args": {}}
    whole = json.dumps({"kind": "intent", "trial": "001", "victim": "api", "undo": undo})
    garbled, torn = whole.replace("api", "a\x01i"), whole[:-1]
    path.write_text(f"{garbled}\n{torn[:40]}\n{whole}\n{torn}")

    found = open_intents(path)

    assert [one.service for one in found.undos] == ["api"]
    assert [one.partition(" of ")[0] for one in found.unreadable] == ["line 1"]


def test_an_unreadable_intent_that_was_undone_is_over(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    with journal.path.open("a") as file:
        file.write('{"kind": "intent", "id": "001#1", "victim": "api", "undo": []}\n')
    journal.write(lines.Undone(intent="001#1", trial="001", victim="api", op="ensure_running", ok=True))

    assert open_intents(journal.path) == ((), ())


def test_no_intent_hides_another_of_the_same_id(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for victim in ("api", "model-1"):
        note = lines.UndoNote(op="ensure_running", service=victim, args={})
        journal.write(lines.Intent(id="001#1", trial="001", step="inject", fault="kill", victim=victim, undo=note))

    assert [one.service for one in open_intents(journal.path).undos] == ["model-1", "api"]


def test_of_an_odd_intent_the_undo_is_enough(tmp_path):
    path = tmp_path / "journal.jsonl"
    undo = {"op": "ensure_running", "service": "api", "args": {}}
    path.write_text(json.dumps({"kind": "intent", "fault": 7, "undo": undo}) + "\n")

    assert [(undo.op, undo.service) for undo in open_intents(path).undos] == [("ensure_running", "api")]


PACKAGE = Path(pytest_llmchaos.__file__).parent


def schema():
    return json.loads((PACKAGE / "evidence" / "journal.schema.json").read_text())


def test_the_schema_names_every_kind_of_line_that_the_package_writes():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert {one["properties"]["kind"]["const"] for one in schema()["oneOf"]} == NAMES


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


def test_the_largest_seed_is_read_back(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    about = {"schema": lines.SCHEMA, "run": "r", "runtime": "compose", "backend": "sim", "schedule": ()}
    journal.write(lines.RunBegin(seed=MAX_SEED, **about))

    (found,) = lines_of(journal.path)

    assert found.line.seed == MAX_SEED


def test_an_intent_whose_kind_is_damaged_is_still_open(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "api")
    journal.path.write_text(journal.path.read_text().replace('"kind": "intent"', '"kind": "intemt"'))

    assert [undo.service for undo in open_intents(journal.path).undos] == ["api"]


def test_secrets_in_foreign_text_are_not_written_and_what_an_undo_needs_stays(tmp_path):
    said = "got password=planted0123"
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(lines.Finding(trial="001", what=said))
    journal.write(lines.Claim(trial="001", nodeid="test_x.py::test_a", outcome="failed", message=said))
    journal.write(lines.StackUp(took_s=1.0, images={"web": said}))
    args: dict[str, object] = {"password": "planted0123"}
    back = lines.UndoNote(op="o", service="password=planted0123", args=args)
    journal.write(lines.Intent(trial="001", step="inject", fault="kill", victim="web", undo=back))
    journal.close()

    finding, claim, up, intent = read(journal.path)

    assert {finding["what"], claim["message"], up["images"]["web"]} == {"got password=***"}
    assert intent["undo"] == {"op": "o", "service": "password=planted0123", "args": args}


# Texts that name something which another line or a reader finds again, or that the instrument itself makes.
OWN_TEXTS = {
    *("args", "backend", "control", "daemon", "detected_by", "directory", "fault", "faults", "hypothesis", "id"),
    *(
        "injections",
        "intent",
        "journal",
        "kinds",
        "load",
        "machine",
        "name",
        "nodeid",
        "noted",
        "op",
        "outcomes",
        "owner",
    ),
    *(
        "project",
        "query",
        "raw",
        "repaired_by",
        "run",
        "runtime",
        "samples",
        "scenario",
        "schedule",
        "schema",
        "service",
    ),
    *("slos", "source", "started", "target", "targets", "tls", "trial", "victim"),
}


def structs_in(kind, found):
    """A struct and every struct that its fields hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
        found.add(kind)
        for field in msgspec.structs.fields(kind):
            structs_in(field.type, found)
    for inner in typing.get_args(kind):
        structs_in(inner, found)
    return found


def test_every_text_of_a_line_is_known_as_foreign_or_as_the_instruments_own():
    structs = set().union(*(structs_in(kind, set()) for kind in lines.KINDS))
    texts = {
        field.name
        for struct in structs
        for field in msgspec.structs.fields(struct)
        if re.search(r"\bstr\b|object", str(field.type))
    }

    assert texts - FOREIGN - OWN_TEXTS == set()
    assert FOREIGN - texts == set()
