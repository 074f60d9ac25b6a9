"""RPC interface `llmchaos` inside supervisord.

It adds timed events, acts on whole process groups, and an end together with the owner.
Loaded as `[rpcinterface:llmchaos]`. supervisor's event listener protocol does not fit.
It reports a death up to 1 s late, without exit code or signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor import events
from supervisor.states import RUNNING_STATES
from supervisor.xmlrpc import Faults, RPCError

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local.process_groups import MIB, group_members, limit_data, own_data_limit

_PR_SET_PDEATHSIG = 1
_FROZEN_DEADLINE_S = 5.0  # a process stops when it is next scheduled, which takes time on a busy machine


class _Wake:
    """File in supervisord's poll that wakes it when a child dies.

    Without it supervisord sees a death up to 1 s late: PEP 475 hides the signal.
    """

    def __init__(self, fd: int, on_data: Callable[[bytes], None]) -> None:
        self._fd, self._on_data = fd, on_data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._on_data(os.read(self._fd, 4096))

    def handle_write_event(self) -> None:
        raise AssertionError("this file is only read")

    def handle_error(self) -> None:
        raise  # noqa: PLE0704 - supervisord calls this in an except block, and errors here must be visible


class Control:
    """XML-RPC methods `llmchaos.*` on services and their whole process groups."""

    def __init__(self, supervisord: Any, *, events_file: str) -> None:
        self._supervisord = supervisord
        self._log = os.open(events_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._status: dict[int, int] = {}  # exit status by pid: supervisor's own record lacks the signal
        self._exit_code: dict[str, int] = {}
        events.subscribe(events.ProcessStateRunningEvent, lambda event: self._note(event.process.config.name, "start"))
        for ended in (events.ProcessStateExitedEvent, events.ProcessStateStoppedEvent, events.ProcessStateBackoffEvent):
            events.subscribe(ended, self._note_end)
        self._remember_waits(supervisord.options)
        self._wake_at_once(supervisord.options)
        _die_with_parent(supervisord.options)

    def _remember_waits(self, options: Any) -> None:
        wait = options.waitpid

        def waitpid() -> tuple[int | None, int | None]:
            pid, status = wait()
            if pid:
                self._status[pid] = status
            return pid, status

        options.waitpid = waitpid

    def _wake_at_once(self, options: Any) -> None:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self._wake_fd = write_fd
        files = options.get_socket_map()
        files[read_fd] = _Wake(read_fd, lambda _: None)
        files[0] = _Wake(0, self._owner_said)

    def _owner_said(self, data: bytes) -> None:
        """Exit when standard input closes: only the owner holds it open."""
        if not data:
            for process in self._processes().values():
                if process.pid:
                    _kill_group(process.pid)
            os._exit(0)

    def _processes(self) -> dict[str, Any]:
        groups = self._supervisord.process_groups.values()
        return {process.config.name: process for group in groups for process in group.processes.values()}

    def _process(self, service: str) -> Any:
        process = self._processes().get(service)
        if process is None:
            raise RPCError(Faults.BAD_NAME, service)
        return process

    def _note(self, service: str, action: str, **attributes: str) -> None:
        line = {"at": time.time(), "service": service, "action": action, "attributes": attributes}
        os.write(self._log, json.dumps(line).encode() + b"\n")

    def _note_end(self, event: Any) -> None:
        process = event.process
        status = self._status.pop(process.pid, None)
        if process.pid:
            _kill_group(process.pid)  # as in a container, the first process takes the others with it
        code = 127 if status is None else os.waitstatus_to_exitcode(status)
        self._exit_code[process.config.name] = code = 128 - code if code < 0 else code
        self._note(process.config.name, "die", exitCode=str(code))
        if _is_agent(process):
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_fd, b"\0")  # supervisord would restart it at its next tick, up to 1 s later

    def inspect(self) -> dict[str, Any]:
        """State of every service. The pid is 0 if it does not run."""
        return {name: self._describe(name, one) for name, one in self._processes().items() if not _is_agent(one)}

    def inspect_agents(self) -> dict[str, Any]:
        """State of every fault agent, by the name of its process."""
        return {name: self._describe(name, one) for name, one in self._processes().items() if _is_agent(one)}

    def _describe(self, name: str, process: Any) -> dict[str, Any]:
        running = process.state in RUNNING_STATES and bool(process.pid)
        return {
            "pid": process.pid,
            "running": running,
            "paused": running and _state_letter(process.pid) == "T",
            "started": float(process.laststart),
            "exit_code": -1 if running else self._exit_code.get(name, -1),
            "problem": process.spawnerr or "",
        }

    def start(self, service: str) -> bool:
        """Start a service. False if it was running."""
        process = self._process(service)
        if process.pid:
            return False
        process.spawn()
        if process.pid:
            # The child makes its group a moment later. A kill before that needs one.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(process.pid, process.pid)
        process.transition()
        if process.spawnerr:
            raise RPCError(Faults.SPAWN_ERROR, f"{service}: {process.spawnerr}")
        return True

    def kill(self, service: str, name: str) -> bool:
        """Send SIGKILL or SIGTERM. False if it was not running."""
        number = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}[name]
        process = self._process(service)
        if not process.pid:
            return False
        self._note(service, "kill", signal=str(int(number)))
        os.killpg(process.pid, number)
        return True

    def crash(self, service: str) -> bool:
        """Kill only the first process, as a bug or the OOM killer does.

        supervisord sees it die by itself. False if it was not running.
        """
        process = self._process(service)
        if not process.pid:
            return False
        os.kill(process.pid, signal.SIGKILL)
        return True

    def pause(self, service: str) -> bool:
        """Stop every process of the service. False if not running, or stopped."""
        return self._freeze(service, signal.SIGSTOP, "pause", lambda letters: letters <= {"T", "Z"})

    def unpause(self, service: str) -> bool:
        """Continue every process of the service. False if none is stopped."""
        return self._freeze(service, signal.SIGCONT, "unpause", lambda letters: "T" not in letters)

    def _freeze(self, service: str, number: int, action: str, done: Callable[[set[str]], bool]) -> bool:
        process = self._process(service)
        if not process.pid or done(set(group_members(process.pid).values())):
            return False
        os.killpg(process.pid, number)
        deadline = time.monotonic() + _FROZEN_DEADLINE_S  # the kernel stops threads one by one
        while not done(set(group_members(process.pid).values())):
            if time.monotonic() > deadline:
                raise RPCError(Faults.FAILED, f"{service} did not {action} within {_FROZEN_DEADLINE_S:g} s")
            time.sleep(0.001)
        self._note(service, action)
        return True

    def limit_memory(self, service: str, mebibytes: str) -> bool:
        """Limit the data of each process of the service. False if not running."""
        return self._limit(service, int(mebibytes) * MIB, "limit_memory", mebibytes=mebibytes)

    def unlimit_memory(self, service: str) -> bool:
        """Restore the limit that the processes started with. False if not running."""
        return self._limit(service, own_data_limit(), "unlimit_memory")

    def _limit(self, service: str, size: int, action: str, **attributes: str) -> bool:
        process = self._process(service)
        if not process.pid:
            return False
        try:
            limit_data(process.pid, size)
        except NotReady as error:
            raise RPCError(Faults.FAILED, str(error)) from None
        self._note(service, action, **attributes)
        return True

    def configure(self, service: str, environment: str) -> bool:
        """Replace the variables (JSON) that the service gets at its next start."""
        self._process(service).config.environment = json.loads(environment)
        return True

    def note(self, service: str, action: str) -> bool:
        """Record the name of an act that consists of several of the above."""
        self._process(service)
        self._note(service, action)
        return True


def _is_agent(process: Any) -> bool:
    """True for a fault agent: only agents restart by themselves."""
    return bool(process.config.autorestart)


def _state_letter(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _die_with_parent(options: Any) -> None:
    """Kill services when supervisord dies.

    `setpgrp` is supervisor's last call in the child before it runs the program.
    """
    libc = ctypes.CDLL(None)
    set_group = options.setpgrp

    def setpgrp() -> None:
        set_group()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    options.setpgrp = setpgrp


def make(supervisord: Any, **settings: str) -> Control:
    """Create the interface: `supervisor.rpcinterface_factory` names this function."""
    return Control(supervisord, events_file=settings["events_file"])
