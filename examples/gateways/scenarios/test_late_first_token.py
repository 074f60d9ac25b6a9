"""A late first token is not waited for.

Clients of a replica whose first tokens are 4 s late get theirs within 2 s.
"""

import pytest

from conftest import require_agreement
from pytest_llmchaos import faults

pytestmark = pytest.mark.llmchaos_wire("model-1")


def test_late_first_token(watch):
    seen = watch(faults.late_first_token("model-1", delay_s=4), later_s=2)

    late = seen.offered - seen.begun_within(2)
    require_agreement(late <= seen.hit, f"{late} first tokens were late, and the agent held {seen.hit}")
    assert late <= 0.1 * seen.offered
