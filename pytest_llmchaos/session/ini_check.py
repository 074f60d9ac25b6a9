"""Check of a project's ini file, without its tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

NAMES = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
DEADLINE_S = 60.0
_KEY = re.compile(r"""^\s*["']?llm[-_ ]?chaos[-_ ]\w+["']?\s*=""", re.IGNORECASE | re.MULTILINE)


def find(folder: Path) -> Path | None:
    """Return the nearest ini file with a key of this plugin, from a folder upwards."""
    for parent in (folder.resolve(), *folder.resolve().parents):
        for name in NAMES:
            path = parent / name
            if path.is_file() and _KEY.search(path.read_text(encoding="utf-8", errors="replace")):
                return path
    return None


def problem(ini: Path) -> str | None:
    """Return what is wrong with the keys and what they name, or None.

    pytest reads the file and collects nothing.
    """
    command = [sys.executable, "-m", "pytest", "--llmchaos-plan", "--ignore-glob=*", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            command, cwd=ini.parent, capture_output=True, text=True, errors="replace", timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pytest did not read it within {DEADLINE_S:g} s"
    # The last one: argparse writes its usage first.
    errors = re.findall(r"^(?:ERROR: |\S.*: error: )(.*)", done.stderr, re.MULTILINE)
    read = re.search(r"^configfile: (.*?)(?: \(|$)", done.stdout, re.MULTILINE)
    if read and read[1] != ini.name:
        return f"pytest reads {read[1]} instead, so its keys have no effect: move them to {read[1]}"
    if done.returncode in (0, 5):
        return "; ".join(re.findall(r"^not ready: (.*)", done.stdout, re.MULTILINE)) or None
    return (
        str(errors[-1])
        if errors
        else f"pytest ended with status {done.returncode}: {(done.stderr or done.stdout)[-300:]}"
    )
