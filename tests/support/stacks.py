"""Skips for tests that need a stack this machine cannot start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli

ROOT = Path(__file__).parent.parent.parent


BOOTSTRAP = ROOT / "stack" / "bootstrap.py"


def missing(backend: str) -> str | None:
    """Return the reason why the stack cannot start here, or None."""
    try:
        docker_cli.require_engine()
    except NotReady as error:
        return str(error)
    done = subprocess.run(
        [sys.executable, str(BOOTSTRAP), "env", "--backend", backend], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else None


def require(backend: str) -> None:
    reason = missing(backend)
    if reason:
        pytest.skip(reason)
