"""Import root of this package."""

from pathlib import Path


def import_root() -> Path:
    """Return the folder that a child process needs on PYTHONPATH for this package."""
    return Path(__file__).parent.parent.parent
