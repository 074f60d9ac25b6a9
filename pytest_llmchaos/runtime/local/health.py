"""Health checks from outside, the same as compose makes inside its containers."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.runtime.local.compose_reader import Health

_PROBE_TIMEOUT_S = 1.0
_TOKEN_TIMEOUT_S = 30.0
WATCH_EVERY_S = 0.25
# Kept checks of a watched service: one hour, longer than any trial.
LOOKS_KEPT = int(3600 / WATCH_EVERY_S)


def healthy(health: Health | None, model: str) -> bool:
    """True if the check passes now, or there is no check."""
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


@dataclass(frozen=True, kw_only=True)
class Look:
    """One health check, from request to answer."""

    from_unix_s: float
    to_unix_s: float
    good: bool


class HealthWatch:
    """Health checks of services that were hit, as a container runtime makes them.

    A model's first check in `healthy` requires a token. These checks use only the
    health path, like Compose's later checks.
    """

    def __init__(self) -> None:
        self._looks: dict[str, deque[Look]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stop = threading.Event()

    def watch(self, service: str, health: Health) -> None:
        """Start checking a service. Does nothing if it is already watched."""
        if service not in self._threads:
            self._looks[service] = deque(maxlen=LOOKS_KEPT)
            thread = threading.Thread(target=self._ask, args=(service, health), name=f"health-{service}", daemon=True)
            self._threads[service] = thread
            thread.start()

    def _ask(self, service: str, health: Health) -> None:
        while not self._stop.is_set():
            begin_s = time.time()
            good = _status("GET", health.url, None, _PROBE_TIMEOUT_S) < 400
            self._looks[service].append(Look(from_unix_s=begin_s, to_unix_s=time.time(), good=good))
            self._stop.wait(WATCH_EVERY_S)

    def watches(self, service: str) -> bool:
        return service in self._threads

    def healthy_since(self, service: str, started_unix_s: float) -> float | None:
        """Time of the first passed check after that start. None if none passed yet."""
        return first_healthy(tuple(self._looks.get(service, ())), started_unix_s)

    def passes(self, starts: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
        """First passed check of each (service, start time) pair.

        A service that restarted before it passed a check appears once.
        """
        found = ((service, self.healthy_since(service, at)) for service, at in starts)
        return list(dict.fromkeys((service, at) for service, at in found if at is not None))

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads.values():
            thread.join(timeout=2 * _PROBE_TIMEOUT_S)


def first_healthy(looks: Sequence[Look], started_unix_s: float) -> float | None:
    """End of the first good check that began after the start.

    An earlier check may have reached the previous process.
    """
    return next((look.to_unix_s for look in looks if look.good and look.from_unix_s >= started_unix_s), None)
