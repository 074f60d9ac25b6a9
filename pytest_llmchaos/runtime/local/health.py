"""Health checks from outside, the same as compose makes inside its containers. It waits for nothing."""

from __future__ import annotations

import json
from urllib.parse import urljoin

from pytest_llmchaos.host.http_client import request
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
    return _status("POST", urljoin(health_url, "/v1/chat/completions"), json.dumps(ask), _TOKEN_TIMEOUT_S) == 200


def _status(method: str, url: str, body: str | None, timeout_s: float) -> int:
    headers = {"Content-Type": "application/json"} if body else {}
    try:
        return request(method, url, content=body, headers=headers, timeout_s=timeout_s).status_code
    except OSError:
        return 599
