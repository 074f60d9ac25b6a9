"""A trial's record: clock, journal lines and result."""

import time

import pytest

from pytest_llmchaos.errors import EvidenceLost, HealFailed, NoData, NotDetected, NotSteady
from pytest_llmchaos.evidence.journal import Journal, read
from pytest_llmchaos.evidence.trial_record import ClockReading, PhaseBounds, Record
from pytest_llmchaos.evidence.trial_result import CountsNote, EventNote, Planned, ProofNote, TrialResult
from pytest_llmchaos.model import FaultCounts, Proof, Undo

WALL_S, OWN_S = 5_000.25, 700.5


class Clocks:
    """Wall clock and monotonic clock, which stand still until a test moves them."""

    def __init__(self):
        self.wall_s, self.own_s = WALL_S, OWN_S

    def advance(self, seconds):
        self.wall_s += seconds
        self.own_s += seconds


@pytest.fixture
def clocks(monkeypatch):
    made = Clocks()
    monkeypatch.setattr(time, "time", lambda: made.wall_s)
    monkeypatch.setattr(time, "monotonic", lambda: made.own_s)
    return made


def after(error, act):
    """Return the error after an act."""
    act()
    return error


@pytest.fixture
def record(tmp_path, clocks):
    planned = Planned(scenario="kill_api", fault="kill api", remediator=False, repeat=2)
    return Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path, planned)


def proof_of(step, witness, at_unix_s, counts=None):
    return Proof(step=step, witness=witness, at_unix_s=at_unix_s, counts=counts)


def written(record):
    """Return the lines of the journal without the fields that every line has."""
    return [
        {key: value for key, value in one.items() if key not in ("at_unix_s", "trial")}
        for one in read(record.journal.path)
    ]


def test_a_trial_counts_from_its_record_until_it_has_an_anchor(record, clocks):
    clocks.advance(2.5)

    assert (record.now_s(), record.anchor_unix_s) == (2.5, WALL_S)
    record.anchor(WALL_S + 1, OWN_S + 1)
    assert (record.now_s(), record.anchor_unix_s) == (1.5, WALL_S + 1)
    assert (record.at_s(WALL_S + 3.123_456), record.unix_s(2.5)) == (2.123, WALL_S + 3.5)
    assert written(record) == [{"kind": "anchor", "unix_s": WALL_S + 1, "monotonic_s": OWN_S + 1}]
    clocks.advance(2 * OWN_S)
    assert record.now_s() == 2 * OWN_S + 1.5


def test_a_new_record_holds_and_has_no_fault_in_place(record):
    seen = record.seen()

    assert (seen.trial, seen.verdict, seen.judged, seen.healed, seen.victim) == ("001", "held", True, True, None)
    assert (seen.scenario, seen.fault, seen.remediator, seen.repeat) == ("kill_api", "kill api", False, 2)
    assert (record.phase_now, record.outcome) == ("", None)
    assert (seen.proof, seen.events, seen.findings, written(record)) == ((), (), (), [])


def test_what_was_planned_is_the_first_line(record):
    record.begin("trials/001/samples.jsonl")
    record.process(7, "123")

    begin, process = written(record)
    planned = {key: begin[key] for key in ("kind", "samples", "scenario", "fault", "remediator", "repeat")}
    assert planned == {
        "kind": "trial",
        "samples": "trials/001/samples.jsonl",
        "scenario": "kill_api",
        "fault": "kill api",
        "remediator": False,
        "repeat": 2,
    }
    assert process == {"kind": "process", "pid": 7, "started": "123"}


