"""Ports reserved against sibling runs, and addresses made of them."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
import socket
from collections.abc import Callable

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.state_dirs import state_dir

_LOOPBACKS = ("127.0.0.1", "::1")  # the first that this machine has is used
CONNECT_DEADLINE_S = 2.0
PORTS = range(21000, 29000)  # below Linux' ephemeral range (32768-60999): no outgoing connection takes one


def loopback() -> str:
    """This machine's loopback address: 127.0.0.1, or ::1 if it has no other.

    Raises:
        NotReady: it has neither.
    """
    for address in _LOOPBACKS:
        if is_own_address(address):
            return address
    raise NotReady("this machine lacks a loopback address, 127.0.0.1 or ::1: run `ip link set lo up` as root")


def port_is_free(port: int) -> bool:
    """True if a program could listen at that port of the loopback address now."""
    address = loopback()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def bracketed(host: str) -> str:
    """A host as URLs have it: IPv6 addresses get brackets."""
    return f"[{host}]" if ":" in host else host


def http_url(host: str, port: int) -> str:
    """A base address."""
    return f"http://{bracketed(host)}:{port}"


def accepts_connections(host: str, port: int, *, timeout_s: float = CONNECT_DEADLINE_S) -> bool:
    """True if a program listens at that address."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def is_own_address(host: str) -> bool:
    """True if the name or address is one of this machine's network interfaces."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as sock:
            sock.bind(address)
    except (OSError, UnicodeError):
        return False
    return True


def given_port(variable: str, is_free: Callable[[int], bool] = port_is_free) -> int | None:
    """Port fixed by an environment variable. None if it is unset or empty.

    Raises:
        NotReady: the value is not a port from 1 to 65535, or the port is in use.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= port <= 65535:
        raise NotReady(f"{variable} must be a port from 1 to 65535, got {text!r:.80}")
    if not is_free(port):
        raise NotReady(
            f"{variable}={port} is already in use: free the port, or unset {variable} to let llmchaos choose one"
        )
    return port


class Ports:
    """Ports reserved against this user's other runs until `close`.

    Fixed ports survive a kill and restart of a container. Ephemeral ones change.

    Args:
        is_free: Finds out whether a port can be published. By default on loopback.
        at_random: Begin at a random port. Processes of other machines and containers,
            which see no reservation here, then rarely choose the same one.
    """

    def __init__(self, is_free: Callable[[int], bool] = port_is_free, *, at_random: bool = False) -> None:
        self.is_free = is_free
        self._at_random = at_random
        self._locks: list[int] = []

    def reserve(self) -> int:
        """Reserve a free port. Raises NotReady if none of `PORTS` is free."""
        folder = state_dir() / "ports"
        folder.mkdir(exist_ok=True)
        first = PORTS.start + (secrets.randbelow(2**32) if self._at_random else os.getpid() * 97) % len(PORTS)
        for port in itertools.chain(range(first, PORTS.stop), range(PORTS.start, first)):
            fd = os.open(folder / f"{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            if self.is_free(port):
                self._locks.append(fd)
                return port
            os.close(fd)
        raise NotReady(f"no free port from {PORTS.start} to {PORTS.stop - 1}: stop the programs that use them")

    def close(self) -> None:
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()
