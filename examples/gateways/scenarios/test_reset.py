"""Clients of a replica that resets connections are served."""

import pytest

from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_reset(watch):
    seen = watch(faults.reset("model-1"))

    assert seen.ok >= 0.95 * seen.offered
