"""What is under test: which compose files, which services may be hit, where the clients and the judge go. No I/O but reading paths."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import Measure
from pytest_llmchaos.subject.lab_signals import EXPECTED, RULES, Expected

PACKAGE = Path(__file__).parent.parent
BACKENDS = ("ollama", "llamacpp", "sim")
# Where a remediator's audit log is in its container.
AUDIT_FILE = "/audit/audit.jsonl"

# Tokens per second that each backend holds on 2 cores with the rest of the stack beside it; a load above it measures the
# machine, not the service. Real models: 60-100 tokens/s in all were measured on such a machine, of which a trial may ask 60 %.
# The most that was seen of each backend there, all cores given to it: what an overload has to exceed.
PEAK_TOKENS_PER_S = {"ollama": 110.0, "llamacpp": 110.0, "sim": 4_000.0}
CAPACITY_TOKENS_PER_S = {"ollama": 45.0, "llamacpp": 45.0, "sim": 4_000.0}


@dataclass(frozen=True, kw_only=True)
class LatencyShare:
    """Selectors of the service's own histogram; `$le` stands for a pattern of the bound's bucket.

    `good` are whole answers only, `total` counts every request but those that their clients left.
    """

    measure: Measure
    good: str
    total: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A stack as the instrument needs to know it.

    `targets` are the services that faults may hit; `ports` the services that are reached from outside, with the
    environment variable through which the compose file takes the host port.
    """

    compose_files: tuple[Path, ...]
    targets: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...]
    api: str
    prometheus: str
    pushgateway: str | None
    remediator: str | None
    model: str
    check: str | None
    slo_file: Path
    bootstrap: Path | None
    capacity_tokens_per_s: float
    peak_tokens_per_s: float = 0.0
    # The response header in which the service names the replica that served a request.
    replica_header: str | None = None
    # The path that answers 200 while the service takes requests.
    ready_path: str | None = None
    # The services that answer requests, as that header and the runtime name them.
    replicas: tuple[str, ...] = ()
    # By `service`: requests that each replica works on, and 1 where the service routes requests to it.
    busy_query: str | None = None
    rotation_query: str | None = None
    # What the service says of its own availability over the last $span, and of the requests a second that arrive or wait.
    availability_query: str | None = None
    requests_query: str | None = None
    # Series that are 1 while the gateway sends requests to $victim; none where it is no replica.
    used_selector: str | None = None
    latency_shares: tuple[LatencyShare, ...] = ()
    # Of a fault's kind: a query with a sample only while Prometheus sees the fault show on $victim.
    witness_queries: tuple[tuple[str, str], ...] = ()
    # Services that a fault may hit where a scenario names them. Trials neither wait for their health nor draw them for `*`.
    named_targets: tuple[str, ...] = ()
    # Selectors of two counters of one process: requests sent to replicas, and requests taken.
    attempts_counters: tuple[str, str] | None = None
    # What each fault is expected to show, and every rule of the remediator; empty where the subject does not say.
    expected: tuple[Expected, ...] = ()
    known_rules: tuple[str, ...] = ()
    audit_file: str = AUDIT_FILE
    scrape_jobs: tuple[str, ...] = ()
    extra_env: tuple[tuple[str, str], ...] = field(default=())
    own: bool = False  # a user's own stack, not the reference lab
    attach: bool = False  # it runs already under `project`, and is left running
    project: str = ""
    allow: tuple[str, ...] = ()  # the ways out of the project that its owner permits, such as "volume:models"

    def witness_query(self, kind: str, victim: str) -> str | None:
        return next((query.replace("$victim", victim) for name, query in self.witness_queries if name == kind), None)

    @property
    def may_hit(self) -> tuple[str, ...]:
        """The services that faults may hit: the targets, and those of `named_targets`."""
        return (*self.targets, *self.named_targets)

    def expected_of(self, fault: str, options: Mapping[str, object], service: str) -> Expected | None:
        """What this fault on this service is expected to show; None where the subject does not say."""
        return next((one for one in self.expected if one.is_about(fault, options, service)), None)


