"""Each defect of the instrument turns its named tests red."""

from __future__ import annotations

import re

import pytest
from truth.instrument_defects import INSTRUMENT_DEFECTS
from truth.tree import run_pytest

pytestmark = pytest.mark.timeout(180)


@pytest.mark.sampled(share=0.05)
@pytest.mark.parametrize("defect", INSTRUMENT_DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_of_the_instrument_is_caught(tree_with, defect):
    tree = tree_with(defect.patches)

    done = run_pytest(tree, "-q", "-rf", *(f"tests/{test}" for test in defect.tests), timeout_s=120)

    failed = set(re.findall(r"^FAILED (?:tests/)?(\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE))
    missed = [test for test in defect.tests if not any(one.startswith(test.partition("[")[0]) for one in failed)]
    assert not missed, f"{defect.what}: not noticed by {missed}\n{done.stdout[-4000:]}"
