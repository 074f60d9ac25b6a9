"""The symlink `latest` to the newest run in a folder of reports."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def point_to(run_dir: Path) -> None:
    """Point the symlink `latest` to a run in the same folder, atomically.

    A file or folder of that name belongs to the user and stays. A file system without
    symlinks gets no `latest`.
    """
    link = run_dir.parent / "latest"
    if link.exists() and not link.is_symlink():
        return
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)
        draft.symlink_to(run_dir.name, target_is_directory=True)
        draft.replace(link)
