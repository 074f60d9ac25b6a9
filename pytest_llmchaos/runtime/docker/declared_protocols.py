"""Services that take TLS or HTTP/2 only, by their own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_llmchaos.runtime.docker import reach

# Values of `app_protocol`, as in Compose and Kubernetes. All others may be HTTP/1.
_APP_PROTOCOLS = {
    **dict.fromkeys(("https", "tls", "wss", "grpcs", "kubernetes.io/wss"), "TLS"),
    **dict.fromkeys(("http2", "h2c", "grpc", "kubernetes.io/h2c"), "HTTP/2"),
}
# A health check of its own container.
_OWN_HTTPS = re.compile(r"https://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(?P<port>[0-9]{1,5}))?(?![\w.-])")
_OWN_GRPC = re.compile(r"grpc_health_probe\b.*?-addr[= ]\S*?:(?P<port>[0-9]{1,5})\b")
# uvicorn, vLLM, SGLang and llama.cpp serve TLS on their only port with one of these.
_TLS_FLAG = re.compile(r"--ssl-(?:key|cert)-?file\b")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Settings of a service that show how it is reached.

    Attributes:
        ports: Its TCP ports, each with its `app_protocol` or "".
        command: Its command line.
        health_check: The command of its health check.
    """

    ports: Mapping[int, str] = field(default_factory=dict)
    command: str = ""
    health_check: str = ""


def unreadable(services: Mapping[str, Declared]) -> tuple[tuple[str, str], ...]:
    """Return the services whose requests no fault agent can read, each with its reason.

    A service with a port that may take HTTP/1 is left out.
    """
    found = ((name, _reason(about)) for name, about in sorted(services.items()))
    return tuple((name, reason) for name, reason in found if reason)


def _reason(about: Declared) -> str:
    if (flag := _TLS_FLAG.search(about.command)) is not None:
        return f"TLS (its command has {flag[0]})"
    found: dict[int, str] = {}
    for port, named in about.ports.items():
        if (protocol := _APP_PROTOCOLS.get(named.lower())) is not None:
            found[port] = f"{protocol} on port {port} (app_protocol: {named})"
    if (check := _OWN_HTTPS.search(about.health_check)) is not None:
        port = int(check["port"] or 443)
        found.setdefault(port, f"TLS on port {port} (its health check requests {check[0]})")
    if (check := _OWN_GRPC.search(about.health_check)) is not None:
        port = int(check["port"])
        found.setdefault(port, f"HTTP/2 on port {port} (its health check is grpc_health_probe)")
    return "" if set(about.ports) - set(found) else ", ".join(found[port] for port in sorted(found))


def in_file(config: reach.Config) -> dict[str, Declared]:
    """Return what a compose file declares about each service."""
    return {name: _declared(service) for name, service in config.services.items()}


def _declared(service: reach.Service) -> Declared:
    exposed = (text.removesuffix("/tcp") for text in service.expose)
    ports = {int(port): "" for port in exposed if port.isdigit()}
    ports |= {port.target: port.app_protocol for port in service.ports if port.protocol == "tcp"}
    test = service.healthcheck.test if service.healthcheck is not None else None
    return Declared(ports=ports, command=words_of(service.entrypoint, service.command), health_check=words_of(test))


def words_of(*lists: Sequence[str] | None) -> str:
    """Return the words of commands as one line."""
    return " ".join(word for words in lists for word in words or ())
