"""Copies of the tree, of tracked and new files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_tree(folder: Path) -> Path:
    """Copy the tree to `folder`, which need not exist, without ignored files."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if source.exists():  # a removed file is still in git's index
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def environment_of(tree: Path) -> dict[str, str]:
    """The environment to import from this tree without writing into it."""
    paths = [tree, tree / "stack" / "services", tree / "stack", tree / "tests"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
