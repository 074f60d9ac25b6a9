"""Readiness checks of the service, once a second, as a load balancer does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gevent

from pytest_llmchaos.evidence import readiness_file
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loadgen.wire import Wire

EVERY_S = 1.0
TIMEOUT_S = 1.0


class Readiness:
    """Checks of one path. `now_s` counts from the load's start."""

    def __init__(self, plan: LoadPlan, path: str, folder: Path, now_s: Callable[[], float]) -> None:
        sent = plan.requests.resolve(os.environ)
        self._wire = Wire(plan.url, tls=plan.requests.tls, host=sent.host)
        self._request = self._wire.head("GET", path, sent.headers) + b"\r\n"
        self._file = (folder / readiness_file.NAME).open("wb", buffering=0)
        self._now_s = now_s

    def look_often(self) -> None:
        """Check until this greenlet is killed."""
        try:
            while True:
                at_s = max(0.0, self._now_s())
                status = self._wire.exchange(self._request, timeout_s=TIMEOUT_S, stream=False).status
                self._file.write(readiness_file.line(at_s, status))
                gevent.sleep(max(0.0, at_s + EVERY_S - self._now_s()))
        finally:
            self._file.close()
            self._wire.close()
