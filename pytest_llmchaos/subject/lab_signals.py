"""Signals that each fault is expected to raise in the reference lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Rules that apply only in a lab with agents.
AGENT_RULES = ("agent-exited", "desk-exited")
# Every other rule of stack/remediation.yaml, in its order.
RULES = (
    "api-exited",
    "replica-exited",
    "api-paused",
    "replica-paused",
    "api-unresponsive",
    "replica-unresponsive",
    "replica-hung",
    "replica-mute",
    "replica-false",
    "api-failing",
    "api-stuck",
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Signals of a fault on some services.

    Attributes:
        fault: Kind of the fault.
        on: A service such as `api`, `model-*` for each replica, or `*` for any service.
        options: Options of the fault that change its signals.
        alerts: Alerts that fire if the victim is not repaired. A victim that is back
            within a second or two may be back before they fire. They are about the
            victim or about clients.
        rules: Rules that detect it if the remediator runs. They are about the victim or
            about clients.
        elsewhere: Alerts and rules about another service that show it too.
        why: The reason for an empty column.
    """

    fault: str
    on: str
    options: tuple[tuple[str, object], ...] = ()
    alerts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    why: str = ""

    def is_about(self, fault: str, options: Mapping[str, object], service: str) -> bool:
        """True if it describes this fault on this service."""
        named = service.startswith(self.on[:-1]) if self.on.endswith("*") else service == self.on
        return named and fault == self.fault and all(options.get(name) == value for name, value in self.options)


_GONE = tuple(
    Expected(fault=fault, on=on, alerts=("ServiceDown",), rules=(rule,))
    for fault in ("kill", "crash", "stop")
    for on, rule in (
        ("api", "api-exited"),
        ("model-*", "replica-exited"),
        ("agent", "agent-exited"),
        ("desk", "desk-exited"),
    )
)
_BUSY = "busy and not broken: nothing may be restarted"
# Scrapes and health checks use the same port, so they fail as well.
_UNREACHABLE: tuple[tuple[str, tuple[tuple[str, object], ...]], ...] = (
    ("black_hole", (("share", 1.0),)),
    ("reset", (("share", 1.0), ("after_bytes", 0))),
    ("reject", (("share", 1.0),)),
)
_ON_ANSWERS = (
    "latency",
    "bandwidth",
    "late_first_token",
    "stall",
    "slow_drip",
    "truncate",
    "inband_error",
    "empty_answer",
    "malformed",
    "duplicate",
    "reorder",
    "wrong_model",
    "flaky",
    "slow_error",
)
# What the gateway sees of them at a replica. If most answers fail, it ejects the
# replica. If some do, its retries hide them from clients.
_FAILS = ("ReplicaEjected", "UpstreamErrorsHigh")
_SEEN = {
    "latency": ("ProbeSlow",),
    "stall": ("RequestStuck",),
    "truncate": _FAILS,
    "inband_error": _FAILS,
    "flaky": _FAILS,
}
_WHEN_IT_GOES_ON = "it fires when Prometheus goes on, also after our revert"
_BY_STRENGTH = "it depends on the options: health checks pass, retries may hide it"

_BLIND = "the service itself is well: only Prometheus does not see it"

EXPECTED = (
    *_GONE,
    *(
        Expected(fault="restart", on=on, why="it is back before a second evaluation sees it gone")
        for on in ("api", "model-*")
    ),
    Expected(fault="pause", on="api", alerts=("ServiceDown",), rules=("api-paused",)),
    Expected(fault="pause", on="model-*", alerts=("ServiceDown",), rules=("replica-paused",)),
    Expected(fault="partition", on="api", alerts=("ServiceDown",), rules=("api-unresponsive",)),
    Expected(fault="partition", on="model-*", alerts=("ServiceDown",), rules=("replica-unresponsive",)),
    *(
        Expected(fault=fault, on=on, why="it shows only where the service needs what was taken")
        for fault in ("limit_cpu", "limit_memory")
        for on in ("api", "model-*")
    ),
    Expected(fault="overload", on="api", alerts=("QueueBacklog",), why=_BUSY),
    Expected(fault="hang", on="model-*", alerts=("EngineStalled", "RequestStuck"), rules=("replica-hung",)),
    Expected(fault="gpu_saturation", on="model-*", alerts=("LatencyP95FastBurn",), why=_BUSY),
    Expected(
        fault="gpu_exhaustion",
        on="model-*",
        options=(("what", "device_memory"),),
        alerts=("ServiceDown",),
        rules=("replica-exited",),
    ),
    Expected(fault="gpu_exhaustion", on="model-*", options=(("what", "kv_cache"),), alerts=("KvCacheFull",), why=_BUSY),
    Expected(
        fault="xid", on="model-*", options=(("engine", "dies"),), alerts=("ServiceDown",), rules=("replica-exited",)
    ),
    Expected(
        fault="xid",
        on="model-*",
        options=(("engine", "errors"),),
        alerts=("GpuXid", "ReplicaEjected"),
        rules=("replica-mute",),
    ),
    Expected(fault="xid", on="model-*", options=(("engine", "survives"),), alerts=("GpuXid",), why="nothing is broken"),
    Expected(fault="cpu_fallback", on="model-*", alerts=("LatencyP95FastBurn",), why=_BUSY),
    Expected(fault="thermal_throttling", on="model-*", alerts=("GpuHot",), why=_BUSY),
    Expected(
        fault="corrupted_output",
        on="model-*",
        alerts=("StreamCompletenessFastBurn",),
        rules=("replica-false",),
    ),
    Expected(fault="slow_load", on="model-*", alerts=("ServiceDown",), why="a starting replica is left to start"),
    Expected(fault="crash_on_boot", on="model-*", alerts=("ServiceDown",), rules=("replica-exited",)),
    Expected(fault="memory_leak", on="model-*", alerts=("ServiceDown",), rules=("replica-exited",)),
    *(
        Expected(fault=fault, on=on, options=options, alerts=("ServiceDown",), rules=(rule,))
        for fault, options in _UNREACHABLE
        for on, rule in (("api", "api-unresponsive"), ("model-*", "replica-unresponsive"))
    ),
    *(Expected(fault=fault, on="*", why=_BY_STRENGTH) for fault in _ON_ANSWERS if fault not in _SEEN),
    *(Expected(fault=fault, on="api", why=_BY_STRENGTH) for fault in _SEEN),
    *(
        Expected(fault=fault, on="*", options=(("of", "autoscaler"),), why="no alert watches the autoscaler: it holds")
        for fault in ("scrape_gap", "stale_metrics")
    ),
    *(
        Expected(fault="scrape_gap", on=on, options=(("of", "judge"),), alerts=("ServiceDown",), why=_BLIND)
        for on in ("api", "model-*")
    ),
    Expected(fault="scrape_gap", on="pushgateway", options=(("of", "judge"),), why=_BLIND),
    Expected(fault="stale_metrics", on="*", options=(("of", "judge"),), why="an old answer looks like a fresh one"),
    Expected(fault="tool", on="*", why="no alert watches tools: the caller sees it"),
    *(Expected(fault=fault, on="model-*", alerts=alerts, why=_BY_STRENGTH) for fault, alerts in _SEEN.items()),
    *(
        Expected(fault=fault, on="prometheus", alerts=("PrometheusMissingRuleEvaluations",), why=_WHEN_IT_GOES_ON)
        for fault in ("pause", "kill", "crash", "stop", "restart")
    ),
)
