"""What `make mutants` is told: rooms and tests that exist, and equivalent mutants with their reason."""

from __future__ import annotations

import tomllib
from pathlib import Path

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
