"""Settings of the gateway."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab_common.settings import Section, number, parsed, section, switch, text, whole

REPLICA_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PROVIDERS_EXAMPLE = "model-1=vllm,model-2=sglang"
EXAMPLE = "model-1=http://model-1:8080,model-2=http://model-2:8080"


@dataclass(frozen=True, kw_only=True)
class Patterns(Section):
    """One switch for each reliability pattern."""

    queue: bool = switch("LAB_QUEUE", default=True)  # off: as many wait as come, as long as it takes
    retry_after: bool = switch("LAB_RETRY_AFTER", default=True)
    ttft_deadline: bool = switch("LAB_TTFT_DEADLINE", default=True)
    gap_deadline: bool = switch("LAB_GAP_DEADLINE", default=True)
    retry: bool = switch("LAB_RETRY", default=True)
    retry_budget: bool = switch("LAB_RETRY_BUDGET", default=True)
    breaker: bool = switch("LAB_BREAKER", default=True)
    latency_ejection: bool = switch("LAB_LATENCY_EJECTION", default=True)
    half_open: bool = switch("LAB_HALF_OPEN", default=True)  # off: a circuit closes with time alone
    slow_start: bool = switch("LAB_SLOW_START", default=True)
    fail_open: bool = switch("LAB_FAIL_OPEN", default=True)
    cancel: bool = switch("LAB_CANCEL", default=True)  # off: replicas finish what no client reads
    strict: bool = switch("LAB_STRICT", default=True)  # off: a stream that ends early ends well
    drain: bool = switch("LAB_DRAIN", default=True)
    keepalive: bool = switch("LAB_KEEPALIVE", default=True)
    health_apart: bool = switch("LAB_HEALTH_APART", default=True)  # off: alive only with a replica
    shed: bool = switch("LAB_SHED", default=False)
    priority: bool = switch("LAB_PRIORITY", default=True)
    migration: bool = switch("LAB_MIGRATION", default=False)
    affinity: bool = switch("LAB_AFFINITY", default=False)
    hedging: bool = switch("LAB_HEDGING", default=False)


@dataclass(frozen=True, kw_only=True)
class Admission(Section):
    """Bounds on running and waiting requests."""

    queue_max: int = whole("LAB_QUEUE_MAX", 64, 0, 100_000)
    queue_timeout_s: float = number("LAB_QUEUE_TIMEOUT_S", 5.0, 0.01, 600)
    concurrency: int = whole("LAB_CONCURRENCY", 32, 1, 10_000)  # in flight, per replica
    retry_after_s: int = whole("LAB_RETRY_AFTER_S", 1, 1, 3600)
    priority_share: float = number("LAB_PRIORITY_SHARE", 0.1, 0, 0.3)  # of the places, for each lower class that waits
    body_max_bytes: int = whole("LAB_BODY_MAX_BYTES", 2**20, 64, 2**20)


def _shed_status(given: str) -> int:
    if given not in {"503", "529"}:
        raise ValueError("503 or 529")
    return int(given)


@dataclass(frozen=True, kw_only=True)
class Shedding(Section):
    """Refusal of requests whose predicted first token is late."""

    ttft_s: float = number("LAB_SHED_TTFT_S", 2.0, 0.01, 600)
    status: int = parsed("LAB_SHED_STATUS", _shed_status, lambda: 503)  # 529: overloaded, of some providers


@dataclass(frozen=True, kw_only=True)
class Deadlines(Section):
    """Longest waits by cause. `request_s` bounds their sum over retries."""

    body_s: float = number("LAB_BODY_TIMEOUT_S", 10.0, 0.01, 600)
    connect_s: float = number("LAB_CONNECT_TIMEOUT_S", 1.0, 0.01, 60)
    ttft_s: float = number("LAB_TTFT_TIMEOUT_S", 10.0, 0.01, 600)  # one try, until its first token
    gap_s: float = number("LAB_GAP_TIMEOUT_S", 5.0, 0.01, 600)  # between data events
    answer_s: float = number("LAB_ANSWER_TIMEOUT_S", 30.0, 0.01, 3600)  # one try without streaming
    request_s: float = number("LAB_REQUEST_TIMEOUT_S", 120.0, 0.05, 7200)
    keepalive_s: float = number("LAB_KEEPALIVE_S", 15.0, 0.01, 600)  # proxies' idle timeouts start at 30 s
    drain_s: float = number("LAB_DRAIN_S", 0.6, 0.0, 600)  # all within 1 s of SIGTERM


@dataclass(frozen=True, kw_only=True)
class Probing(Section):
    """The shallow health probe of each replica."""

    interval_s: float = number("LAB_PROBE_INTERVAL_S", 0.5, 0.01, 60)
    timeout_s: float = number("LAB_PROBE_TIMEOUT_S", 1.0, 0.01, 60)
    fall: int = whole("LAB_PROBE_FALL", 2, 1, 100)  # consecutive bad answers. One refused connection suffices


@dataclass(frozen=True, kw_only=True)
class Ejection(Section):
    """Bounds at which real requests' results eject a replica."""

    window_s: float = number("LAB_EJECT_WINDOW_S", 10.0, 1, 600)
    min_requests: int = whole("LAB_EJECT_MIN_REQUESTS", 5, 1, 100_000)
    error_ratio: float = number("LAB_EJECT_ERROR_RATIO", 0.5, 0.01, 1)
    connect_failures: int = whole("LAB_EJECT_CONNECT_FAILURES", 3, 1, 1000)
    open_s: float = number("LAB_EJECT_S", 5.0, 0.05, 600)  # doubled after each failed trial
    open_max_s: float = number("LAB_EJECT_MAX_S", 60.0, 0.05, 3600)
    slow_start_s: float = number("LAB_SLOW_START_S", 5.0, 0, 600)
    latency_factor: float = number("LAB_EJECT_LATENCY_FACTOR", 3.0, 1.1, 1000)  # times the peers' median first token
    latency_floor_s: float = number("LAB_EJECT_LATENCY_FLOOR_S", 1.0, 0, 600)  # a quicker replica is no outlier
    latency_min_requests: int = whole("LAB_EJECT_LATENCY_MIN_REQUESTS", 10, 1, 1000)
    latency_share: float = number("LAB_EJECT_LATENCY_SHARE", 0.5, 0, 1)  # of the replicas, at most


