"""The supervisord process of one run, which cannot outlive its owner."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.import_root import import_root
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.control import Control
from pytest_llmchaos.runtime.local.supervisord_config import python_path, supervisord_command

START_DEADLINE_S = 30.0
_END_DEADLINE_S = 2.0
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE")


class Daemon:
    """The supervisord of one folder. Its services are killed when it ends."""

    def __init__(self, work: Path, control: Control) -> None:
        self._work, self._control = work, control
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Pid of supervisord. 0 if it does not run."""
        return self._process.pid if self._process else 0

    def start(self, *, project: str, owner: str, directory: Path) -> None:
        """Start and wait until it answers. Raises NotReady with its output."""
        marks = {cleanup.RUN: project, cleanup.OWNER: owner, cleanup.DIRECTORY: str(directory)}
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | marks
        environment["PYTHONPATH"] = python_path(import_root())
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        log = self._work / "logs" / "supervisord-start.txt"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                supervisord_command(),
                cwd=self._work,
                env=environment,
                stdin=subprocess.PIPE,  # only we hold the other end: supervisord exits when it closes
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._control.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(
                    f"supervisord did not start (limit {START_DEADLINE_S:g} s), its output ends: "
                    f"{log.read_text(errors='replace').strip()[-1500:]}"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End supervisord and its services. Idempotent."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_DEADLINE_S)
        except subprocess.TimeoutExpired:  # supervisord is frozen: the kernel kills its services with it
            self._process.kill()
            self._process.wait()
        self._process = None
