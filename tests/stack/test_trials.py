"""Trials on the real stack with the simulated engine."""

import time
from dataclasses import dataclass

import pytest
from support.hiccups import act_measured

from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import (
    Aborted,
    BadScenario,
    FaultNotObserved,
    Inconclusive,
    NotDetected,
    NotRecovered,
    NotSteady,
    ProvesNothing,
    Unsupported,
)
from pytest_llmchaos.evidence.journal import read
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill

pytestmark = pytest.mark.stack


def last_judged(stack_lab):
    return [line for line in read(stack_lab.journal.path) if line["kind"] == "judged"][-1]


def test_a_killed_api_is_repaired_by_the_remediator_who_acts_within_three_seconds(trial_of):
    trial = trial_of()

    kill_s = next(e.at_s for e in trial.events if e.source == "instrument")
    intent_s = next(e.at_s for e in trial.events if e.source == "remediator" and e.what.startswith("intent"))
    assert intent_s - kill_s <= 3
    assert trial.time_to_detect_s <= 5
    assert trial.time_to_recover_s <= 20
    assert trial.repaired_by == "remediator"
    assert trial.slo("availability").bad_s <= 15
    assert trial.silently_truncated == 0
    assert trial.during_fault.failed > 0


def test_without_the_remediator_the_api_stays_down(trial_of):
    trial = trial_of(remediator=False, repair_within_s=8)

    with pytest.raises(NotRecovered, match="api had not started again when the instrument reverted"):
        _ = trial.time_to_recover_s
    assert trial.repaired_by == "instrument"
    assert trial.actions == ()


def test_without_a_fault_nothing_alerts_and_nothing_acts(trial_of, stack_lab):
    stack_lab.reasons.judged(time.time())  # acts of earlier tests on this stack explain earlier reactions
    trial = trial_of(faults.none(), fault_s=8, stable_s=4)

    assert trial.is_control
    assert 7.9 <= trial.during_fault.seconds <= 10  # as long as a fault would have lasted
    assert trial.alerts == ()
    assert trial.actions == ()
    assert trial.restarts == {}
    assert trial.whole.availability == 1.0
    with pytest.raises(NotRecovered, match="no fault was injected"):
        _ = trial.time_to_recover_s


@dataclass(frozen=True, kw_only=True)
class Harmless(Kill):
    """A fault that claims to kill and has no effect."""

    def inject(self, runtime, victim):
        return


def test_a_fault_that_does_not_take_hold_is_an_error(trial_of, stack_lab):
    with pytest.raises(FaultNotObserved, match="kill api: no witness saw it"):
        trial_of(OnTarget(primitive=Harmless(), target="api"))

    assert last_judged(stack_lab)["verdict"] == "invalid"


@dataclass(frozen=True, kw_only=True)
class StopTheJudgeToo(Kill):
    def inject(self, runtime, victim):
        runtime.kill("prometheus")
        runtime.kill(victim)


@dataclass(frozen=True, kw_only=True)
class FreezeTheJudgeToo(Kill):
    def inject(self, runtime, victim):
        runtime.kill(victim)
        runtime.pause("prometheus")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("fault", "error", "verdicts"),
    [
        pytest.param(StopTheJudgeToo(), ProvesNothing, {"inconclusive", "invalid"}, id="stopped"),
        pytest.param(FreezeTheJudgeToo(), Inconclusive, {"inconclusive"}, id="frozen"),
    ],
)
def test_without_prometheus_a_trial_is_an_error(trial_of, stack_lab, fault, error, verdicts):
    try:
        with pytest.raises(error):
            trial_of(OnTarget(primitive=fault, target="api"), repair_within_s=10, performances=1)
        assert last_judged(stack_lab)["verdict"] in verdicts
    finally:
        if stack_lab.service("prometheus").state.paused:
            stack_lab.runtime.unpause("prometheus")
        else:
            stack_lab.runtime.start("prometheus")
        stack_lab.runtime.wait_healthy(("prometheus", "api"), 60)


@pytest.mark.nightly("test_gates has the steady state; every scenario here passes that gate first")
def test_a_service_that_is_not_good_before_the_fault_is_not_steady(trial_of, stack_lab):
    stack_lab.remediator.ensure(False)
    too_much = loads.open_loop(
        rate_rps=20, max_tokens=8, latency_targets=loads.LatencyTargets(ttft_s=0.0001, e2e_s=0.0002)
    )

    with pytest.raises(NotSteady, match="requests of the last 3 s were bad"):
        trial_of(load=too_much)


@pytest.mark.nightly(
    "test_lab_inject aborts and reverts, test_perform ends every arm; test_deaths reverts after a kill"
)
def test_an_abort_condition_reverts_and_ends_the_trial(trial_of, stack_lab):
    begin = time.monotonic()

    with pytest.raises(Aborted, match="the abort condition was met"):
        trial_of(remediator=False, repair_within_s=60, abort_if=lambda live: live.availability < 0.7)

    assert time.monotonic() - begin < 50
    assert stack_lab.service("api").state.running


def test_a_need_that_the_runtime_lacks_is_named(trial_of):
    @dataclass(frozen=True, kw_only=True)
    class Teleport(Kill):
        needs: frozenset[str] = frozenset({"teleport"})

    with pytest.raises(Unsupported, match="the compose runtime cannot teleport"):
        trial_of(OnTarget(primitive=Teleport(), target="api"))


@pytest.mark.nightly("test_judge has the finding where a proven fault raised no signal")
def test_a_proven_fault_without_a_signal_is_a_finding(trial_of, stack_lab):
    trial = trial_of(faults.limit_cpu("model-2", cores=1.9), fault_s=2, stable_s=2)

    assert [proof["step"] for proof in last_judged(stack_lab)["proof"]] == ["injected", "healed"]
    assert trial.findings == (
        "signal missing: the fault is proven, but no alert fired and no rule of the remediator matched",
    )
    with pytest.raises(NotDetected, match="no alert fired"):
        _ = trial.time_to_detect_s


def test_a_frozen_replica_passes_and_the_service_settles(trial_of):
    trial = trial_of(faults.pause("model-1"), fault_s=4, settle_within_s=30)

    assert trial.time_to_settle_s <= 25
    with pytest.raises(BadScenario, match=r"use trial\.time_to_settle_s"):
        _ = trial.time_to_recover_s


def test_the_lab_serves_odd_shapes(stack_lab):
    def act():
        with stack_lab.load(loads.open_loop(rate_rps=10, max_tokens=4)) as load:
            stack_lab.hold_steady(2)
            with stack_lab.inject(faults.pause("model-1")) as injected:
                stack_lab.hold(1)
            stack_lab.hold(1)
            return injected, load.live_window(3)

    injected, live = act_measured(act)

    assert injected.victims == ("model-1",)
    assert live.offered > 0
    assert stack_lab.service("model-1").state.running
    assert not stack_lab.service("model-1").state.paused
