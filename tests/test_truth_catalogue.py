"""The catalogue of defects fits the source.

`tests/truth/` performs it.
"""

from __future__ import annotations

import functools
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


def test_a_defect_fits_the_source():
    assert [defect.name for defect in ALL if not defect.patches] == []
    assert [problem for defect in ALL for patch in defect.patches if (problem := patch.problem())] == []


def test_what_catches_a_defect_of_the_subject_exists():
    def catches(defect):
        if defect.by_a_claim:
            return f"def {defect.caught_by}(" in source_of(defect.file)
        return all(issubclass(getattr(errors, name), errors.ProvesNothing) for name in defect.errors)

    assert [defect.name for defect in SUBJECT_DEFECTS if not catches(defect)] == []


def test_the_k_of_a_defect_selects_a_test():
    chosen = [defect for defect in SUBJECT_DEFECTS if defect.only]

    assert chosen
    assert [
        defect.name
        for defect in chosen
        if not re.search(rf"def test_\w*{re.escape(defect.only)}\w*\(", source_of(defect.file))
    ] == []


@functools.cache
def source_of(file):
    return (ROOT / file).read_text()


def test_each_pattern_has_a_defect_that_its_scenario_refutes():
    files = sorted((ROOT / "scenarios" / "patterns").glob("test_*.py"))
    caught = {defect.file: defect for defect in SUBJECT_DEFECTS if defect.caught_by != HEALTHY}
    assert files
    assert [file.name for file in files if str(file.relative_to(ROOT)) not in caught] == []


def test_a_pattern_that_a_healthy_system_pays_for_is_refuted():
    assert [defect for defect in SUBJECT_DEFECTS if defect.caught_by == HEALTHY]


def test_what_catches_a_defect_of_the_instrument_exists():
    def exists(test):
        file, _, function = test.partition("::")
        name = re.escape(function.rpartition("::")[2].partition("[")[0])
        return (ROOT / "tests" / file).is_file() and (
            not name or re.search(rf"def {name}\(", source_of(f"tests/{file}"))
        )

    assert [defect.name for defect in INSTRUMENT_DEFECTS if not defect.tests] == []
    assert [test for defect in INSTRUMENT_DEFECTS for test in defect.tests if not exists(test)] == []


def test_the_page_is_that_of_the_catalogue():
    assert table.PAGE.read_text() == table.page()
