"""Every rule of the lab, run by promtool over made-up histories: it fires in time, with its labels, and it ends."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_server import program
from rule_histories import RATE, Story, between, counted, histogram, history, lab, steady

from pytest_llmchaos import generate
from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, lab_windows, raised_by, rules
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.openslo import load_slos

ROOT = Path(__file__).parent.parent
RULES = sorted((ROOT / "stack" / "prometheus" / "rules").glob("*.yml"))
SLOS = load_slos((ROOT / "stack" / "slo.yaml").read_text(), "stack/slo.yaml")
FAULT_S = 20  # the second at which each history goes wrong
API = 'job="api"'
History = tuple[dict[str, Story], int, list[dict[str, Any]]]


def down_from(from_s: int, to_s: int) -> Any:
    return lambda second: 1.0 if from_s <= second < to_s else 0.0


@dataclass(frozen=True, kw_only=True)
class Firing:
    """An alert that must fire: not before the fault, by `by_s`, still at `until_s`, and no longer at `gone_s`."""

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
        says="all callers leave in the middle of their requests",
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
        says="callers ask wrongly, and the replicas say so",
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
            'error_type="",service="api"',
            lambda s: RATE,
            lambda s: 8 if 20 <= s < 40 else 0.3,
        ),
        firing=(fires("LatencyP95High", page("latency", "api"), after_s=5),),
    ),
    Case(
        says="first tokens take 4 s instead of 0.3 s",
        series=histogram(
            "gen_ai_server_time_to_first_token_seconds",
            'error_type="",service="api"',
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
        says="requests wait while a replica's cache is full",
        series={'vllm:num_requests_waiting{engine="0",service="model-1"}': between(20, 40, 5, 0)},
        firing=(fires("KvCacheFull", ticket("saturation", "model-1"), after_s=4, gone_s=40),),
    ),
    Case(
        says="an engine has work and takes no step",
        series={
            'vllm:iteration_tokens_total_count{engine="0",service="model-2"}': counted(
                lambda s: 0 if 20 <= s < 40 else 50
            )
        },
        firing=(fires("EngineStalled", page("progress", "model-2"), after_s=8, gone_s=44),),
    ),
    Case(
        says="an engine's gauges froze while it was idle, and what the api sends it is lost",
        series={
            'vllm:num_requests_running{engine="0",service="model-2"}': steady(0),
            'vllm:num_requests_waiting{engine="0",service="model-2"}': steady(0),
            'vllm:iteration_tokens_total_count{engine="0",service="model-2"}': counted(
                lambda s: 0 if 20 <= s < 40 else 50
            ),
        },
        firing=(fires("EngineStalled", page("progress", "model-2"), after_s=8, gone_s=44),),
    ),
    Case(
        says="an engine has nothing to do",
        series={
            'vllm:num_requests_running{engine="0",service="model-2"}': steady(0),
            'vllm:num_requests_waiting{engine="0",service="model-2"}': steady(0),
            'llmlab_inflight_requests{replica="model-2",service="api"}': steady(0),
            'vllm:iteration_tokens_total_count{engine="0",service="model-2"}': steady(50),
        },
        firing=(),
        silent=("EngineStalled",),
    ),
    Case(
        says="an engine is busy to the limit and takes its steps",
        series={
            'vllm:num_requests_running{engine="0",service="model-2"}': steady(256),
            'vllm:iteration_tokens_total_count{engine="0",service="model-2"}': counted(lambda s: 2),
        },
        firing=(),
        silent=("EngineStalled",),
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
]


def burn_case(slo: Slo) -> Case:
    """Every request fails for 20 s: all burn alerts of the SLO, each until its short window is clean."""
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
            for one in raised_by(slo, LAB_SCALE)
        ),
        seconds=145,
    )


CASES += [burn_case(slo) for slo in SLOS if slo.alerts]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_alerts_when(case: Case, tmp_path: Path) -> None:
    promtool(tmp_path, ({**lab(), **case.series}, case.seconds, checks_of(case)))


def checks_of(case: Case) -> list[dict[str, Any]]:
    """Not before the fault, in time, with exactly its labels, to the end, and gone after it."""
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lab:service_up == 0", "lab:service_up == 2"),
        ('probe="shallow"', 'probe="shalow"'),
        ('"service", "$1"', '"servce", "$1"'),
        ('"for": "1s"', '"for": "30s"'),
    ],
    ids=["condition", "selector", "label", "patience"],
)
def test_a_broken_rule_is_noticed(old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above have teeth: each of these mutants turns one of them red."""
    case = next(case for case in CASES if case.says == "the api's probe of one replica fails for 20 s")
    assert any(old.replace('"', '\\"') in json.dumps(group) or old in json.dumps(group) for group in all_groups())
    text = json.dumps(all_groups()).replace(old.replace('"', '\\"'), new.replace('"', '\\"')).replace(old, new)
    monkeypatch.setattr("test_rules.all_groups", lambda: json.loads(text))

    with pytest.raises(AssertionError, match="FAILED"):
        test_alerts_when(case, tmp_path)


