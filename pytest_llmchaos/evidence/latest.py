"""The link `latest`, which names the newest run of a folder of reports."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def point_to(run_dir: Path) -> None:
    """Point `latest` to a run beside it, atomically.

    A file or folder of that name is the user's own and stays. A file system without links gets no `latest`.
    """
    link = run_dir.parent / "latest"
    if link.exists() and not link.is_symlink():
        return
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)
        draft.symlink_to(run_dir.name, target_is_directory=True)
        draft.replace(link)
