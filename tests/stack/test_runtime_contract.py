"""The contract of all runtimes, tested on each.

The engine is simulated.
"""

from __future__ import annotations

import itertools
import os
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from support.runtimes import RUNTIMES, require_runtime
from support.waiting import until

from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.model import Undo
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.subject.lab import lab_subject

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

_NUMBERS = itertools.count()


def new_runtime(name, directory):
    """A runtime that is not up. A fault agent can enter the way of model-2."""
    require_runtime(name)
    wire = {"wire": ["model-2"]} if name == "local" else {}
    return RUNTIMES[name](
        lab_subject("sim"),
        project=f"llmchaos-contract-{os.getpid()}-{next(_NUMBERS)}",
        run="contract",
        owner=identity.owner_label(),
        directory=directory,
        **wire,
    )


@pytest.fixture(scope="module", params=sorted(RUNTIMES))
def up(request, tmp_path_factory):
    runtime = new_runtime(request.param, tmp_path_factory.mktemp(request.param))
    runtime.prepare()
    runtime.up(remediator=False)
    yield runtime
    runtime.down()


@pytest.fixture
def runtime(up):
    """The stack with every target healthy and without a remediator."""
    up.stop_remediator()
    for service in up.targets():
        up.undo(Undo(op="ensure_running", service=service))
    up.wait_healthy(up.targets(), 30)
    return up


def happened(runtime, service, action, since):
    """Wait for the first such event since then."""
    return until(
        lambda: next(
            (e for e in runtime.events(since, float("inf")) if (e.service, e.action) == (service, action)), None
        ),
        f"{action} {service}",
        5.0,
    )


def status(url, timeout_s=2.0):
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


# The gateway refuses a longer body with status 413, and an empty request with 400.
SHORT_BODIES = {"LAB_BODY_MAX_BYTES": "64"}


@pytest.fixture
def own(runtime):
    """The same, whose services run with their own variables before and after."""
    yield runtime
    runtime.configure({})


def refusal(runtime):
    """Status of the gateway's answer to an empty request of 100 bytes."""
    sent = urllib.request.Request(
        f"{runtime.url('api')}/v1/chat/completions", b"{}" + b" " * 98, {"Content-Type": "application/json"}
    )
    return status(sent)


def births(runtime):
    """Identity and start of each target: the same as long as its process lives."""
    found = {name: runtime.state(name) for name in runtime.targets()}
    return {name: (state.identity, state.started_unix_s) for name, state in found.items()}


def test_its_abilities_are_methods(runtime):
    asked = {"kill", "stop", "start", "restart", "crash", "pause", "unpause", "limit_memory", "events", "configure"}

    assert asked <= runtime.abilities | ({"crash"} if os.geteuid() else set())
    assert all(callable(getattr(runtime, ability)) for ability in asked & runtime.abilities)


def test_everything_runs_and_answers_at_the_runtimes_addresses(runtime):
    assert set(runtime.targets()) <= {name for name, state in runtime.states().items() if state.running}
    # A probe of a busy replica may time out once, and `healthy` does not depend on it.
    assert until(lambda: status(runtime.url("api") + "/readyz") == 200, "a ready gateway", 5.0)
    assert status(runtime.url("prometheus") + "/-/ready") == 200
    assert status(runtime.url("pushgateway") + "/-/ready") == 200
    assert {"api", "model-1", "model-2", "prometheus"} <= runtime.images().keys()


def test_prometheus_scrapes_every_part_of_the_lab(runtime):
    prometheus = Prometheus(runtime.url("prometheus"))

    def down():
        return {target.service for target in prometheus.targets() if not target.up}

    until(lambda: down() == {"remediator"}, "scraping all but the stopped remediator", 10)
    jobs = {target.job for target in prometheus.targets()}
    assert jobs == {"api", "model", "prometheus", "pushgateway", "remediator", "docker-proxy"}


