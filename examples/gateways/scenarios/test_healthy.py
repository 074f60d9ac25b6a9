"""Without a fault every answer is whole."""

from pytest_llmchaos import faults


def test_healthy(watch):
    seen = watch(faults.none())

    assert seen.ok == seen.offered
