"""Retries do not double the load of failing replicas."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults, loads

pytestmark = pytest.mark.llmchaos_wire("model-1", "model-2")


def test_storm(watch):
    seen = watch(
        faults.flaky(["model-1", "model-2"], status=503, share=1.0), load=loads.open_loop(rate_rps=6, max_tokens=16)
    )

    require_agreement(seen.count("http_5xx") <= seen.hit, f"{seen}, and the agents answered {seen.hit} with 503")
    assert seen.met <= 2 * seen.offered
