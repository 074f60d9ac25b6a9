"""Hosts and ports as text, IPv6 included."""

from __future__ import annotations

import ipaddress

_LOOPBACK = "127.0.0.1"  # every container has it


def authority(host: str, port: int) -> str:
    """`HOST:PORT` as URLs have it: an IPv6 address gets brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def loopback_of(host: str) -> str:
    """The host itself if it is a loopback address, otherwise 127.0.0.1."""
    try:
        return host if ipaddress.ip_address(host).is_loopback else _LOOPBACK
    except ValueError:
        return _LOOPBACK
