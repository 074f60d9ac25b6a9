"""The processes of one service as the kernel has them: their states, and how much memory each may take. It waits for nothing."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from pytest_llmchaos.errors import NotReady

MIB = 2**20
_ROUNDS = 10


def group_members(group: int) -> dict[int, str]:
    """Process number -> state letter of every process of a group, from the kernel."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found[int(entry.name)] = fields[0]
    return found


def own_data_limit() -> int:
    """What a child of this process may take, in bytes; -1 is unlimited."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def data_limit(pid: int) -> int | None:
    """The soft limit that the kernel shows in `/proc/PID/limits`, in bytes; -1 is unlimited. None for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max data size"):
                soft = line.split()[3]
                return -1 if soft == "unlimited" else int(soft)
    return None


def data_limits(group: int) -> set[int]:
    """The soft limits of all processes of a group; one value where they are alike."""
    found = (data_limit(pid) for pid, letter in group_members(group).items() if letter != "Z")
    return {limit for limit in found if limit is not None}


def limit_data(group: int, size: int) -> None:
    """Let every process of a group, and those that it will have, take so many bytes of memory of its own; -1 is unlimited.

    Data (RLIMIT_DATA: heap and private writable maps) is near to what a process really uses. Its address space is not:
    Go and Python reserve much more than they touch. Only the soft limit moves, so that no root is needed to move it back.
    Raises NotReady if the kernel refuses.
    """
    for _ in range(_ROUNDS):  # a child that is born while its parent is still unlimited is found in the next round
        if data_limits(group) <= {size}:
            return
        for pid in group_members(group):
            with contextlib.suppress(ProcessLookupError):
                _set(pid, size)
    raise NotReady(f"process group {group} makes processes faster than they can be limited")


def _set(pid: int, size: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and not 0 <= size <= hard:
        raise NotReady(f"process {pid} may have {hard} bytes of data at most, asked for {size}: see `ulimit -Hd`")
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (size, hard))
    except PermissionError as error:
        raise NotReady(f"the kernel lets nobody limit process {pid}: {error}") from None
