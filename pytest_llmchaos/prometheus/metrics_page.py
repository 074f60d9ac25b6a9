"""Metrics pages and versions of servers, from addresses and files."""

from __future__ import annotations

import json
import re
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.host.http_client import exchange
from pytest_llmchaos.servers.exposition import Page, parse_page, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from urllib.parse import SplitResult

    from pytest_llmchaos.host.http_client import Reply
    from pytest_llmchaos.servers.mapping import Server

_MOST_BYTES = 64_000_000
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_REDIRECTS = range(300, 400)
# zlib finds out whether it is gzip or deflate.
_GZIP_OR_DEFLATE = 47


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads pages.

    Attributes:
        headers: request headers. Their values are never printed.
        tls: one of `Requests.tls`.
        timeout_s: seconds for one answer.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: str = "system"
    timeout_s: float = 5.0

    def page(self, source: str, servers: Iterable[Server]) -> tuple[str, Page]:
        """Return the address or file, and its page.

        Of an address without a path, `/metrics` is read, then the other paths of known
        servers.

        Args:
            source: an address, a file, or `-` for the standard input.
            servers: the known servers.

        `shown` makes the address fit for messages.

        Raises:
            BadScenario: There is no page. One sentence with the cause.
        """
        if not is_address(source):
            return source, parse_page(_text_of(source), shown(source))
        parts = _parts(source)
        if parts.path not in ("", "/") or parts.query:
            return source, parse_page(self._text(source), shown(source))
        paths = dict.fromkeys(["/metrics", *(one.metrics_path for one in servers)])
        for number, path in enumerate(paths):
            url = f"{parts.scheme}://{parts.netloc}{path}"
            reply = self._get(url)
            if reply.status != 404 or number + 1 == len(paths):
                break
        return url, parse_page(self._checked(url, reply), shown(url))

    def version(self, url: str, server: Server) -> str:
        """Return the version that a server reports, empty if it does not answer."""
        if not (server.version.path and is_address(url)):
            return ""
        try:
            found: object = json.loads(self._text(urljoin(url, server.version.path)))
        except (BadScenario, ValueError):
            return ""
        for key in server.version.key.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, str) else ""

    def _text(self, url: str) -> str:
        return self._checked(url, self._get(url))

    def _get(self, url: str, *, follow: bool = True) -> Reply:
        parts = urlsplit(url)
        where = shown(url)
        try:
            reply = exchange(
                "GET",
                url,
                tls=self.tls,
                name=parts.hostname or "",
                timeout_s=self.timeout_s,
                most_bytes=_MOST_BYTES,
                headers={"Accept": _ACCEPT, **self.headers},
            )
        except ConnectionError as error:
            raise BadScenario(
                f"{where} must answer within {self.timeout_s:g} s, got {plain(str(error))}; "
                "check the address, and that the server runs"
            ) from None
        there = urljoin(url, reply.headers.get("location", ""))
        if follow and reply.status in _REDIRECTS and there.rstrip("/") == url.rstrip("/"):
            return self._get(there, follow=False)  # the same path with or without a slash at its end
        return reply

    def _checked(self, url: str, reply: Reply) -> str:
        where = shown(url)
        if reply.broken:
            raise BadScenario(f"{where} must answer with a whole page, but {plain(reply.broken)}")
        if reply.status in (401, 403):
            raise BadScenario(
                f"{where} must answer with a metrics page, got {reply.status}; "
                "give its credentials, such as --header 'Authorization: Bearer $TOKEN'"
            )
        if reply.status in _REDIRECTS:
            raise BadScenario(
                f"{where} must answer with a metrics page, got {reply.status} to "
                f"{shown(reply.headers.get('location', 'nowhere'))}; give that address"
            )
        if reply.status != 200:
            raise BadScenario(
                f"{where} must answer with a metrics page, got {reply.status}; give the path of the metrics, "
                "and the server's option that turns them on, if it has one"
            )
        return _decoded(reply, where).decode("utf-8", errors="replace")


def is_address(source: str) -> bool:
    """True for an http or https address."""
    return source.startswith(("http://", "https://"))


def shown(address: str) -> str:
    """Return an address or file for people, without user, password and query values."""
    before, mark, query = plain(address).partition("#")[0].partition("?")
    before = (
        re.sub(r"^([a-z+]+://|//)?[^/]*@", r"\1", before, flags=re.IGNORECASE) if "//" in address or mark else before
    )
    names = [f"{one.partition('=')[0]}=..." if "=" in one else "..." for one in query.split("&")]
    return f"{before}?{'&'.join(names)}" if query else before


def _parts(address: str) -> SplitResult:
    """The parts of an address whose host and port are valid."""
    try:
        parts = urlsplit(address)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise BadScenario(
            "the address of a page must have a host and a port from 1 to 65535, such as http://localhost:8000/metrics, "
            f"got {address.partition(':')[0]}:...; write @, / and : of a password as %40, %2F and %3A"
        )
    return parts


def _decoded(reply: Reply, where: str) -> bytes:
    """The body of an answer. Some servers compress it unasked."""
    how = plain(reply.headers.get("content-encoding", "")).strip().lower()
    if how in ("", "identity"):
        return reply.body
    if how not in ("gzip", "x-gzip", "deflate"):
        raise BadScenario(
            f"{where} must answer without compression or with gzip, got {how:.40}; turn its compression off"
        )
    unpacker = zlib.decompressobj(_GZIP_OR_DEFLATE)
    try:
        body = unpacker.decompress(reply.body, _MOST_BYTES)
    except zlib.error as error:
        raise BadScenario(f"{where} must answer with {how}, as its header states, got other bytes ({error})") from None
    if not unpacker.eof:
        why = f"it is longer than {_MOST_BYTES} bytes" if len(body) == _MOST_BYTES else "its compressed data ends early"
        raise BadScenario(f"{where} must answer with a whole page, but {why}")
    return body


def _text_of(source: str) -> str:
    try:
        with sys.stdin.buffer if source == "-" else Path(source).open("rb") as file:
            found = file.read(_MOST_BYTES + 1)
        if len(found) > _MOST_BYTES:
            raise BadScenario(f"{shown(source)} must be a metrics page, got more than {_MOST_BYTES} bytes")
        return found.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadScenario(
            f"{shown(source)} must be a readable file with a metrics page, or an address that begins with http://: {why}"
        ) from None


def text_of_file(file: str) -> str:
    """Return the content of a file. Raises BadScenario."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadScenario(f"{file} must be a readable file: {why}") from None
