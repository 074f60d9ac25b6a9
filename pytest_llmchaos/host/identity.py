"""Identities of processes, and names of the projects that they own."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from pathlib import Path
from typing import Literal

Liveness = Literal["alive", "dead", "unknown"]


def new_run_name(seed: int) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{seed}-{os.getpid() % 10000:04d}"


def machine() -> str:
    """A name of this machine that a boot does not change."""
    try:
        told = Path("/etc/machine-id").read_text().strip()
    except OSError:
        told = ""
    return told or platform.node()


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"


def process_started(pid: int) -> str:
    """A process's start time in clock ticks, which tells it from a later process of the same number.

    "" where the process is gone, and where this user may not see it.
    """
    return _start_of(pid) or ""


def _start_of(pid: int) -> str | None:
    """The start time of a process, "" for a zombie, None where `/proc` does not show the process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _is_gone(pid: int) -> bool:
    """Whether the kernel has no process of that number. It says so of hidden processes too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return False
    return False


def pid_namespace() -> str:
    """The number of the namespace that this process' number belongs to; a container has one of its own. "" where `/proc` lacks it."""
    try:
        return "".join(filter(str.isdigit, str(Path("/proc/self/ns/pid").readlink())))
    except OSError:
        return ""


def owner_label(pid: int | None = None) -> str:
    """`pid:start:boot:namespace` of a process: the owner label of everything that a run makes."""
    who = os.getpid() if pid is None else pid
    return f"{who}:{process_started(who)}:{boot_id()}:{pid_namespace()}"


def liveness(owner: str, *, same_kernel: bool = True) -> Liveness:
    """What is known of the process of an owner label. A process is dead only on proof.

    Proof is another boot of this kernel, another start time, a zombie, or a kernel that knows no process of that number.
    A process that `/proc` hides from this user (`hidepid`) is unknown, and so is one of another pid namespace.
    `same_kernel` says that the owner ran on this machine; only then does another boot prove anything.
    """
    parts = owner.split(":")
    # Three parts are from before labels named the namespace.
    if len(parts) not in {3, 4} or not re.fullmatch("[0-9]{1,10}", parts[0]):
        return "unknown"
    pid, started, boot, *namespace = parts
    if "unknown" in {boot, boot_id()}:
        return "unknown"
    if boot != boot_id():
        return "dead" if same_kernel else "unknown"
    return _liveness_here(int(pid), started) if namespace == [pid_namespace()] != [""] else "unknown"


def _liveness_here(pid: int, started: str) -> Liveness:
    """What is known of a process of this boot and pid namespace, which began at `started`, if that is known."""
    seen = _start_of(pid)
    if seen == "" or (seen is None and _is_gone(pid)):
        return "dead"
    if not seen or not started:
        return "unknown"
    return "alive" if seen == started else "dead"


_PROJECT = re.compile(r"llmchaos-[0-9]+-[0-9a-f]{4}(-[a-z0-9_-]+)?")


def project_name(pid: int, worker: str = "") -> str:
    """The name of a run's own stack. A process of the same number in another namespace, or after a boot, makes another."""
    where = hashlib.sha256(f"{boot_id()}:{pid_namespace()}".encode()).hexdigest()[:4]
    return f"llmchaos-{pid}-{where}" + (f"-{worker}" if worker else "")


def is_project_name(name: str) -> bool:
    """Whether `project_name` could have made it."""
    return _PROJECT.fullmatch(name) is not None
