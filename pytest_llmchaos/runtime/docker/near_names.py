"""The nearest of some names to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, names: Iterable[str]) -> str:
    """Return a question with the nearest name and a blank, empty if none is near."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}? " if found else ""
