"""A process that outlives pytest by seconds: when pytest dies in any way, it undoes open faults and removes the stack.

It holds the read end of a pipe from pytest, and watches pytest's process. A clean end is announced through the pipe;
anything else is a death: the end of the process, or of the pipe. The pipe alone does not show a death, for a child that
pytest made by fork keeps its other end.
Compose stacks are not covered by testcontainers' own reaper (testcontainers-python#1049), hence this.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from pytest_llmchaos.evidence import journal
from pytest_llmchaos.evidence.journal_lines import Process
from pytest_llmchaos.evidence.run_manifest import RunManifest, manifest_from
from pytest_llmchaos.host.identity import liveness, process_started
from pytest_llmchaos.runtime.docker import docker_cli, removal
from pytest_llmchaos.runtime.local.cleanup import remove_run

GOODBYE = b"clean\n"
GIVE_UP_S = 60.0  # a Docker daemon that is being restarted is back long before
PAUSE_S = 0.2
LOOK_S = 1.0


class Watchdog:
    """The handle that pytest keeps. Dropping it without `dismiss` counts as a death."""

    def __init__(self, process: subprocess.Popen[bytes], write_fd: int) -> None:
        self._process = process
        self._fd = write_fd

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """The stack is gone and nothing is broken: let the watchdog end without acting."""
        if self._fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, GOODBYE)
            os.close(self._fd)
            self._fd = -1
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def leave(self) -> None:
        """Something is still broken: let the watchdog go to work at once, without waiting for it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._process.returncode = 0  # it outlives us on purpose, of which Popen would warn


def start(manifest: RunManifest, log: Path) -> Watchdog:
    """Start the watchdog of one run."""
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, False)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_llmchaos.cleanup.watchdog", str(read_fd), manifest.to_json()],
            pass_fds=[read_fd],
            start_new_session=True,
            # The same daemon, also if the user switches to another docker context meanwhile.
            env=docker_cli.environment() if manifest.runtime == "compose" else None,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    os.close(read_fd)
    return Watchdog(process, write_fd)


def kill_processes(path: Path) -> None:
    """End the helper processes that a journal names, unless their numbers now belong to somebody else.

    One without a start time was gone before its line was written.
    """
    for line in filter(None, map(_process_of, journal.read(path))):
        if line.started and process_started(line.pid) == line.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(line.pid, signal.SIGKILL)


def _process_of(value: dict[str, object]) -> Process | None:
    """The line, if it is of that kind. The others are not decoded, which would cost seconds for a long run."""
    with contextlib.suppress(ValueError):
        written = journal.line_of(value) if value["kind"] == "process" else None
        if written is not None and isinstance(written.line, Process):
            return written.line
    return None


def clean_up(manifest: RunManifest) -> None:
    """Everything that a dead run left: its processes, its open faults, its stack."""
    path = Path(manifest.journal)
    if path.exists():
        kill_processes(path)
    if not manifest.owned:
        from pytest_llmchaos.runtime.docker import attached  # noqa: PLC0415 - only this branch needs it

        attached.heal(manifest)
    elif manifest.runtime == "compose":
        removal.remove_dead(manifest.project, manifest.owner)
    elif manifest.runtime == "local":
        remove_run(manifest.project, Path(manifest.directory))


def _ends_clean(fd: int, owner: str) -> bool:
    """Wait for the goodbye in a pipe, True, or for its end or that of its owner, False."""
    said = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    with contextlib.suppress(OSError, ValueError):  # it is gone already, or this kernel has no such descriptors
        poll.register(os.pidfd_open(int(owner.partition(":")[0])), select.POLLIN)
    while True:
        ready = [one for one, _ in poll.poll(LOOK_S * 1000)]
        if fd in ready:
            data = os.read(fd, 4096)
            said += data
            if GOODBYE in said or not data:
                return GOODBYE in said
        # The descriptor may be missing, or be that of a later process of the same number.
        elif ready or liveness(owner) == "dead":
            return False


def main(argv: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    manifest = manifest_from(argv[1])
    if _ends_clean(int(argv[0]), manifest.owner):
        return 0
    _say(f"pytest (owner {manifest.owner}) is gone without a goodbye: cleaning up {manifest.project}")
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            clean_up(manifest)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may work, and nobody else will try
            _say(f"not clean yet: {type(error).__name__}: {error}")
        else:
            _say("clean")
            return 0
        if time.monotonic() > deadline:
            _say("gave up: run `llmchaos heal`")
            return 1
        time.sleep(PAUSE_S)


def _say(what: str) -> None:
    """Into the log beside the journal. A disk that is full must not keep it from its work."""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"{what}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