@dataclass(frozen=True, kw_only=True)
class Retrying(Section):
    """Bounds on the extra work of retries."""

    ratio: float = number("LAB_RETRY_RATIO", 0.2, 0, 1)  # retries per request in the long run
    burst: int = whole("LAB_RETRY_BURST", 10, 0, 100_000)  # saved retries, for low rates
    attempts_max: int = whole("LAB_ATTEMPTS_MAX", 2, 1, 10)


@dataclass(frozen=True, kw_only=True)
class Migrating(Section):
    """Bound on the sent events that are kept to continue a cut stream."""

    kept_max_bytes: int = whole("LAB_MIGRATION_MAX_BYTES", 2**18, 1, 2**24)  # of each stream. About 1,000 tokens


@dataclass(frozen=True, kw_only=True)
class Affinity(Section):
    """Common start of requests for one replica, and the bound on its load."""

    chars: int = whole("LAB_AFFINITY_CHARS", 1024, 1, 2**20)  # compared at the start of a prompt
    factor: float = number("LAB_AFFINITY_FACTOR", 1.25, 1, 100)  # a replica's load, of the replicas' mean


@dataclass(frozen=True, kw_only=True)
class Hedging(Section):
    """Delay and budget of the second attempt of a late stream.

    In a simulation with 5 % stragglers a delay of 1.5 times the quantile 0.9 lowered
    p99 by 85 %. The quantile 0.95 alone lowered it by 70 %, because a part of the
    budget went to requests that were not late.
    """

    quantile: float = number("LAB_HEDGE_QUANTILE", 0.9, 0.5, 0.999)  # of recent times to first token
    factor: float = number("LAB_HEDGE_FACTOR", 1.5, 1, 100)  # the delay, of that quantile
    min_s: float = number("LAB_HEDGE_MIN_S", 0.05, 0.001, 600)  # the shortest delay
    ratio: float = number("LAB_HEDGE_RATIO", 0.06, 0, 1)  # hedges per request: one in 20 may be a straggler
    burst: int = whole("LAB_HEDGE_BURST", 10, 0, 100_000)  # saved hedges


