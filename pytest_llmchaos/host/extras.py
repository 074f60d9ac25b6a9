"""Packages of the extras `local` and `generate`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'pytest-llmchaos[{extra}]'"


def missing(modules: Iterable[str]) -> list[str]:
    """Return the modules that this Python cannot import."""
    return [name for name in modules if importlib.util.find_spec(name) is None]
