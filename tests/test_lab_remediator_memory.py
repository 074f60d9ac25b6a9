"""The remediator's memory: audit log across a crash, and restarts by cause."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lab_remediator.audit import Audit, AuditError, Entry, parsed
from lab_remediator.clients import AskError, readings_of
from lab_remediator.load import load_policy
from lab_remediator.model import Container, Evidence, Reading
from lab_remediator.replay import replayed
from lab_remediator.restarts import Restarts
from lab_remediator.rules import Signal

if TYPE_CHECKING:
    from pathlib import Path

POLICY = load_policy(
    """
schema: llmlab-remediation/1
guards: {healthy_s: 15}
signals: {scrape: {query: up, fires: "< 1"}}
rules: [{name: gone, services: [api], signal: [{signal: scrape}], evidence: [{container: [exited]}], action: start}]
""",
    ("api",),
)
CONTAINER = Container(
    id="one", state="running", health=None, started_at=100.0, restart_count=0, exit_code=0, seen_at=0.0
)


def line(event: str, at: float, **more: Any) -> dict[str, Any]:
    return {"at": at, "event": event, "service": "api", "incident": "api-1", "rule": "gone", "action": "start", **more}


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    fact = Evidence(signal="scrape", value=0.0, at=12.25)
    with closing(Audit(tmp_path / "audit.jsonl")) as audit:
        audit.write(Entry(at=12.5, event="intent", service="api", evidence=(fact,)))
        entry = json.loads((tmp_path / "audit.jsonl").read_text())

    assert list(entry) == ["at", "event", "incident", "rule", "service", "action", "evidence", "reason"]
    assert entry["evidence"] == [{"signal": "scrape", "value": 0.0, "at": 12.25}]


def test_the_log_is_only_ever_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for at in (1.0, 2.0):
        audit = Audit(path)
        audit.write(Entry(at=at, event="started"))
        audit.close()

    assert [entry["at"] for entry in parsed(path.read_text().splitlines())] == [1.0, 2.0]


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"at": 1.0, "event": "started"}\n{"at": 2.0, "eve')
    with closing(Audit(path)) as audit:
        audit.write(Entry(at=3.0, event="started"))
        entries = audit.entries()

    assert [entry["at"] for entry in entries] == [1.0, 3.0]


def test_a_second_remediator_on_the_same_log_is_refused(tmp_path: Path) -> None:
    first = Audit(tmp_path / "audit.jsonl")
    with pytest.raises(AuditError, match="another program writes"):
        Audit(tmp_path / "audit.jsonl")
    first.close()

    Audit(tmp_path / "audit.jsonl").close()


def test_a_log_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"expected a writable audit log at .*missing"):
        Audit(tmp_path / "missing" / "audit.jsonl")


def test_a_line_that_was_refused_does_not_appear_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(Audit(tmp_path / "audit.jsonl")) as audit:
        audit.write(Entry(at=1.0, event="started"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(AuditError, match=r"takes no more lines: .*No space left"):
                audit.write(Entry(at=2.0, event="intent", service="api", action="start"))
        audit.write(Entry(at=3.0, event="recovered"))

        assert [entry["at"] for entry in audit.entries()] == [1.0, 3.0]


def test_a_line_that_half_fits_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Audit(tmp_path / "audit.jsonl")) as audit:
        audit.write(Entry(at=1.0, event="started"))
        whole = (tmp_path / "audit.jsonl").read_bytes()
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
        try:
            with pytest.raises(AuditError, match="takes no more lines"):
                audit.write(Entry(at=2.0, event="intent"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    assert (tmp_path / "audit.jsonl").read_bytes() == whole


def test_an_empty_log_remembers_nothing() -> None:
    state, open_intents = replayed([{"at": 1.0, "event": "started", "service": None}], POLICY)

    assert not state.services
    assert open_intents == ()


def test_an_intent_without_an_end_is_handed_back() -> None:
    state, open_intents = replayed([line("detected", 10), line("intent", 11)], POLICY)

    assert [(intent.service, intent.at, intent.incident) for intent in open_intents] == [("api", 11, "api-1")]
    assert state.of("api").attempts == 1
    assert state.of("api").actions_at == (11,)


@pytest.mark.parametrize("end", ["done", "failed"])
def test_an_ended_action_still_counts_for_cooldown_and_cap(end: str) -> None:
    state, open_intents = replayed([line("detected", 10), line("intent", 11), line(end, 11.4)], POLICY)

    assert open_intents == ()
    assert state.of("api").attempts == 1
    assert state.of("api").settled_at == 11.4


def test_an_open_incident_stays_the_same_incident() -> None:
    state, _ = replayed([line("detected", 10), line("intent", 11), line("done", 12)], POLICY)
    incident = state.of("api").incident

    assert incident is not None
    assert (incident.id, incident.detected_at, incident.acted_at) == ("api-1", 10, 11)


def test_a_recovery_closes_the_incident_and_a_long_one_forgets_the_attempts() -> None:
    first = [line("detected", 10), line("intent", 11), line("done", 12), line("recovered", 13)]
    soon, _ = replayed([*first, line("detected", 15), line("intent", 15)], POLICY)
    late, _ = replayed([*first, line("detected", 40), line("intent", 40)], POLICY)

    assert replayed(first, POLICY)[0].of("api").incident is None
    assert soon.of("api").attempts == 2
    assert late.of("api").attempts == 1


def test_a_quarantine_outlives_a_crash() -> None:
    state, _ = replayed([line("escalated", 10, action="quarantine")], POLICY)

    assert state.of("api").quarantined


def test_a_quarantine_that_was_lifted_stays_lifted() -> None:
    ended = [line("detected", 5), line("escalated", 10, action="quarantine"), line("recovered", 30)]

    assert replayed([*ended, line("detected", 31)], POLICY)[0].of("api").quarantined
    assert not replayed([*ended, line("detected", 3600)], POLICY)[0].of("api").quarantined
    assert not replayed([*ended, line("intent", 31), line("detected", 32)], POLICY)[0].of("api").quarantined


def test_lines_of_services_no_longer_ours_are_skipped() -> None:
    state, open_intents = replayed([line("intent", 1, service="worker-9")], POLICY)

    assert not state.services
    assert open_intents == ()


def test_the_first_look_at_a_container_is_no_restart() -> None:
    assert Restarts().seen("api", CONTAINER) == ()


def test_a_new_start_without_an_announcement_is_external() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    (restart,) = restarts.seen("api", replace(CONTAINER, started_at=110.0))

    assert (restart.reason, restart.count) == ("external", 1)
    assert restarts.seen("api", replace(CONTAINER, started_at=110.0)) == ()


def test_a_new_start_after_an_own_action_belongs_to_its_rule_once() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    restarts.expect("api", "gone", 109.0)
    (own,) = restarts.seen("api", replace(CONTAINER, started_at=110.0))
    (other,) = restarts.seen("api", replace(CONTAINER, started_at=120.0))

    assert (own.reason, other.reason) == ("gone", "external")


def test_a_start_from_before_an_own_action_is_not_its_doing() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    restarts.expect("api", "gone", 130.0)
    (before,) = restarts.seen("api", replace(CONTAINER, started_at=110.0))
    (own,) = restarts.seen("api", replace(CONTAINER, started_at=131.0))

    assert (before.reason, own.reason) == ("external", "gone")


def test_an_action_that_failed_claims_no_restart() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    restarts.expect("api", "gone", 100.0)
    restarts.forget("api")

    assert restarts.seen("api", replace(CONTAINER, started_at=110.0))[0].reason == "external"


def test_restarts_by_the_runtime_between_two_looks_are_all_counted() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    (restart,) = restarts.seen("api", replace(CONTAINER, started_at=110.0, restart_count=3))

    assert (restart.reason, restart.count) == ("runtime", 3)


def test_a_look_between_the_end_and_the_restart_by_the_runtime_hides_nothing() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    assert restarts.seen("api", replace(CONTAINER, restart_count=1)) == ()
    (restart,) = restarts.seen("api", replace(CONTAINER, started_at=110.0, restart_count=1))

    assert (restart.reason, restart.count) == ("runtime", 1)


def test_an_own_start_differs_from_those_of_the_runtime_after_it() -> None:
    restarts = Restarts()
    restarts.seen("api", CONTAINER)
    restarts.expect("api", "gone", 109.0)
    found = restarts.seen("api", replace(CONTAINER, started_at=112.0, restart_count=3))

    assert [(one.reason, one.count) for one in found] == [("gone", 1), ("runtime", 2)]


def test_a_recreated_container_is_one_restart_and_one_never_started_no_restart() -> None:
    restarts = Restarts()
    restarts.seen("api", replace(CONTAINER, restart_count=5))

    assert restarts.seen("api", replace(CONTAINER, id="two", started_at=0.0, state="created")) == ()
    assert [r.count for r in restarts.seen("api", replace(CONTAINER, id="two", started_at=150.0))] == [1]


SIGNAL = Signal(name="health", query="q", by="replica", fires_at="< 1")
SERVICES = ("model-1", "model-2")


def vector(*samples: tuple[dict[str, str], float, str]) -> dict[str, Any]:
    return {"resultType": "vector", "result": [{"metric": m, "value": [at, text]} for m, at, text in samples]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (vector(), {}),
        (vector(({"replica": "model-1"}, 5, "1")), {"model-1": Reading(at=5, value=1)}),
        (vector(({"replica": "model-1"}, 5, "NaN")), {}),
        (vector(({"replica": "worker-9"}, 5, "0"), ({}, 5, "0")), {}),
        (
            vector(({"replica": "model-1", "a": "1"}, 5, "0"), ({"replica": "model-1", "a": "2"}, 5, "1")),
            {"model-1": Reading(at=5, value=0)},
        ),
    ],
    ids=["nothing", "one", "NaN is absent", "strangers are passed over", "the firing one of two counts"],
)
def test_an_answer_of_prometheus_becomes_readings(data: dict[str, Any], expected: dict[str, Reading]) -> None:
    assert readings_of(data, SIGNAL, SERVICES) == expected


def test_a_signal_without_a_service_label_counts_for_all() -> None:
    signal = replace(SIGNAL, by=None)

    assert set(readings_of(vector(({}, 5, "0.3")), signal, SERVICES)) == set(SERVICES)
    assert set(readings_of({"resultType": "scalar", "result": [5, "0.3"]}, signal, SERVICES)) == set(SERVICES)


def test_an_answer_that_is_no_vector_is_an_error_that_names_its_type() -> None:
    with pytest.raises(AskError, match="health: expected an instant vector or a scalar, got a matrix"):
        readings_of({"resultType": "matrix", "result": []}, SIGNAL, SERVICES)