def test_a_killed_service_dies_of_137_and_stays_down(runtime):
    since = time.time()

    runtime.kill("api")

    died = happened(runtime, "api", "die", since)
    killed = happened(runtime, "api", "kill", since)
    assert died.attributes["exitCode"] == "137"
    assert killed.attributes["signal"] == "9"
    assert since - 0.01 <= killed.at_unix_s <= time.time()
    state = runtime.state("api")
    assert (state.running, state.paused, state.exit_code) == (False, False, 137)
    assert status(runtime.url("api") + "/healthz") is None
    time.sleep(1.5)  # nothing may happen in this time, so there is no event to wait for
    assert not runtime.state("api").running


def test_a_stopped_service_gets_sigterm_first_and_has_ended_when_the_call_returns(runtime):
    since, fault = time.time(), faults.stop("api", grace_s=5).primitive

    fault.inject(runtime, "api")

    assert not runtime.state("api").running
    asked, died = happened(runtime, "api", "kill", since), happened(runtime, "api", "die", since)
    assert (asked.attributes["signal"], died.attributes["exitCode"]) == ("15", "0")
    proof = until(lambda: fault.observed(runtime, "api", since), "the proof", 5.0)
    assert proof.at_unix_s == asked.at_unix_s
    assert "die exitCode=0 after" in proof.witness
    assert died.at_unix_s - asked.at_unix_s < 5


def test_a_frozen_service_is_stopped_within_its_grace(runtime):
    runtime.pause("model-1")  # it does not receive SIGTERM
    since = time.time()

    runtime.stop("model-1", 1)

    died, asked = happened(runtime, "model-1", "die", since), happened(runtime, "model-1", "kill", since)
    assert not runtime.state("model-1").running
    if runtime.name == "local":  # Docker unpauses a container to stop it
        assert died.attributes["exitCode"] == "137"
        assert died.at_unix_s - asked.at_unix_s >= 0.9


@pytest.mark.skipif(os.geteuid() != 0, reason="compose lets only root crash a container's process")
def test_a_crashed_service_dies_without_a_kill_event(runtime):
    since = time.time()

    runtime.crash("model-1")

    assert happened(runtime, "model-1", "die", since).attributes["exitCode"] == "137"
    assert not [e for e in runtime.events(since, float("inf")) if e.action == "kill"]
    assert not runtime.state("model-1").running


def test_a_started_service_comes_back_at_its_old_address(runtime):
    url = runtime.url("api")
    first = runtime.state("api")
    since = time.time()
    runtime.kill("api")
    happened(runtime, "api", "die", since)

    runtime.start("api")

    begun = happened(runtime, "api", "start", since)
    runtime.wait_healthy(["api"], 20)
    again = runtime.state("api")
    assert again.running
    assert again.started_unix_s > first.started_unix_s
    assert abs(again.started_unix_s - begun.at_unix_s) < 1
    assert again.identity == first.identity
    assert runtime.url("api") == url
    assert status(url + "/healthz") == 200


def test_a_restarted_service_dies_and_comes_back_by_itself(runtime):
    since = time.time()

    runtime.restart("model-2")

    died, begun = happened(runtime, "model-2", "die", since), happened(runtime, "model-2", "start", since)
    assert died.at_unix_s <= begun.at_unix_s
    assert runtime.state("model-2").running


def test_a_paused_service_is_frozen_with_its_connections_open(runtime):
    since = time.time()

    runtime.pause("api")

    happened(runtime, "api", "pause", since)
    state = runtime.state("api")
    assert (state.running, state.paused) == (True, True)
    begin = time.monotonic()
    assert status(runtime.url("api") + "/healthz", timeout_s=0.5) is None
    assert time.monotonic() - begin >= 0.5  # the call hung and was not refused

    runtime.unpause("api")

    happened(runtime, "api", "unpause", since)
    assert not runtime.state("api").paused
    until(lambda: status(runtime.url("api") + "/healthz") == 200, "answering again", 5.0)


