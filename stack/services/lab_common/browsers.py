"""Requests that a web browser sends, which a service on loopback must not act on."""

from __future__ import annotations

import ipaddress
from typing import Protocol

# Browsers set these themselves, and a page cannot leave them out: Fetch standard, sections 3.2 and "Sec-" of 2.2.2.
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")


class Headers(Protocol):
    """Headers by name, of whichever server."""

    def get(self, name: str, /) -> str | None: ...


def refusal(headers: Headers) -> str | None:
    """Why a request is refused; None where a program on this machine sent it.

    A page in the user's browser can send requests to loopback. It shows by a header that only browsers set, or, where
    its own name resolves to this machine (DNS rebinding), by that name as the host.
    """
    for name in _OF_BROWSERS:
        if headers.get(name) is not None:
            return f"expected a program of this machine, got the header {name} of a web browser: use curl or the like"
    host = headers.get("Host") or ""
    if not _is_loopback(host):
        return f"expected a loopback address or localhost as host, got {host!r:.100}"
    return None


def _is_loopback(host: str) -> bool:
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
