"""Requests as a service expects them: path, headers, TLS, dialect and template."""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pytest_llmchaos.errors import BadScenario, NotReady

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
_DEFAULTS = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a field name of RFC 9110
_SECRET_IN_QUERY = re.compile(r"(?i)[?&]([\w.-]*(?:key|token|secret|sig|signature|password|auth))=([^&$][^&]*)")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?")
# The load generator sets these itself. A compressed answer would hide its tokens.
_OURS = frozenset(
    {
        *("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"),
        *("accept-encoding", "x-request-id"),
    }
)
# Headers whose literal value is no secret.
_PLAIN = frozenset(("host", "accept", "content-type", "user-agent", "origin", "referer"))


@dataclass(frozen=True)
class Header:
    """A request header. Its value may contain `$VARIABLE`, and is never printed."""

    name: str
    value: str = field(repr=False)


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

    def resolve(self, environ: Mapping[str, str]) -> Resolved:
        """Return path and headers with the values of their variables.

        Raises:
            NotReady: A variable is not set, or its value cannot be part of a request.
        """
        _require(self._texts(), environ)
        host = ""
        headers: dict[str, str] = {}
        for one in self.headers:
            if one.name.lower() == "host":
                host = _filled(one.value, environ)
            else:
                headers[one.name] = _filled(one.value, environ)
        return Resolved(_filled(self.path, environ), host, headers)

    def secrets(self, environ: Mapping[str, str]) -> frozenset[str]:
        """Return the values of headers and variables that no evidence may contain."""
        found = {environ[name] for _, text in self._texts() for name in _variables(text) if environ.get(name)}
        for one in self.headers:
            if one.name.lower() not in _PLAIN:
                value = _filled(one.value, environ)
                found |= {value, value.split()[-1]} if value.split() else set()
        return frozenset(value for value in found if value.strip())

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Each text that may have variables, after its name in messages."""
        yield "llmchaos_path", self.path
        for one in self.headers:
            yield f"llmchaos_headers: {one.name}", one.value


def head_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request, those of the load and the user's."""
    theirs = {name.lower() for name in headers}
    return {name: value for name, value in _DEFAULTS.items() if name.lower() not in theirs} | dict(headers)


def split_headers(lines: Sequence[str]) -> tuple[Header, ...]:
    """Return the headers of `Name: value` lines, which are not checked."""
    pairs = (line.partition(":") for line in lines)
    return tuple(Header(name.strip(), value.strip()) for name, _, value in pairs)


def headers_of(lines: Sequence[str]) -> tuple[Header, ...]:
    """Return the headers of `Name: value` lines.

    Raises:
        BadScenario: A line is no header. The message has its name and not its value.
    """
    found: dict[str, Header] = {}
    for line, header in zip(lines, split_headers(lines), strict=True):
        name, value = header.name, header.value
        if not (value and _TOKEN.fullmatch(name)):
            raise BadScenario(
                "llmchaos_headers must be lines such as Authorization: Bearer $API_KEY, got "
                + (
                    f"{name!r} without a value"
                    if ":" in line and _TOKEN.fullmatch(name)
                    else "a line that does not begin with a name"
                )
            )
        if name.lower() in _OURS:
            raise BadScenario(f"llmchaos_headers: {name} is set by the load generator itself: drop it")
        if name.lower() in found:
            raise BadScenario(f"llmchaos_headers: {name} is given twice: give each header once")
        if not _is_plain(value):
            raise BadScenario(f"llmchaos_headers: the value of {name} must be plain ASCII on one line")
        _check_variables(f"llmchaos_headers: {name}", value)
        if name.lower() == "host" and "$" not in value and not _HOST.fullmatch(value):
            raise BadScenario(f"llmchaos_headers: Host must be a name such as llm.localhost, got {value!r}")
        found[name.lower()] = Header(name, value)
    return tuple(found.values())


def check_path(key: str, path: str) -> None:
    """Check a path and its query. Raises BadScenario."""
    if not (path.startswith("/") and _is_plain(path) and " " not in path):
        raise BadScenario(
            f"{key} must be a path such as {PATHS['chat']}, with %20 for a blank, without scheme, host and #, got {path!r}"
        )
    _check_variables(key, path)
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


def _require(texts: Iterator[tuple[str, str]], environ: Mapping[str, str]) -> None:
    wrong: list[str] = []
    for where, text in texts:
        for name in _variables(text):
            if not environ.get(name):
                wrong.append(f"{where} needs the environment variable {name}, which is {_lack(name, environ)}")
            elif not _is_plain(environ[name]):
                wrong.append(f"{where}: the value of the environment variable {name} is not plain ASCII on one line")
    if wrong:
        raise NotReady("; ".join(dict.fromkeys(wrong)) + ": set it before pytest starts")


def _lack(name: str, environ: Mapping[str, str]) -> str:
    return "empty" if name in environ else "not set"


def _variables(text: str) -> list[str]:
    return string.Template(text).get_identifiers()


def _filled(text: str, environ: Mapping[str, str]) -> str:
    return string.Template(text).safe_substitute(environ)


def _check_variables(where: str, text: str) -> None:
    if not string.Template(text).is_valid():
        raise BadScenario(f"{where}: $ must begin a variable such as $API_KEY or ${{API_KEY}}: write $$ for a plain $")


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
