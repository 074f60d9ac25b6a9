"""HTTP calls to services of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx


def request(
    method: str,
    url: str,
    *,
    timeout_s: float,
    content: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Make one call: without a proxy of the environment, without redirects and retries.

    Each step (connect, write, read) may take `timeout_s`. The address is plain HTTP.
    Raises ConnectionError, naming the cause, for want of a whole answer.
    """
    import ssl  # noqa: PLC0415 - with httpx, 0.1 s that only clients pay

    import httpx  # noqa: PLC0415 - as above

    # Without certificates a client costs 0.2 ms instead of 25.
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.HTTPTransport(verify=no_certificates, trust_env=False)
    with httpx.Client(transport=transport, trust_env=False, timeout=timeout_s) as client:
        try:
            return client.request(method, url, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
