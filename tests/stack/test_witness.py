"""The trial's times against an independent witness."""

import json
from dataclasses import replace

import pytest
from moments import Blind, complaints, differences, seen
from onlooker import Place, watching

from pytest_llmchaos import faults, loads

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

STABLE_S = 3.0
FAULT_S = 6.0
# One request every 20 ms is the precision of both the instrument and the witness.
LOAD = loads.open_loop(rate_rps=50, max_tokens=4)
PERFORMANCES = 3  # retries for a clear view of the witness, never for a difference


@pytest.fixture
def both(trial_of, stack_lab, tmp_path, monkeypatch):
    """Return a trial and the witness's times of it."""
    # The service's own counters include the witness's requests, the samples do not.
    alone = replace(stack_lab.subject, availability_query=None, latency_shares=(), attempts_counters=None)
    monkeypatch.setattr(stack_lab, "subject", alone)

    def performed(fault):
        stack_lab.require_clean()
        stack_lab.remediator.ensure(True)
        place = Place(
            project=stack_lab.runtime.project,
            api_url=stack_lab.service("api").url,
            prometheus_url=stack_lab.prometheus.url,
            model=stack_lab.subject.model,
        )
        out = tmp_path / "seen.jsonl"
        for left in reversed(range(PERFORMANCES)):
            with watching(place, out):
                passing = {"fault_s": FAULT_S} if fault.lifetime == "passing" else {}
                trial = trial_of(fault, load=LOAD, stable_s=STABLE_S, **passing)
            try:
                told = [json.loads(line) for line in out.read_text().splitlines()]
                return trial, seen(told, trial.victims, STABLE_S, passing.get("fault_s", 0.0))
            except Blind:
                if not left:
                    raise
        raise AssertionError("never reached")

    return performed


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        pytest.param(faults.kill("api"), ("detect_s", "recover_s"), id="the api's death"),
        pytest.param(
            faults.pause("api"),
            ("detect_s", "settle_s"),
            marks=pytest.mark.nightly("the api's death, whose times are read from the same witnesses"),
            id="the api frozen",
        ),
        pytest.param(
            faults.restart("api"),  # over before anything notices it
            ("recover_s",),
            marks=pytest.mark.nightly("the api's death, whose times are read from the same witnesses"),
            id="the api restarted",
        ),
        pytest.param(
            faults.together(faults.kill("model-1"), faults.kill("model-2")),
            ("detect_s", "recover_s"),
            marks=pytest.mark.nightly("the api's death, whose detection has the same two clocks"),
            id="both models",
        ),
    ],
)
def test_detection_and_recovery_agree_with_the_witness(both, fault, times, request):
    trial, there = both(fault)

    told = {name: float(getattr(trial, f"time_to_{name}")) for name in times}
    for name, apart in differences(told, there).items():
        request.node.user_properties.append((name, f"{told[name]:.3f} s, {apart:+.3f} s from the witness"))
    assert complaints(told, trial.detected_by if "detect_s" in times else None, there) == []
