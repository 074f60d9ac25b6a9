"""Metrics in Prometheus format, under the names of one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from lab_engine.faults import KINDS
from lab_engine.names.rows import HistogramRow, Now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from lab_engine.engine import Engine
    from lab_engine.names.rows import Row
    from lab_engine.stats import Histogram

Labels = dict[str, str]


class EngineCollector:
    """Collector of the engine's counts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows = [(row, self._labels_of(row)) for row in engine.names.rows]
        labels = {"model_name": engine.settings.model, "engine": "0"}
        self._late_labels = _with_bounds(labels, engine.late_s.bounds)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("llmchaos_simulated", "1: no language model runs here, the numbers are simulated.", 1)
        now = Now(self._engine)
        for row, labels in self._rows:
            if isinstance(row, HistogramRow):
                counts = getattr(now.stats, row.of)
                yield _histogram(row.name, row.text, () if row.late and not counts.count else labels, counts, row.scale)
            else:
                yield _family(row, labels, now)
        yield from self._own()

    def _labels_of(self, row: Row | HistogramRow) -> list[Labels]:
        """Labels of each series: of each bucket, of the sum and of the count."""
        engine = self._engine
        limits = engine.scheduler.limits
        labels = engine.names.labels(engine.settings.model)
        if isinstance(row, HistogramRow):
            return _with_bounds({**labels, **row.labels}, row.bounds_for(limits))
        if row.labels is not None:
            labels = row.labels(limits)
        return [{**labels, **series.labels} for series in row.series]

    def _own(self) -> Iterator[Metric]:
        """Metrics that no real engine exports."""
        engine = self._engine
        active = GaugeMetricFamily(
            "llmchaos_engine_fault_active", "1 while a fault of the engine is in force.", labels=("kind",)
        )
        for kind in sorted(KINDS):
            active.add_metric((kind,), float(kind in engine.faults.active))
        yield active
        yield _histogram(
            "llmchaos_engine_step_late_seconds",
            "How late the last token of a step left.",
            self._late_labels,
            engine.late_s,
        )


def page(registry: CollectorRegistry) -> bytes:
    """The text of all metrics.

    The client library appends `_total` to the name of a counter. A server's counter
    without it is of unknown type until here.
    """
    return generate_latest(registry).replace(b" untyped\n", b" counter\n")


def _family(row: Row, labels: Sequence[Labels], now: Now) -> Metric:
    if row.kind == "gauge":
        family = Metric(row.name, row.text, "gauge")
    elif row.name.endswith("_total"):
        family = Metric(row.name.removesuffix("_total"), row.text, "counter")
    else:
        family = Metric(row.name, row.text, "unknown")
    for series, own in zip(row.series, labels, strict=True):
        value = series.value(now)
        if not row.late or (value if row.kind == "counter" else now.stats.steps):
            family.add_sample(row.name, own, value)
    return family


def _with_bounds(labels: Labels, bounds: Sequence[float]) -> list[Labels]:
    return [*({**labels, "le": str(float(bound))} for bound in bounds), {**labels, "le": "+Inf"}, labels]


def _histogram(name: str, text: str, labels: Sequence[Labels], histogram: Histogram, scale: float = 1.0) -> Metric:
    family = Metric(name, text, "histogram")
    if labels:
        seen = 0
        for own, count in zip(labels[:-1], histogram.counts, strict=True):
            seen += count
            family.add_sample(f"{name}_bucket", own, float(seen))
        family.add_sample(f"{name}_count", labels[-1], float(seen))
        family.add_sample(f"{name}_sum", labels[-1], histogram.total * scale)
    return family
