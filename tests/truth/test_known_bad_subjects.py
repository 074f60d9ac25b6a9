"""Each defect of the subject turns its named claim or gate red."""

from __future__ import annotations

import pytest
from truth.defects import HEALTHY
from truth.subject_defects import SUBJECT_DEFECTS
from truth.tree import perform

pytestmark = [pytest.mark.stack, pytest.mark.timeout(540)]
SESSION_S = 240.0


@pytest.mark.sampled(share=0.018)
@pytest.mark.parametrize("defect", SUBJECT_DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_of_the_subject_is_caught(tree_with, tmp_path, defect):
    tree = tree_with(defect.patches)
    arguments = [defect.file, f"--chaos-seed={defect.seed}", *(["-k", defect.only] if defect.only else [])]

    done = perform(tree, tmp_path / "reports", *arguments, timeout_s=SESSION_S)
    if done.not_held - {defect.caught_by} == {HEALTHY}:  # its bound, 5 ms, needs a quiet machine
        done = perform(tree, tmp_path / "again", *arguments, timeout_s=SESSION_S)

    assert done.status != 0, f"{defect.what}: nothing was noticed\n{done.output[-3000:]}"
    if defect.by_a_claim:
        assert done.claims.get(defect.caught_by) == {"failed"}, done.output[-6000:]
        assert done.not_held == {defect.caught_by}
    else:
        assert any(reason.partition(":")[0] in defect.errors for reason in done.reasons), done.output[-6000:]
