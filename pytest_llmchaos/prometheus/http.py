"""HTTP connection to Prometheus with a timeout and typed errors."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from pytest_llmchaos.errors import Inconclusive, PrometheusUnreachable
from pytest_llmchaos.prometheus.answers import cause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


class Connection(threading.local):
    """The client library with a timeout, without retries, and with error texts.

    The library drops Prometheus' warnings and the text of its errors. Each thread gets
    its own session.
    """

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = headers
        self.timeout_s = timeout_s
        self._api: Any = None
        self._envelope: dict[str, Any] = {}
        self._refusal = ""

    def query(self, query: str, at_unix_s: float | None) -> tuple[str, Any]:
        """Return the kind of the result and the result.

        Args:
            query: PromQL.
            at_unix_s: Instant of evaluation, Unix seconds. None is the server's now.

        Raises:
            PrometheusUnreachable: No answer in time, or not one of Prometheus.
            Inconclusive: Prometheus rejects the query or warns about it.
        """
        params = {} if at_unix_s is None else {"time": f"{at_unix_s:.3f}"}
        result = self.ask_in_time(query, lambda api: api.custom_query(query, params=params))
        if self._envelope.get("warnings"):
            raise Inconclusive(f"Prometheus warns about {query}: {'; '.join(self._envelope['warnings'])}")
        return str(self._envelope["data"]["resultType"]), result

    def query_range(self, query: str, from_unix_s: float, to_unix_s: float, step_s: float) -> list[dict[str, Any]]:
        """Evaluate at `from_unix_s` and every `step_s` until `to_unix_s`."""
        # The library rounds its own arguments down to whole seconds.
        exact = {"start": f"{from_unix_s:.3f}", "end": f"{to_unix_s:.3f}", "step": f"{step_s:g}s"}
        epoch = datetime.fromtimestamp(0, UTC)
        found: list[dict[str, Any]] = self.ask_in_time(
            query, lambda api: api.custom_query_range(query, epoch, epoch, f"{step_s:g}s", params=exact)
        )
        return found

    def ask_in_time(self, what: str, ask: Callable[[Any], T]) -> T:
        api = self._connect()
        self._envelope, self._refusal = {}, ""
        try:
            return ask(api)
        except requests.RequestException as error:
            raise PrometheusUnreachable(
                f"no answer from {self.url} within {self.timeout_s:g} s to {what}: {error}{self._refused()}"
            ) from error
        except (KeyError, TypeError) as error:
            raise PrometheusUnreachable(
                f"the server at {self.url} is not Prometheus: its answer to {what} lacks {error}{self._refused()}"
            ) from error
        except PrometheusApiClientException as error:
            text = self._envelope.get("error")
            if text is None:
                raise PrometheusUnreachable(
                    f"{self.url} could not answer {what}: it {self._refusal or error}"
                ) from error
            raise Inconclusive(f"Prometheus rejects {what}: {text}") from error

    def _connect(self) -> Any:
        if self._api is None:
            session = requests.Session()
            session.trust_env = False  # requests to loopback must not pass the environment's proxy
            session.hooks["response"].append(self._keep_envelope)
            self._api = PrometheusConnect(
                self.url,
                headers=dict(self._headers),
                session=session,
                timeout=self.timeout_s,
                retry=Retry(total=0, redirect=0),
            )
        return self._api

    def _refused(self) -> str:
        return f"; it {self._refusal}" if self._refusal else ""

    def _keep_envelope(self, response: requests.Response, *_args: Any, **_kwargs: Any) -> None:
        if response.status_code >= 300:
            self._refusal = cause_of(response.status_code, response.text, response.headers.get("location", ""))
        try:
            answer = response.json()
        except ValueError:
            answer = None
        self._envelope = answer if isinstance(answer, dict) else {}
