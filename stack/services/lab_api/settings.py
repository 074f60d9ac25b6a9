"""What the gateway can be told, all of it by environment variables. Reads no file and starts nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlsplit

_PLAIN_VARIABLES = {
    *("LAB_HOST", "LAB_PORT", "LAB_MODEL", "LAB_REPLICAS", "LAB_HEALTH_PATH", "LAB_API_KEY", "LAB_LOG_LEVEL")
}
REPLICA_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class SettingsError(ValueError):
    """The environment does not describe a gateway. Names every wrong variable at once."""


def number(variable: str, default: float, *, low: float, high: float) -> Any:
    """A field read from `variable`; an integer default makes it an integer."""
    return field(default=default, metadata={"variable": variable, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Section:
    """A group of numbers that know their variable and their range."""

    def __post_init__(self) -> None:
        problems = [
            f"{one.metadata['variable']} must lie in {one.metadata['low']:g}..{one.metadata['high']:g}, "
            f"got {getattr(self, one.name)!r}"
            for one in fields(self)
            if not one.metadata["low"] <= getattr(self, one.name) <= one.metadata["high"]
        ]
        if problems:
            raise SettingsError("\n".join(problems))

    @classmethod
    def read(cls, env: Mapping[str, str], problems: list[str]) -> Self:
        """The section as `env` says; what is wrong is appended to `problems` and replaced by the default."""
        values: dict[str, float] = {}
        for one in fields(cls):
            variable = one.metadata["variable"]
            if (text := env.get(variable, "")) == "":
                continue
            kind = int if isinstance(one.default, int) else float
            try:
                values[one.name] = kind(text)
            except ValueError:
                wanted = "a whole number" if kind is int else "a number"
                problems.append(f"{variable} must be {wanted}, got {text!r}")
        try:
            return cls(**values)
        except SettingsError as error:
            problems.extend(str(error).splitlines())
            return cls()


@dataclass(frozen=True, kw_only=True)
class Admission(Section):
    """How many requests may run and wait."""

    queue_max: int = number("LAB_QUEUE_MAX", 64, low=0, high=100_000)
    queue_timeout_s: float = number("LAB_QUEUE_TIMEOUT_S", 5.0, low=0.01, high=600)
    concurrency: int = number("LAB_CONCURRENCY", 32, low=1, high=10_000)  # in flight, per replica
    retry_after_s: int = number("LAB_RETRY_AFTER_S", 1, low=1, high=3600)
    body_max_bytes: int = number("LAB_BODY_MAX_BYTES", 2**20, low=64, high=2**20)


@dataclass(frozen=True, kw_only=True)
class Deadlines(Section):
    """Longest waits, each for one cause. `request_s` bounds them all: waits of retries must not add up."""

    body_s: float = number("LAB_BODY_TIMEOUT_S", 10.0, low=0.01, high=600)
    connect_s: float = number("LAB_CONNECT_TIMEOUT_S", 1.0, low=0.01, high=60)
    ttft_s: float = number("LAB_TTFT_TIMEOUT_S", 10.0, low=0.01, high=600)  # one try, until its first token
    gap_s: float = number("LAB_GAP_TIMEOUT_S", 5.0, low=0.01, high=600)  # between data events
    answer_s: float = number("LAB_ANSWER_TIMEOUT_S", 30.0, low=0.01, high=3600)  # one try without streaming
    request_s: float = number("LAB_REQUEST_TIMEOUT_S", 120.0, low=0.05, high=7200)
    keepalive_s: float = number("LAB_KEEPALIVE_S", 15.0, low=0.01, high=600)  # idle timeouts on the way start at 30 s
    drain_s: float = number("LAB_DRAIN_S", 0.6, low=0.0, high=600)  # all within 1 s of SIGTERM


@dataclass(frozen=True, kw_only=True)
class Probing(Section):
    """The shallow health probe of each replica."""

    interval_s: float = number("LAB_PROBE_INTERVAL_S", 0.5, low=0.01, high=60)
    timeout_s: float = number("LAB_PROBE_TIMEOUT_S", 1.0, low=0.01, high=60)
    fall: int = number("LAB_PROBE_FALL", 2, low=1, high=100)  # bad answers in a row; a refused connection needs one


@dataclass(frozen=True, kw_only=True)
class Ejection(Section):
    """When a replica is taken out because of what its real requests met."""

    window_s: float = number("LAB_EJECT_WINDOW_S", 10.0, low=1, high=600)
    min_requests: int = number("LAB_EJECT_MIN_REQUESTS", 5, low=1, high=100_000)
    error_ratio: float = number("LAB_EJECT_ERROR_RATIO", 0.5, low=0.01, high=1)
    connect_failures: int = number("LAB_EJECT_CONNECT_FAILURES", 3, low=1, high=1000)
    open_s: float = number("LAB_EJECT_S", 5.0, low=0.05, high=600)  # doubled at each failed trial
    open_max_s: float = number("LAB_EJECT_MAX_S", 60.0, low=0.05, high=3600)
    slow_start_s: float = number("LAB_SLOW_START_S", 5.0, low=0, high=600)


@dataclass(frozen=True, kw_only=True)
class Retrying(Section):
    """How much more work failures may cause."""

    ratio: float = number("LAB_RETRY_RATIO", 0.2, low=0, high=1)  # retries per request in the long run
    burst: int = number("LAB_RETRY_BURST", 10, low=0, high=100_000)  # retries saved up, so that low rates may retry
    attempts_max: int = number("LAB_ATTEMPTS_MAX", 2, low=1, high=10)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything the gateway can be told."""

    host: str
    port: int
    model: str
    replicas: Mapping[str, str]
    health_path: str = "/health"
    api_key: str = field(default="", repr=False)
    log_level: str = "INFO"
    admission: Admission = Admission()
    deadlines: Deadlines = Deadlines()
    probing: Probing = Probing()
    ejection: Ejection = Ejection()
    retrying: Retrying = Retrying()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises SettingsError with one line for each thing that is wrong."""
        problems: list[str] = []
        settings = cls(
            host=env.get("LAB_HOST") or "127.0.0.1",
            port=_port(env.get("LAB_PORT") or "8000", problems),
            model=_model(env.get("LAB_MODEL", ""), problems),
            replicas=_replicas(env.get("LAB_REPLICAS", ""), problems),
            health_path=_path(env.get("LAB_HEALTH_PATH") or "/health", problems),
            api_key=_api_key(env.get("LAB_API_KEY", ""), problems),
            log_level=_level(env.get("LAB_LOG_LEVEL") or "INFO", problems),
            admission=Admission.read(env, problems),
            deadlines=Deadlines.read(env, problems),
            probing=Probing.read(env, problems),
            ejection=Ejection.read(env, problems),
            retrying=Retrying.read(env, problems),
        )
        if problems:
            raise SettingsError("\n".join(problems))
        return settings


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: misspelt, or meant for another service of the lab."""
    sections = (Admission, Deadlines, Probing, Ejection, Retrying)
    known = {one.metadata["variable"] for section in sections for one in fields(section)} | _PLAIN_VARIABLES
    return sorted(name for name in env if name.startswith("LAB_") and name not in known)


