"""Cases of the lab's rules: series, and the alerts that they raise."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from support.prometheus_server import program
from support.rule_histories import (
    MISSED,
    RATE,
    STARTED,
    Story,
    between,
    counted,
    engine,
    frozen,
    histogram,
    history,
    lab,
    steady,
)

from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, alerts_of
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.openslo import load_slos

ROOT = Path(__file__).parent.parent.parent


RULES = sorted((ROOT / "stack" / "prometheus" / "rules").glob("*.yml"))
OF_SERVERS = ROOT / "stack" / "prometheus" / "rules" / "servers.yml"


SLOS = load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml")


FAULT_S = 20  # the second at which each history goes wrong


API = 'job="api"'
AT_ENGINE = 'job="model",service="model-1"'


BLIND = "PrometheusMissingRuleEvaluations"


History = tuple[dict[str, Story], int, list[dict[str, Any]]]


def down_from(from_s: int, to_s: int) -> Any:
    return lambda second: 1.0 if from_s <= second < to_s else 0.0


@dataclass(frozen=True, kw_only=True)
class Firing:
    """An alert that must fire from `by_s` to `until_s`, and end by `gone_s`."""

    alert: str
    labels: dict[str, str]
    by_s: int
    until_s: int
    gone_s: int


@dataclass(frozen=True, kw_only=True)
class Case:
    says: str
    series: dict[str, Story]
    firing: tuple[Firing, ...]
    seconds: int = 80
    silent: tuple[str, ...] = field(default=())
    servers: tuple[str, str] = ("vllm", "vllm")

    @property
    def history(self) -> dict[str, Story]:
        """A healthy lab with the case's series."""
        return lab(servers=self.servers) | self.series


def at_replica(metric: str, replica: str, **more: str) -> str:
    """A series of the api about a replica."""
    labels = {"job": "api", "replica": replica, "service": "api", **more}
    shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{metric}{{{shown}}}"


def failing(
    share: float, replica: str = "model-1", *, to_s: int = 40, reason: str = "upstream_5xx"
) -> dict[str, Story]:
    """This share of the attempts at a replica fails from FAULT_S on."""
    return {
        at_replica("llmlab_upstream_failures_total", replica, reason=reason): counted(
            lambda s: share * RATE / 2 if FAULT_S <= s < to_s else 0
        )
    }


def page(signal: str, service: str) -> dict[str, str]:
    return {"severity": "page", "signal": signal, "service": service}


def ticket(signal: str, service: str) -> dict[str, str]:
    return {"severity": "ticket", "signal": signal, "service": service}


def fires(alert: str, labels: dict[str, str], *, after_s: int, until_s: int = 39, gone_s: int = 47) -> Firing:
    return Firing(alert=alert, labels=labels, by_s=FAULT_S + after_s, until_s=until_s, gone_s=gone_s)


