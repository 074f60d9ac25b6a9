"""A stream that ends too early looks whole to no client."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_truncated(watch):
    seen = watch(faults.truncate("model-1", after_tokens=3, how="clean"))

    require_agreement(seen.passed_as_whole <= seen.hit, f"{seen}, and the agent ended {seen.hit}")
    assert seen.passed_as_whole == 0
