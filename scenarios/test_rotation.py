"""A replica that comes back gets its share of the load step by step.

It is slow until its caches are warm. Needs the simulated engine.
"""

import time

import pytest

from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=12, prompts="short-chat", max_tokens=64)
BUSY = loads.open_loop(rate_rps=30, prompts="short-chat", max_tokens=64)  # more than one replica has places for

control = experiment(load=LOAD, fault=faults.none(), steady_s=4, simulated_engine=True)


def test_a_replica_that_comes_back_is_given_its_share_little_by_little(lab):
    if "engine" not in lab.runtime.abilities:
        pytest.skip("needs the simulated engine")
    # The process answers at once. The gateway uses it after good real requests.
    routed = (
        'llmlab_inflight_requests{replica="model-1"} and on (replica) min by (replica) (llmlab_upstream_health) == 1'
    )

    def taken() -> list[float]:
        return list(lab.prometheus.vector(routed, time.time(), may_be_empty=True).values())

    with lab.load(BUSY):
        lab.hold_steady(4)
        with lab.inject(faults.kill("model-1")):
            assert lab.hold_until(lambda: not taken(), deadline_s=10, what="replica out of rotation")
            assert lab.hold_until(lambda: bool(taken()), deadline_s=20, what="replica in rotation")
            # The first look may come before the first request. The next is 1 s later.
            lab.hold(1.2)
            places = max(taken())
        lab.hold(2)

    assert places <= 4  # of 8: 3 at the end of two of its first five seconds


@control
def test_without_a_fault_nothing_happens(trial):
    assert trial.failed == 0
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.whole.ttft_s.p50 <= 0.2
    assert trial.whole.ttft_s.p95 <= 1
    assert trial.attempts_per_request <= 1.05
