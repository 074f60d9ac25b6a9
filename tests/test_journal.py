"""The journal: sync, torn lines, open intents and damaged files."""

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
from pytest_llmchaos.evidence.journal import CUT_OFF, FOREIGN, NAMES, Journal, Unread, Written, open_intents, read
from pytest_llmchaos.evidence.journal import lines as lines_of
from pytest_llmchaos.evidence.trial_result import EventNote, LoadResult
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


def test_a_line_has_the_moment_when_it_was_written_to_the_microsecond(tmp_path, monkeypatch):
    monkeypatch.setattr("pytest_llmchaos.evidence.journal.time.time", lambda: 1_000.123_456_7)
    journal = Journal(tmp_path / "journal.jsonl")

    journal.write(lines.StackDown(took_s=1.5))

    assert [line["at_unix_s"] for line in read(journal.path)] == [1_000.123_457]


def test_only_its_owner_may_write_to_a_journal(tmp_path):
    before = os.umask(0)
    try:
        journal = Journal(tmp_path / "journal.jsonl")
    finally:
        os.umask(before)

    assert journal.path.stat().st_mode & 0o777 == 0o644


def test_a_journal_is_appended_to(tmp_path):
    for seconds in (1.0, 2.0):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.write(lines.StackDown(took_s=seconds))
        journal.close()

    assert [line["took_s"] for line in read(journal.path)] == [1.0, 2.0]


