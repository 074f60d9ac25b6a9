"""Health checks from outside, the same as compose makes inside its containers. It waits for nothing."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from pytest_llmchaos.runtime.local.compose_reader import Health

_PROBE_TIMEOUT_S = 1.0
_TOKEN_TIMEOUT_S = 30.0


def healthy(health: Health | None, model: str) -> bool:
    """Whether the check passes now; a service without one passes."""
    if health is None:
        return True
    if _status("GET", health.url, None, _PROBE_TIMEOUT_S) >= 400:
        return False
    return not health.warm or _answers_a_token(health.url, model)


def _answers_a_token(health_url: str, model: str) -> bool:
    ask = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    parts = urlsplit(health_url)
    return _status("POST", f"http://{parts.netloc}/v1/chat/completions", json.dumps(ask), _TOKEN_TIMEOUT_S) == 200


def _status(method: str, url: str, body: str | None, timeout_s: float) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request(method, parts.path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 599
    else:
        return response.status
    finally:
        connection.close()
