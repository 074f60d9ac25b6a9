"""A breaker counts the errors in its window.

Here two errors come in a second.
"""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults, loads

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_errors_slowly(watch):
    seen = watch(
        faults.flaky("model-1", status=503, share=1.0), load=loads.open_loop(rate_rps=4, max_tokens=16), fault_s=5
    )

    require_agreement(seen.offered - seen.ok <= seen.hit, f"{seen}, and the agent answered {seen.hit} with 503")
    assert seen.met >= 1
