"""The public surface, used as mypy must accept it."""

from typing import assert_type

import pytest

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.trial.trial import Trial

pytestmark = experiment(
    load=loads.open_loop(rate_rps=8, latency_targets=loads.LatencyTargets(ttft_s=1), timeout_s=5),
    fault=[faults.kill("api"), faults.none()],
    steady_s=8,
    repair_within_s=40,
    fidelity="real",
    abort_if=lambda live: live.availability < 0.5,
)
assert_type(pytestmark, pytest.MarkDecorator)


@experiment(load=loads.trace("trace.csv", speed=2), fault=faults.pause("model-*"), fault_s=4, settle_within_s=30)
def test_it(trial: Trial) -> None:
    assert trial.time_to_detect_s <= 5
    assert trial.during_fault.goodput_ratio >= 0.5 * trial.before_fault.goodput_ratio
    assert trial.after_fault.goodput_rps > 1
    assert trial.repaired_by == "remediator"


def test_a_load_by_hand(lab: Lab) -> None:
    with lab.load(loads.poisson(rate_rps=2)), lab.inject(faults.kill("api")):
        lab.hold(2)
