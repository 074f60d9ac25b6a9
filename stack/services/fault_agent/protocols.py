"""Protocols of the service's ports, by what the service answers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HTTP1, HTTP2, TLS, UNKNOWN = "HTTP/1", "HTTP/2", "TLS", ""
# A service of this machine answers in milliseconds. One that is silent for so long is
# taken for unknown.
_ANSWER_S: Final = 0.5
# RFC 9113, section 3.4: the client's preface and an empty frame SETTINGS.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
_SETTINGS: Final = b"\x04\x00"  # type and flags of that frame
_OPTIONS: Final = b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_FRAME_HEAD: Final = 9
_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")  # RFC 8446, section 5.1: alert, handshake


def protocol_by(first: bytes) -> str:
    """The protocol of a service, by the first bytes that it sends."""
    if first.startswith(_TLS_RECORDS):
        return TLS
    if first.startswith(b"HTTP/1."):
        return HTTP1
    is_settings = len(first) >= _FRAME_HEAD and first[3:5] == _SETTINGS and first[5:_FRAME_HEAD] == bytes(4)
    return HTTP2 if is_settings else UNKNOWN


async def protocols_of(ports: Iterable[int], hosts: Sequence[str]) -> dict[str, str]:
    """The protocol of each port, "" for an unknown one.

    A port gets at most three connections: a greeting of TLS, one of HTTP/2, and the
    request `OPTIONS *`. The first that shows TLS or HTTP/1 is the last.

    Args:
        ports: the service's ports.
        hosts: its addresses. The first that accepts a connection counts.
    """
    found = list(dict.fromkeys(ports))
    answers = await asyncio.gather(*(_protocol_of(port, hosts) for port in found))
    return {str(port): protocol for port, protocol in zip(found, answers, strict=True)}


async def _protocol_of(port: int, hosts: Sequence[str]) -> str:
    for host in hosts:
        try:
            return await _protocol_at(host, port)
        except OSError:  # it listens on another address, or has left
            continue
    return UNKNOWN


async def _protocol_at(host: str, port: int) -> str:
    protocol = UNKNOWN
    for greeting in (_client_hello(), _PREFACE, _OPTIONS):
        found = protocol_by(await _first_bytes(host, port, greeting))
        if found in (TLS, HTTP1):  # some services take HTTP/1 and HTTP/2 on one port
            return found
        protocol = found or protocol
    return protocol


async def _first_bytes(host: str, port: int, greeting: bytes) -> bytes:
    """First bytes that a service sends after a greeting, b"" if it is silent.

    Raises:
        OSError: it accepts no connection.
    """
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_connection(host, port)
    got = b""
    try:
        async with asyncio.timeout(_ANSWER_S):
            writer.write(greeting)
            while len(got) < _FRAME_HEAD and (piece := await reader.read(_FRAME_HEAD - len(got))):
                got += piece
    except OSError:  # TimeoutError too
        pass
    finally:
        writer.close()
    return got


def own_addresses() -> tuple[str, ...]:
    """IPv4 addresses of this network namespace, loopback first."""
    found = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                about = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without one
                continue
            found.append(socket.inet_ntoa(about[20:24]))
    return tuple(dict.fromkeys(found))


def _client_hello() -> bytes:
    """The first message of a TLS client."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):  # it waits for the server's answer
        client.do_handshake()
    return outgoing.read()
