"""A connection that breaks in mid-stream ends no answer."""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_cut(watch):
    seen = watch(faults.reset("model-1", after_bytes=1800), texts=8)

    require_agreement(
        seen.passed_as_whole + seen.doubled + seen.text["doubled"] <= seen.met, f"{seen}, and the agent met {seen.met}"
    )
    assert seen.passed_as_whole == 0
    assert seen.doubled == 0
    assert seen.text["doubled"] + seen.text["foreign"] == 0