def _replicas(given: str = "") -> dict[str, str]:
    """`name=url,name=url` as a mapping."""
    replicas: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in given.split(","))):
        name, _, url = part.partition("=")
        if not REPLICA_NAME.fullmatch(name):
            raise ValueError(f"name=url, as in {EXAMPLE}, instead of {part!r}")
        if name in replicas:
            raise ValueError(f"a name of its own for each replica instead of {name!r} twice")
        if not _is_http(url):
            raise ValueError(f"an http address without user or query for {name!r} instead of {url!r}")
        replicas[name] = url.rstrip("/")
    if not replicas:
        raise ValueError(f"at least one replica, as in {EXAMPLE}")
    return replicas


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        return named and parts.username is None and url.isascii() and not re.search(r"[\s?#]", url)
    except ValueError:
        return False


def _autoscaler(given: str) -> str:
    if not _is_http(given):
        raise ValueError("the http address of the autoscaler (http://autoscaler:8002)")
    return given.rstrip("/")


def _providers(given: str = "") -> dict[str, str]:
    """`replica=provider,replica=provider` as a mapping."""
    providers: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in given.split(","))):
        replica, _, provider = part.partition("=")
        if not REPLICA_NAME.fullmatch(replica) or not PROVIDER_NAME.fullmatch(provider):
            raise ValueError(f"replica=provider, as in {PROVIDERS_EXAMPLE}, instead of {part!r}")
        if replica in providers:
            raise ValueError(f"one provider for each replica instead of {replica!r} twice")
        providers[replica] = provider
    return providers


def _level(given: str) -> str:
    if given.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("DEBUG, INFO, WARNING or ERROR")
    return given.upper()


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """All settings of the gateway."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8000, 0, 65535)  # 0: any free port
    model: str = text(
        "LAB_MODEL", pattern=".+", expected="the name of the model that the replicas serve (smollm2:135m)"
    )
    replicas: Mapping[str, str] = parsed("LAB_REPLICAS", _replicas, _replicas)
    health_path: str = text("LAB_HEALTH_PATH", "/health", pattern="/.*", expected="a path that starts with a slash")
    # A replica without one has its own name as its provider.
    providers: Mapping[str, str] = parsed("LAB_PROVIDERS", _providers, _providers)
    # Its `/replicas` has the replicas that get no new request. Empty: no autoscaler.
    autoscaler_url: str = parsed("LAB_AUTOSCALER_URL", _autoscaler, lambda: "")
    # ollama: the gateway exports what Ollama's missing metrics would be.
    upstream: str = text("LAB_UPSTREAM", "openai", pattern="openai|ollama", expected="openai or ollama")
    api_key: str = text("LAB_API_KEY", pattern="[!-~]*", expected="printable ASCII without blanks", secret=True)
    log_level: str = parsed("LAB_LOG_LEVEL", _level, lambda: "INFO")
    patterns: Patterns = section(Patterns)
    admission: Admission = section(Admission)
    shedding: Shedding = section(Shedding)
    deadlines: Deadlines = section(Deadlines)
    probing: Probing = section(Probing)
    ejection: Ejection = section(Ejection)
    retrying: Retrying = section(Retrying)
    migrating: Migrating = section(Migrating)
    affinity: Affinity = section(Affinity)
    hedging: Hedging = section(Hedging)

    def conflicts(self) -> list[str]:
        unknown = sorted(self.providers.keys() - self.replicas.keys())
        if not unknown:
            return []
        return [
            f"LAB_PROVIDERS: expected replicas of LAB_REPLICAS ({', '.join(self.replicas)}), got {', '.join(unknown)}"
        ]


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """LAB_ variables that are not settings: misspelt, or of another service."""
    return sorted(name for name in env if name.startswith("LAB_") and name not in Settings.variables())