def test_every_alert_has_a_history_in_which_it_fires() -> None:
    fired = {one.alert for case in CASES for one in case.firing}

    assert {rule["alert"] for rule in all_rules() if "alert" in rule} == fired


class TestSilence:
    def test_in_a_healthy_soak(self, tmp_path: Path) -> None:
        promtool(tmp_path, (lab(), 60, [never_fired(60)]))

    def test_without_any_traffic(self, tmp_path: Path) -> None:
        idle: dict[str, Story] = {
            name: steady(0) if "_total" in name or "_bucket" in name or "_count" in name else story
            for name, story in lab().items()
            if not name.startswith(("vllm:num_requests", "llmlab_inflight"))
        }
        promtool(tmp_path, (idle, 40, [never_fired(40)]))

    def test_without_any_series(self, tmp_path: Path) -> None:
        promtool(tmp_path, ({"unrelated": steady(1)}, 30, [never_fired(30)]))

    def test_when_one_request_of_many_fails(self, tmp_path: Path) -> None:
        """Far more than the budget of a short past allows, and yet no more than an accident."""
        few = lab(refused=lambda s: 1 / RATE if s == 20 else 0)
        promtool(tmp_path, (few, 60, [never_fired(60)]))

    def test_is_broken_when_two_of_few_requests_fail(self, tmp_path: Path) -> None:
        few: dict[str, Story] = {
            'llmchaos_caller_requests_total{outcome="ok"}': lambda s: float(s // 2),
            'llmchaos_caller_requests_total{outcome="http_5xx"}': lambda s: float(min(3, max(0, s - 20))),
        }
        promtool(tmp_path, (few, 30, [fired_at(24, "AvailabilityFastBurn")]))

    def test_when_the_callers_start_again_from_zero(self, tmp_path: Path) -> None:
        series = {
            name: counted(lambda s: RATE, reset_at=30)
            if "ok" in name or name.endswith(("offered_total", "_count"))
            else story
            for name, story in lab().items()
            if name.startswith("llmchaos_caller_") and "bucket" not in name
        }
        promtool(tmp_path, (series, 60, [never_fired(60)]))

    def test_of_errors_and_latency_when_the_api_is_restarted(self, tmp_path: Path) -> None:
        series = {
            name: counted(lambda s: RATE, reset_at=26, gone=range(20, 26)) if 'outcome="ok"' in name else story
            for name, story in lab().items()
            if name.startswith("llmlab_requests_total")
        }
        promtool(tmp_path, ({**lab(), **series}, 60, [never_fired(60, "ApiErrorsHigh")]))


def test_an_increase_stays_right_across_a_restart(tmp_path: Path) -> None:
    restarted = {'llmlab_requests_total{outcome="ok"}': counted(lambda s: RATE, reset_at=26, gone=range(20, 26))}
    check = {
        "expr": "round(sum(increase(llmlab_requests_total[40s])) / 8)",
        "eval_time": "40s",
        # 20 s before the kill and 14 s after the start; only what came after the last scrape died with the process.
        "exp_samples": [{"labels": "{}", "value": 33}],
    }

    promtool(tmp_path, (restarted, 40, [check]))


@pytest.mark.parametrize("slo", [slo for slo in SLOS if slo.alerts], ids=lambda slo: slo.name)
def test_each_factor_separates_what_is_below_from_what_is_above(slo: Slo, tmp_path: Path) -> None:
    how = "truncated" if slo.name == "stream-completeness" else "refused"
    histories: list[History] = []
    for one in raised_by(slo, LAB_SCALE):
        share = one.alert.factor(slo.window_days) * slo.error_budget
        name = alert_name(slo, one.alert)
        for times, check in ((0.93, never_fired(40, name)), (1.07, fired_at(40, name))):
            if share * times < 1:
                histories.append((lab(rate=200, **{how: lambda s, x=share * times: x}), 40, [check]))

    promtool(tmp_path, *histories, every_s=5)


def test_latency_of_requests_that_never_ended_counts_as_too_slow(tmp_path: Path) -> None:
    series = lab(timeout=lambda s: 0.5)
    checks = [
        {
            "expr": f'round(slo:error_ratio:rate15s{{slo="{slo}"}}, 0.01)',
            "eval_time": "40s",
            "exp_samples": [{"labels": f'{{slo="{slo}"}}', "value": 0.5}],
        }
        for slo in ("latency-p95", "latency-p99", "ttft-p95", "goodput", "availability")
    ]

    promtool(tmp_path, (series, 40, checks), every_s=5)


def says(expr: str, value: float, labels: str = "{}") -> dict[str, Any]:
    return {"expr": f"round({expr}, 0.01)", "eval_time": "40s", "exp_samples": [{"labels": labels, "value": value}]}


# Of callers a quarter is refused; the api takes two requests a second for each of theirs and fails half.
SAID_OF_THE_LAB = [
    says("lab:api_latency_seconds:p50_5s", 0.16),
    says("lab:api_latency_seconds:p95_5s", 0.3),
    says("lab:api_latency_seconds:p99_5s", 0.32),
    says("lab:api_requests:rate5s", 16),
    says("lab:api_error_ratio:rate5s", 0.5),
    says("lab:api_ttft_seconds:p95_5s", 0.3),
    says("lab:callers_availability:rate5s", 0.75),
    says("lab:callers_latency_seconds:p50_5s", 0.21),
    says("lab:callers_latency_seconds:p95_5s", 20.48),
    says("lab:callers_latency_seconds:p99_5s", 20.48),
    says("lab:callers_ttft_seconds:p95_5s", 20.48),
    says('lab:service_up{service="model-1"} * 1', 1, '{service="model-1"}'),
]


def said_of(slo: Slo) -> list[dict[str, Any]]:
    """A fifth of the answers breaks off, which every SLO counts as bad; the history is 40 s long."""
    of_slo = f'{{slo="{slo.name}"}}'
    bad = 0.2
    alerts = raised_by(slo, LAB_SCALE)
    windows = {one.long for one in alerts} | {one.short for one in alerts} | {lab_windows(LAB_SCALE)[0].long}
    return [
        says(f"slo:objective:ratio{of_slo} * 100", round(100 * slo.objective, 2), of_slo),
        says(f"slo:burn_rate:rate{lab_windows(LAB_SCALE)[0].long}{of_slo}", round(bad / slo.error_budget, 2), of_slo),
        *(says(f"slo:error_ratio:rate{window}{of_slo}", bad, of_slo) for window in sorted(windows)),
        *(
            says(
                f"slo:events:increase{one.long}{of_slo} / {RATE * min(40, float(one.long[:-1]))} > bool 0.97", 1, of_slo
            )
            for one in alerts
        ),
    ]


def test_indicators_say_what_callers_and_api_saw(tmp_path: Path) -> None:
    series = {
        **lab(refused=lambda s: 0.25),
        'llmlab_requests_total{outcome="upstream_5xx"}': counted(lambda s: RATE),
    }

    promtool(tmp_path, (series, 40, SAID_OF_THE_LAB))


@pytest.mark.parametrize("slo", SLOS, ids=lambda slo: slo.name)
def test_records_of_an_slo_are_its_arithmetic(slo: Slo, tmp_path: Path) -> None:
    promtool(tmp_path, (lab(truncated=lambda s: 0.2), 40, said_of(slo)), every_s=5)


def test_every_record_has_a_history_that_says_what_it_is() -> None:
    checks = [*SAID_OF_THE_LAB, *(check for slo in SLOS for check in said_of(slo))]
    said = {
        found for check in checks for found in re.findall(r'((?:lab|slo):[\w:]+)(?:{slo="([\w-]+)"})?', check["expr"])
    }

    records = [rule for rule in all_rules() if "record" in rule]
    assert {(rule["record"], rule.get("labels", {}).get("slo", "")) for rule in records} == said


def test_promtool_accepts_every_file_without_a_complaint() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", *map(str, RULES)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_every_expression_parses_and_uses_nothing_that_only_some_versions_know() -> None:
    newer = re.compile(
        r"\b(limitk|limit_ratio|info|mad_over_time|sort_by_label|histogram_avg|double_exponential_smoothing)\("
    )
    for rule in all_rules():
        promql_parser.parse(rule["expr"])
        assert not newer.search(rule["expr"]), rule["expr"]


def test_every_alert_says_how_bad_it_is_what_saw_it_and_what_happened() -> None:
    for rule in (rule for rule in all_rules() if "alert" in rule):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["labels"]["signal"], rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]


