"""GPU memory exhaustion costs one repair within 20 s, a full KV cache only waiting.

The engine that runs out of memory dies and is repaired without a human. A full KV cache
makes clients wait: no answer is lost and nothing is restarted. Needs the simulated
engine.
"""

from pytest_llmchaos import experiment, faults, loads

out_of_memory = experiment(
    load=loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64),
    fault=faults.gpu_exhaustion("model-1"),
    steady_s=5,
    repair_within_s=40,
)
# More than a small model on two cores could serve: these replicas are simulated.
FULL = loads.open_loop(rate_rps=24, prompts="short-chat", max_tokens=32, beyond_capacity=True)
full_cache = experiment(
    load=FULL,
    fault=faults.together(
        faults.gpu_exhaustion("model-1", what="kv_cache", ratio=0.9993),
        faults.gpu_exhaustion("model-2", what="kv_cache", ratio=0.9993),
    ),
    steady_s=5,
    fault_s=15,
    settle_within_s=40,
)
control = experiment(load=FULL, fault=faults.none(), steady_s=5, simulated_engine=True)


@out_of_memory
def test_an_engine_out_of_memory_is_detected(trial):
    assert trial.rule("replica-exited", "model-1").after_s <= 5


@out_of_memory
def test_an_engine_out_of_memory_is_repaired_by_the_remediator(trial):
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.restarts == {"model-1": 1}
    assert trial.replicas.all_serve


@out_of_memory
def test_an_engine_out_of_memory_costs_little(trial):
    assert trial.slo("availability").bad_s <= 2
    assert trial.silently_truncated == 0
    assert trial.attempts_per_request <= 1.2


@full_cache
def test_a_full_cache_is_detected(trial):
    assert trial.alert("KvCacheFull").after_s <= 15


@full_cache
def test_a_full_cache_makes_clients_wait_and_loses_no_answer(trial):
    assert trial.during_fault.e2e_s.p50 > 1.5 * trial.before_fault.e2e_s.p50  # or the fault did not reach them
    assert trial.slo("availability").bad_s <= 1
    assert trial.silently_truncated == 0


@full_cache
def test_a_full_cache_needs_no_restart(trial):
    assert trial.actions == ()
    assert trial.restarts == {}


@full_cache
def test_clients_are_served_again_soon_after(trial):
    assert trial.time_to_settle_s <= 20
    assert trial.replicas.all_serve


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
