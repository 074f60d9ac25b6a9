"""Clients of a frozen replica are served by the other one."""

from conftest import require_agreement
from pytest_llmchaos import faults


def test_frozen(watch):
    seen = watch(faults.pause("model-1"), fault_s=6, later_s=4)

    require_agreement(seen.engines.get("model-2", 0) > 0, "no engine counted an answer")
    assert seen.begun_within(3) >= 0.9 * seen.offered
