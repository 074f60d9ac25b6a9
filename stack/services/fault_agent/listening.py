"""Listening TCP ports of this network namespace."""

from __future__ import annotations

import sys
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
DEVICES = Path("/proc/net/dev")
_LISTEN = "0A"


def outside_ports(*tables: str) -> frozenset[int]:
    """Ports that listen on an address other than loopback.

    Args:
        tables: Contents of `/proc/net/tcp` and `/proc/net/tcp6`.
    """
    found = set()
    for line in (line for text in tables for line in text.splitlines()[1:]):
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN:
            address, _, port = words[1].partition(":")
            if not _is_loopback(address):
                found.add(int(port, 16))
    return frozenset(found)


def read_outside_ports() -> frozenset[int]:
    """The same, of this namespace now."""
    return outside_ports(*(path.read_text() for path in TABLES if path.exists()))


def _is_loopback(address: str) -> bool:
    """True for an address of 127.0.0.0/8, as such or inside IPv6, and for `::1`.

    The kernel prints each 32 bits in the machine's order of bytes.
    """
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    plain = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(plain) == 4:
        return plain[0] == 127
    return plain == b"\0" * 15 + b"\1" or (plain.startswith(b"\0" * 10 + b"\xff\xff") and plain[12] == 127)


def has_network(devices: str) -> bool:
    """True if the content of `/proc/net/dev` has an interface other than loopback.

    A container that ended takes its interfaces away, and so does one that was
    disconnected from all networks.
    """
    names = [line.partition(":")[0].strip() for line in devices.splitlines() if ":" in line]
    return any(name not in {"lo", "tunl0", "sit0", "ip6tnl0"} for name in names)
