"""Fault agents of the local runtime.

Needs no Docker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import machine, sessions
from support.gone import seconds_until_gone
from support.waiting import until

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.subject.lab import lab_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), pytest.mark.usefixtures("local_programs")]

AGENT = "fault-agent-model-1"
CHAT = {"model": "smollm2:135m", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
REACHABLE_S = 2.0


@pytest.fixture(scope="module")
def up(local_programs, tmp_path_factory):
    """A stack in which a fault agent stands in the way of model-1."""
    # Below a folder that is too deep for the path of a unix socket.
    folder = tmp_path_factory.mktemp("wire") / ("d" * 100)
    folder.mkdir()
    runtime = LocalRuntime(
        lab_subject("sim"),
        project=f"llmchaos-test-{os.getpid()}-wire",
        run="test",
        owner=identity.owner_label(),
        directory=folder,
        wire=["model-1"],
    )
    runtime.prepare()
    try:
        runtime.up(remediator=False)
        yield runtime
    finally:
        runtime.down()


@pytest.fixture
def runtime(up):
    """The stack with both models healthy and no fault in force."""
    up.undo(Undo(op="ensure_running", service="model-1"))
    up.wait_healthy(["model-1"], 30)
    yield up
    up.undo(Undo(op="wire_end", service="model-1", args={"kind": "flaky"}))


def outside(runtime):
    """The address of model-1 for its callers."""
    return runtime._reserve_addresses().of("model-1", 8080)


def status(runtime, *, post=False):
    """HTTP status of one new connection of a plain client, or its error."""
    url = f"http://{outside(runtime)}" + ("/v1/chat/completions" if post else "/health")
    body = json.dumps(CHAT).encode() if post else None
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return getattr(error, "reason", error)


def pid_of_agent(runtime):
    return runtime._control.inspect_agents()[AGENT].pid


def listener(port):
    """The pid that listens at a TCP port of this machine."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    for process in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
        with contextlib.suppress(OSError):
            if sockets & {str(file.readlink()) for file in (process / "fd").iterdir()}:
                return int(process.name)
    return None


def test_the_agent_has_the_callers_port_and_the_service_another(runtime):
    at = runtime._reserve_addresses()

    assert listener(at.port("model-1", 8080)) == pid_of_agent(runtime)
    assert listener(at.own_port("model-1", 8080)) == runtime._control.inspect()["model-1"].pid
    assert at.port("model-2", 8080) == at.own_port("model-2", 8080)
    assert set(runtime._control.inspect_agents()) == {AGENT}


def test_requests_pass_and_the_agent_is_no_service(runtime):
    assert (status(runtime), status(runtime, post=True)) == (200, 200)
    assert runtime.wire_open("model-1") == f"{outside(runtime)} accepts a connection from outside"
    assert AGENT not in {*runtime.states(), *runtime.targets(), *runtime.images()}
    assert AGENT not in {event.service for event in runtime.events(0, float("inf"))}
    assert runtime.wire_protocols("model-1") == {8080: "HTTP/1"}
    assert runtime.wire_protocols("model-2") == {}


def test_a_fault_is_seen_by_a_plain_client_until_its_undo(runtime):
    runtime.wire_arm(["model-1"])
    runtime.wire_start("model-1", "flaky", lease_s=30, seed=7, status=529, share=1.0)

    assert (status(runtime, post=True), status(runtime)) == (529, 200)
    fault = runtime.wire_faults("model-1").in_force("flaky")
    assert fault.counters["hit"] == 1
    with pytest.raises(HealFailed, match=r"flaky on model-1 \(\d+ s of its lease left\)"):
        runtime.wire_disarm()

    runtime.undo(Undo(op="wire_end", service="model-1", args={"kind": "flaky"}))

    assert status(runtime, post=True) == 200
    runtime.wire_disarm()


