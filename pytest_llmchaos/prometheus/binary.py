"""Locates the Prometheus programs, or downloads them without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.state_dirs import cache_dir, make_cache

FETCH_DEADLINE_S = 120.0
# Program to package of the system's package manager.
_PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-pushgateway": "prometheus-pushgateway"}


def cache_directory() -> Path:
    return cache_dir() / "prometheus"


def find(program: str) -> Path | None:
    """Return the path of a program, from PATH or an earlier download.

    Args:
        program: `prometheus`, `promtool` or `prometheus-pushgateway`.
    """
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    fetched = cache_directory() / "usr" / "bin" / program
    return fetched if os.access(fetched, os.X_OK) else None


def find_or_fetch(program: str) -> Path:
    """Return the path of a program, after downloading it to the cache if it is missing.

    Raises:
        NotReady: The program is missing and cannot be downloaded. The message has the
            reason.
    """
    found = find(program)
    if found:
        return found
    if program not in _PACKAGES:
        raise NotReady(f"program must be one of {', '.join(sorted(_PACKAGES))}, got {program!r}")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotReady(f"{program} is not on PATH and there is no apt-get to fetch it: install Prometheus")
    cache = cache_directory()
    make_cache(cache)
    # Unpack aside and move: an interrupted download must not look complete.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _download(scratch, program)
        package = next(iter(Path(scratch).glob("*.deb")))
        _run(["dpkg-deb", "-x", str(package), "unpacked"], scratch, program)
        target = cache / "usr" / "bin"
        target.mkdir(parents=True, exist_ok=True)
        for binary in (Path(scratch) / "unpacked" / "usr" / "bin").iterdir():
            binary.replace(target / binary.name)
    return find(program) or _missing(program)


def _download(scratch: str, program: str) -> None:
    """Download the package's file to `scratch`.

    The machine's package lists may be empty and only root may update them. So the
    second try uses its own lists.
    """
    wanted = ["download", "-q", _PACKAGES[program]]
    try:
        _run(["apt-get", *wanted], scratch, program)
    except NotReady as without_lists:
        lists, cache = Path(scratch, "lists"), Path(scratch, "cache")
        for folder in (lists / "partial", cache / "archives" / "partial"):
            folder.mkdir(parents=True)
        options = {
            "Dir::State::Lists": lists,
            "Dir::Cache": cache,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",  # apt's sandbox user may not write here
            "APT::Update::Post-Invoke": "",  # hooks of the machine's own updates
        }
        apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
        try:
            _run([*apt, "update", "-q"], scratch, program)
            _run([*apt, *wanted], scratch, program)
        except NotReady:
            raise without_lists from None


def _run(command: list[str], directory: str, program: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=FETCH_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReady(f"{program} is not on PATH and {' '.join(command)} failed: {error}") from error
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines()
        raise NotReady(
            f"{program} is not on PATH and {' '.join(command)} failed: {output[-1] if output else done.returncode}: "
            "run `apt-get update` as root once, or install Prometheus"
        )


def _missing(program: str) -> Path:
    raise NotReady(f"the package {_PACKAGES[program]} lacks {program}: install Prometheus so that it is on PATH")
