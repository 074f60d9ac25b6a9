"""A dead replica costs clients only the answers in progress."""

from conftest import require_same_answers
from pytest_llmchaos import faults


def test_killed(watch):
    seen = watch(faults.kill("model-1"))

    require_same_answers(seen.got, seen.engines)
    assert seen.ok >= 0.9 * seen.offered