def test_a_dead_service_refuses_connections_until_it_is_started(runtime):
    runtime.kill("model-1")
    runtime._control.wait_dead("model-1")

    until(lambda: isinstance(status(runtime), ConnectionRefusedError), "a refusal", seen=lambda: status(runtime))
    assert runtime.wire_open("model-1") is None
    assert runtime.wire_faults("model-1") is not None  # the agent itself answers

    runtime.start("model-1")
    runtime.wait_healthy(["model-1"], 30)

    assert status(runtime, post=True) == 200


def test_after_its_agent_was_killed_the_service_is_reachable_again_and_the_fault_gone(runtime):
    runtime.wire_start("model-1", "flaky", lease_s=30, seed=7, share=1.0)
    started = runtime._control.inspect_agents()[AGENT].started_unix_s
    until(lambda: time.time() > started + 1, "an agent that has run for a second")
    pid, killed_s = pid_of_agent(runtime), time.monotonic()

    os.kill(pid, signal.SIGKILL)
    until(lambda: status(runtime, post=True) == 200, "an answer", seen=lambda: status(runtime, post=True))
    took_s = time.monotonic() - killed_s

    assert took_s <= REACHABLE_S or took_s <= REACHABLE_S * machine.slowness()
    assert pid_of_agent(runtime) not in {0, pid}
    runtime.wire_arm(["model-1"])
    assert runtime.wire_faults("model-1").faults == ()
    runtime.undo(Undo(op="wire_end", service="model-1", args={"kind": "flaky"}))
    gap = runtime.event_gaps(time.time() - took_s - 1, time.time())[0]
    assert "the fault agent of model-1 ended" in gap.why


def test_an_agent_that_does_not_answer_is_named_with_its_log(runtime, monkeypatch):
    monkeypatch.setattr("pytest_llmchaos.runtime.local.fault_agents._CALL_DEADLINE_S", 0.2)
    pid = pid_of_agent(runtime)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(
            NotReady, match=r"the fault agent of model-1 did not answer `list`.*(?s:its log ends:.*listening)"
        ):
            runtime._require_agents(["model-1"], 0.1)
        assert runtime.wire_faults("model-1") is None
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_agent_that_the_session_did_not_expect_cannot_enter_later(runtime):
    with pytest.raises(
        NotReady, match=r"in the way of api, model-2, .*add `@pytest\.mark\.llmchaos_wire\('api', 'model-2'\)`"
    ):
        runtime.wire_arm(["api", "model-1", "model-2"])

    assert runtime.wire_faults("api").faults == ()
    assert runtime.wire_open("api") is not None


SCENARIO = '''"""A replica that fails now and then."""
import pytest
from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=10, max_tokens=2)

@experiment(
    load=LOAD, fault=faults.flaky("model-1", share=1.0), remediator=False,
    steady_s=1, fault_s=1, stable_s=0.5, settle_within_s=10,
)
def test_of_an_experiment(trial):
    assert trial.victims == ("model-1",)
'''
FREE = """
@pytest.mark.llmchaos_wire("model-2")
def test_of_its_own_load(lab):
    assert set(lab.runtime._control.inspect_agents()) == {"fault-agent-model-1", "fault-agent-model-2"}
    with lab.load(LOAD, remediator=False):
        lab.hold_steady(1)
        with lab.inject(faults.flaky("model-2", share=1.0)) as injected:
            lab.hold(0.5)
    assert [act.victim for act, _ in injected.proven] == ["model-2"]
"""
PLAIN = """
def test_without_faults_on_the_wire(lab):
    runtime = lab.runtime
    assert runtime._control.inspect_agents() == {}
    assert runtime._reserve_addresses()._own == {}
    assert "fault_agent" not in (runtime._work / "supervisord.conf").read_text()
"""
ARMS = """
from pytest_llmchaos import arm, experiment, faults, loads

LOAD = loads.open_loop(rate_rps=25, max_tokens=2)
pytestmark = experiment(
    load=LOAD, fault=faults.flaky("model-1", share=0.3), remediator=False,
    steady_s=1, fault_s=8, stable_s=0.5, settle_within_s=20,
    arms={"on": arm(), "off": arm(environment={"api": {"LAB_RETRY": "off"}})},
)

def test_effect(arms):
    assert arms.during_fault.availability.low >= 0.03
    assert arms["on"].attempts_per_request >= 1.02
    assert arms["off"].attempts_per_request < 1.01

def test_restored(lab):
    assert lab.environment == {"api": {"LAB_RETRY": "off"}}
    with lab.load(LOAD, remediator=False):
        lab.hold_steady(1)
    assert lab.environment == {}
"""
LOCAL = ("--chaos-runtime=local", "--chaos-backend=sim", "--chaos-seed=7")


