"""A copy of the tree: what git tracks, and what it would."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_tree(folder: Path) -> Path:
    """Copy the tree to `folder`, which need not exist. Files that git ignores stay behind."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if source.exists():  # a file that was removed is still in git's index
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def environment_of(tree: Path) -> dict[str, str]:
    """What Python needs to import from this tree, and to leave nothing in it."""
    paths = [tree, tree / "stack" / "services", tree / "stack", tree / "tests"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
