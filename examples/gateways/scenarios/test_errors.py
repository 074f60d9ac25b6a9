"""Clients of a replica that answers 503 are served."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_errors(watch):
    seen = watch(faults.flaky("model-1", status=503, share=1.0))

    require_agreement(seen.offered - seen.ok <= seen.hit, f"{seen}, and the agent answered {seen.hit} with 503")
    assert seen.ok >= 0.95 * seen.offered
