"""One connection to Prometheus: every failure gets a type, nothing is retried in silence. Numbers are not its duty."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from pytest_llmchaos.errors import Inconclusive, PrometheusUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Connection(threading.local):
    """The client library with what it lacks: a deadline, no retries, and the warnings and error texts that it drops.

    Each thread that uses it gets a session of its own.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._api: Any = None
        self._envelope: dict[str, Any] = {}

    def query(self, query: str, at_unix_s: float | None) -> tuple[str, Any]:
        """Evaluate at that instant (None: at the server's own now); gives the result's kind and the result."""
        params = {} if at_unix_s is None else {"time": f"{at_unix_s:.3f}"}
        result = self.ask_in_time(query, lambda api: api.custom_query(query, params=params))
        if self._envelope.get("warnings"):
            raise Inconclusive(f"Prometheus warns about {query}: {'; '.join(self._envelope['warnings'])}")
        return str(self._envelope["data"]["resultType"]), result

    def query_range(self, query: str, from_unix_s: float, to_unix_s: float, step_s: float) -> list[dict[str, Any]]:
        """Evaluate at `from_unix_s` and every `step_s` until `to_unix_s`."""
        # The library's own arguments are cut to whole seconds.
        exact = {"start": f"{from_unix_s:.3f}", "end": f"{to_unix_s:.3f}", "step": f"{step_s:g}s"}
        epoch = datetime.fromtimestamp(0, UTC)
        found: list[dict[str, Any]] = self.ask_in_time(
            query, lambda api: api.custom_query_range(query, epoch, epoch, f"{step_s:g}s", params=exact)
        )
        return found

    def ask_in_time(self, what: str, ask: Callable[[Any], T]) -> T:
        api = self._connect()
        self._envelope = {}
        try:
            return ask(api)
        except requests.RequestException as error:
            raise PrometheusUnreachable(
                f"no answer from {self.url} within {self.timeout_s:g} s to {what}: {error}"
            ) from error
        except (KeyError, TypeError) as error:
            raise PrometheusUnreachable(
                f"what answers at {self.url} is not Prometheus: asked {what}, its answer lacks {error}"
            ) from error
        except PrometheusApiClientException as error:
            told = self._envelope.get("error")
            if told is None:
                raise PrometheusUnreachable(f"{self.url} could not answer {what}: {error}") from error
            raise Inconclusive(f"Prometheus refuses {what}: {told}") from error

    def _connect(self) -> Any:
        if self._api is None:
            session = requests.Session()
            session.trust_env = False  # a proxy of the environment has no business between judge and loopback
            session.hooks["response"].append(self._keep_envelope)
            self._api = PrometheusConnect(
                self.url, session=session, timeout=self.timeout_s, retry=Retry(total=0, redirect=0)
            )
        return self._api

    def _keep_envelope(self, response: requests.Response, *_args: Any, **_kwargs: Any) -> None:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        self._envelope = answer if isinstance(answer, dict) else {}