_LATENCY_SHARES = (
    LatencyShare(
        measure="ttft",
        good='gen_ai_server_time_to_first_token_seconds_bucket{error_type="",le=~"$le"}',
        total='gen_ai_server_time_to_first_token_seconds_count{error_type!="client_cancelled"}',
    ),
    LatencyShare(
        measure="e2e",
        good='gen_ai_server_request_duration_seconds_bucket{error_type="",le=~"$le"}',
        total='gen_ai_server_request_duration_seconds_count{error_type!="client_cancelled"}',
    ),
)
# What the gateway counts on a replica, and what the replica's own engine does (vLLM's names, then llama.cpp's).
_BUSY = (
    'sum by (service) (label_replace(llmlab_inflight_requests, "service", "$1", "replica", "(.+)")'
    ' or {__name__=~"vllm:num_requests_(running|waiting)|llamacpp:requests_(processing|deferred)"})'
)
_ROTATION = 'min by (service) (label_replace(llmlab_upstream_health, "service", "$1", "replica", "(.+)"))'
# Faults that only the lab's gateway sees.
_WITNESSES = (
    # A client of the gateway has waited this long for a first token, or in a silent stream. Nothing of it is the engine's word.
    (
        "hang",
        (
            'max(llmlab_oldest_inflight_seconds{replica="$victim",phase="prefill"}'
            ' or llmlab_oldest_silence_seconds{replica="$victim"}) > 0.5'
        ),
    ),
    ("slow_load", 'llmlab_upstream_health{replica="$victim",probe="shallow"} == 0'),
)


def stack_dir() -> Path:
    """The reference stack: beside the package in a checkout, inside it in an installed wheel."""
    packaged = PACKAGE / "_stack"
    return packaged if packaged.is_dir() else PACKAGE.parent / "stack"


def dashboards_dir() -> Path:
    """The dashboards that Grafana is provisioned with: beside the package in a checkout, inside it in an installed wheel."""
    packaged = PACKAGE / "_dashboards"
    return packaged if packaged.is_dir() else PACKAGE.parent / "dashboards"


def setup_command(backend: str = BACKENDS[0]) -> str:
    """What brings an engine and a backend's images: in a checkout its Makefile, which an installed wheel has not."""
    stack = stack_dir()
    if (stack.parent / "Makefile").is_file():
        return "make setup" if backend == BACKENDS[0] else f"make setup BACKEND={backend}"
    return shlex.join([sys.executable, str(stack / "bootstrap.py"), "all", "--backend", backend])


def lab_subject(backend: str) -> Subject:
    """The reference stack with one of its model backends.

    Raises BadScenario for a backend that does not exist.
    """
    if backend not in BACKENDS:
        raise BadScenario(f"--chaos-backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    stack = stack_dir()
    files = [stack / "compose.yaml"]
    if backend != "ollama":
        files.append(stack / f"compose.{backend}.yaml")
    jobs = (
        ("api", "prometheus", "pushgateway") if backend == "ollama" else ("api", "model", "prometheus", "pushgateway")
    )
    return Subject(
        compose_files=tuple(files),
        targets=("api", "model-1", "model-2"),
        ports=(
            ("api", "LLMCHAOS_API_PORT", 8000),
            ("prometheus", "LLMCHAOS_PROMETHEUS_PORT", 9090),
            ("pushgateway", "LLMCHAOS_PUSHGATEWAY_PORT", 9091),
        ),
        api="api",
        prometheus="prometheus",
        pushgateway="pushgateway",
        remediator="remediator",
        model="smollm2:135m",
        check="sim-v1" if backend == "sim" else None,
        slo_file=stack / "slo.yaml",
        bootstrap=stack / "bootstrap.py",
        capacity_tokens_per_s=CAPACITY_TOKENS_PER_S[backend],
        peak_tokens_per_s=PEAK_TOKENS_PER_S[backend],
        scrape_jobs=jobs,
        witness_queries=_WITNESSES,
        used_selector='llmlab_upstream_health{replica="$victim"}',
        attempts_counters=("llmlab_upstream_attempts_total", "llmlab_requests_total"),
        expected=EXPECTED,
        named_targets=("remediator",),
        known_rules=RULES,
        replica_header="x-llmlab-replica",
        ready_path="/readyz",
        replicas=("model-1", "model-2"),
        busy_query=_BUSY,
        rotation_query=_ROTATION,
        availability_query='sum(increase(llmlab_requests_total{outcome="ok"}[$span])) / '
        'sum(increase(llmlab_requests_total{outcome!="client_cancelled"}[$span]))',
        requests_query="sum(rate(llmlab_requests_total[3s])) + max_over_time(sum(llmlab_queue_depth)[3s:1s])",
        latency_shares=_LATENCY_SHARES,
        extra_env=(("LLMCHAOS_BACKEND", backend),),
    )