def test_what_is_committed_is_what_would_be_generated(capsys: pytest.CaptureFixture[str]) -> None:
    status = generate.main(["--root", str(ROOT), "--check"])

    assert status == 0, capsys.readouterr().out


def test_windows_are_scaled_but_never_below_four_scrapes() -> None:
    assert [(w.long, w.short) for w in lab_windows(240)] == [
        ("15s", "4s"),
        ("90s", "8s"),
        ("360s", "30s"),
        ("1080s", "90s"),
    ]
    assert [(w.long, w.short) for w in lab_windows(100_000)] == [("4s", "4s")] * 4


def test_an_alert_that_could_never_fire_is_not_made() -> None:
    lax = Slo(name="lax", objective=0.9, window_days=30, description="lax", good="good_total", total="all_total")

    text = rules([lax], "slo.yaml")

    assert "LaxFastBurn" not in text
    assert "LaxMediumBurn" in text


def test_a_description_with_quotes_and_braces_stays_one_text() -> None:
    odd = 'it\'s 100 % "good": {yes}'
    slo = Slo(name="odd", objective=0.99, window_days=30, description=odd, good="good_total", total="all_total")

    groups = yaml.safe_load(rules([slo], "slo.yaml"))["groups"]

    assert {rule["annotations"]["description"] for rule in groups[0]["rules"] if "alert" in rule} == {odd}