def _port(text: str, problems: list[str]) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    problems.append(f"LAB_PORT must be a port in 0..65535 (0: any free one), got {text!r}")
    return 0


def _model(text: str, problems: list[str]) -> str:
    if not text.strip():
        problems.append("LAB_MODEL must name the model the replicas serve, for example smollm2:135m; it is empty")
    return text.strip()


def _replicas(text: str, problems: list[str]) -> dict[str, str]:
    """`name=url,name=url` as a mapping."""
    replicas: dict[str, str] = {}
    example = "for example model-1=http://model-1:8080,model-2=http://model-2:8080"
    if not text.strip():
        problems.append(f"LAB_REPLICAS must name at least one replica, {example}; it is empty")
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, url = part.partition("=")
        if not REPLICA_NAME.fullmatch(name):
            problems.append(f"LAB_REPLICAS needs name=url ({example}), got {part!r}")
        elif name in replicas:
            problems.append(f"LAB_REPLICAS names {name!r} twice: give each replica its own name")
        elif not _is_http(url):
            problems.append(f"LAB_REPLICAS needs an http address for {name!r}, got {url!r}")
        else:
            replicas[name] = url.rstrip("/")
    return replicas


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _path(text: str, problems: list[str]) -> str:
    if not text.startswith("/"):
        problems.append(f"LAB_HEALTH_PATH must start with a slash, got {text!r}")
    return text


def _api_key(text: str, problems: list[str]) -> str:
    if text and not (text.isascii() and text.isprintable() and " " not in text):
        problems.append("LAB_API_KEY must be printable ASCII without blanks (its value is not shown)")
    return text


def _level(text: str, problems: list[str]) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        problems.append(f"LAB_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, got {text!r}")
        return "INFO"
    return text.upper()
