"""The mark that makes a test file a scenario. Nothing but the mark."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan import experiment as experiments


def experiment(**arguments: Any) -> pytest.MarkDecorator:
    """An experiment as a pytest mark: `pytestmark = experiment(...)` for a file, `@experiment(...)` for one test.

    Keyword arguments:
      load: what callers do, such as `loads.open_loop(rate_rps=8)`.
      fault: what breaks, such as `faults.kill("api")`; a list makes one trial each.
      steady_s: seconds in a row that the service must be good before the fault (8).
      fault_s: seconds that a passing fault lasts (needed for those, such as `faults.pause`).
      recovery_s: deadline in seconds; a lasting fault must be repaired by the system within it (40).
      stable_s: seconds in a row without a bad request that count as recovered (4).
      remediator: False performs the control arm without the remediator (True).
      fidelity: the least that the claims need: real, kernel, proxy, telemetry or simulated.
      blast_radius: the most services that may be hit at once (what the fault says).
      abort_if: a function of the live window; True ends the trial at once and reverts.

    Raises BadScenario for anything else, before anything starts.
    """
    known = {
        "load",
        "fault",
        "steady_s",
        "fault_s",
        "recovery_s",
        "stable_s",
        "remediator",
        "fidelity",
        "blast_radius",
        "abort_if",
    }
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise BadScenario(f"experiment() knows no argument {unknown[0]!r}; it takes {', '.join(sorted(known))}")
    for name in ("load", "fault"):
        if name not in arguments:
            example = "loads.open_loop(rate_rps=8)" if name == "load" else "faults.kill('api')"
            raise BadScenario(f"experiment({name}=...) is missing: give it, such as {name}={example}")
    return pytest.mark.llmchaos(experiment=experiments.make(**arguments))
