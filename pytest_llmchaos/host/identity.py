"""Process identity, liveness and project names."""

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
    """Name of this machine, stable across boots."""
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
    """Start time of a process in clock ticks, which distinguishes reused pids.

    "" if the process is gone or hidden from this user.
    """
    return _start_of(pid) or ""


def _start_of(pid: int) -> str | None:
    """Start time in clock ticks. "" for a zombie, None if `/proc` lacks the process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _is_gone(pid: int) -> bool:
    """True if the kernel has no process with that pid, hidden processes included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's process, or not a pid
        return False
    return False


def pid_namespace() -> str:
    """Inode of this process's pid namespace. "" if `/proc` lacks it.

    A container has its own namespace.
    """
    try:
        return "".join(filter(str.isdigit, str(Path("/proc/self/ns/pid").readlink())))
    except OSError:
        return ""


def owner_label(pid: int | None = None) -> str:
    """`pid:start:boot:namespace`, the owner label of everything that a run creates."""
    who = os.getpid() if pid is None else pid
    return f"{who}:{process_started(who)}:{boot_id()}:{pid_namespace()}"


def liveness(owner: str, *, same_kernel: bool = True) -> Liveness:
    """Liveness of the process of an owner label: dead only on proof.

    Proof is another boot of this kernel, another start time, a zombie, or a pid that
    the kernel does not have. A process that `/proc` hides from this user (`hidepid`) or
    that is in another pid namespace is "unknown".

    Args:
        owner: the label, as `owner_label` makes it.
        same_kernel: True if the owner ran on this machine. Only then is another boot a
            proof.
    """
    parts = owner.split(":")
    # Labels of older versions have three parts, without the namespace.
    if len(parts) not in {3, 4} or not re.fullmatch("[0-9]{1,10}", parts[0]):
        return "unknown"
    pid, started, boot, *namespace = parts
    if "unknown" in {boot, boot_id()}:
        return "unknown"
    if boot != boot_id():
        return "dead" if same_kernel else "unknown"
    return _liveness_here(int(pid), started) if namespace == [pid_namespace()] != [""] else "unknown"


def _liveness_here(pid: int, started: str) -> Liveness:
    """Liveness of a process of this boot and pid namespace that began at `started`."""
    seen = _start_of(pid)
    if seen == "" or (seen is None and _is_gone(pid)):
        return "dead"
    if not seen or not started:
        return "unknown"
    return "alive" if seen == started else "dead"


_PROJECT = re.compile(r"llmchaos-[0-9]+-[0-9a-f]{4}(-[a-z0-9_-]+)?")


def project_name(pid: int, worker: str = "") -> str:
    """Name of a run's own stack, distinct for each pid, pid namespace and boot."""
    where = hashlib.sha256(f"{boot_id()}:{pid_namespace()}".encode()).hexdigest()[:4]
    return f"llmchaos-{pid}-{where}" + (f"-{worker}" if worker else "")


def is_project_name(name: str) -> bool:
    """True if `project_name` could have made it."""
    return _PROJECT.fullmatch(name) is not None