@functools.cache
def all_groups() -> list[dict[str, Any]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def all_rules() -> list[dict[str, Any]]:
    return [rule for group in all_groups() for rule in group["rules"]]


def groups(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups whose alerts and records the checks ask for; all of them where a check asks for any alert."""
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


def firing_exactly(at_s: int, labels: dict[str, str], alert: str = "") -> dict[str, Any]:
    """The alert fires with exactly these labels at that second; no labels: it does not fire (none does)."""
    of_one = f'{{alertname="{alert}",alertstate="firing"}}' if alert else '{alertstate="firing"}'
    shown = ",".join(f'{k}="{v}"' for k, v in sorted(labels.items()))
    samples = [{"labels": f'ALERTS{{alertstate="firing",{shown}}}', "value": 1}] if labels else []
    return {"expr": f"ALERTS{of_one}", "eval_time": f"{at_s}s", "exp_samples": samples}


def never_fired(until_s: int, alert: str = "") -> dict[str, Any]:
    of_one = f'alertname="{alert}",' if alert else ""
    expression = f'count by (alertname) (count_over_time(ALERTS{{{of_one}alertstate="firing"}}[{until_s}s]))'
    return {"expr": expression, "eval_time": f"{until_s}s", "exp_samples": []}


def fired_at(at_s: int, alert: str) -> dict[str, Any]:
    expression = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    return {"expr": expression, "eval_time": f"{at_s}s", "exp_samples": samples}


def promtool(directory: Path, *histories: History, every_s: int = 1) -> None:
    """Run the rules that the checks need over each history, every `every_s` seconds as it goes, and compare.

    Where a history stays as it is, what its rules say at its end does not depend on how often they were asked before.
    """
    rules_text = json.dumps({"groups": groups([check for _, _, checks in histories for check in checks])})
    tests = []
    for series, seconds, checks in histories:
        asked = rules_text + str(checks)
        read = {selector: story for selector, story in series.items() if selector.partition("{")[0] in asked}
        tests.append(history(read, seconds, checks))
    (directory / "rules.yml").write_text(rules_text)
    file = directory / "test.yml"
    file.write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": f"{every_s}s", "tests": tests}))
    # It lives for a second: half of what it costs would be the collection of garbage.
    environment = {**os.environ, "GOGC": "400", "GOMAXPROCS": "1"}
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
