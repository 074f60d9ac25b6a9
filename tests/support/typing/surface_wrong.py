"""The public surface, used wrong: each marked line is an error that mypy names."""

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.trial.trial import Trial

LOAD, KILL = loads.open_loop(rate_rps=8), faults.kill("api")

experiment(load=LOAD)  # call-arg: Missing named argument "fault"
experiment(load=LOAD, fault=KILL, steady=8)  # call-arg: Unexpected keyword argument "steady"
experiment(load=LOAD, fault=KILL, recovery_s=40)  # call-arg: Unexpected keyword argument "recovery_s"
experiment(load=LOAD, fault=KILL, steady_s="8")  # arg-type: Argument "steady_s"
experiment(load=LOAD, fault="kill api")  # arg-type: Argument "fault"
experiment(load=LOAD, fault=KILL, fidelity="perfect")  # arg-type: Argument "fidelity"
experiment(load=8, fault=KILL)  # arg-type: Argument "load"
loads.open_loop(rate=8)  # call-arg: Unexpected keyword argument "rate"
loads.ramp(from_rps=1, to_rps=2)  # call-arg: Missing named argument "over_s"
loads.open_loop(good=loads.LatencyTargets())  # call-arg: Unexpected keyword argument "good"
loads.open_loop(arrivals="gamma")  # arg-type: Argument "arrivals"
faults.pause()  # call-arg: Missing positional argument "target"


def test_it(trial: Trial) -> None:
    assert trial.steady  # attr-defined: "Trial" has no attribute "steady"
    assert trial.during_fault.goodput  # attr-defined: "Window" has no attribute "goodput"
    assert trial.repaired_by == "me"  # comparison-overlap: Non-overlapping equality check
