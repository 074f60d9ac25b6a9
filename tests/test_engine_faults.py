"""Faults of the simulated engine: start, proof and revert."""

import inspect
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_runtime import FakeRuntime
from support.lab_engine_process import Process
from support.primitives import PRIMITIVES
from support.waiting import until

from lab_engine import faults as engine_faults
from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario, HealFailed, Inconclusive, NotReady
from pytest_llmchaos.faults.leases import LEASE_S, LONGEST_LEASE_S
from pytest_llmchaos.model import LeasedFaults, LeasedFaultState, ServiceState, Undo
from pytest_llmchaos.runtime.simulated_engine import EngineAbility, ask_admin_port
from pytest_llmchaos.subject.lab import lab_subject

ON_ENGINE = [
    faults.hang("model-1"),
    faults.gpu_saturation("model-1", share=0.5),
    faults.gpu_exhaustion("model-1", what="kv_cache"),
    faults.xid("model-1", code=48, engine="errors"),
    faults.cpu_fallback("model-1"),
    faults.thermal_throttling("model-1"),
    faults.corrupted_output("model-1", how="wrong", share=0.25),
    faults.slow_load("model-1"),
    faults.memory_leak("model-1"),
]
DYING = [faults.gpu_exhaustion("model-1"), faults.xid("model-1"), faults.crash_on_boot("model-1")]


def primitive(fault):
    return fault.plan(random.Random(1), ("api", "model-1", "model-2"))[0].fault


class Scripted(FakeRuntime):
    """A runtime whose engine and Prometheus report what the test sets."""

    def __init__(self, report=None, signal=None):
        super().__init__()
        self.report, self.signal, self.asked = report, signal, []

    def engine_faults(self, service):
        return self.report

    def engine_signal(self, query):
        self.asked.append(query)
        return self.signal


def in_force(kind, *, at=1000.0, active=True, **counters):
    state = LeasedFaultState(id="f1", kind=kind, active=active, started_unix_s=at, counters=counters)
    return LeasedFaults(at_unix_s=at + 1, faults=(state,))


# Arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: faults.gpu_saturation("model-1", share=1), r"share=.*at most 0.99, got 1"),
        (lambda: faults.gpu_saturation("model-1", share=True), r"share=.*got True"),
        (lambda: faults.gpu_saturation("model-1", share=float("nan")), r"share=.*got nan"),
        (lambda: faults.gpu_exhaustion("model-1", what="disk"), r"what=.*'device_memory', 'kv_cache', got 'disk'"),
        (lambda: faults.gpu_exhaustion("model-1", what=["kv_cache"]), r"what=.*got \['kv_cache'\]"),
        (lambda: faults.gpu_exhaustion("model-1", ratio=1.5), r"ratio=.*at most 1, got 1.5"),
        (lambda: faults.xid("model-1", code=0), r"code=.*from 1 to 999, got 0"),
        (lambda: faults.xid("model-1", code=79.0), r"code=.*got 79.0"),
        (lambda: faults.xid("model-1", engine="maybe"), r"engine=.*got 'maybe'"),
        (lambda: faults.cpu_fallback("model-1", slowdown=1), r"slowdown=.*above 1"),
        (lambda: faults.thermal_throttling("model-1", clock_ratio=0), r"clock_ratio=.*above 0.05"),
        (lambda: faults.corrupted_output("model-1", how="rude"), r"how=.*got 'rude'"),
        (lambda: faults.corrupted_output("model-1", share=0), r"share=.*above 0"),
        (lambda: faults.slow_load("model-1", load_s="30"), r"load_s=.*got '30'"),
        (lambda: faults.crash_on_boot("model-1", for_s=0), r"for_s=.*above 0"),
        (lambda: faults.crash_on_boot("model-1", for_s=301), r"for_s=.*at most 300, got 301"),
        (lambda: faults.memory_leak("model-1", bytes_per_s=1), r"bytes_per_s=.*got 1"),
        (lambda: faults.hang("model 1"), "must be a service name"),
        (lambda: faults.hang(None), "must be a service name"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(make, message):
    with pytest.raises(BadScenario, match=message):
        make()


@pytest.mark.parametrize("fault", ON_ENGINE + DYING, ids=lambda f: f"{f}-{dict(f.primitive.options)}")
def test_no_claim_on_a_simulated_fault_may_be_more_than_simulated(fault):
    assert fault.fidelity == "simulated"
    assert "engine" in fault.needs


def takes_only_a_target(make):
    return all(
        name == "target" or one.default is not one.empty for name, one in inspect.signature(make).parameters.items()
    )


def test_each_fault_of_the_engine_is_one_file_of_the_catalogue_and_keeps_the_contract():
    makers = [getattr(faults, name) for name in faults.__all__]
    made = [
        make("model-1")
        for make in makers
        if "target" in inspect.signature(make).parameters and takes_only_a_target(make)
    ]
    folder = Path(inspect.getfile(faults)).parent

    assert {fault.primitive.kind for fault in made if "engine" in fault.needs} == set(engine_faults.KINDS)
    assert {fault.primitive.kind for fault in PRIMITIVES if "engine" in fault.needs} == set(engine_faults.KINDS)
    assert {fault.primitive.kind for fault in ON_ENGINE + DYING} == set(engine_faults.KINDS)
    assert all((folder / f"{kind}.py").is_file() for kind in engine_faults.KINDS)


def test_each_fault_of_the_engine_is_one_file_of_its_name_and_all_of_them_are_registered():
    files = {path.stem for path in Path(inspect.getfile(engine_faults)).parent.glob("*.py")}

    assert set(engine_faults.KINDS) == files - {"__init__", "base"}
    assert all(fault.__module__ == f"lab_engine.faults.{kind}" for kind, fault in engine_faults.KINDS.items())


# Proof


@pytest.mark.parametrize("fault", ON_ENGINE, ids=str)
def test_the_engine_and_prometheus_must_both_see_it(fault):
    one = primitive(fault)
    report = in_force(one.kind, requests=2.0, bytes=4096.0)

    assert one.observed(Scripted(report, signal=None), "model-1", 999.0) is None
    assert one.observed(Scripted(None, signal=1.0), "model-1", 999.0) is None
    proof = one.observed(Scripted(report, signal=1.0), "model-1", 999.0)
    assert proof is not None
    assert proof.at_unix_s == 1000.0


@pytest.mark.parametrize("fault", ON_ENGINE, ids=str)
def test_the_query_is_about_the_victim_only(fault):
    runtime = Scripted(in_force(primitive(fault).kind, requests=2.0, bytes=1.0), signal=1.0)

    primitive(fault).observed(runtime, "model-1", 999.0)

    assert "{victim}" not in runtime.asked[0]
    # Clients cannot see which replica was wrong.
    assert ('"model-1"' in runtime.asked[0]) != (fault.primitive.kind == "corrupted_output")


@pytest.mark.parametrize(
    ("fault", "query"),
    [
        (faults.gpu_saturation("model-1", share=0.5), 'DCGM_FI_DEV_GPU_UTIL{service="model-1"} >= 47.5'),
        (
            faults.gpu_exhaustion("model-1", what="kv_cache", ratio=0.5),
            'llmchaos:kv_cache_usage_ratio{service="model-1"} >= 0.495',
        ),
        (faults.xid("model-1", code=48, engine="errors"), 'DCGM_FI_DEV_XID_ERRORS{service="model-1"} == 48'),
        (faults.xid("model-1", code=13, engine="survives"), 'DCGM_FI_DEV_XID_ERRORS{service="model-1"} == 13'),
        (faults.cpu_fallback("model-1"), 'DCGM_FI_DEV_FB_USED{service="model-1"} == 0'),
        (faults.thermal_throttling("model-1"), 'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{service="model-1"} > 1'),
        (
            faults.corrupted_output("model-1"),
            'sum(increase(llmchaos_client_requests_total{outcome="corrupted"}[5s])) > 0',
        ),
        (faults.memory_leak("model-1"), 'delta(process_resident_memory_bytes{service="model-1"}[4s]) > 1e6'),
        (faults.hang("model-1"), lab_subject("sim").witness_query("hang", "model-1")),
        (faults.slow_load("model-1"), lab_subject("sim").witness_query("slow_load", "model-1")),
    ],
    ids=str,
)
def test_the_query_is_for_the_signal_of_a_fault_of_that_strength(fault, query):
    one = primitive(fault)
    runtime = Scripted(in_force(one.kind, requests=2.0, bytes=4096.0), signal=0.75)

    proof = one.observed(runtime, "model-1", 1000.0)

    assert runtime.asked == [query]
    counted = {"requests": ", requests=2", "bytes": ", bytes=4096"}.get(one.counter, "")
    assert proof.witness == f"the engine reports {one.kind} f1 in force{counted}; Prometheus: {query} is 0.75"


def test_proofs_have_the_engines_counts_if_it_has_some():
    one, counted = primitive(faults.hang("model-1")), {"steps": 3.0}

    injected = one.observed(Scripted(in_force("hang", **counted), 1.0), "model-1", 1000.0)
    healed = one.healed(Scripted(in_force("hang", active=False, **counted)), "model-1", 1000.0)
    uncounted = one.healed(Scripted(in_force("hang", active=False)), "model-1", 1000.0)
    restarted = one.healed(Scripted(LeasedFaults(at_unix_s=1.0, faults=())), "model-1", 1000.0)

    assert injected.counts.counters == healed.counts.counters == counted
    assert uncounted.counts is restarted.counts is None


@pytest.mark.parametrize(("for_s", "lease_s"), [(0.0, 300.0), (299.0, 300.0), (300.5, 300.5), (3600.0, 3600.0)])
def test_a_lease_is_lengthened_where_a_trial_takes_longer_and_never_shortened(for_s, lease_s):
    fault = faults.hang("model-1")

    assert fault.with_lease(for_s).primitive.lease_s == lease_s
    assert faults.xid("model-1").with_lease(for_s) == faults.xid("model-1")


def test_a_lease_beyond_the_longest_is_refused_with_the_fault():
    with pytest.raises(
        BadScenario, match=r"may need 'hang model-1' for 3600\.5 s, .* every fault after 3600 s: shorten"
    ):
        faults.hang("model-1").with_lease(3600.5)


@pytest.mark.parametrize("fault", ON_ENGINE, ids=str)
def test_a_fault_from_before_or_one_that_has_ended_is_no_proof(fault):
    one = primitive(fault)

    counts = {"requests": 1.0, "bytes": 1.0}
    assert one.observed(Scripted(in_force(one.kind, at=998.0, **counts), signal=1.0), "model-1", 999.0) is None
    assert one.observed(Scripted(in_force(one.kind, active=False, **counts), signal=1.0), "model-1", 999.0) is None
    assert one.observed(Scripted(in_force("another", **counts), signal=1.0), "model-1", 999.0) is None


@pytest.mark.parametrize(("fault", "counter"), [(ON_ENGINE[6], "requests"), (ON_ENGINE[8], "bytes")], ids=str)
def test_a_fault_that_has_done_nothing_yet_is_not_proven(fault, counter):
    one = primitive(fault)

    assert one.observed(Scripted(in_force(one.kind, **{counter: 0.0}), signal=1.0), "model-1", 999.0) is None
    assert one.observed(Scripted(in_force(one.kind), signal=1.0), "model-1", 999.0) is None


@pytest.mark.parametrize("fault", DYING, ids=str)
def test_another_kill_does_not_prove_that_the_engine_died_of_the_fault(fault):
    runtime = FakeRuntime()
    runtime.kill("model-1")

    assert primitive(fault).observed(runtime, "model-1", 0.0) is None


def test_an_engine_that_does_not_answer_is_no_proof_of_a_revert():
    hang = primitive(faults.hang("model-1"))

    assert hang.healed(Scripted(None), "model-1", 0.0) is None
    assert hang.healed(Scripted(in_force("hang")), "model-1", 0.0) is None
    assert hang.healed(Scripted(in_force("hang", active=False)), "model-1", 0.0) is not None


def test_a_crash_on_boot_meets_its_victim_at_once_and_ends_by_itself():
    runtime = FakeRuntime()
    crash = primitive(faults.crash_on_boot("model-1", for_s=3))

    crash.inject(runtime, "model-1")

    assert not runtime.state("model-1").running
    assert crash.lease_s == 3
    assert primitive(faults.hang("model-1")).lease_s == LEASE_S


def test_the_longest_lease_is_what_the_engine_grants():
    assert LONGEST_LEASE_S == engine_faults.LONGEST_LEASE_S


# The ability


class Engine(EngineAbility):
    """An admin port in memory. `refuses` is its error for every request."""

    def __init__(self, backend="sim"):
        self.subject = lab_subject(backend)
        self.asked, self.refuses, self.forgotten = [], None, 0
        self.told = {"faults": []}
        self.now = ServiceState(service="model-1", running=True, identity="c1")

    def _ask_engine(self, service, verb, argument=""):
        self.asked.append((service, verb, argument))
        if self.refuses:
            raise NotReady(self.refuses)
        return {"id": "f7"} if verb == "start" else self.told

    def _forget_boot_faults(self, service):
        self.forgotten += 1

    def url(self, service):
        return "http://127.0.0.1:9"  # the discard port has no listener

    def state(self, service):
        return self.now

    def start(self, service):
        self.asked.append((service, "container start", ""))

    def unpause(self, service):
        self.asked.append((service, "container unpause", ""))


def told(kind="hang", state="active", **more):
    return {"id": "f1", "kind": kind, "state": state, "lease_s": 30, "left_s": 20.0, "counters": {}, **more}


@pytest.mark.parametrize(("backend", "has"), [("sim", True), ("ollama", False), ("llamacpp", False)])
def test_only_the_simulated_engine_has_the_ability(backend, has):
    assert ("engine" in Engine(backend).engine_abilities) == has


@pytest.mark.parametrize("fault", ON_ENGINE + DYING, ids=lambda f: f"{f}-{dict(f.primitive.options)}")
def test_the_options_of_a_fault_are_those_of_the_engine(fault):
    engine, one = Engine(), primitive(fault)

    engine.engine_start("model-1", one.kind, lease_s=one.lease_s, **dict(one.options))

    made, lease_s = engine_faults.parse(json.loads(engine.asked[0][2]))
    assert made.kind == one.kind
    assert lease_s == one.lease_s
    assert dict(one.options).items() <= engine_faults.options(made).items()


def test_the_start_of_a_fault_is_what_is_gone_of_its_lease():
    engine = Engine()
    engine.told = {"faults": [told(counters={"steps": 3})]}

    report = engine.engine_faults("model-1")

    assert report.in_force("hang").started_unix_s == pytest.approx(report.at_unix_s - 10)
    assert report.in_force("hang").counters == {"steps": 3.0}
    assert report.in_force("xid") is None


def test_what_the_gateway_sees_of_a_fault_is_the_subjects_to_name():
    engine = Engine()
    engine.subject = lab_subject("sim")

    assert engine.engine_witness("slow_load", "model-2") == (
        'llmlab_upstream_health{replica="model-2",probe="shallow"} == 0'
    )
    engine.subject = replace(lab_subject("sim"), witness_queries=())
    with pytest.raises(Inconclusive, match="has no witness query for slow_load"):
        engine.engine_witness("slow_load", "model-2")


def test_an_engine_that_is_down_reports_nothing():
    engine = Engine()
    engine.refuses = "no listener"

    assert engine.engine_faults("model-1") is None


def test_prometheus_that_does_not_answer_has_seen_nothing():
    assert Engine().engine_signal("up") is None


def test_the_undo_ends_its_own_kind_and_leaves_others_alone():
    engine = Engine()
    engine.told = {"faults": [told(), told("xid", id="f2"), told(state="ended", id="f3")]}

    engine.undo_engine(Undo(op="engine_end", service="model-1", args={"kind": "hang"}))

    assert [asked for asked in engine.asked if asked[1] == "end"] == [("model-1", "end", "f1")]
    assert engine.forgotten == 0


def test_the_undo_starts_what_has_died_and_takes_away_what_would_kill_it_again():
    engine = Engine()
    engine.now = replace(engine.now, running=False)

    engine.undo_engine(Undo(op="engine_end", service="model-1", args={"kind": "crash_on_boot"}))

    assert engine.forgotten == 1
    assert engine.asked == [("model-1", "container start", "")]


def test_the_undo_is_content_with_a_service_that_is_gone():
    engine = Engine()
    engine.now = ServiceState(service="model-1", running=False)

    engine.undo_engine(Undo(op="engine_end", service="model-1", args={"kind": "crash_on_boot"}))

    assert engine.asked == []
    assert engine.forgotten == 0


def test_an_undo_that_the_engine_does_not_answer_has_failed():
    engine = Engine()
    engine.refuses = "no listener"

    with pytest.raises(HealFailed, match="cannot end hang on model-1: no listener"):
        engine.undo_engine(Undo(op="engine_end", service="model-1", args={"kind": "hang"}))


@pytest.mark.parametrize("args", [{}, {"kind": None}, {"kinds": "hang"}])
def test_an_undo_that_names_no_kind_is_not_taken_for_done(args):
    engine = Engine()

    with pytest.raises(HealFailed, match=r"engine_end model-1 must name a kind of fault, got .*revert it by hand"):
        engine.undo_engine(Undo(op="engine_end", service="model-1", args=args))


# Against the engine itself


@pytest.fixture
def process(tmp_path):
    process = Process(LAB_STATE_DIR=str(tmp_path))
    yield process
    process.popen.kill()
    process.popen.communicate()


def listens(address):
    try:
        return "faults" in ask_admin_port(address, "list", "")
    except NotReady:
        return False


def test_the_real_admin_port_is_understood(process):
    address = f"127.0.0.1:{process.admin_port}"
    until(lambda: listens(address), "the engine's admin port answers")

    started = ask_admin_port(address, "start", '{"kind": "hang", "lease_s": 30}')
    listed = ask_admin_port(address, "list", "")
    ask_admin_port(address, "end", started["id"])
    ask_admin_port(address, "end", started["id"])

    assert [(one["kind"], one["state"]) for one in listed["faults"]] == [("hang", "active")]
    assert [one["state"] for one in ask_admin_port(address, "list", "")["faults"]] == ["ended"]
    with pytest.raises(NotReady, match=r"refused `start`.*kind must be one of"):
        ask_admin_port(address, "start", '{"kind": "flu", "lease_s": 30}')


def test_a_port_without_a_listener_is_reported():
    with pytest.raises(NotReady, match=r"admin port at 127\.0\.0\.1:9 did not answer `list`: ConnectError"):
        ask_admin_port("127.0.0.1:9", "list", "")


@pytest.mark.parametrize(
    ("report", "early"),
    [(in_force("hang"), False), (in_force("hang", active=False), True), (in_force("xid"), False), (None, False)],
)
def test_a_fault_that_the_engine_lists_and_that_is_no_longer_in_force_ended_by_itself(report, early):
    assert primitive(faults.hang("model-1")).ended_early(Scripted(report), "model-1") is early
