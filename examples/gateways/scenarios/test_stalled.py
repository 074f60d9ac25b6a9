"""A stream that stops for good ends within 6 s."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_stalled(watch):
    seen = watch(faults.stall("model-1", after_tokens=3), fault_s=7.5)

    waiting = seen.offered - seen.ended_within(6)
    require_agreement(waiting <= seen.hit, f"{waiting} clients waited, and the agent stopped {seen.hit} streams")
    assert waiting == 0
