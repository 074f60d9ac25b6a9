"""Engines stop working for clients who leave, and clients who stay are not affected.

No fault is injected: half of the clients leave before their answers are whole. An
answer takes 1.4 s, and impatient clients leave after 0.4 s, so work for them would be a
third of all work. Needs the simulated engine.
"""

import time

import pytest

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=10, prompts="short-chat", max_tokens=256, patience_s=0.4, impatient_ratio=0.5)
STAYS_S, LEAVES_S = 1.4, 0.4
AT_WORK = LOAD.mean_rps / 2 * (STAYS_S + LEAVES_S)  # requests under way, of those who stay and of those who leave

control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


@control
def test_clients_who_stay_notice_nothing(trial):
    assert trial.whole.left >= 20  # or no client left early
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.whole.e2e_s.p95 <= 2
    assert trial.attempts_per_request <= 1.05
    assert trial.replicas.all_serve


def test_the_engines_do_not_work_for_clients_who_left(lab):
    if "engine" not in lab.runtime.abilities:
        pytest.skip("needs the simulated engine")
    with lab.load(LOAD):
        lab.hold_steady(4)
        lab.hold(5)
        running = lab.prometheus.value("sum(avg_over_time(llmchaos:requests_running[5s]))", time.time())

    assert running <= 1.25 * AT_WORK

    kept = "sum(llmchaos:requests_running) + sum(llmchaos:requests_waiting) + sum(llmchaos:kv_cache_usage_ratio)"
    lab.hold_until(lambda: lab.prometheus.value(kept, time.time()) == 0, deadline_s=10, what="idle engines")
    assert lab.prometheus.value(kept, time.time()) == 0  # no slot and no KV cache block leaks
