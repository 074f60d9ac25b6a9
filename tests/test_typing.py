"""The public surface as a type checker sees it."""

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent
SNIPPETS = ROOT / "tests" / "support" / "typing"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Errors of mypy on snippets and docs/faults.md, as (file, line, text, code)."""
    docs = (ROOT / "docs" / "faults.md").read_text()
    example = tmp_path_factory.mktemp("docs") / "chaos_migration.py"
    example.write_text(re.search(r"`chaos_migration.py`:\n\n```python\n(.*?)```", docs, re.DOTALL)[1])
    files = [str(path) for path in (*sorted(SNIPPETS.glob("*.py")), example)]
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--hide-error-context", *files])
    assert not err
    return re.findall(r"^\S*?(\w+\.py):(\d+): error: (.*)  \[([\w-]+)\]$", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["surface_right.py", "seam_right.py", "chaos_migration.py"])
def test_what_is_used_right_is_no_error(told, name):
    assert [one for one in told if one[0] == name] == []


@pytest.mark.parametrize("name", ["surface_wrong.py", "seam_wrong.py"])
def test_each_wrong_use_is_the_error_that_its_line_names(told, name):
    lines = enumerate((SNIPPETS / name).read_text().splitlines(), start=1)
    expected = {number: line.partition("  # ")[2].partition(": ") for number, line in lines if "  # " in line}
    found = {int(number): (code, text) for file, number, text, code in told if file == name}

    assert {number: code for number, (code, _) in found.items()} == {n: code for n, (code, _, _) in expected.items()}
    assert [found[number] for number, (_, _, text) in expected.items() if text not in found[number][1]] == []
