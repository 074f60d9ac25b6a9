"""Private folders of this user, short-lived and lasting."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pytest_llmchaos.errors import NotReady


def state_dir() -> Path:
    """This user's folder for locks and other short-lived files."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return _private(base / f"pytest-llmchaos-{os.getuid()}", "XDG_RUNTIME_DIR")


def lasting_dir() -> Path:
    """This user's folder for files that must survive a logout or a reboot.

    Raises:
        NotReady: the folder cannot be created or belongs to another user.
    """
    return _private(_lasting(), "XDG_STATE_HOME")


def cache_dir() -> Path:
    """This user's folder for downloads, which may be missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - as in _lasting
    return Path(base) / "pytest-llmchaos"


def make_cache(folder: Path) -> None:
    """Create a folder in `cache_dir`.

    Raises:
        NotReady: it cannot be created.
    """
    try:
        if not folder.is_absolute():
            raise NotReady(
                f"cannot create {folder}: this user has no home folder; set XDG_CACHE_HOME to a folder of your own"
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotReady(
            f"cannot create {folder}, for downloads: {error.strerror}; set XDG_CACHE_HOME to a folder of your own"
        ) from None


def lasting_files(pattern: str) -> list[Path]:
    """Files in `lasting_dir`. Empty if it is missing or belongs to another user."""
    try:
        folder = _lasting()
        return sorted(folder.glob(pattern)) if folder.is_absolute() and _is_ours(folder) else []
    except OSError:
        return []


def _lasting() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):  # XDG Base Directory Specification: ignore relative paths
        base = os.path.expanduser("~/.local/state")  # noqa: PTH111 - does not raise without a home folder
    return Path(base) / "pytest-llmchaos"


def _private(path: Path, variable: str) -> Path:
    """Create a folder that only this user may enter.

    `variable` is the setting that moves it.
    """
    hint = f"set {variable} to a folder of your own"
    if not path.is_absolute():
        raise NotReady(f"this user has no home folder, which must hold llmchaos' state: {hint}")
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
    """True if this user owns the path and, if it is a symlink, its target too."""
    return {path.lstat().st_uid, path.stat().st_uid} == {os.geteuid()}
