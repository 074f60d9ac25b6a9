"""Redirect of a service's ports to the proxy, with a dead man's switch.

The table belongs to the process that made it, and the kernel removes it when that
process ends. The redirected ports expire as well, unless they are refreshed. So a
process that dies or hangs does not keep a service unreachable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Protocol

TABLE = "llmchaos"
# A port is redirected for this long after the last refresh. A service must be
# reachable within 2 s of the proxy's end.
ALIVE_S = 1.8
LIBRARY = "libnftables.so.1"


class RedirectError(RuntimeError):
    """The kernel refused a change. Has its words."""


class Nft(Protocol):
    """Takes commands of nftables and returns their output. Raises RedirectError."""

    def __call__(self, commands: str) -> str: ...


class Library:
    """libnftables in this process: one call takes less than 1 ms.

    Its connection to the kernel lives as long as this object, and so does a table with
    `flags owner`.
    """

    def __init__(self) -> None:
        try:
            self._nft = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise RedirectError(f"expected {LIBRARY} (Debian: libnftables1), found none: {error}") from None
        self._nft.nft_ctx_new.restype = ctypes.c_void_p
        self._nft.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(self._nft, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._nft, name).argtypes = [ctypes.c_void_p]
            getattr(self._nft, name).restype = ctypes.c_char_p
        self._context = self._nft.nft_ctx_new(0)
        if not self._context:
            raise RedirectError("expected a connection to nftables, the kernel gave none")
        self._nft.nft_ctx_buffer_output(self._context)
        self._nft.nft_ctx_buffer_error(self._context)

    def __call__(self, commands: str) -> str:
        status = self._nft.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._nft.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._nft.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise RedirectError(" ".join(error.decode(errors="replace").split()) or f"status {status}")
        return output.decode(errors="replace")


def table(to_port: int, *, owned: bool) -> str:
    """Commands that create the table, with no port redirected yet."""
    flags = "flags owner; " if owned else ""
    return (
        f"add table ip {TABLE} {{ {flags}}}\n"
        f"add set ip {TABLE} alive {{ type inet_service; flags timeout; timeout {round(ALIVE_S * 1000)}ms; }}\n"
        f"add chain ip {TABLE} pre {{ type nat hook prerouting priority dstnat; policy accept; }}\n"
        f"add rule ip {TABLE} pre tcp dport @alive redirect to :{to_port}\n"
    )


def refresh(ports: Iterable[int]) -> str:
    """Commands that redirect these ports alone from now on, in one transaction."""
    listed = ", ".join(map(str, sorted(ports)))
    added = f"add element ip {TABLE} alive {{ {listed} }}\n" if listed else ""
    return f"flush set ip {TABLE} alive\n{added}"


class Redirect:
    """The redirect in this process's network namespace.

    Attributes:
        ports: Ports that were redirected last.
    """

    def __init__(self, nft: Nft, to_port: int) -> None:
        self._nft = nft
        self._to_port = to_port
        self.ports: frozenset[int] = frozenset()

    def install(self) -> None:
        """Create the table, in place of one that a dead process left.

        Kernels before 5.12 have no owners of tables. There the ports expire.
        """
        self.remove()
        try:
            self._nft(table(self._to_port, owned=True))
        except RedirectError:
            self._nft(table(self._to_port, owned=False))

    def refresh(self, ports: Iterable[int]) -> None:
        """Redirect these ports alone, for `ALIVE_S` seconds."""
        self.ports = frozenset(ports)
        self._nft(refresh(self.ports))

    def remove(self) -> None:
        """Remove the table. Raises RedirectError if the kernel still lists it."""
        if self._is_there():
            self._nft(f"delete table ip {TABLE}")
        self.ports = frozenset()
        if self._is_there():
            raise RedirectError(f"expected table ip {TABLE} to be gone, the kernel lists it: end this container")

    def _is_there(self) -> bool:
        return is_listed(self._nft("list tables"))


def is_listed(tables: str) -> bool:
    """True if the output of `list tables` has the table."""
    return f"table ip {TABLE}" in (line.strip() for line in tables.splitlines())
