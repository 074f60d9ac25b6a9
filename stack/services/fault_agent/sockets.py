"""Resets, original destinations and unsent bytes of asyncio's transports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Final, Protocol, cast

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h
_ESTABLISHED: Final = 1  # linux/tcp.h, the first byte of TCP_INFO
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class _Socket(Protocol):
    """The socket of a transport, of which loops give a restricted one."""

    def fileno(self) -> int: ...
    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...
    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that its peer gets an RST."""
    if is_open(transport):
        with contextlib.suppress(OSError):  # it has ended already
            _socket_of(transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged yet."""
    if transport.is_closing() or not is_open(transport):
        return 0
    waiting = fcntl.ioctl(_socket_of(transport).fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return transport.get_write_buffer_size() + int.from_bytes(waiting, "little")


def has_left(transport: asyncio.Transport) -> bool:
    """True if the peer sends no more, whether or not all it sent was read."""
    if not is_open(transport):
        return True
    return _socket_of(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED


def original_destination(transport: asyncio.Transport) -> tuple[str, int]:
    """Return the address to which a connection went before its redirect."""
    found = _socket_of(transport).getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!2xH4s", found)
    return socket.inet_ntoa(address), port


def is_open(transport: asyncio.Transport) -> bool:
    """False once the loop has closed the socket. It does so before it reports it."""
    found = transport.get_extra_info("socket")
    return found is not None and found.fileno() >= 0


def _socket_of(transport: asyncio.Transport) -> _Socket:
    return cast("_Socket", transport.get_extra_info("socket"))
