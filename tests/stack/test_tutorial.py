"""The tutorial, followed block by block in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import ROOT, measured

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300), pytest.mark.usefixtures("local_programs")]

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What differs between two runs: times and counts, the run's folder, and which of the
# quick signals came first. A schedule's digest does not differ.
VARYING = ((r"\b\d+(\.\d+)?\b", "N"), (r"detected N s \([^)]*\)", "detected"), (r"^(report: ).*", r"\1"))
# Other plugins of this environment would change pytest's output.
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider")


def follow(page: str, folder: Path) -> list[tuple[str, str]]:
    """Do what the page shows, and return each expected output with the real one."""
    outputs, output, position = [], "", 0
    for block in BLOCK.finditer(page):
        kind, text = block.groups()
        named = re.findall(r"`([\w.]+\.(?:py|ini))`", page[position : block.start()])
        position = block.end()
        if kind in {"python", "ini"}:
            (folder / named[-1]).write_text(text)
        elif kind == "diff":
            change(folder / "test_lost_gateway.py", text)
        elif kind == "text":
            outputs.append((text, output))
        elif "pip install" not in text:
            output = run(text, folder)
    return outputs


def change(file: Path, diff: str) -> None:
    """Replace the lines of a diff, each of which the file has once."""
    source = file.read_text()
    for old, new in re.findall(r"^-(.*\n)((?:^\+.*\n)?)", diff, re.MULTILINE):
        assert source.count(old) == 1, old
        source = source.replace(old, new[1:])
    file.write_text(source)


def run(command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    assert program == "pytest"
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}

    def once() -> str:
        command = [*PYTEST, *arguments]
        ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        return ended.stdout + ended.stderr

    return measured(folder / "reports", once, output_of=str)


def lines(text: str) -> list[str]:
    """The lines of an output, without what differs between two runs."""
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text.splitlines()


def missing(expected: str, output: str) -> list[str]:
    """Lines of the page that the output lacks. A line may be longer than the page's."""
    real = lines(output)
    return [line for line in lines(expected) if line != "..." and not any(one.startswith(line) for one in real)]


def test_the_tutorial_can_be_followed(tmp_path):
    outputs = follow(PAGE, tmp_path)

    assert len(outputs) == 4
    for expected, output in outputs:
        assert missing(expected, output) == [], output[-6000:]
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "pytest.ini",
        "test_lost_gateway.py",
        "reports",
    }


def test_a_line_that_the_output_lacks_is_found():
    output = "✗ refuted  kill api  detected 0.4 s (alert A)  - assert 1.2 <= 0.5 + where ..."

    assert missing("✗ refuted  kill api  detected 12 s (rule b)  - assert 3 <= 0.5\n...\n", output) == []
    assert missing("✓ held  kill api\n", output) == ["✓ held  kill api"]
