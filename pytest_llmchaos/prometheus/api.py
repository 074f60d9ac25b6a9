"""Plain calls of Prometheus' HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.prometheus.answers import cause_of

if TYPE_CHECKING:
    from pytest_llmchaos.prometheus.queries import Prometheus


class RefusedError(Exception):
    """An answer without data.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, status: int, cause: str) -> None:
        super().__init__(cause)
        self.status = status


def data_of(server: Prometheus, path: str) -> Any:
    """Return the data of an answer.

    Args:
        server: Prometheus.
        path: path and query, such as `/api/v1/rules`.

    Raises:
        RefusedError: The answer has no data.
        OSError: No answer came.
    """
    answer = request("GET", server.url + path, timeout_s=server.timeout_s, headers=server.headers)
    if not answer.is_success:
        cause = cause_of(answer.status_code, answer.text, answer.headers.get("location", ""))
        raise RefusedError(answer.status_code, cause)
    try:
        return answer.json()["data"]
    except (ValueError, KeyError, TypeError):
        raise RefusedError(answer.status_code, f"is not Prometheus: it answered {answer.text:.80} to {path}") from None