def test_each_act_has_an_id_of_its_own_and_each_victim_is_named_once(record):
    undo = Undo(op="ensure_running", service="api", args={"had": 1})
    acts = [record.intent("kill", victim, undo) for victim in ("api", "model-1", "api")]
    record.undone(acts[0], "api", "ensure_running", ok=True)
    record.undone(acts[1], "model-1", "ensure_running", ok=False, why="gone")

    assert acts == ["001#1", "001#2", "001#3"]
    assert record.seen().victim == "api, model-1"
    first, *_, done, failed = written(record)
    assert first == {
        "kind": "intent",
        "id": "001#1",
        "step": "inject",
        "fault": "kill",
        "victim": "api",
        "undo": {"op": "ensure_running", "service": "api", "args": {"had": 1}},
    }
    assert done == {"kind": "undone", "intent": "001#1", "victim": "api", "op": "ensure_running", "ok": True}
    assert (failed["intent"], failed["ok"], failed["why"]) == ("001#2", False, "gone")


def test_events_have_their_own_time_or_now_and_late_ones_are_sorted(record, clocks):
    clocks.advance(2.000_6)
    record.event("instrument", "now", service="api")
    record.event("instrument", "at the start", at_s=0.0)
    record.note_events(
        [
            EventNote(at_s=1.234_56, source="runtime", what="died"),
            EventNote(at_s=0.5, source="s", what="w", service="db"),
        ]
    )

    assert [(one.at_s, one.source, one.what, one.service) for one in record.events] == [
        (0.0, "instrument", "at the start", ""),
        (0.5, "s", "w", "db"),
        (1.235, "runtime", "died", ""),
        (2.001, "instrument", "now", "api"),
    ]
    assert record.seen().events == tuple(record.events)
    assert [(one["at_s"], one["service"]) for one in written(record)] == [
        (2.001, "api"),
        (0.0, ""),
        (1.235, ""),
        (0.5, "db"),
    ]


def test_findings_and_proofs_are_part_of_the_result(record):
    record.finding("odd")
    record.proof("injected", proof_of("injected", "event die", WALL_S + 1.234_56), intent="001#1")
    record.proof("healed", proof_of("healed", "running", WALL_S + 2), intent="001#1")

    seen = record.seen()

    assert seen.findings == ("odd",)
    assert seen.proof == (
        ProofNote(step="injected", witness="event die", at_s=1.235),
        ProofNote(step="healed", witness="running", at_s=2.0),
    )
    assert written(record) == [
        {"kind": "finding", "what": "odd"},
        {"kind": "proof", "step": "injected", "witness": "event die", "at_s": 1.235, "intent": "001#1"},
        {"kind": "proof", "step": "healed", "witness": "running", "at_s": 2.0, "intent": "001#1"},
    ]


def test_options_and_counts_are_in_the_lines_and_in_the_result(record):
    undo = Undo(op="wire_end", service="api", args={})
    intent = record.intent("flaky", "api", undo, {"status": 503})
    counts = [FaultCounts(counters={"met": met, "hit": 1}, unit="requests", first_hit_after_s=0.5) for met in (2, 9)]
    record.proof("injected", proof_of("injected", "agent", WALL_S, counts[0]), intent=intent)
    record.proof("healed", proof_of("healed", "agent", WALL_S, counts[1]), intent=intent)
    record.undone(intent, "api", "wire_end", ok=True)

    announced, first, last, _ = written(record)
    assert announced["strength"] == {"status": 503}
    assert first["counts"] == {"counters": {"met": 2, "hit": 1}, "unit": "requests", "first_hit_after_s": 0.5}
    (fault,) = record.seen().undo
    assert (fault.fault, fault.victim, fault.strength, fault.undone) == ("flaky", "api", {"status": 503}, True)
    assert fault.counts == CountsNote(counters={"met": 9, "hit": 1}, unit="requests", first_hit_after_s=0.5)
    assert last["counts"]["counters"]["met"] == 9


def test_the_wall_clock_is_read_against_the_monotonic_one(record, clocks):
    clocks.advance(3.000_6)
    clocks.wall_s += 0.25
    record.read_wall_clock()
    record.read_clock("Docker's", -0.5)

    assert record.clocks == [
        ClockReading(clock="this machine's wall clock", at_s=3.001, offset_s=pytest.approx(0.25)),
        ClockReading(clock="Docker's", at_s=3.001, offset_s=-0.5),
    ]


