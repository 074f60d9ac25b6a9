"""Clients of a replica that resets connections are served."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_reset(watch):
    seen = watch(faults.reset("model-1"))

    require_agreement(seen.offered - seen.ok <= seen.hit, f"{seen}, and the agent reset {seen.hit} connections")
    assert seen.ok >= 0.95 * seen.offered
