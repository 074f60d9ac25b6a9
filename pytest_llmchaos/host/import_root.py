"""The folder that this package is imported from."""

from pathlib import Path


def import_root() -> Path:
    """The folder that a child process needs on its path to import this package."""
    return Path(__file__).parent.parent.parent
