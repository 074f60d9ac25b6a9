"""The stack under test as a value, and the reference lab."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_llmchaos.errors import BadScenario, Unsupported
from pytest_llmchaos.model import Measure
from pytest_llmchaos.subject.backends import BACKENDS, TOOL_BACKENDS
from pytest_llmchaos.subject.headers import Header, secrets_of
from pytest_llmchaos.subject.lab_signals import AGENT_RULES, EXPECTED, RULES, Expected
from pytest_llmchaos.subject.requests import Requests

# Matches engines. A gateway counts their requests once more, and its queue is old (SMG)
# or has requests in prefill (Dynamo).
ENGINES = '{server!~"dynamo|litellm|smg|vllm-router"}'
PACKAGE = Path(__file__).parent.parent
# The lab's service that starts and stops replicas.
AUTOSCALER = "autoscaler"
# Path of a remediator's audit log in its container.
AUDIT_FILE = "/audit/audit.jsonl"

# The most tokens per second measured of each backend with 2 cores of its own. An
# overload has to exceed it.
PEAK_TOKENS_PER_S = {"ollama": 110.0, "llamacpp": 110.0, "sim": 4_000.0}
# Tokens per second that each backend sustains on 2 cores next to the rest of the stack.
# A load above it measures the machine, not the service. Real models were measured at
# 60-100 tokens/s there, of which a trial may use 60 %.
CAPACITY_TOKENS_PER_S = {"ollama": 45.0, "llamacpp": 45.0, "sim": 4_000.0}


@dataclass(frozen=True, kw_only=True)
class LatencyShare:
    """Selectors of the service's own histogram.

    `$le` stands for a pattern of the bound's bucket.

    Attributes:
        measure: `ttft` or `e2e`.
        good: Selector of whole answers.
        total: Selector of all requests except those that clients left.
    """

    measure: Measure
    good: str
    total: str


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A service, a port inside its container, and a path.

    Attributes:
        service: Name in the compose file.
        port: None means the only port that the service offers.
        path: Empty, or a path that begins with a slash.
    """

    service: str
    port: int | None = None
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A stack with the names and queries that the instrument needs.

    `targets` are the services that faults may hit. `ports` are the services reached
    from outside, with the environment variable for the host port in the compose file.
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
    # Response header with the replica that served a request.
    replica_header: str | None = None
    # Path that answers 200 while the service takes requests.
    ready_path: str | None = None
    # The services that answer requests, as that header and the runtime name them.
    replicas: tuple[str, ...] = ()
    # By `service`: requests that each replica works on, and 1 if it gets requests.
    busy_query: str | None = None
    rotation_query: str | None = None
    # The service's own availability over the last $span.
    availability_query: str | None = None
    # Requests per second that arrive or wait, and requests that wait, at the service or
    # at its model servers. Without the first, no overload can be proven.
    requests_query: str | None = None
    waiting_query: str = f"sum(llmchaos:requests_waiting{ENGINES})"
    # Series that are 1 while the gateway sends requests to $victim. Empty if it is not
    # a replica.
    used_selector: str | None = None
    latency_shares: tuple[LatencyShare, ...] = ()
    # By a fault's kind: a query with a sample only while Prometheus sees it on $victim.
    witness_queries: tuple[tuple[str, str], ...] = ()
    # Services that a fault may hit if a scenario names them. Trials neither wait for
    # their health nor draw them for `*`.
    named_targets: tuple[str, ...] = ()
    # Selectors of two counters of one process: requests sent to replicas, and requests
    # taken.
    attempts_counters: tuple[str, str] | None = None
    # Selector of a counter of requests to the model, which an agent's tasks make.
    model_calls_counter: str | None = None
    # Expected signals of each fault, and every rule of the remediator. Empty if
    # undeclared.
    expected: tuple[Expected, ...] = ()
    known_rules: tuple[str, ...] = ()
    audit_file: str = AUDIT_FILE
    scrape_jobs: tuple[str, ...] = ()
    extra_env: tuple[tuple[str, str], ...] = field(default=())
    own: bool = False  # a user's own stack, not the reference lab
    attach: bool = False  # it runs already under `project` and stays up
    project: str = ""
    startup_s: float = 120.0  # how long a start may take, without pulls and builds
    # Services that are no service of that project, each with `container:NAME` or
    # `label:KEY=VALUE`.
    selectors: tuple[tuple[str, str], ...] = ()
    prometheus_headers: tuple[Header, ...] = ()  # of requests to the user's Prometheus
    published_on: str = ""  # address of a Docker daemon's machine that is not this one
    requests: Requests = field(default_factory=Requests)
    allow: tuple[str, ...] = ()  # permitted ways out of the project, such as "volume:models"
    api_port: int | None = None  # of the api's container, if its user names it
    # The run adds a Prometheus and a pushgateway. They scrape these endpoints and
    # evaluate these rules, the text of a rule file.
    brings_judge: bool = False
    scrapes: tuple[Endpoint, ...] = ()
    # Scraped services, each with the model server that its user names.
    servers: tuple[tuple[str, str], ...] = ()
    # Rules, dashboards and KEDA objects of the user, whose series have to be there.
    query_files: tuple[Path, ...] = ()
    rules: str = ""
    # The user's own Prometheus, read for its alerts.
    alerts: Endpoint | None = None
    profiles: tuple[str, ...] = ()
    keeps_restart: bool = False  # Docker may restart what died
    notices: tuple[str, ...] = ()  # lines to print before the first trial
    # Services that take TLS or HTTP/2 only, each with how their settings show it.
    unreadable: tuple[tuple[str, str], ...] = ()
    # The agent that takes tasks, and the ledger of its tools' effects.
    agents: Endpoint | None = None
    ledger: Endpoint | None = None
    calls_tools: bool = True  # its model can
    # The service that starts and stops replicas, and which of them.
    autoscaler: str | None = None
    scaled: tuple[str, ...] = ()

    def for_tasks(self) -> Subject:
        """Return the stack as the callers of its agent see it.

        The api's own counts are about the agent's requests then, so they are not
        compared with the callers'.

        Raises:
            Unsupported: The model cannot call tools.
            BadScenario: The stack lacks an agent.
        """
        if not self.calls_tools:
            raise Unsupported(f"{self.model} cannot call tools, which a load of tasks needs: use --chaos-backend=sim")
        if self.agents is None:
            way = (
                "set llmchaos_agent to its service, such as agent:8200"
                if self.own
                else "the lab has one if an experiment(load=...) of the session has tasks"
            )
            raise BadScenario(f"a load of tasks needs an agent, and the stack lacks one: {way}")
        return replace(
            self,
            api=self.agents.service,
            api_port=self.agents.port,
            requests=self.requests.for_tasks(),
            check=None,
            replica_header=None,
            ready_path=None,
            availability_query=None,
            latency_shares=(),
            attempts_counters=None,
        )

    def for_scaling(self) -> None:
        """Check that the stack has an autoscaler.

        Raises:
            BadScenario: It lacks one.
        """
        if self.autoscaler is None:
            way = (
                "drop the argument: llmchaos reads no autoscaler of a stack of one's own"
                if self.own
                else "the lab has one if an experiment of the session has autoscaler=..."
            )
            raise BadScenario(f"experiment(autoscaler=...) needs the lab's autoscaler, and the stack lacks it: {way}")

    @property
    def spare(self) -> tuple[str, ...]:
        """Replicas that rest until the autoscaler starts them."""
        return tuple(name for name in self.scaled if name not in self.targets)

    @property
    def resting(self) -> tuple[str, ...]:
        """Services that a start of the stack only creates."""
        return (*self.spare, self.autoscaler) if self.autoscaler is not None else ()

    def secrets(self, environ: Mapping[str, str]) -> frozenset[str]:
        """Return the values of headers and variables that no evidence may contain."""
        return self.requests.secrets(environ) | secrets_of(self.prometheus_headers, environ)

    def witness_query(self, kind: str, victim: str) -> str | None:
        """Return the query for a fault on a victim, or None."""
        return next((query.replace("$victim", victim) for name, query in self.witness_queries if name == kind), None)

    @property
    def may_hit(self) -> tuple[str, ...]:
        """Services that faults may hit: the targets and those of `named_targets`."""
        return (*self.targets, *self.named_targets)

    def expected_of(self, fault: str, options: Mapping[str, object], service: str) -> Expected | None:
        """Return the expected signals of a fault on a service, None if undeclared."""
        return next((one for one in self.expected if one.is_about(fault, options, service)), None)


