"""The input of `make mutants`: rooms, tests, equivalent mutants and reached lines."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from coverage import CoverageData
from support.copies import environment_of
from support.what_runs import runs_the_same

ROOT = Path(__file__).parents[1]
LISTED = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())


def test_rooms_and_their_tests_exist():
    assert set(LISTED["tests"]) == {"stats", "slo", "trial", "evidence", "faults", "lab"}
    for room, names in LISTED["tests"].items():
        assert (ROOT / "pytest_llmchaos" / room).is_dir()
        assert [name for name in names if not (ROOT / "tests" / f"{name}.py").is_file()] == []


def test_an_equivalent_mutant_has_a_file_and_a_reason():
    for one in LISTED.get("equivalent", []):
        assert (ROOT / one["file"]).is_file()
        assert one["why"]


@pytest.mark.parametrize(
    ("changed", "is_one"),
    [(("@overload\n    ", ""), False), (("-> int", "-> 0"), False), (("return 1", "return 2"), True)],
    ids=["signature", "annotation", "body"],
)
def test_only_what_runs_can_be_changed(changed, is_one):
    code = "class One:\n    @overload\n    def of(self) -> int: ...\n    def of(self):\n        return 1\n"

    assert runs_the_same(code, code.replace(*changed)) is not is_one


THING = """
def called(): pass
def shared(): pass
def own(): pass
def after(): pass
def drawn(): pass
"""
TESTS = """
import pytest, thing
from hypothesis import given, strategies

@pytest.fixture(scope="module")
def big(): thing.shared()

@pytest.fixture
def small(big):
    yield thing.own()
    thing.after()

class TestIt:
    @pytest.mark.parametrize("x", [1, 2])
    def test_a(self, small, x): thing.called()

@given(strategies.integers())
def test_b(x): thing.drawn()
"""


def test_a_line_is_known_with_the_tests_that_reach_it_by_the_names_that_pytest_takes(tmp_path):
    for name, text in (("thing.py", THING), ("test_thing.py", TESTS), ("pytest.ini", "[pytest]\n")):
        (tmp_path / name).write_text(text.replace(": pass", ":\n    pass"))
    command = [sys.executable, "-m", "coverage", "run", "--data-file=data", "--source=.", "-m", "pytest", "-q"]
    command += ["-p", "support.contexts", "-p", "no:cacheprovider", "test_thing.py"]
    environment = environment_of(ROOT)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    data = CoverageData(str(tmp_path / "data"))
    data.read()

    contexts = data.contexts_by_lineno(str(tmp_path / "thing.py"))

    called, shared, own, after, drawn = (contexts[line] for line in (3, 5, 7, 9, 11))
    assert called == own == ["test_thing.py::TestIt::test_a"]
    assert drawn == ["test_thing.py::test_b"]
    assert shared == after == [""]