def commands(project):
    """Command lines of a run's processes."""
    return [
        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in cleanup.processes_of(project)
    ]


@pytest.fixture(scope="module")
def reports(local_programs, tmp_path_factory):
    """Reports of one session with two arms, an experiment, and a load of its own."""
    folder = tmp_path_factory.mktemp("session")
    files = {"test_arms.py": ARMS, "test_scenario.py": SCENARIO + FREE}
    for name, text in files.items():
        (folder / name).write_text(text)

    code, out = sessions.run(folder / "reports", *(str(folder / name) for name in files), *LOCAL)

    assert code == 0, out[-4000:]
    assert "4 passed" in out
    return folder / "reports"


def test_a_session_has_agents_for_the_services_of_its_faults_and_marks(reports):
    witnesses = [line["witness"] for line in sessions.of_kind(reports, "proof")]
    assert [witness for witness in witnesses if "flaky" in witness] == witnesses
    assert [line["ok"] for line in sessions.of_kind(reports, "undone")] == [True] * 4
    assert commands(sessions.of_kind(reports, "stack")[0]["project"]) == []
    assert (reports / "latest" / "logs" / f"{AGENT}.txt").stat().st_size > 0


def test_two_settings_of_the_gateway_are_compared_and_its_own_come_back(reports):
    on, off, free, *_ = sessions.run_json(reports)["trials"]
    assert [(trial["arm"], trial["environment"], trial["verdict"]) for trial in (on, off, free)] == [
        ("on", {}, "held"),
        ("off", {"api": {"LAB_RETRY": "off"}}, "held"),
        (None, {}, "held"),
    ]
    (effect,) = on["claims"][0]["effects"]
    assert effect["low"] <= effect["value"] <= effect["high"]
    assert effect["first_value"] > effect["second_value"]
    planned = [entry["arrivals_sha256"] for entry in sessions.run_json(reports)["schedule"]]
    assert planned[0] == planned[1]


@pytest.mark.nightly("test_local_plan: no agent without services behind agents")
def test_a_session_without_faults_on_the_wire_has_no_agent(tmp_path):
    file = tmp_path / "test_plain.py"
    file.write_text(PLAIN)

    code, out = sessions.run(tmp_path / "reports", str(file), *LOCAL)

    assert code == 0, out[-4000:]


@pytest.mark.nightly("test_local_boundaries kills pytest with a fault of an agent in force")
def test_no_agent_outlives_pytest(tmp_path):
    file = tmp_path / "test_doomed.py"
    file.write_text(SCENARIO)
    reports = tmp_path / "reports"
    child = sessions.start(reports, str(file), *LOCAL)
    try:
        until(lambda: sessions.of_kind(reports, "proof"), "the proof", 90, seen=lambda: sessions.said(reports))
        project = sessions.of_kind(reports, "stack")[0]["project"]
        assert [line for line in commands(project) if "fault_agent" in line]
    finally:
        child.kill()
        child.wait()
    killed_s = time.monotonic()

    seconds_until_gone(lambda: commands(project), killed_s)
