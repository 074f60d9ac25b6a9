"""Pushes of the clients' counters to a pushgateway.

A missed push loses no count, because the next one carries all of them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from pytest_llmchaos.loadgen.wire import Wire

TIMEOUT_S = 1.0


class PushFailed(Exception):
    """The pushgateway does not accept the counters."""


class Gateway:
    """One group of series on a pushgateway: job `load`, and a worker if given."""

    def __init__(self, url: str, registry: CollectorRegistry, worker: int | None) -> None:
        self._url, self._registry = url, registry
        self._wire = Wire(url)
        group = "" if worker is None else f"/worker/{worker}"
        self._head = self._wire.head("PUT", f"/metrics/job/load{group}", {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        self.failures = 0

    def require(self) -> None:
        """Push, at most three times. Raises PushFailed if no push is accepted."""
        if not self.push(attempts=3):
            raise PushFailed(f"the pushgateway at {self._url} did not accept the clients' counters")

    def push(self, attempts: int = 1) -> bool:
        """Push the counters. True if the gateway accepted them."""
        for _ in range(attempts):
            body = generate_latest(self._registry)
            request = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
            if self._wire.exchange(request, timeout_s=TIMEOUT_S, stream=False).status in (200, 202):
                return True
            self.failures += 1
        return False
