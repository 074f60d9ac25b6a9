"""Requests as a service expects them: path, headers, TLS, dialect and template."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import is_plain
from pytest_llmchaos.subject.headers import (
    REQUESTS_KEY,
    Header,
    check_variables,
    filled,
    require_variables,
    resolve,
    secrets_of,
    texts_of,
    values_of,
)

Dialect = Literal["chat", "completions", "ollama", "ollama-generate", "tgi"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
# The path of each dialect by default.
PATHS: Mapping[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "ollama": "/api/chat",
    "ollama-generate": "/api/generate",
    "tgi": "/generate_stream",
}
TASKS_PATH = "/tasks"
PATH_KEY = "llmchaos_path"
_DEFAULTS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
_SECRET_IN_QUERY = re.compile(r"(?i)[?&]([\w.-]*(?:key|token|secret|sig|signature|password|auth))=([^&$][^&]*)")


class Resolved(NamedTuple):
    """Path, `Host` and other headers with the values of environment variables."""

    path: str
    host: str
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The common parts of all requests to a service.

    Attributes:
        dialect: format of requests and answers.
        path: path and query. May contain `$VARIABLE`.
        headers: added to each request.
        tls: "" without TLS, "system", "unverified", or the path of a CA file.
        template: JSON file with further fields of the body, or None.
    """

    dialect: Dialect = "chat"
    path: str = PATHS["chat"]
    headers: tuple[Header, ...] = ()
    tls: str = ""
    template: Path | None = None

    def __str__(self) -> str:
        """Path, dialect, TLS and names of headers, without their values."""
        names = ", ".join(header.name for header in self.headers)
        parts = [f"POST {self.path}", f"dialect {self.dialect}", f"headers {names}" if names else ""]
        parts += [f"TLS {self.tls}" if self.tls else "", f"template {self.template}" if self.template else ""]
        return ", ".join(filter(None, parts))

    def address(self, url: str) -> str:
        """Return the service's address, with https if it has TLS."""
        return f"https://{url.partition('://')[2]}" if self.tls else url

    def for_tasks(self) -> Requests:
        """Return requests to an agent, with the same headers, but for `Host`."""
        return Requests(path=TASKS_PATH, headers=tuple(one for one in self.headers if one.name.lower() != "host"))

    def with_headers(self, headers: Iterable[tuple[str, str]]) -> Requests:
        """Return these requests with a load's headers, which replace others."""
        more = {name.lower(): Header(name, value) for name, value in headers}
        return replace(self, headers=(*(one for one in self.headers if one.name.lower() not in more), *more.values()))

    def resolve(self, environ: Mapping[str, str]) -> Resolved:
        """Return path and headers with the values of their variables.

        Raises:
            NotReady: A variable is not set, or its value cannot be part of a request.
        """
        path = (PATH_KEY, self.path)
        require_variables((path, *texts_of(self.headers, REQUESTS_KEY)), environ)
        values = resolve(self.headers, environ)
        host = next((value for name, value in values.items() if name.lower() == "host"), "")
        return Resolved(
            filled(self.path, environ), host, {name: value for name, value in values.items() if name.lower() != "host"}
        )

    def secrets(self, environ: Mapping[str, str]) -> frozenset[str]:
        """Return the values of headers and variables that no evidence may contain."""
        return values_of([self.path], environ) | secrets_of(self.headers, environ)


def head_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request, those of the load and the user's."""
    theirs = {name.lower() for name in headers}
    return {name: value for name, value in _DEFAULTS.items() if name.lower() not in theirs} | dict(headers)


def check_path(key: str, path: str) -> None:
    """Check a path and its query. Raises BadScenario."""
    if not (path.startswith("/") and is_plain(path) and " " not in path):
        raise BadScenario(
            f"{key} must be a path such as {PATHS['chat']}, with %20 for a blank, without scheme, host and #, got {path!r}"
        )
    check_variables(key, path)
    if found := _SECRET_IN_QUERY.search(path):
        name = found[1]
        raise BadScenario(
            f"{key}: the value of {name} may be a secret, and paths are kept in reports: write {name}=$API_KEY, with the "
            "name of an environment variable"
        )


def authority(url: str, host: str = "") -> str:
    """Return the value of `Host` for requests to a URL.

    With TLS a loopback address is named localhost, as certificates have it.

    Args:
        url: The service's address.
        host: The user's own value, or "".
    """
    parts = urlsplit(url)
    if host or parts.scheme != "https" or not parts.hostname:
        return host or parts.netloc
    try:
        is_loopback = ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        is_loopback = False
    return f"localhost:{parts.port}" if is_loopback and parts.port else "localhost" if is_loopback else parts.netloc


def certificate_name(url: str, host: str = "") -> str:
    """Return the name that the service's certificate must have: that of `Host`."""
    return urlsplit(f"//{authority(url, host)}").hostname or ""
