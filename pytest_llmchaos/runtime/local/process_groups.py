"""Processes of a service: their states and memory limits in the kernel."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from pytest_llmchaos.errors import NotReady

MIB = 2**20
_ROUNDS = 10


def group_members(group: int) -> dict[int, str]:
    """Pid -> state letter of every process of a group, from `/proc`."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found[int(entry.name)] = fields[0]
    return found


def own_data_limit() -> int:
    """Data limit that children of this process inherit, in bytes. -1 is unlimited."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def data_limit(pid: int) -> int | None:
    """Soft limit from `/proc/PID/limits`, in bytes.

    -1 is unlimited. None if the process is gone.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max data size"):
                soft = line.split()[3]
                return -1 if soft == "unlimited" else int(soft)
    return None


def data_limits(group: int) -> set[int]:
    """Distinct soft limits of a group's processes, in bytes."""
    found = (data_limit(pid) for pid, letter in group_members(group).items() if letter != "Z")
    return {limit for limit in found if limit is not None}


def limit_data(group: int, size: int) -> None:
    """Limit the data of every process of a group and of its future children.

    RLIMIT_DATA (heap and private writable maps) is near to what a process really uses.
    An address-space limit is not: Go and Python reserve much more than they touch. Only
    the soft limit moves, so moving it back needs no root.

    Args:
        group: process group.
        size: bytes for each process. -1 is unlimited.

    Raises:
        NotReady: the kernel refuses, or processes appear faster than they are limited.
    """
    for _ in range(_ROUNDS):  # the next round finds children of a parent that was still unlimited
        if data_limits(group) <= {size}:
            return
        for pid in group_members(group):
            with contextlib.suppress(ProcessLookupError):
                _set(pid, size)
    raise NotReady(f"process group {group} starts processes faster than they can be limited: choose another target")


def _set(pid: int, size: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and not 0 <= size <= hard:
        raise NotReady(
            f"process {pid} has a hard limit of {hard} bytes of data, wanted {size}: raise it (`ulimit -Hd`)"
        )
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (size, hard))
    except PermissionError as error:
        raise NotReady(f"the kernel refused to limit process {pid}: {error}") from None
