"""HTTP calls to services of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.model import TLS_SYSTEM, TLS_UNVERIFIED

if TYPE_CHECKING:
    import ssl

    import httpx


class Reply(NamedTuple):
    """The answer to a request, at least its head.

    Attributes:
        status: HTTP status code.
        headers: by lower-case name.
        body: what was read of it, at most `most_bytes`.
        broken: why the body was not read to its end, or "".
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str


def request(
    method: str,
    url: str,
    *,
    timeout_s: float,
    content: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Make one plain-HTTP call without environment proxies, redirects or retries.

    Args:
        method: HTTP method.
        url: plain-HTTP address.
        timeout_s: seconds for each step (connect, write, read).
        content: request body.
        headers: request headers.

    Raises:
        ConnectionError: no complete answer came. Names the cause.
    """
    with _client("", timeout_s) as (client, _):
        return client.request(method, url, content=content, headers=headers)


def exchange(
    method: str,
    url: str,
    *,
    tls: str,
    name: str,
    timeout_s: float,
    most_bytes: int,
    headers: Mapping[str, str],
    content: bytes | None = None,
) -> Reply:
    """Make one call with exactly these headers, and read a stream to its end.

    Args:
        method: HTTP method.
        url: http or https address.
        tls: one of `Requests.tls`.
        name: the name that the certificate must have.
        timeout_s: seconds for the whole call.
        most_bytes: the body is not read further.
        headers: all request headers. `Host` among them replaces the URL's.
        content: request body.

    Raises:
        ConnectionError: no answer came. Names the cause.
        NotReady: the CA file of `tls` cannot be read.
    """
    deadline = time.monotonic() + timeout_s
    body, broken = bytearray(), ""
    with _client(tls if url.startswith("https") else "", timeout_s) as (client, http_error):
        client.headers.clear()  # httpx would accept compressed answers
        named = {"sni_hostname": name}
        with client.stream(method, url, content=content, headers=dict(headers), extensions=named) as answer:
            try:
                for piece in answer.iter_raw():
                    body += piece
                    if len(body) > most_bytes:
                        broken = f"it is longer than {most_bytes} bytes"
                    elif time.monotonic() > deadline:
                        broken = f"it did not end within {timeout_s:.0f} s"
                    if broken:
                        break
            except http_error as error:
                broken = str(error) or type(error).__name__
            return Reply(answer.status_code, dict(answer.headers), bytes(body), broken)


def check_tls(tls: str) -> None:
    """Check the CA file of `Requests.tls`. Raises NotReady."""
    with _client(tls, 1.0):
        pass


@contextmanager
def _client(tls: str, timeout_s: float) -> Iterator[tuple[httpx.Client, type[Exception]]]:
    """A client, and the base class of its errors.

    Errors that leave the block become ConnectionError.
    """
    import ssl  # noqa: PLC0415 - 0.1 s with httpx, paid only on use

    import httpx  # noqa: PLC0415 - as above

    # Loading certificates takes 25 ms a client. Without them it takes 0.2 ms.
    context = tls_context(tls, ssl) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.HTTPTransport(verify=context, trust_env=False)
    with httpx.Client(transport=transport, trust_env=False, timeout=timeout_s) as client:
        try:
            yield client, httpx.HTTPError
        except httpx.HTTPError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


def tls_context(tls: str, library: ModuleType) -> ssl.SSLContext:
    """Return the context for connections with a value of `Requests.tls`.

    Args:
        tls: "system", "unverified" or the path of a CA file.
        library: the module `ssl` of the standard library or of gevent.

    Raises:
        NotReady: the CA file cannot be read.
    """
    # Not `create_default_context`, whose strict mode refuses common self-made CAs.
    context: ssl.SSLContext = library.SSLContext(library.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if tls == TLS_UNVERIFIED:
        context.check_hostname = False
        context.verify_mode = library.CERT_NONE
    elif tls == TLS_SYSTEM:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=tls)
        except OSError as error:
            raise NotReady(
                f"llmchaos_tls: {tls} must be a PEM file with the certificates of a CA: {error.strerror or error}"
            ) from None
    return context