CASES = [
    Case(
        says="the api cannot be scraped for 20 s",
        series={'up{job="api",service="api"}': between(20, 40, 0, 1)},
        firing=(fires("ServiceDown", page("health", "api"), after_s=1, gone_s=40),),
    ),
    Case(
        says="one scrape of the api is lost",
        series={'up{job="api",service="api"}': between(20, 21, 0, 1)},
        firing=(),
        silent=("ServiceDown",),
    ),
    Case(
        says="the api's probe of one replica fails for 20 s",
        series={
            f'llmlab_upstream_health{{{API},probe="shallow",replica="model-1",service="api"}}': between(20, 40, 0, 1)
        },
        firing=(fires("ServiceDown", page("health", "model-1"), after_s=1, gone_s=40),),
    ),
    Case(
        says="one replica is ejected by its own traffic",
        series={
            f'llmlab_upstream_health{{{API},probe="passive",replica="model-2",service="api"}}': between(20, 40, 0, 1)
        },
        firing=(fires("ReplicaEjected", ticket("ejection", "model-2"), after_s=0, gone_s=40),),
        silent=("ServiceDown",),
    ),
    Case(
        says="a replica fails 30 % of its attempts, and retries hide it",
        series=failing(0.3),
        firing=(fires("UpstreamErrorsHigh", ticket("errors", "model-1"), after_s=9, gone_s=45),),
        silent=("ReplicaEjected", "ApiErrorsHigh"),
    ),
    Case(
        says="a replica fails 5 % of its attempts",
        series=failing(0.05),
        firing=(),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="a replica is busy, answers half of its attempts with 429, and fails 5 % of them",
        series=failing(0.5, reason="upstream_429") | failing(0.05),
        firing=(),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="half of the attempts at a replica fail, one every two seconds",
        series={
            at_replica("llmlab_upstream_attempts_total", "model-1", reason="first"): counted(lambda s: 0.5),
            at_replica("llmlab_upstream_failures_total", "model-1", reason="upstream_5xx"): counted(
                lambda s: 0.25 if 20 <= s < 40 else 0
            ),
        },
        firing=(),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="the requests in flight at a replica break off, once",
        series=failing(4, to_s=21),
        firing=(),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="a replica fails every attempt, is ejected after 3 s, and comes back",
        series={
            **failing(1, to_s=23),
            at_replica("llmlab_upstream_health", "model-1", probe="passive"): between(23, 28, 0, 1),
        },
        firing=(fires("ReplicaEjected", ticket("ejection", "model-1"), after_s=3, until_s=27, gone_s=28),),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="a replica is down for 6 s, and fails a fifth of its attempts until 4 s after",
        series={
            **failing(0.2, to_s=31),
            at_replica("llmlab_upstream_health", "model-1", probe="shallow"): between(21, 27, 0, 1),
        },
        firing=(fires("ServiceDown", page("health", "model-1"), after_s=3, until_s=26, gone_s=27),),
        silent=("UpstreamErrorsHigh",),
    ),
    Case(
        says="the api's health checks of a replica take 0.3 s",
        series={at_replica("llmlab_probe_duration_seconds", "model-2"): between(20, 40, 0.3, 0.005)},
        firing=(fires("ProbeSlow", ticket("latency", "model-2"), after_s=6, gone_s=40),),
        silent=("ServiceDown",),
    ),
    Case(
        says="two health checks of a busy replica are slow",
        series={at_replica("llmlab_probe_duration_seconds", "model-2"): between(20, 22, 0.9, 0.005)},
        firing=(),
        silent=("ProbeSlow",),
    ),
    Case(
        says="the api was frozen for 6 s, and its first health check after that is slow",
        series={
            at_replica("llmlab_probe_duration_seconds", "model-2"): lambda s: (
                None if 20 <= s < 26 else 0.9 if s < 28 and s > 25 else 0.005
            )
        },
        firing=(),
        silent=("ProbeSlow",),
    ),
    Case(
        says="a replica is down, and its last health check that succeeded was slow",
        series={
            at_replica("llmlab_probe_duration_seconds", "model-2"): between(20, 40, 0.9, 0.005),
            at_replica("llmlab_upstream_health", "model-2", probe="shallow"): between(23, 40, 0, 1),
        },
        firing=(fires("ServiceDown", page("health", "model-2"), after_s=5, gone_s=40),),
        silent=("ProbeSlow",),
    ),
    Case(
        says="a replica takes requests and answers none",
        series={
            'llmlab_oldest_inflight_seconds{phase="prefill",replica="model-1",service="api"}': lambda s: (
                float(s - 20) if 20 <= s < 40 else 0.1
            )
        },
        firing=(fires("RequestStuck", page("progress", "model-1"), after_s=6, gone_s=40),),
    ),
    Case(
        says="a stream of a replica stops in its middle",
        series={
            'llmlab_oldest_silence_seconds{replica="model-2",service="api"}': lambda s: (
                float(s - 20) if 20 <= s < 40 else 0.1
            )
        },
        firing=(fires("RequestStuck", page("progress", "model-2"), after_s=6, gone_s=40),),
    ),
    Case(
        says="half of the requests end in an upstream's 5xx",
        series={
            f'llmlab_requests_total{{{API},outcome="ok",service="api"}}': counted(
                lambda s: RATE / 2 if 20 <= s < 40 else RATE
            ),
            f'llmlab_requests_total{{{API},outcome="upstream_5xx",service="api"}}': counted(
                lambda s: RATE / 2 if 20 <= s < 40 else 0
            ),
        },
        firing=(fires("ApiErrorsHigh", page("errors", "api"), after_s=4),),
    ),
    Case(
        says="all clients leave in the middle of their requests",
        series={
            f'llmlab_requests_total{{{API},outcome="ok",service="api"}}': counted(
                lambda s: 0 if 20 <= s < 40 else RATE
            ),
            f'llmlab_requests_total{{{API},outcome="client_cancelled",service="api"}}': counted(
                lambda s: RATE if 20 <= s < 40 else 0
            ),
        },
        firing=(),
        silent=("ApiErrorsHigh",),
    ),
    Case(
        says="clients send invalid requests, and the replicas reject them",
        series={
            f'llmlab_requests_total{{{API},outcome="ok",service="api"}}': counted(
                lambda s: RATE / 2 if 20 <= s < 40 else RATE
            ),
            f'llmlab_requests_total{{{API},outcome="upstream_4xx",service="api"}}': counted(
                lambda s: RATE / 2 if 20 <= s < 40 else 0
            ),
        },
        firing=(),
        silent=("ApiErrorsHigh",),
    ),
    Case(
        says="answers take 8 s instead of 0.3 s",
        series=histogram(
            "gen_ai_server_request_duration_seconds",
            'error_type="",job="api",service="api"',
            lambda s: RATE,
            lambda s: 8 if 20 <= s < 40 else 0.3,
        ),
        firing=(fires("LatencyP95High", page("latency", "api"), after_s=5),),
    ),
    Case(
        says="first tokens take 4 s instead of 0.3 s",
        series=histogram(
            "gen_ai_server_time_to_first_token_seconds",
            'error_type="",job="api",service="api"',
            lambda s: RATE,
            lambda s: 4 if 20 <= s < 40 else 0.3,
        ),
        firing=(fires("TimeToFirstTokenP95High", page("latency", "api"), after_s=5),),
    ),
    Case(
        says="twenty requests wait at the api",
        series={f'llmlab_queue_depth{{{API},service="api"}}': between(20, 40, 20, 0)},
        firing=(fires("QueueBacklog", ticket("saturation", "api"), after_s=4, gone_s=40),),
    ),
    Case(
        says="a replica is restarted every three seconds",
        series={
            'service_container_restarts_total{reason="external",service="model-1"}': lambda s: float(
                min(max(0, (s - 20) // 3), 6)
            )
        },
        firing=(fires("ServiceFlapping", page("restarts", "model-1"), after_s=16, until_s=80, gone_s=165),),
        seconds=170,
    ),
    Case(
        says="a GPU reports an XID",
        series={'DCGM_FI_DEV_XID_ERRORS{gpu="0",service="model-1"}': between(20, 40, 79, 0)},
        firing=(fires("GpuXid", page("gpu", "model-1"), after_s=0, gone_s=40),),
    ),
    Case(
        says="a GPU is hot",
        series={'DCGM_FI_DEV_GPU_TEMP{gpu="0",service="model-1"}': between(20, 40, 88, 82)},
        firing=(fires("GpuHot", ticket("gpu", "model-1"), after_s=4, gone_s=40),),
    ),
    Case(
        says="the push gateway cannot be scraped",
        series={'up{job="pushgateway",service="pushgateway"}': between(20, 40, 0, 1)},
        firing=(fires("PushgatewayDown", ticket("monitoring", "pushgateway"), after_s=3, gone_s=40),),
    ),
    Case(
        says="Prometheus was frozen for 8 s",
        series={MISSED: frozen(12, 20, 2, 9)},
        firing=(fires(BLIND, ticket("monitoring", "prometheus"), after_s=0, until_s=29, gone_s=30),),
    ),
    Case(
        says="Prometheus was frozen for 70 s, longer than any window",
        series={MISSED: frozen(12, 82, 2, 71), STARTED: frozen(12, 82, 1.7e9, 1.7e9)},
        firing=(Firing(alert=BLIND, labels=ticket("monitoring", "prometheus"), by_s=82, until_s=91, gone_s=92),),
        seconds=100,
    ),
    Case(
        says="Prometheus was frozen for 16 s, with its scrape of itself in flight",
        series={MISSED: lambda s: None if s in (24, 40) else frozen(24, 41, 2, 17)(s)},
        firing=(Firing(alert=BLIND, labels=ticket("monitoring", "prometheus"), by_s=41, until_s=50, gone_s=51),),
    ),
    Case(
        says="Prometheus was restarted, so that its count begins at 0",
        series={MISSED: frozen(17, 20, 2, 0), STARTED: frozen(17, 20, 1.7e9, 1.7e9 + 500)},
        firing=(fires(BLIND, ticket("monitoring", "prometheus"), after_s=0, until_s=29, gone_s=30),),
    ),
    Case(
        says="Prometheus on a busy machine misses 3 evaluations in 10 s",
        series={MISSED: lambda s: 2.0 + 3 * (s // 10)},
        firing=(),
        silent=(BLIND,),
    ),
    Case(
        says="another process that Prometheus scrapes was restarted",
        series={'process_start_time_seconds{job="api",service="api"}': between(20, 80, 1.7e9 + 500, 1.7e9)},
        firing=(),
        silent=(BLIND,),
    ),
]


def engine_cases(server: str) -> list[Case]:
    """Cases of the alerts on engines, in a server's names."""
    servers = (server, server)
    idle = {"running": steady(0), "waiting": steady(0)}
    hung = counted(lambda s: 0 if 20 <= s < 40 else 50)
    stalled = (fires("EngineStalled", page("progress", "model-2"), after_s=9, gone_s=45),)
    return [
        Case(
            says=f"requests wait while the cache of {server} is full",
            servers=servers,
            series=engine(server, "model-1", waiting=between(20, 40, 5, 0)),
            firing=(fires("KvCacheFull", ticket("saturation", "model-1"), after_s=5, gone_s=41),),
        ),
        Case(
            says=f"{server} has work and takes no step",
            servers=servers,
            series=engine(server, "model-2", steps=hung),
            firing=stalled,
        ),
        Case(
            says=f"gauges of {server} froze while it was idle, and what the api sends it is lost",
            servers=servers,
            series=engine(server, "model-2", **idle, steps=hung),
            firing=stalled,
        ),
        Case(
            says=f"{server} has nothing to do",
            servers=servers,
            series=engine(server, "model-2", **idle, steps=steady(50))
            | {'llmlab_inflight_requests{replica="model-2",service="api"}': steady(0)},
            firing=(),
            silent=("EngineStalled",),
        ),
        Case(
            says=f"{server} is busy to the limit and takes its steps",
            servers=servers,
            series=engine(server, "model-2", running=steady(256), steps=counted(lambda s: 2)),
            firing=(),
            silent=("EngineStalled",),
        ),
    ]


# The engines' own histograms have the names of the api's.
OF_SLOW_ENGINES = [
    Case(
        says="an engine's own latencies are high, and the api's are not",
        series={
            **histogram("vllm:e2e_request_latency_seconds", AT_ENGINE, lambda s: 9 * RATE, 8),
            **histogram("vllm:time_to_first_token_seconds", AT_ENGINE, lambda s: 9 * RATE, 8),
        },
        firing=(),
        silent=("LatencyP95High", "TimeToFirstTokenP95High"),
    ),
]
# llama.cpp counts batches, and its server no longer reports the cache.
OF_LLAMACPP = [
    Case(
        says="llama.cpp computes a long prompt, and requests wait for it",
        servers=("llamacpp", "llamacpp"),
        series=engine(
            "llamacpp",
            "model-2",
            waiting=between(20, 40, 5, 0),
            steps=counted(lambda s: 0 if 20 <= s < 40 else 50),
        ),
        firing=(),
        silent=("EngineStalled", "KvCacheFull"),
    ),
]
# Two servers side by side. Their label `service` distinguishes them.
OF_A_MIXED_LAB = [
    Case(
        says="SGLang hangs next to a vLLM with a full cache",
        servers=("vllm", "sglang"),
        series=engine("vllm", "model-1", waiting=between(20, 40, 5, 0))
        | engine("sglang", "model-2", steps=counted(lambda s: 0 if 20 <= s < 40 else 50)),
        firing=(
            fires("EngineStalled", page("progress", "model-2"), after_s=9, gone_s=45),
            fires("KvCacheFull", ticket("saturation", "model-1"), after_s=5, gone_s=41),
        ),
    ),
]


def burn_case(slo: Slo) -> Case:
    """All burn alerts of the SLO after 20 s of failures, until windows are clean."""
    how = "truncated" if slo.name == "stream-completeness" else "refused"
    return Case(
        says=f"every request fails for 20 s ({slo.name})",
        series=lab(**{how: down_from(20, 40)}),
        firing=tuple(
            Firing(
                alert=alert_name(slo, one.alert),
                labels={
                    "severity": one.alert.severity,
                    "slo": slo.name,
                    "signal": "slo",
                    "burn": f"{one.alert.factor():g}",
                },
                by_s=36,
                until_s=39,
                gone_s=42 + int(float(one.short[:-1])),
            )
            for one in alerts_of(slo, LAB_SCALE)
        ),
        seconds=145,
    )


def checks_of(case: Case) -> list[dict[str, Any]]:
    """Fires in time, with exactly its labels, and ends."""
    checks = []
    for one in case.firing:
        checks.append(never_fired(FAULT_S - 1, one.alert))
        labels = {"alertname": one.alert, **one.labels}
        checks += [
            firing_exactly(one.by_s, labels, one.alert),
            firing_exactly(one.until_s, labels, one.alert),
            firing_exactly(one.gone_s, {}, one.alert),
        ]
    return checks + [never_fired(case.seconds, alert) for alert in case.silent]


def says(expr: str, value: float, labels: str = "{}") -> dict[str, Any]:
    return {"expr": f"round({expr}, 0.01)", "eval_time": "40s", "exp_samples": [{"labels": labels, "value": value}]}


@functools.cache
def all_groups() -> list[dict[str, Any]]:
    """Groups of the lab and its SLOs."""
    return [group for path in RULES if path != OF_SERVERS for group in yaml.safe_load(path.read_text())["groups"]]


@functools.cache
def server_groups() -> list[dict[str, Any]]:
    """Groups that record the engines' metrics under canonical names."""
    return list(yaml.safe_load(OF_SERVERS.read_text())["groups"])


def all_rules() -> list[dict[str, Any]]:
    return [rule for group in all_groups() for rule in group["rules"]]


def groups(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of the checks' alerts and records. All, if a check is for any alert."""
    asked = " ".join(check["expr"] for check in checks)
    every = all_groups()
    if any(re.search(r"ALERTS\{alertstate", check["expr"]) for check in checks):
        return every
    return [
        group
        for group in every
        if any(
            f'"{rule.get("alert")}"' in asked
            or f'slo="{rule["labels"].get("slo") if "labels" in rule else None}"' in asked
            or str(rule.get("record")) in asked
            for rule in group["rules"]
        )
    ]


def recorded(asked: str) -> list[dict[str, Any]]:
    """Groups of the servers, with the records that a text reads."""
    wanted = set(re.findall(r"[a-z_]+:[a-z_]+|gen_ai_server_[a-z_]+", asked))
    found = []
    for group in server_groups():
        rules = [rule for rule in group["rules"] if any(re.fullmatch(f"{one}.*", rule["record"]) for one in wanted)]
        found += [{**group, "rules": rules}] if rules else []
    return found


def firing_exactly(at_s: int, labels: dict[str, str], alert: str = "") -> dict[str, Any]:
    """The alert fires with these labels at that second. Without labels it is silent."""
    of_one = f'{{alertname="{alert}",alertstate="firing"}}' if alert else '{alertstate="firing"}'
    shown = ",".join(f'{k}="{v}"' for k, v in sorted(labels.items()))
    samples = [{"labels": f'ALERTS{{alertstate="firing",{shown}}}', "value": 1}] if labels else []
    return {"expr": f"ALERTS{of_one}", "eval_time": f"{at_s}s", "exp_samples": samples}


def never_fired(until_s: int, alert: str = "") -> dict[str, Any]:
    of_one = f'alertname="{alert}",' if alert else ""
    expression = f'count by (alertname) (count_over_time(ALERTS{{{of_one}alertstate="firing"}}[{until_s}s]))'
    return {"expr": expression, "eval_time": f"{until_s}s", "exp_samples": []}


def assert_rules_say(directory: Path, *histories: History, every_s: int = 1) -> None:
    """Require that the rules meet each history's checks, run by promtool.

    The rules run every `every_s` seconds. Over an unchanging history the result does
    not depend on that interval.
    """
    every = [check for _, _, checks in histories for check in checks]
    read_by = groups(every)
    made = recorded(json.dumps([*read_by, *every]))
    rules_text = json.dumps({"groups": [*read_by, *made]})
    # Records come last, as late as they may be: an alert reads what is a second old.
    order = [group["name"] for group in (*read_by, *made)]
    tests = []
    for series, seconds, checks in histories:
        asked = rules_text + str(checks)
        read = {selector: story for selector, story in series.items() if selector.partition("{")[0] in asked}
        tests.append(history(read, seconds, checks))
    (directory / "rules.yml").write_text(rules_text)
    file = directory / "test.yml"
    file.write_text(
        json.dumps(
            {
                "rule_files": ["rules.yml"],
                "evaluation_interval": f"{every_s}s",
                "group_eval_order": order,
                "tests": tests,
            }
        )
    )
    # It lives for a second: half of what it costs would be the collection of garbage.
    environment = {**os.environ, "GOGC": "400", "GOMAXPROCS": "1"}
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


CASES += [*engine_cases("vllm"), *engine_cases("sglang"), *OF_SLOW_ENGINES]
CASES += [*OF_LLAMACPP, *OF_A_MIXED_LAB]
CASES += [burn_case(slo) for slo in SLOS if slo.alerts]