# Recorded metrics of the engines have the same names, and `job="model"`.
_LATENCY_SHARES = (
    LatencyShare(
        measure="ttft",
        good='gen_ai_server_time_to_first_token_seconds_bucket{job="api",error_type="",le=~"$le"}',
        total='gen_ai_server_time_to_first_token_seconds_count{job="api",error_type!="client_cancelled"}',
    ),
    LatencyShare(
        measure="e2e",
        good='gen_ai_server_request_duration_seconds_bucket{job="api",error_type="",le=~"$le"}',
        total='gen_ai_server_request_duration_seconds_count{job="api",error_type!="client_cancelled"}',
    ),
)
# Requests on a replica by the gateway's count, and by its own engine's, under the name
# of every model server.
_BUSY = (
    'sum by (service) (label_replace(llmlab_inflight_requests, "service", "$1", "replica", "(.+)")'
    ' or {__name__=~"llmchaos:requests_(running|waiting)"})'
)
_ROTATION = 'min by (service) (label_replace(llmlab_upstream_health, "service", "$1", "replica", "(.+)"))'
# Faults that only the lab's gateway sees.
_WITNESSES = (
    # Longest wait of the gateway's clients for a first token or in a silent stream. The
    # engine's own metrics are not part of it.
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
    """Return the folder of the reference stack."""
    return _shipped("stack")


def dashboards_dir() -> Path:
    """Return the folder of the dashboards that Grafana is provisioned with."""
    return _shipped("dashboards")


def scenarios_dir() -> Path:
    """Return the folder of the scenarios for the reference stack."""
    return _shipped("scenarios")


def _shipped(name: str) -> Path:
    """A folder next to the package in a checkout, inside it in an installed wheel."""
    packaged = PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else PACKAGE.parent / name


def setup_command(backend: str = BACKENDS[0]) -> str:
    """Return the command that installs an engine and a backend's images.

    A checkout has a Makefile for it, an installed wheel does not.
    """
    stack = stack_dir()
    if (stack.parent / "Makefile").is_file():
        return "make setup" if backend == BACKENDS[0] else f"make setup BACKEND={backend}"
    return shlex.join([sys.executable, str(stack / "bootstrap.py"), "all", "--backend", backend])


def lab_subject(backend: str, *, agents: bool = False, scales: bool = False) -> Subject:
    """Return the reference stack with one of its model backends.

    Args:
        backend: One of `BACKENDS`.
        agents: True adds an agent and its desk of tools.
        scales: True adds an autoscaler and replicas that it can start.

    Raises:
        BadScenario: There is no such backend.
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
    lab = Subject(
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
        calls_tools=backend in TOOL_BACKENDS,
        slo_file=stack / "slo.yaml",
        bootstrap=stack / "bootstrap.py",
        capacity_tokens_per_s=CAPACITY_TOKENS_PER_S[backend],
        peak_tokens_per_s=PEAK_TOKENS_PER_S[backend],
        scrape_jobs=jobs,
        witness_queries=_WITNESSES,
        used_selector='llmlab_upstream_health{replica="$victim"}',
        attempts_counters=("llmlab_upstream_attempts_total", "llmlab_requests_total"),
        model_calls_counter="llmlab_requests_total",
        expected=EXPECTED,
        named_targets=("remediator", "prometheus", "pushgateway"),
        known_rules=RULES,
        replica_header="x-llmlab-replica",
        ready_path="/readyz",
        replicas=("model-1", "model-2"),
        busy_query=_BUSY,
        rotation_query=_ROTATION,
        availability_query='sum(increase(llmlab_requests_total{outcome="ok"}[$span])) / '
        'sum(increase(llmlab_requests_total{outcome!="client_cancelled"}[$span]))',
        requests_query="sum(rate(llmlab_requests_total[3s])) + max_over_time(sum(llmlab_queue_depth)[3s:1s])",
        waiting_query='sum({__name__=~"llmlab_queue_depth|llmchaos:requests_waiting"})',
        latency_shares=_LATENCY_SHARES,
        extra_env=(("LLMCHAOS_BACKEND", backend),),
    )
    lab = _with_agents(lab) if agents else lab
    return _with_autoscaler(lab) if scales else lab


def _with_autoscaler(lab: Subject) -> Subject:
    """The lab with the services of the profile `scale`."""
    return replace(
        lab,
        profiles=(*lab.profiles, "scale"),
        extra_env=(*lab.extra_env, ("LLMCHAOS_SCALE", "on")),
        autoscaler=AUTOSCALER,
        scaled=("model-1", "model-2", "model-3", "model-4"),
        named_targets=(*lab.named_targets, AUTOSCALER, "model-3", "model-4"),
    )


def _with_agents(lab: Subject) -> Subject:
    """The lab with the services of compose.agents.yaml."""
    return replace(
        lab,
        compose_files=(*lab.compose_files, stack_dir() / "compose.agents.yaml"),
        targets=(*lab.targets, "agent", "desk"),
        ports=(*lab.ports, ("agent", "LLMCHAOS_AGENT_PORT", 8200), ("desk", "LLMCHAOS_DESK_PORT", 8100)),
        agents=Endpoint(service="agent", port=8200, path="/tasks"),
        ledger=Endpoint(service="desk", port=8100, path="/ledger"),
        known_rules=(*lab.known_rules, *AGENT_RULES),
        scrape_jobs=(*lab.scrape_jobs, "agent", "desk"),
    )