@pytest.mark.parametrize("act", ["kill", "stop", "pause", "restart", "crash"])
def test_an_unknown_service_is_refused_and_nothing_is_touched(runtime, act):
    if act not in runtime.abilities:
        pytest.skip(f"the {runtime.name} runtime cannot {act} here")
    since = time.time()

    with pytest.raises(NotReady, match="stranger"):
        getattr(runtime, act)("stranger", *([5] if act == "stop" else []))

    assert not runtime.state("stranger").running
    assert [e for e in runtime.events(since, float("inf")) if e.action in {"kill", "die", "pause", "start"}] == []


def test_a_second_undo_and_one_of_a_missing_service_change_nothing(runtime):
    since = time.time()
    runtime.kill("model-1")
    happened(runtime, "model-1", "die", since)

    for _ in range(2):
        runtime.undo(Undo(op="ensure_running", service="model-1"))
    runtime.undo(Undo(op="ensure_running", service="stranger"))
    runtime.pause("model-2")
    for _ in range(2):
        runtime.undo(Undo(op="ensure_unpaused", service="model-2"))

    assert runtime.state("model-1").running
    assert not runtime.state("model-2").paused
    happened(runtime, "model-1", "start", since)
    assert len([e for e in runtime.events(since, float("inf")) if e.action == "start"]) == 1


def test_a_service_that_was_frozen_and_killed_is_restored(runtime):
    since = time.time()
    runtime.pause("model-1")
    runtime.kill("model-1")
    happened(runtime, "model-1", "die", since)

    runtime.undo(Undo(op="ensure_running", service="model-1"))

    runtime.wait_healthy(["model-1"], 20)
    assert not runtime.state("model-1").paused


def test_a_memory_limit_is_proven_by_the_kernel_and_reverted(runtime):
    since = time.time()
    fault, undo = faults.limit_memory("api", mebibytes=200).primitive, Undo(op="ensure_memory", service="api")
    assert fault.observed(runtime, "api", since) is None
    assert fault.healed(runtime, "api", since) is not None

    fault.inject(runtime, "api")
    try:
        proof = until(lambda: fault.observed(runtime, "api", since), "the proof of the limit", 5.0)
        assert f"{200 * 2**20} bytes" in proof.witness
        assert since <= proof.at_unix_s <= time.time()
        assert replace(fault, mebibytes=199).observed(runtime, "api", since) is None
        assert fault.observed(runtime, "api", proof.at_unix_s + 1e-6) is None
        assert fault.healed(runtime, "api", since) is None
        assert status(runtime.url("api") + "/healthz") == 200
    finally:
        runtime.undo(undo)

    assert fault.healed(runtime, "api", since) is not None
    runtime.undo(undo)
    runtime.undo(replace(undo, service="stranger"))
    assert fault.healed(runtime, "api", since) is not None
    assert fault.observed(runtime, "api", since) is None
    assert not [e for e in runtime.events(since, float("inf")) if e.action in {"die", "start"}]


def test_the_limit_of_a_service_that_died_can_be_reverted(runtime):
    since = time.time()
    fault = faults.limit_memory("model-1", mebibytes=200).primitive
    fault.inject(runtime, "model-1")
    runtime.kill("model-1")
    happened(runtime, "model-1", "die", since)
    assert fault.healed(runtime, "model-1", since) is None

    runtime.undo(fault.undo("model-1"))
    runtime.undo(Undo(op="ensure_running", service="model-1"))

    until(lambda: fault.healed(runtime, "model-1", since), "the proof that the limit is gone", 5.0)


def test_events_are_those_of_the_requested_time_only(runtime):
    since = time.time()
    runtime.pause("model-1")
    between = happened(runtime, "model-1", "pause", since).at_unix_s
    runtime.unpause("model-1")
    later = happened(runtime, "model-1", "unpause", since).at_unix_s

    assert since <= between < later
    assert {e.action for e in runtime.events(since, between)} & {"pause", "unpause"} == {"pause"}
    assert {e.action for e in runtime.events(between + 1e-6, later)} & {"pause", "unpause"} == {"unpause"}
    assert list(runtime.events(since - 1000, since - 999)) == []