def test_intents_and_their_undos_are_kept_in_a_second_file_and_nothing_else(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.keep_intents(tmp_path / "kept")
    journal.write(lines.StackDown(took_s=1.5))
    intend(journal, "api")
    journal.write(lines.Finding(trial="001", what="odd"))
    undo(journal, "api")
    journal.close()

    assert [line["kind"] for line in read(journal.path)] == ["stack_down", "intent", "finding", "undone"]
    assert [line["kind"] for line in read(tmp_path / "kept")] == ["intent", "undone"]


def test_an_intent_is_kept_before_it_is_in_the_journal(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.keep_intents(tmp_path / "kept")
    sizes = []
    synced = lambda _: sizes.append(((tmp_path / "kept").stat().st_size > 0, journal.path.stat().st_size > 0))  # noqa: E731
    monkeypatch.setattr(os, "fsync", synced)

    intend(journal, "api")

    assert sizes == [(True, False), (True, True)]


def test_a_closed_journal_takes_no_line_and_closes_no_file_of_another(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.keep_intents(tmp_path / "kept")
    journal.close()
    others = [os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in ("one", "two")]
    closed = []

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", closed.append)
        journal.close()
        journal.note(lines.StackDown(took_s=1.5))
        with pytest.raises(EvidenceLost, match="'intent' cannot be written"):
            intend(journal, "api")

    assert closed == []
    assert "'stack_down' cannot be written" in str(journal.lost)
    assert [os.fstat(other).st_size for other in others] == [0, 0]
    for other in others:
        os.close(other)


def test_a_journal_whose_file_has_the_number_0_is_closed_too(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(os, "open", lambda *_: 0)
    monkeypatch.setattr(os, "close", closed.append)

    Journal(tmp_path / "journal.jsonl").close()

    assert closed == [0]


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"kind":"run"}\n{"kind":"phase","na')

    assert [line["kind"] for line in read(path)] == ["run"]


def test_a_line_that_is_not_an_object_is_skipped(tmp_path):
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


def test_a_note_on_a_full_disk_does_not_raise_and_is_kept(tmp_path, monkeypatch):
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

    assert f"{'undone'!r} cannot be written" in str(journal.lost)
    assert [line["kind"] for line in read(journal.path)] == ["stack_down"]


def test_the_first_loss_is_the_one_that_is_remembered(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")

    def broken(_fd, _data):
        raise OSError("it broke")

    monkeypatch.setattr(os, "write", broken)
    journal.note(lines.StackDown(took_s=1.5))
    journal.note(lines.Finding(trial="001", what="odd"))

    assert str(journal.lost) == (
        f"the line 'stack_down' cannot be written to {journal.path}: it broke: make room there, then run again"
    )


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))

    intend(journal, "api")

    assert [line["victim"] for line in read(journal.path)] == ["api"]


def journal_of(tmp_path, *texts):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(texts))
    return path


ANNOUNCING = {
    "at_unix_s": 1,
    "kind": "run",
    "schema": lines.SCHEMA,
    "run": "r",
    "seed": 0,
    "runtime": "compose",
    "backend": "sim",
    "schedule": [],
    "kinds": ["run", "hereafter"],
}
FINDING = '{"at_unix_s": 2.5, "kind": "finding", "trial": "001", "what": "odd"}\n'
A_FINDING = Written(at_unix_s=2.5, line=lines.Finding(trial="001", what="odd"))


def test_an_announced_kind_of_a_later_version_is_skipped(tmp_path):
    later = '{"at_unix_s": 1.5, "kind": "hereafter"}\n'

    _, found = lines_of(journal_of(tmp_path, json.dumps(ANNOUNCING) + "\n", later, "\n", FINDING))

    assert found == A_FINDING
    unannounced, _ = lines_of(journal_of(tmp_path, later, FINDING))
    assert unannounced == Unread(
        number=1,
        why="kind 'hereafter' is not one of those that the journal's first line announces",
        value={"at_unix_s": 1.5, "kind": "hereafter"},
    )


HEAD = '{"at_unix_s": 1.5e3, "kind": "claim", "trial": "001-a.b"'
WHOLE = {"kind": "claim", "trial": "001-a.b"}


@pytest.mark.parametrize(
    ("text", "why", "value"),
    [
        ("[1]\n", "expected an object, got list", {}),
        ("[" * 100_000 + "\n", "too deeply nested", {}),
        ('{"kind": 7}\n', "expected a kind, got 7", {"kind": 7}),
        ("{}\n", "expected a kind, got None", {}),
        (f"{HEAD} oops\n", f"Expecting ',' delimiter: line 1 column {len(HEAD) + 2} (char {len(HEAD) + 1})", WHOLE),
        (HEAD, CUT_OFF, WHOLE),
        (HEAD[:-3], CUT_OFF, {"kind": "claim"}),
        (HEAD[:32], CUT_OFF, {}),
        ("oops", CUT_OFF, {}),
    ],
    ids=["list", "deep", "kind", "no kind", "garbled", "cut off", "in the trial", "in the kind", "no head"],
)
def test_a_line_that_cannot_be_read_has_its_readable_fields(tmp_path, text, why, value):
    first, found = lines_of(journal_of(tmp_path, FINDING, text))

    assert first == A_FINDING
    assert found == Unread(number=2, why=why, value=value)


def test_a_field_that_cannot_be_read_leaves_its_line_unread(tmp_path):
    spoiled = FINDING.replace('"odd"', "NaN")

    (found,) = lines_of(journal_of(tmp_path, spoiled))

    assert (found.number, found.why) == (1, "Expected `str`, got `null` - at `$.what`")
    assert found.value == {"at_unix_s": 2.5, "kind": "finding", "trial": "001", "what": None}


@pytest.mark.parametrize(("text", "number"), [("1e999", None), ("-1e999", None), ("1.5", 1.5), ("1e308", 1e308)])
def test_a_number_without_a_finite_value_is_null(tmp_path, text, number):
    path = journal_of(tmp_path, f'{{"kind": "stack_down", "took_s": {text}}}\n')

    assert [line["took_s"] for line in read(path)] == [number]


def test_open_intents_are_those_not_reverted_newest_first(tmp_path):
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


def test_the_unreverted_one_of_two_equal_intents_is_open(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number, megabytes in ((1, "64"), (2, "32")):
        note = lines.UndoNote(op="ensure_memory", service="api", args={"had": megabytes})
        about = {"trial": "001", "step": "inject", "fault": "limit_memory", "victim": "api"}
        journal.write(lines.Intent(id=f"001#{number}", undo=note, **about))
    journal.write(lines.Undone(intent="001#2", trial="001", victim="api", op="ensure_memory", ok=True))

    assert [undo.args for undo in open_intents(journal.path).undos] == [{"had": "64"}]


def test_an_intent_without_a_valid_undo_does_not_hide_others(tmp_path):
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


def test_a_damaged_intent_is_named_and_a_torn_one_is_not(tmp_path):
    path = tmp_path / "journal.jsonl"
    undo = {"op": "ensure_running", "service": "api", "args": {}}
    whole = json.dumps({"kind": "intent", "trial": "001", "victim": "api", "undo": undo})
    garbled, torn = whole.replace("api", "a\x01i"), whole[:-1]
    path.write_text(f"{garbled}\n{torn[:40]}\n{whole}\n{torn}")

    found = open_intents(path)

    assert [one.service for one in found.undos] == ["api"]
    assert [one.partition(" of ")[0] for one in found.unreadable] == ["line 1"]


def test_an_unreadable_intent_that_was_reverted_is_over(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    with journal.path.open("a") as file:
        file.write('{"kind": "intent", "id": "001#1", "victim": "api", "undo": []}\n')
    journal.write(lines.Undone(intent="001#1", trial="001", victim="api", op="ensure_running", ok=True))

    assert open_intents(journal.path) == ((), ())


def test_an_intent_without_an_id_is_matched_by_its_own_trial(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "api", trial="001")
    intend(journal, "model-1", trial="002")
    undo(journal, "api", trial="002")
    undo(journal, "model-1", trial="002")

    assert [one.service for one in open_intents(journal.path).undos] == ["api"]


AN_UNDO = {"op": "ensure_running", "service": "api", "args": {}}


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "undone", "ok": 1},
        {"kind": "undone", "ok": "yes"},
        {"kind": "proof", "ok": True},
        {"kind": "vanished", "ok": True},
        {"ok": True},
        {"kind": "judged", "undo": AN_UNDO},
        {"kind": "claim", "undo": AN_UNDO},
        {"kind": "vanished"},
    ],
    ids=json.dumps,
)
def test_only_an_undo_that_went_well_closes_an_intent_and_only_an_intent_opens_one(tmp_path, line):
    journal = Journal(tmp_path / "journal.jsonl")
    intend(journal, "api")
    about = {"trial": "001", "victim": "api", "op": "ensure_running"}
    with journal.path.open("a") as file:
        file.write(json.dumps({**line, **about}) + "\n")

    found = open_intents(journal.path)

    assert [(one.op, one.service) for one in found.undos] == [("ensure_running", "api")]
    assert found.unreadable == ()


@pytest.mark.parametrize("kind", [[], {}, None, 7, ["intent"]], ids=json.dumps)
def test_an_intent_whose_kind_is_not_text_is_open(tmp_path, kind):
    path = journal_of(tmp_path, json.dumps({"kind": kind, "victim": "api", "undo": AN_UNDO}) + "\n")

    assert [one.service for one in open_intents(path).undos] == ["api"]


def test_no_intent_hides_another_of_the_same_id(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for victim in ("api", "model-1"):
        note = lines.UndoNote(op="ensure_running", service=victim, args={})
        journal.write(lines.Intent(id="001#1", trial="001", step="inject", fault="kill", victim=victim, undo=note))

    assert [one.service for one in open_intents(journal.path).undos] == ["model-1", "api"]


def test_the_undo_of_an_odd_intent_is_enough(tmp_path):
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
def test_a_line_without_a_usable_undo_is_not_in_the_schema(line):
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


def test_secrets_are_hidden_at_any_depth_of_a_line(tmp_path):
    said, hidden = "got password=planted0123", "got password=***"
    journal = Journal(tmp_path / "journal.jsonl")
    about = {"events": (EventNote(at_s=1.0, source="s", what=said),), "claims": (), "load": LoadResult()}
    journal.write(lines.Judged(trial="001", verdict="held", reason=said, findings=(said, "none"), **about))

    (judged,) = read(journal.path)

    assert (judged["reason"], judged["findings"]) == (hidden, [hidden, "none"])
    assert judged["events"] == [{"at_s": 1.0, "source": "s", "what": hidden, "service": None}]


# Texts that other lines or readers match, or that the instrument makes itself.
OWN_TEXTS = {
    *("arm", "first", "issue", "measure", "second"),
    "second_truth",
    *("plan", "status", "statuses", "step", "tool"),  # of tasks that the instrument made
    "counters",
    "unit",
    "judge",
    "selectors",
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
        "objectives",
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
    *("autoscaler", "replica", "slos", "source", "started", "target", "targets", "tls", "trial", "victim"),
}


def structs_in(kind, found):
    """Return a struct and every struct in its fields."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
        found.add(kind)
        for field in msgspec.structs.fields(kind):
            structs_in(field.type, found)
    for inner in typing.get_args(kind):
        structs_in(inner, found)
    return found


def test_every_text_of_a_line_is_declared_as_foreign_or_own():
    structs = set().union(*(structs_in(kind, set()) for kind in lines.KINDS))
    texts = {
        field.name
        for struct in structs
        for field in msgspec.structs.fields(struct)
        if re.search(r"\bstr\b|object", str(field.type))
    }

    assert texts - FOREIGN - OWN_TEXTS == set()
    assert FOREIGN - texts == set()
