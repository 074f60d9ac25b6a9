"""Containers as the kernel shows them: processes, interfaces, limits."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady

if TYPE_CHECKING:
    from docker.models.containers import Container

PERIOD_US = 100_000
MIB = 2**20


def process_here(container: Container) -> int | None:
    """Pid of the container's first process on this machine, or None.

    Docker may run on another machine or in another pid namespace. Its pids are then
    other processes here, so the kernel must confirm the container's id.
    """
    pid = int(container.attrs["State"]["Pid"])
    try:
        return pid if pid > 1 and str(container.id) in Path(f"/proc/{pid}/cgroup").read_text() else None
    except OSError:
        return None


def inside(container: Container, proc: str, path: str) -> str | None:
    """Read a file of the container's view of the kernel, or None.

    Read from outside if Docker runs on this machine, else with `cat` inside.
    """
    pid = process_here(container)
    if pid is not None:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/{proc}{path}").read_text()
    within = f"/proc/1/{path}" if path.startswith("net/") else f"/{path}"
    done = container.exec_run(["cat", within])
    return done.output.decode(errors="replace") if done.exit_code == 0 and isinstance(done.output, bytes) else None


def interfaces(container: Container) -> set[str] | None:
    """Network interfaces in the container according to the kernel, without loopback."""
    text = inside(container, "", "net/dev")
    return None if text is None else {line.partition(":")[0].strip() for line in text.splitlines()[2:]} - {"lo"}


def shows(kind: str, container: Container, amount: float) -> str | None:
    """The kernel's evidence of the restriction. None if it is not in force."""
    if kind == "partition":
        left = interfaces(container)
        return "kernel: only the loopback interface is left" if left == set() else None
    if kind == "limit_cpu":
        wanted = round(amount * PERIOD_US)
        text = inside(container, "root/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us") or _first_word(
            inside(container, "root/", "sys/fs/cgroup/cpu.max")
        )
        what = f"a quota of {wanted} us in {PERIOD_US}"
    else:
        wanted = int(amount * MIB)
        text = inside(container, "root/", "sys/fs/cgroup/memory/memory.limit_in_bytes") or inside(
            container, "root/", "sys/fs/cgroup/memory.max"
        )
        what = f"a limit of {wanted} bytes"
    return f"kernel: {what}" if text is not None and text.strip() == str(wanted) else None


def _first_word(text: str | None) -> str | None:
    return text.split()[0] if text else None


def cut_connections(container: Container) -> None:
    """Cut every TCP connection of the container.

    Needs Docker on this machine, root and `ss`. Does nothing without them.
    """
    pid = process_here(container)
    if pid is None or os.geteuid() != 0 or not (shutil.which("nsenter") and shutil.which("ss")):
        return
    command = ["nsenter", "--target", str(pid), "--net", "ss", "--kill", "--tcp", "--numeric", "state", "connected"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        raise NotReady(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-300:]}")