def test_a_service_that_does_not_become_healthy_is_named(runtime):
    since = time.time()
    runtime.kill("model-2")
    happened(runtime, "model-2", "die", since)

    with pytest.raises(NotReady, match="model-2"):
        runtime.wait_healthy(["api", "model-2"], 0.5)


def test_a_configured_service_has_its_variables_until_they_are_taken_back(own):
    url, before, since = own.url("api"), births(own), time.time()
    assert refusal(own) == 400

    own.configure({"api": SHORT_BODIES})

    assert refusal(own) == 413
    assert own.url("api") == url
    now = births(own)
    assert {name for name in now if now[name] != before[name]} == {"api"}
    assert own.state("api").restarts == 0
    targets = Prometheus(own.url("prometheus")).targets()
    assert all(one.up and one.last_scrape_unix_s > now["api"][1] for one in targets if one.service == "api")

    own.configure({})

    assert refusal(own) == 400
    assert {e.service for e in own.events(since, float("inf")) if e.action in {"die", "start"}} == {"api"}


def test_services_restart_only_if_their_variables_change(own):
    own.configure({"api": SHORT_BODIES, "model-1": {"LAB_SEED": "1"}})
    first = births(own)

    own.configure({"model-1": {"LAB_SEED": "1"}, "api": dict(SHORT_BODIES), "model-2": {}})
    assert births(own) == first

    own.configure({"api": SHORT_BODIES, "model-1": {"LAB_SEED": "2"}})
    second = births(own)
    assert {name for name in second if second[name] != first[name]} == {"model-1"}

    own.configure({"api": SHORT_BODIES})
    third = births(own)
    assert {name for name in third if third[name] != second[name]} == {"model-1"}
    assert refusal(own) == 413

    own.configure({})
    fourth = births(own)
    own.configure({})
    assert births(own) == fourth
    assert {name for name in fourth if fourth[name] != third[name]} == {"api"}


def test_a_value_arrives_as_it_was_written(own):
    odd = """a "b" 'c' $HOME ${HOME} $$ %(x)s \\ ; # = é"""

    own.configure({"remediator": {"LAB_DRY_RUN": "1", "ODD": odd}, "model-1": {"ODD": odd}})

    assert not own.state("remediator").running
    assert variable(own, "model-1", "ODD") == odd
    since = time.time()
    own.start_remediator()
    until(lambda: [line for line in own.audit() if line["at"] >= since], "the remediator's first line", 10)
    told = [line for line in own.audit() if line["at"] >= since and line["event"] == "started"]
    own.stop_remediator()
    assert ["dry run" in line["reason"] for line in told] == [True]


def test_a_fault_agent_is_in_the_way_of_a_configured_service(own):
    own.wire_arm(["model-2"])
    try:
        own.configure({"model-2": {"LAB_SEED": "1"}})

        assert set(own.wire_protocols("model-2").values()) == {"HTTP/1"}
        id_ = own.wire_start("model-2", "latency", lease_s=60, seed=7, delay_s=0.01)
        # The gateway probes its replicas.
        assert own.wire_wait("model-2", id_, 10).hit_unix_s is not None
    finally:
        own.undo(Undo(op="wire_end", service="model-2", args={"kind": "latency"}))
        own.wire_disarm()


def test_a_running_remediator_restarts_and_repairs_none_of_it(own):
    own.start_remediator()
    since = time.time()

    own.configure({"remediator": {"LAB_POLL_S": "0.3"}, "api": SHORT_BODIES})

    assert own.state("remediator").running
    assert variable(own, "remediator", "LAB_POLL_S") == "0.3"
    assert refusal(own) == 413
    told = [line for line in own.audit() if line["at"] >= since]
    own.stop_remediator()
    assert {line["event"] for line in told} == {"started"}


