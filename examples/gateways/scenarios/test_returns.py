"""A replica that was gone for 5 s is in use 10 s later."""

from conftest import require_agreement
from pytest_llmchaos import faults


def test_returns(watch):
    seen = watch(faults.kill("model-1"), fault_s=5, later_s=9)

    served = sum(one.outcome == "ok" for one in seen.later)
    require_agreement(served > 0, "no client was served after the return")
    assert seen.engines.get("model-1", 0) >= 1
