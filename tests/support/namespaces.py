"""Network namespaces with odd loopback interfaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# A kernel that gives an interface no IPv6 address by itself is given ::1.
_IPV6_ONLY = (
    "ip link set lo up && ip addr del 127.0.0.1/8 dev lo && "
    "{ ip -6 addr show dev lo | grep -q inet6 || ip addr add ::1/128 dev lo; }"
)


def ipv6_only() -> list[str]:
    """Command that runs another one where ::1 is the only loopback address.

    Skips with the reason where the kernel or the rights for it are missing.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, and ip and unshare on PATH")
    command = ["unshare", "--net", "sh", "-c", f'{_IPV6_ONLY} && exec "$@"', "sh"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no network namespace with IPv6 here: {tried.stderr.strip()[-200:]}")
    return command


@contextlib.contextmanager
def named_ipv6_only() -> Iterator[str]:
    """Name of a network namespace where ::1 is the only loopback address."""
    ipv6_only()
    name = f"lcv6-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    try:
        subprocess.run(["nsenter", f"--net=/run/netns/{name}", "sh", "-c", _IPV6_ONLY], check=True, capture_output=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
