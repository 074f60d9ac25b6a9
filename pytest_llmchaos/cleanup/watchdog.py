"""Watchdog process: cleans up after a pytest that died.

It holds the read end of a pipe from pytest and watches the pytest process. A clean end
is announced through the pipe. The end of the process or of the pipe without it is a
death. The pipe alone is not enough, because children that pytest forked keep the write
end open.

testcontainers' reaper does not cover Compose stacks (testcontainers-python#1049).
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
GIVE_UP_S = 60.0  # longer than a restart of Docker takes
PAUSE_S = 0.2
LOOK_S = 1.0


class Watchdog:
    """Pytest's handle. Dropping it without `dismiss` counts as a death."""

    def __init__(self, process: subprocess.Popen[bytes], write_fd: int) -> None:
        self._process = process
        self._fd = write_fd

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """End the watchdog without action: the stack is gone and no fault is open."""
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
        """Start the cleanup at once, without waiting: something is still open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._process.returncode = 0  # it outlives us on purpose, and Popen would warn


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
            # The same daemon, even if the user switches the docker context meanwhile.
            env=docker_cli.environment() if manifest.runtime == "compose" else None,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    os.close(read_fd)
    return Watchdog(process, write_fd)


def kill_processes(path: Path) -> None:
    """Kill the helper processes that a journal names.

    A process that reused the pid has another start time and is spared. A line without
    a start time is of a process that ended before the line was written.
    """
    for line in filter(None, map(_process_of, journal.read(path))):
        if line.started and process_started(line.pid) == line.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(line.pid, signal.SIGKILL)


def _process_of(value: dict[str, object]) -> Process | None:
    """Decode a process line. Other kinds are skipped: decoding takes seconds."""
    with contextlib.suppress(ValueError):
        written = journal.line_of(value) if value["kind"] == "process" else None
        if written is not None and isinstance(written.line, Process):
            return written.line
    return None


def clean_up(manifest: RunManifest) -> None:
    """Remove what a dead run left: processes, open faults, the stack."""
    path = Path(manifest.journal)
    if path.exists():
        kill_processes(path)
    if not manifest.owned:
        from pytest_llmchaos.runtime.docker import attached  # noqa: PLC0415 - only this branch needs it

        try:
            attached.heal(manifest)
        finally:
            if manifest.judge:
                removal.remove_dead(manifest.judge, manifest.owner)
    elif manifest.runtime == "compose":
        removal.remove_dead(manifest.project, manifest.owner)
    elif manifest.runtime == "local":
        remove_run(manifest.project, Path(manifest.directory))


def _ends_clean(fd: int, owner: str) -> bool:
    """Return True on a clean goodbye, False once the pipe or its owner ends."""
    said = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    with contextlib.suppress(OSError, ValueError):  # the owner is gone, or the kernel lacks pidfd
        poll.register(os.pidfd_open(int(owner.partition(":")[0])), select.POLLIN)
    while True:
        ready = [one for one, _ in poll.poll(LOOK_S * 1000)]
        if fd in ready:
            data = os.read(fd, 4096)
            said += data
            if GOODBYE in said or not data:
                return GOODBYE in said
        # The descriptor may be missing, or belong to a later process with that pid.
        elif ready or liveness(owner) == "dead":
            return False


def main(argv: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    manifest = manifest_from(argv[1])
    if _ends_clean(int(argv[0]), manifest.owner):
        return 0
    _say(f"pytest (owner {manifest.owner}) ended without a goodbye: cleaning up {manifest.project}")
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            clean_up(manifest)
        except Exception as error:  # noqa: BLE001 - the next attempt may work, and no other process will try
            _say(f"not clean yet: {type(error).__name__}: {error}")
        else:
            _say("clean")
            return 0
        if time.monotonic() > deadline:
            _say("gave up: run `llmchaos heal`")
            return 1
        time.sleep(PAUSE_S)


def _say(what: str) -> None:
    """Write to the log next to the journal. A full disk must not stop the cleanup."""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"{what}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
