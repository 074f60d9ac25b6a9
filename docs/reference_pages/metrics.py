"""Page of metrics, alerts and recorded series, from the exporters themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import yaml
from prometheus_client import Metric

from lab_agents.metrics import Metrics as AgentMetrics
from lab_api.gateway import Gateway
from lab_api.replica import Probed
from lab_api.settings import Settings as GatewaySettings
from lab_autoscaler.metrics import Metrics as AutoscalerMetrics
from lab_desk.metrics import Metrics as DeskMetrics
from lab_engine.dcgm import GpuCollector
from lab_engine.engine import Engine
from lab_engine.exposition import EngineCollector
from lab_engine.settings import Settings as EngineSettings
from lab_remediator.load import read_policy
from lab_remediator.metrics import Metrics as RemediatorMetrics
from pytest_llmchaos.loadgen.metrics import Counts
from pytest_llmchaos.prometheus.annotations import Signals
from reference_pages.docstrings import ROOT
from reference_pages.markdown import bullets, page

INTRO = """\
Names are those in Prometheus' text format: a counter ends in `_total`, and a histogram has
`_bucket`, `_sum` and `_count`. Every exporter has the usual `process_*` metrics as well.
"""


def metrics_page() -> str:
    """Return the page of all metrics."""
    parts = [INTRO]
    for title, text, families in (
        ("Clients", "What clients saw, pushed to the pushgateway during a load.", _clients()),
        ("Instrument", "The phase and the faults of a trial, pushed to the pushgateway.", _instrument()),
        ("Gateway", "The lab's service `api`.", asyncio.run(_gateway())),
        ("Simulated engine", "The lab's replicas with `--chaos-backend sim`, under vLLM's names.", _engine()),
        ("Simulated GPU", "The same replicas, under the names of NVIDIA's dcgm-exporter.", _gpu()),
        ("Agents", "The lab's service `agent`, in a lab with agents.", AgentMetrics().registry.collect()),
        ("Desk", "The lab's service `desk`, in a lab with agents.", DeskMetrics().registry.collect()),
        ("Remediator", "The lab's remediator.", _remediator()),
        ("Autoscaler", "The lab's autoscaler, in a lab with one.", AutoscalerMetrics().registry.collect()),
    ):
        parts += [f"## {title}", text, *_entries(families)]
    parts += ["## Alerts of the lab", "From `stack/prometheus/rules/`.", *_alerts()]
    return page("Metrics", *parts)


def _clients() -> Iterable[Metric]:
    counts = Counts(lambda: 0)
    counts.count_end("ok", 1.0, 1.0, is_good=True, replica="model-1")  # series by replica are absent before
    return counts.collect()


def _entries(families: Iterable[Metric]) -> list[str]:
    parts = []
    for one in families:
        if one.name.startswith("process_"):
            continue
        name = f"{one.name}_total" if one.type == "counter" else one.name
        labels = sorted({label for sample in one.samples for label in sample.labels} - {"le"})
        facts = one.type + (f", by {', '.join(f'`{label}`' for label in labels)}" if labels else "")
        parts += [f"### `{name}`", f"{facts.capitalize()}. {_sentence(one.documentation)}"]
    return parts


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _instrument() -> Iterable[Metric]:
    signals = Signals(None)
    signals.phase("steady")
    signals.fault("kill", "api", active=True)
    return list(signals._registry.collect())  # noqa: SLF001 (it pushes them, and has no other reader)


async def _gateway() -> list[Metric]:
    gateway = Gateway(
        GatewaySettings.from_env(
            {"LAB_MODEL": "any", "LAB_REPLICAS": "model-1=http://127.0.0.1:1", "LAB_UPSTREAM": "ollama"}
        )
    )
    gateway.pool.replicas[0].probed(Probed.GOOD, 0, took_s=0.01)  # its duration is absent before
    gateway.pool.forecast.ended(1.0)  # predictions are absent before
    try:
        return list(gateway.metrics.registry.collect())
    finally:
        await gateway.close()


def _engine() -> Iterable[Metric]:
    return list(EngineCollector(Engine(EngineSettings.from_env({}), time.monotonic)).collect())


def _gpu() -> Iterable[Metric]:
    return list(GpuCollector(Engine(EngineSettings.from_env({}), time.monotonic)).collect())


def _remediator() -> Iterable[Metric]:
    return list(
        RemediatorMetrics(read_policy(ROOT / "stack" / "remediation.yaml", ("api", "model-1"))).registry.collect()
    )


def _alerts() -> list[str]:
    parts = []
    for file in sorted((ROOT / "stack" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    labels = [
                        f"{name} `{value}`"
                        for name, value in rule.get("labels", {}).items()
                        if name in ("severity", "signal")
                    ]
                    text = rule.get("annotations", {}).get("description", "")
                    parts += [
                        f"### `{rule['alert']}`",
                        " ".join(text.split()),
                        bullets([*labels, f"rule group `{group['name']}` of `{file.name}`"]),
                    ]
    return parts
