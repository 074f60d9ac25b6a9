"""An error inside a stream reaches the client as one."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_inband_error(watch):
    seen = watch(faults.inband_error("model-1", after_tokens=3), texts=8)

    require_agreement(
        seen.ended_early + seen.doubled + seen.text["doubled"] <= seen.hit, f"{seen}, and the agent hit {seen.hit}"
    )
    assert seen.ended_early == 0
    assert seen.doubled == 0
    assert seen.text["doubled"] + seen.text["foreign"] == 0
