"""What a type checker says of the public surface."""

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent
SNIPPETS = ROOT / "tests" / "support" / "typing"


@pytest.fixture(scope="module")
def told():
    """What mypy says of both snippets, as (file, line, text, code)."""
    files = [str(path) for path in sorted(SNIPPETS.glob("*.py"))]
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--hide-error-context", *files])
    assert not err
    return re.findall(r"^\S*?(\w+\.py):(\d+): error: (.*)  \[([\w-]+)\]$", out, re.MULTILINE)


def test_the_surface_used_right_is_no_error(told):
    assert [one for one in told if one[0] == "surface_right.py"] == []


def test_each_wrong_use_is_the_error_that_its_line_names(told):
    lines = enumerate((SNIPPETS / "surface_wrong.py").read_text().splitlines(), start=1)
    expected = {number: line.partition("  # ")[2].partition(": ") for number, line in lines if "  # " in line}
    found = {int(number): (code, text) for file, number, text, code in told if file == "surface_wrong.py"}

    assert {number: code for number, (code, _) in found.items()} == {n: code for n, (code, _, _) in expected.items()}
    assert [found[number] for number, (_, _, text) in expected.items() if text not in found[number][1]] == []
