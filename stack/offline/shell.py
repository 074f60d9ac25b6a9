"""Subprocesses with a deadline and readable failures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL_CHARS = 2000  # of a failed program's output: a compiler error fits, one screen is not exceeded


class SetupError(Exception):
    """The set-up cannot go on: expectation, observation and remedy."""


def say(text: str) -> None:
    """Print progress on standard error. Standard output is for results."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def run(
    command: Sequence[str],
    *,
    deadline_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Standard output of `command`.

    Raises:
        SetupError: it failed or timed out, with the end of its output.
    """
    try:
        done = subprocess.run(
            list(command),
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=deadline_s,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
        )
    except FileNotFoundError as missing:
        raise SetupError(
            f"expected the program {command[0]!r}, found none on PATH: install it and run again"
        ) from missing
    except subprocess.TimeoutExpired as late:
        raise SetupError(f"expected {' '.join(command)!r} to end within {deadline_s:g} s, it did not") from late
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).strip()[-TAIL_CHARS:]
        raise SetupError(f"expected {' '.join(command)!r} to succeed, it ended with {done.returncode}:\n{tail}")
    return done.stdout


def succeeds(command: Sequence[str], *, deadline_s: float = 20) -> bool:
    try:
        run(command, deadline_s=deadline_s)
    except SetupError:
        return False
    return True


def cache_folder() -> Path:
    """Folder in which downloads and the compiled Ollama outlive a checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "pytest-llmchaos"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
