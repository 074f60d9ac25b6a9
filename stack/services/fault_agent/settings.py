"""Settings of the proxy from environment variables."""

from __future__ import annotations

from dataclasses import dataclass

from lab_common.settings import Section, parsed, text, whole


def _address(given: str) -> tuple[str, int]:
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("HOST:PORT, such as 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Addresses of the proxy and of the service.

    Attributes:
        upstream: host and port of the service, None for the original destination of
            each redirected connection.
        control: path of the control socket.
    """

    target: str = text("LAB_TARGET", pattern=r"[A-Za-z0-9][A-Za-z0-9_.#-]*", expected="the name of the service")
    host: str = text("LAB_HOST", "0.0.0.0")  # noqa: S104 - in the service's own network namespace
    port: int = whole("LAB_PORT", 15001, 1, 65535)
    upstream: tuple[str, int] | None = parsed("LAB_UPSTREAM", _address, lambda: None)
    control: str = text("LAB_CONTROL", pattern=r"/.{1,106}", expected="an absolute path of at most 107 bytes")
