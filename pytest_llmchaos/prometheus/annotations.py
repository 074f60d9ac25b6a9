"""Gauges of phase and fault, pushed for the bands on dashboards."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from pytest_llmchaos.host.http_client import request


class Signals:
    """Gauges of the instrument, pushed at each change if there is a pushgateway.

    No verdict rests on them. `lost` is the reason why the last push failed.
    """

    def __init__(self, push_url: str | None) -> None:
        self._url = push_url
        self._registry: Any = None
        self._phase: Any = None
        self._fault: Any = None
        self._injected: Any = None
        self.lost: str | None = None

    def _gauges(self) -> None:
        if self._registry is None:
            self._registry = CollectorRegistry()
            self._phase = Gauge(
                "llmchaos_phase", "1 while the trial is in this phase", ["phase"], registry=self._registry
            )
            self._fault = Gauge(
                "llmchaos_fault_active", "1 while this fault is in place", ["fault", "target"], registry=self._registry
            )
            self._injected = Counter(
                "llmchaos_faults_injected_total",
                "faults injected by this run",
                ["fault", "target"],
                registry=self._registry,
            )

    def phase(self, name: str) -> None:
        self._gauges()
        for one in ("steady", "fault", "recovery"):
            self._phase.labels(one).set(1 if one == name else 0)
        self._push()

    def fault(self, kind: str, target: str, *, active: bool) -> None:
        self._gauges()
        self._fault.labels(kind, target).set(1 if active else 0)
        if active:
            self._injected.labels(kind, target).inc()
        self._push()

    def _push(self) -> None:
        if self._url is None:
            return
        try:
            answer = request(
                "PUT",
                f"{self._url}/metrics/job/llmchaos",
                content=generate_latest(self._registry),
                headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4},
                timeout_s=1,
            )
        except OSError as error:  # the pushgateway may be the victim
            self.lost = str(error)
        else:
            if not answer.is_success:
                self.lost = f"the pushgateway answered {answer.status_code}: {answer.text}"
