"""A dead replica costs clients only the answers in progress."""

from conftest import require_agreement
from pytest_llmchaos import faults


def test_killed(watch):
    seen = watch(faults.kill("model-1"))

    require_agreement(seen.engines.get("model-2", 0) > 0, "no engine counted an answer")
    assert seen.ok >= 0.9 * seen.offered
