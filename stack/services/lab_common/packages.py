"""The refusal of a program whose packages are not installed."""

from __future__ import annotations

import sys

from lab_common.settings import refuse


def refuse_without(service: str, error: ImportError) -> int:
    """Write the missing package and its remedy in one line, return the exit status."""
    why = ImportError(f"{error.name} is not installed in {sys.executable}: pip install 'pytest-llmchaos[local]'")
    return refuse(service, why)
