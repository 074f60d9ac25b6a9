"""Programs that compose files of LLM services start, and how each is reached.

Ports and paths are those of the programs' own documentation. Metrics are those of the
server's file in `pytest_llmchaos/servers`. A version may differ, so every guess from
this table is written with its reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pytest_llmchaos.servers.catalogue import shipped_servers

Part = Literal["model", "gateway", "proxy", "page", "prometheus", "remediator", "store", "monitor", "app"]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A latency histogram of a server, and a bound that is an edge of its buckets.

    Attributes:
        slo: name of the objective.
        key: the canonical metric that the histogram is, such as `ttft`.
        le: the bound, as the server writes it.
        seconds: the bound in seconds.
    """

    slo: str
    key: str
    le: str
    seconds: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """A known program.

    Attributes:
        title: its name for people.
        part: what it does in a stack.
        image: pattern of its image's name.
        command: pattern of its command line, for images of other names.
        port: where it serves HTTP, if no option changes it. 0 means that it does not.
        contract: name of its file of metrics, empty if it serves none.
        own_metrics: path of its metrics, if it has no such file.
        metrics_option: pattern of the option without which it serves no metrics.
        ready: path that answers 200 while it serves.
        path: path of chat completions, if it is not `/v1/chat/completions`.
        key_variables: variables of its environment that hold the clients' key.
        latencies: its own latency histograms.
    """

    title: str
    part: Part
    image: str
    command: str = ""
    port: int = 0
    contract: str = ""
    own_metrics: str = ""
    metrics_option: str = ""
    ready: str = ""
    path: str = ""
    key_variables: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = ()

    @property
    def metrics(self) -> str:
        """The path of its metrics, empty without any."""
        return shipped_servers()[self.contract].metrics_path if self.contract else self.own_metrics

    def metric_of(self, latency: Latency) -> str:
        """Return the name of a latency's histogram, of the newest version."""
        return shipped_servers()[self.contract].at(latency.key).expr.partition("{")[0]

    def matches(self, image: str, command: str) -> bool:
        """Return whether a service starts this program."""
        return bool(re.search(self.image, image) or (self.command and re.search(self.command, command)))


UNKNOWN = Server(title="", part="app", image="(?!)")
_STORES = (
    "postgres|pgvector|mysql|mariadb|mongo|redis|valkey|dragonfly|memcached|qdrant|chroma|weaviate|milvus|etcd|minio"
)
_MONITORS = (
    "grafana|alertmanager|loki|promtail|tempo|jaeger|otel|opentelemetry|langfuse|exporter|cadvisor|statsd|vector|fluent"
)
SERVERS = (
    Server(
        title="vLLM",
        part="model",
        image=r"(^|/)vllm[-_]?(openai|cpu|tpu|rocm)?([-_][\w-]+)?$|vllm/vllm",
        command=r"\bvllm serve\b|vllm\.entrypoints",
        port=8000,
        contract="vllm",
        ready="/health",
        key_variables=("VLLM_API_KEY",),
        latencies=(
            Latency(slo="ttft", key="ttft", le="2.5", seconds="2.5"),
            Latency(slo="latency", key="e2e", le="10.0", seconds="10"),
        ),
    ),
    Server(
        title="SGLang",
        part="model",
        image=r"sglang",
        command=r"sglang\.launch_server|sglang serve",
        port=30000,
        contract="sglang",
        metrics_option="--enable-metrics",
        ready="/health",
        latencies=(Latency(slo="ttft", key="ttft", le="2.0", seconds="2"),),
    ),
    Server(
        title="TensorRT-LLM",
        part="model",
        image=r"tensorrt-?llm",
        command=r"trtllm-serve",
        port=8000,
        contract="tensorrt-llm",
        ready="/health",
    ),
    Server(
        title="Text Generation Inference",
        part="model",
        image=r"text-generation-inference",
        command=r"text-generation-launcher",
        port=80,
        contract="tgi",
        ready="/health",
        key_variables=("API_KEY",),
    ),
    Server(title="Ollama", part="model", image=r"(^|/)ollama$", command=r"\bollama serve\b", port=11434, ready="/"),
    Server(
        title="llama.cpp",
        part="model",
        image=r"llama[.-]?cpp",
        command=r"llama-server|llama_cpp\.server",
        port=8080,
        contract="llamacpp",
        metrics_option="--metrics|LLAMA_ARG_ENDPOINT_METRICS",
        ready="/health",
        key_variables=("LLAMA_API_KEY",),
    ),
    Server(
        title="LocalAI",
        part="model",
        image=r"localai",
        port=8080,
        own_metrics="/metrics",
        ready="/readyz",
        key_variables=("LOCALAI_API_KEY", "API_KEY"),
    ),
    Server(
        title="LiteLLM",
        part="gateway",
        image=r"litellm",
        command=r"\blitellm\b",
        port=4000,
        contract="litellm",
        metrics_option="prometheus",
        ready="/health/readiness",
        key_variables=("LITELLM_MASTER_KEY",),
    ),
    Server(title="vLLM router", part="gateway", image=r"vllm-?router|production-stack", port=8000, ready="/health"),
    Server(
        title="Open WebUI",
        part="page",
        image=r"open-?webui",
        port=8080,
        ready="/health",
        path="/api/chat/completions",
    ),
    Server(title="LibreChat", part="page", image=r"librechat", port=3080),
    Server(title="n8n", part="page", image=r"(^|/)n8n$", port=5678),
    Server(title="Flowise", part="page", image=r"flowise", port=3000),
    Server(title="AnythingLLM", part="page", image=r"anythingllm", port=3001),
    Server(title="Gradio or Streamlit", part="page", image=r"gradio|streamlit", port=7860),
    Server(title="nginx", part="proxy", image=r"(^|/)(nginx|openresty)(-unprivileged)?$", port=80),
    Server(title="Traefik", part="proxy", image=r"(^|/)traefik$", port=80),
    Server(title="HAProxy", part="proxy", image=r"(^|/)haproxy$", command=r"\bhaproxy -", port=80),
    Server(title="Caddy", part="proxy", image=r"(^|/)caddy$", port=80),
    Server(title="Envoy", part="proxy", image=r"(^|/)envoy$", port=10000),
    Server(title="Kong", part="proxy", image=r"(^|/)kong$", port=8000),
    Server(
        title="Prometheus",
        part="prometheus",
        image=r"(^|/)prometheus$",
        command=r"--config\.file=\S*prometheus",
        port=9090,
        ready="/-/ready",
    ),
    Server(title="a pushgateway", part="monitor", image=r"pushgateway", port=9091),
    Server(title="autoheal", part="remediator", image=r"autoheal", command=r"autoheal"),
    Server(title="monitoring", part="monitor", image=rf"(?<![a-z])({_MONITORS})"),
    Server(title="a data store", part="store", image=rf"(^|/)({_STORES})[\w-]*$"),
)


def server_of(image: str, command: str) -> Server:
    """Return the known program of a service, or `UNKNOWN`.

    Args:
        image: the image's name with its registry and tag.
        command: the command line, of the compose file or of the image.
    """
    name = re.sub(r"(@sha256:[0-9a-f]+|:[^:/]*)$", "", image.lower())
    return next((one for one in SERVERS if one.matches(name, command)), UNKNOWN)
