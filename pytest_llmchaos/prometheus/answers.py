"""Causes of an HTTP answer that is not one of Prometheus."""

from __future__ import annotations

from urllib.parse import urlsplit

from pytest_llmchaos.subject.headers import PROMETHEUS_KEY

_SHOWN = 200


def cause_of(status: int, text: str = "", location: str = "") -> str:
    """Return what an answer with this status means, and what to do.

    Args:
        status: HTTP status.
        text: Body.
        location: The header `Location`.
    """
    if status in (401, 403):
        return (
            f"answered {status}, so it wants credentials: set {PROMETHEUS_KEY}, such as "
            '["Authorization: Bearer $PROMETHEUS_TOKEN"]'
        )
    if 300 <= status < 400:
        scheme, path = urlsplit(location).scheme, urlsplit(location).path
        where = "an https:// address, which is not supported" if scheme == "https" else f"the path {path or '/'}"
        return f"answered {status} and redirects to {where}: add the path of its API to llmchaos_prometheus"
    if status == 404:
        return (
            "answered 404, so its API is below another path: add that path to llmchaos_prometheus, such as "
            "prometheus:9090/prometheus"
        )
    if status == 400 and "HTTPS" in text:
        return "answered 400, because it expects TLS, which is not supported: start it without TLS inside the stack"
    shown = " ".join(text.split())[:_SHOWN]
    return f"answered {status}" + (f": {shown}" if shown else "")
