"""Clients of a silent replica are served by the other one."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_silent(watch):
    seen = watch(faults.black_hole("model-1"), fault_s=5, later_s=1.5)

    late = seen.offered - seen.begun_within(3)
    require_agreement(late <= seen.hit, f"{late} clients waited, and the agent held {seen.hit} connections")
    assert late <= 0.1 * seen.offered
