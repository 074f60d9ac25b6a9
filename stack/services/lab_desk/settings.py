"""Settings of the desk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab_common.settings import Section, number, parsed, text, whole


def _file(given: str) -> Path:
    path = Path(given)
    if not given or path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError("a file in a folder that can be written to")
    return path


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Address, file of the ledger, and the time for the last answers."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8100, 0, 65535)
    ledger_file: Path = parsed("LAB_LEDGER_FILE", _file, lambda: _file(""))
    drain_s: float = number("LAB_DRAIN_S", 5.0, 0, 60)
