"""A stream that ends too early reaches its client with an error."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_truncated(watch):
    seen = watch(faults.truncate("model-1", after_tokens=3, how="clean"))

    require_agreement(seen.ended_early <= seen.hit, f"{seen}, and the agent ended {seen.hit}")
    assert seen.ended_early == 0
