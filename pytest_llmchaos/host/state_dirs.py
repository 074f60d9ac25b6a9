"""Private folders of this user, short-lived and lasting."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pytest_llmchaos.errors import NotReady


def state_dir() -> Path:
    """This user's folder for locks; short-lived facts only, nothing of worth."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return _private(base / f"pytest-llmchaos-{os.getuid()}", "XDG_RUNTIME_DIR")


def lasting_dir() -> Path:
    """This user's folder for what must still be known after a logout or a boot. Raises NotReady if there can be none."""
    return _private(_lasting(), "XDG_STATE_HOME")


def lasting_files(pattern: str) -> list[Path]:
    """What is kept there. Nothing where there is no such folder, or it is another's: nobody else is believed."""
    try:
        folder = _lasting()
        return sorted(folder.glob(pattern)) if folder.is_absolute() and _is_ours(folder) else []
    except OSError:
        return []


def _lasting() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = os.path.expanduser("~/.local/state")  # noqa: PTH111 - which raises nothing where there is no home
    return Path(base) / "pytest-llmchaos"


def _private(path: Path, variable: str) -> Path:
    """The folder, which this user alone may enter. `variable` is what can be set to have it elsewhere."""
    hint = f"set {variable} to a folder of your own"
    if not path.is_absolute():
        raise NotReady(f"this user has no home folder: {hint}")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(path):
            raise NotReady(f"{path} belongs to another user: remove it or {hint}")
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise NotReady(f"cannot use {path}: {error.strerror}; {hint}") from None
    return path


def _is_ours(path: Path) -> bool:
    """Whether it is this user's, and so is the link where it is one: another's could lead to any folder of ours."""
    return {path.lstat().st_uid, path.stat().st_uid} == {os.geteuid()}
