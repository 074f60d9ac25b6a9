"""The refusal of a program whose packages are not installed."""

from __future__ import annotations

import sys

from lab_common.settings import refuse

LOCAL = "pip install 'pytest-llmchaos[local]'"
AGENTS = "pip install --require-hashes -r stack/services/requirements-agents.lock"  # agents and their desk


def refuse_without(service: str, error: ImportError, remedy: str = LOCAL) -> int:
    """Write the missing package and its remedy in one line, return the exit status."""
    package = (error.name or "a package").partition(".")[0]
    return refuse(service, ImportError(f"{package} is not installed in {sys.executable}: {remedy}"))
