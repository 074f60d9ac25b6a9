"""Detection of requests that a web browser sends."""

from __future__ import annotations

import ipaddress
from typing import Protocol

# Browsers set these and pages cannot drop them: Fetch standard, 3.2 and 2.2.2.
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")


class Headers(Protocol):
    """Headers by name, of any server."""

    def get(self, name: str, /) -> str | None: ...


def of_a_browser(headers: Headers) -> str | None:
    """Reason to refuse a request with a header of a browser, or None without one."""
    for name in _OF_BROWSERS:
        if headers.get(name) is not None:
            return f"expected a program, got the header {name} of a web browser: use curl or the like"
    return None


def refusal(headers: Headers) -> str | None:
    """Reason to refuse a request, or None for a program on this machine.

    A page in the user's browser can send requests to loopback. Either a header that
    only browsers set reveals it, or its own name as the host if that name resolves to
    this machine (DNS rebinding).
    """
    if (why := of_a_browser(headers)) is not None:
        return why
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
