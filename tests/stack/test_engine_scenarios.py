"""Faults of the simulated engine on the real stack, and the scenarios' arms."""

import importlib.util
import random
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.hiccups import perform_measured

from lab_engine.faults import KINDS
from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import ProvesNothing
from pytest_llmchaos.plan.schedule import plan_trial

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

RASH_AFTER_S = 3.0
SCENARIOS = Path(__file__).parents[2] / "scenarios"


def claims_of(file):
    """Every claim of a scenario with its experiment."""
    spec = importlib.util.spec_from_file_location(f"scenario_{file}", SCENARIOS / f"test_{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for name, claim in vars(module).items():
        if name.startswith("test_"):
            own = getattr(claim, "pytestmark", None)
            mark = own[0] if own else module.pytestmark
            found[name] = (claim, mark.kwargs["experiment"])
    return found


FAULTS = [
    faults.xid("model-1"),
    faults.xid("model-1", code=48, engine="errors"),
    faults.xid("model-1", code=13, engine="survives"),
    faults.thermal_throttling("model-1"),
    faults.corrupted_output("model-1"),
    faults.slow_load("model-1"),
    faults.crash_on_boot("model-1", for_s=60),
    faults.memory_leak("model-1"),
]
# Scenarios, and their claim on who must or must not have acted.
REPAIRED = [
    ("hung_model", "test_a_hung_replica_is_restarted_by_the_remediator"),
    ("gpu_exhaustion", "test_an_engine_out_of_memory_is_repaired_by_the_remediator"),
    ("engine_errors", "test_a_failing_engine_is_restarted_by_the_remediator"),
    ("corrupted_output", "test_a_replica_that_answers_garbage_is_restarted_by_the_remediator"),
]
ONLY_BUSY = [
    ("gpu_exhaustion", "test_a_full_cache_needs_no_restart"),
    ("busy_model", "test_a_busy_engine_is_not_restarted"),
    ("gpu_saturation", "test_gpu_saturation_needs_no_restart"),
]
# What comes back when its trigger is gone. tests/truth takes the defence away.
BY_ITSELF = [("retry_storm", "test_it_comes_back_by_itself")]
# Nothing may be repaired without Prometheus.
BLIND = [("prometheus_down", "test_a_blind_remediator_does_not_guess")]
# Faults on the wire between the gateway and a replica.
ON_THE_WIRE = [
    ("slow_model", "test_every_answer_is_whole"),
    ("flaky_model", "test_clients_see_no_failure"),
    ("truncated_streams", "test_no_client_takes_half_an_answer_for_a_whole_one"),
    ("stalled_streams", "test_no_client_is_left_hanging"),
    ("inband_errors", "test_clients_get_each_error_as_an_error"),
    ("late_first_token", "test_clients_wait_and_get_whole_answers"),
    ("latency_model", "test_no_answer_is_lost"),
    ("partition_model", "test_the_other_replica_serves"),
]


def test_every_fault_of_the_engine_is_performed_here_or_in_a_scenario():
    experiments = [claims_of(file)[claim][1] for file, claim in REPAIRED + ONLY_BUSY]
    performed = {fault.primitive.kind for fault in FAULTS}
    for fault in (one for experiment in experiments for one in experiment.faults):
        performed |= {act.fault.kind for act in fault.plan(random.Random(1), ("model-1", "model-2"))}

    assert performed == set(KINDS)


@pytest.mark.sampled(share=0.12)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f} {dict(f.primitive.options)}")
def test_a_fault_takes_hold_and_its_end_leaves_nothing(stack_lab, fault):
    # Without the remediator, or it would repair the service.
    with stack_lab.load(loads.open_loop(rate_rps=8, max_tokens=4), remediator=False):
        stack_lab.hold_steady(1)
        with stack_lab.inject(fault) as injected:
            assert injected.victims == ("model-1",)

    stack_lab.runtime.wait_healthy(("model-1",), 20)
    assert stack_lab.runtime.engine_faults("model-1").in_force(fault.primitive.kind) is None


@pytest.fixture
def verdicts(stack_lab):
    """Perform a changed experiment of a scenario, and list the claims that fail."""

    def judged(file, of, *, fault=None, **changed):
        found = claims_of(file)
        original = found[of][1]
        made = replace(original, **changed, **({"faults": (fault,)} if fault else {}))
        plan = plan_trial(
            scenario=file,
            hypothesis="",
            experiment=made,
            fault=made.faults[0],
            repeat=0,
            seed=42,
            services=stack_lab.subject.may_hit,
        )
        trial = perform_measured(stack_lab, plan)
        refuted = {}
        for name, (claim, experiment) in found.items():
            if experiment is original:
                try:
                    claim(trial)
                except (AssertionError, ProvesNothing) as error:
                    refuted[name] = f"{type(error).__name__}: {error}"
        return refuted

    return judged


@pytest.fixture
def a_rash_operator(stack_lab, monkeypatch):
    """Restart an engine soon after it becomes busy, as an impatient human would."""
    runtime, started = stack_lab.runtime, []
    start_fault = runtime.engine_start

    def start_fault_and_worry(service, kind, **how):
        if not started:
            container = f"{runtime.project}-model-1-1"
            restart = ["docker", "restart", "-t", "0", container]
            started.append(threading.Timer(RASH_AFTER_S, subprocess.run, [restart], {"check": True}))
            started[0].start()
        return start_fault(service, kind, **how)

    monkeypatch.setattr(runtime, "engine_start", start_fault_and_worry)
    yield
    for one in started:
        one.join()


@pytest.mark.sampled
@pytest.mark.parametrize(("file", "claim"), REPAIRED + ONLY_BUSY + BY_ITSELF + BLIND + ON_THE_WIRE)
def test_it_holds_where_what_is_broken_is_repaired_and_what_is_busy_left_alone(verdicts, file, claim):
    assert verdicts(file, claim) == {}


@pytest.mark.nightly("test_trials has the arm without the remediator; the scenario's own arm holds above")
@pytest.mark.parametrize(("file", "claim"), REPAIRED)
def test_it_is_refuted_without_a_repair(verdicts, file, claim):
    assert claim in verdicts(file, claim, remediator=False, repair_within_s=20.0)


@pytest.mark.nightly("the scenarios hold above; tests/truth has remediators that restart what is only busy")
@pytest.mark.parametrize(("file", "claim"), ONLY_BUSY)
@pytest.mark.usefixtures("a_rash_operator")
def test_it_is_refuted_if_a_busy_service_is_restarted(verdicts, file, claim):
    assert claim in verdicts(file, claim)