def test_a_phase_lasts_as_long_as_its_block_even_if_that_raises(record, clocks):
    clocks.advance(1.000_6)
    with record.phase("steady"):
        assert record.phase_now == "steady"
        clocks.advance(2)
    broken_off = NotSteady("not yet")
    with pytest.raises(NotSteady), record.phase("fault", from_s=4.000_4):
        raise after(broken_off, lambda: clocks.advance(3.000_6))
    with record.phase("recovery", from_s=9.0):
        pass

    assert record.phase_now == ""
    assert record.phases == [
        PhaseBounds(name="steady", from_s=1.001, to_s=3.001),
        PhaseBounds(name="fault", from_s=4.0, to_s=6.001),
        PhaseBounds(name="recovery", from_s=9.0, to_s=9.0),
    ]
    assert written(record)[:2] == [
        {"kind": "phase_begin", "name": "steady", "from_s": 1.001},
        {"kind": "phase", "name": "steady", "from_s": 1.001, "to_s": 3.001},
    ]


def disk_full(record, monkeypatch):
    def full(line):
        raise EvidenceLost("no space left")

    monkeypatch.setattr(record.journal, "write", full)


def test_what_comes_before_an_act_must_be_written_and_what_comes_after_one_is_kept_as_well_as_can_be(
    record, monkeypatch
):
    disk_full(record, monkeypatch)

    for act in (
        lambda: record.intent("kill", "api", Undo(op="o", service="api", args={})),
        lambda: record.proof("injected", proof_of("injected", "event die", WALL_S), intent="001#1"),
        lambda: record.finding("odd"),
        lambda: record.event("instrument", "odd"),
    ):
        with pytest.raises(EvidenceLost):
            act()
    record.undone("001#1", "api", "o", ok=True)
    record.proof("healed", proof_of("healed", "running", WALL_S), intent="001#1")


def test_a_phase_ends_although_the_disk_is_full(record, monkeypatch):
    with record.phase("steady"):
        disk_full(record, monkeypatch)

    assert [one.name for one in record.phases] == ["steady"]


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (NoData("none"), "inconclusive", "NoData: none"),
        (NotSteady("not yet"), "invalid", "NotSteady: not yet"),
        (HealFailed("left"), "heal_failed", "HealFailed: left"),
        (KeyboardInterrupt(), "invalid", "KeyboardInterrupt: "),
        (SystemExit(3), "invalid", "SystemExit: 3"),
        (NotDetected("no alert"), "held", None),
        (AssertionError("assert 1 == 2"), "held", None),
        (ValueError("a mistake of the test"), "held", None),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else "",
)
def test_a_trial_that_its_test_judges_held_unless_the_instrument_broke_off(record, error, verdict, reason):
    with pytest.raises(type(error)), record.judged_by_its_test():
        raise after(error, lambda: record.finding("odd"))

    assert (record.outcome.verdict, record.outcome.reason, record.outcome.findings) == (verdict, reason, ("odd",))
    judged = written(record)[-1]
    assert (judged["kind"], judged["verdict"], judged["reason"], judged["judged"]) == ("judged", verdict, reason, True)


def test_a_load_that_its_test_judges_keeps_its_evidence(record):
    with record.judged_by_its_test():
        record.outcome = TrialResult(trial="001", verdict="invalid", reason="not yet", repaired_by="remediator")

    assert (record.outcome.verdict, record.outcome.reason, record.outcome.repaired_by) == ("held", None, "remediator")


def test_a_trial_ends_even_if_its_last_line_cannot_be_written(record, monkeypatch):
    with record.judged_by_its_test():
        disk_full(record, monkeypatch)

    assert record.outcome.verdict == "held"
