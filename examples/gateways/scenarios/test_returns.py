"""A replica that was gone for 5 s is in use 10 s later."""

from conftest import require_agreement
from pytest_llmchaos import faults


def test_returns(watch):
    seen = watch(faults.kill("model-1"), fault_s=5, later_s=9)

    ended = seen.engines.get("model-1", 0)
    require_agreement(seen.replicas_after is not None, "no answer names its replica")
    require_agreement(
        (seen.replicas_after == 2) == (ended >= 1),
        f"answers came from {seen.replicas_after} replicas, and model-1 ended {ended} after its return",
    )
    assert ended >= 1
