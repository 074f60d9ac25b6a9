"""The catalogue of defects fits the source.

`tests/truth/` performs it.
"""

from __future__ import annotations

import re

import pytest
from truth import table
from truth.defects import HEALTHY, ROOT
from truth.instrument_defects import INSTRUMENT_DEFECTS
from truth.subject_defects import SUBJECT_DEFECTS

from pytest_llmchaos import errors

ALL = (*SUBJECT_DEFECTS, *INSTRUMENT_DEFECTS)


def test_a_name_is_given_once():
    assert len({defect.name for defect in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("defects", "least"), [(SUBJECT_DEFECTS, 60), (INSTRUMENT_DEFECTS, 20)], ids=["subject", "instrument"]
)
def test_the_catalogue_is_no_smaller_than_it_should_be(defects, least):
    assert len(defects) >= least


@pytest.mark.parametrize("defect", ALL, ids=lambda defect: defect.name)
def test_a_defect_fits_the_source(defect):
    assert defect.patches
    assert [problem for patch in defect.patches if (problem := patch.problem())] == []


@pytest.mark.parametrize("defect", SUBJECT_DEFECTS, ids=lambda defect: defect.name)
def test_what_catches_a_defect_of_the_subject_exists(defect):
    source = (ROOT / defect.file).read_text()
    if defect.by_a_claim:
        assert f"def {defect.caught_by}(" in source
    else:
        assert all(issubclass(getattr(errors, name), errors.ProvesNothing) for name in defect.errors)
    assert not defect.only or re.search(rf"def test_\w*{re.escape(defect.only)}\w*\(", source), "its -k selects no test"


def test_each_pattern_has_a_defect_that_its_scenario_refutes():
    files = sorted((ROOT / "scenarios" / "patterns").glob("test_*.py"))
    caught = {defect.file: defect for defect in SUBJECT_DEFECTS if defect.caught_by != HEALTHY}
    assert files
    assert [file.name for file in files if str(file.relative_to(ROOT)) not in caught] == []


def test_a_pattern_that_a_healthy_system_pays_for_is_refuted():
    assert [defect for defect in SUBJECT_DEFECTS if defect.caught_by == HEALTHY]


@pytest.mark.parametrize("defect", INSTRUMENT_DEFECTS, ids=lambda defect: defect.name)
def test_what_catches_a_defect_of_the_instrument_exists(defect):
    assert defect.tests
    for test in defect.tests:
        file, _, function = test.partition("::")
        source = (ROOT / "tests" / file).read_text()
        assert not function or re.search(rf"def {re.escape(function.rpartition('::')[2].partition('[')[0])}\(", source)


def test_the_page_is_that_of_the_catalogue():
    assert table.PAGE.read_text() == table.page()