def variable(runtime, service, name):
    """A variable of the first process of a service, as the kernel or Docker has it."""
    if runtime.name == "local":
        pid = runtime._control.inspect()[service].pid
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    else:
        pairs = runtime._container(service).attrs["Config"]["Env"]
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)[name]


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"stranger": {"A": "1"}}, "stranger"),
        ({"docker-proxy": {"A": "1"}}, "docker-proxy"),
        ({"model-1": {"A": "1"}, "api": {"A-B": "1"}}, "A-B"),
        ({"api": {"A": "1\n2"}}, "A of 'api'"),
        ({"api": {"LLMCHAOS_RUN": "1"}}, "LLMCHAOS_RUN"),
    ],
)
def test_bad_variables_are_refused_before_anything_changes(own, environment, named):
    before = births(own)

    with pytest.raises(BadScenario, match=named):
        own.configure(environment)

    assert births(own) == before
    own.configure({})
    assert births(own) == before


def test_a_service_that_cannot_run_with_its_variables_is_named_with_its_log_and_can_be_restored(own):
    with pytest.raises(NotReady, match=r"(?s)api.*LAB_BODY_MAX_BYTES: expected a whole number"):
        own.configure({"api": {"LAB_BODY_MAX_BYTES": "many"}})

    own.configure({})

    assert refusal(own) == 400


def test_a_stopped_service_gets_its_variables_at_its_next_start_and_a_frozen_one_at_once(own):
    since = time.time()
    own.kill("api")
    own.pause("model-1")
    happened(own, "api", "die", since)

    own.configure({"api": SHORT_BODIES, "model-1": {"LAB_SEED": "1"}})

    assert not own.state("api").running
    assert (own.state("model-1").running, own.state("model-1").paused) == (True, False)
    assert variable(own, "model-1", "LAB_SEED") == "1"
    own.undo(Undo(op="ensure_running", service="api"))
    own.wait_healthy(["api"], 20)
    assert refusal(own) == 413


def test_a_configured_service_is_still_hit_and_reverted(own):
    own.configure({"api": SHORT_BODIES})
    since, fault = time.time(), faults.limit_memory("api", mebibytes=200).primitive

    fault.inject(own, "api")
    try:
        until(lambda: fault.observed(own, "api", since), "the proof of the limit", 5.0)
    finally:
        own.undo(Undo(op="ensure_memory", service="api"))
    assert fault.healed(own, "api", since) is not None
    own.kill("api")
    happened(own, "api", "die", since)
    own.undo(Undo(op="ensure_running", service="api"))

    own.wait_healthy(["api"], 20)
    assert refusal(own) == 413


def test_the_remediator_starts_repairs_records_and_stops(runtime):
    since = time.time()
    runtime.start_remediator()
    assert runtime.state("remediator").running
    runtime.kill("api")
    died = happened(runtime, "api", "die", since)

    begun = until(
        lambda: next((e for e in runtime.events(died.at_unix_s, float("inf")) if e.action == "start"), None),
        "the repair",
        20,
    )
    runtime.stop_remediator()

    assert not runtime.state("remediator").running
    told = [line for line in runtime.audit() if line["at"] >= since and line.get("service") == "api"]
    intent = next(line for line in told if line["event"] == "intent")
    assert (begun.service, intent["action"]) == ("api", "start")
    assert died.at_unix_s <= intent["at"] <= begun.at_unix_s + 0.05
    assert any("exited (137)" in str(one["value"]) for one in intent["evidence"])


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_up_without_a_remediator_and_down_twice_leave_nothing(name, tmp_path):
    runtime = new_runtime(name, tmp_path)
    runtime.prepare()
    try:
        runtime.up(remediator=False)
        assert not runtime.state("remediator").running
        assert runtime.state("api").running
        url = runtime.url("api")
    finally:
        runtime.down()
    runtime.down()

    assert status(url + "/healthz") is None
    assert {log.name for log in (tmp_path / "logs").iterdir()} >= {"api.txt", "model-1.txt", "prometheus.txt"}
