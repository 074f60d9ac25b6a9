"""Every rule of the lab, run by promtool over made-up histories."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from support.prometheus_server import program
from support.rule_cases import (
    CASES,
    ROOT,
    RULES,
    SLOS,
    Case,
    History,
    all_groups,
    all_rules,
    assert_rules_say,
    checks_of,
    never_fired,
    says,
)
from support.rule_histories import RATE, Story, counted, lab, steady

from pytest_llmchaos import generate
from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, alerts_of, lab_windows, rules
from pytest_llmchaos.slo.arithmetic import Slo


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_alerts_when(case: Case, tmp_path: Path) -> None:
    assert_rules_say(tmp_path, (case.history, case.seconds, checks_of(case)))


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
    monkeypatch.setattr("support.rule_cases.all_groups", lambda: json.loads(text))

    with pytest.raises(AssertionError, match="FAILED"):
        test_alerts_when(case, tmp_path)


def test_every_alert_has_a_history_in_which_it_fires() -> None:
    fired = {one.alert for case in CASES for one in case.firing}

    assert {rule["alert"] for rule in all_rules() if "alert" in rule} == fired


class TestSilence:
    def test_silence_holds_in_a_healthy_soak(self, tmp_path: Path) -> None:
        assert_rules_say(tmp_path, (lab(), 60, [never_fired(60)]))

    def test_silence_holds_without_traffic(self, tmp_path: Path) -> None:
        idle: dict[str, Story] = {
            name: steady(0) if "_total" in name or "_bucket" in name or "_count" in name else story
            for name, story in lab().items()
            if not name.startswith(("vllm:num_requests", "llmlab_inflight"))
        }
        assert_rules_say(tmp_path, (idle, 40, [never_fired(40)]))

    def test_silence_holds_without_series(self, tmp_path: Path) -> None:
        assert_rules_say(tmp_path, ({"unrelated": steady(1)}, 30, [never_fired(30)]))

    def test_silence_holds_when_one_request_of_many_fails(self, tmp_path: Path) -> None:
        """Far more than a short window's budget allows, but a single accident."""
        few = lab(refused=lambda s: 1 / RATE if s == 20 else 0)
        assert_rules_say(tmp_path, (few, 60, [never_fired(60)]))

    def test_silence_is_broken_when_two_of_few_requests_fail(self, tmp_path: Path) -> None:
        few: dict[str, Story] = {
            'llmchaos_client_requests_total{outcome="ok"}': lambda s: float(s // 2),
            'llmchaos_client_requests_total{outcome="http_5xx"}': lambda s: float(min(3, max(0, s - 20))),
        }
        assert_rules_say(tmp_path, (few, 30, [fired_at(24, "AvailabilityFastBurn")]))

    def test_silence_holds_when_clients_restart_from_zero(self, tmp_path: Path) -> None:
        series = {
            name: counted(lambda s: RATE, reset_at=30)
            if "ok" in name or name.endswith(("offered_total", "_count"))
            else story
            for name, story in lab().items()
            if name.startswith("llmchaos_client_") and "bucket" not in name
        }
        assert_rules_say(tmp_path, (series, 60, [never_fired(60)]))

    def test_silence_of_budgets_holds_after_an_earlier_loads_outage(self, tmp_path: Path) -> None:
        """2 requests a second. 5 s of the first load fail, 40 s later one request."""
        series: dict[str, Story] = {
            client_requests("first", "ok"): during(0, 35, lambda s: 0.0 if 20 <= s < 25 else 2.0),
            client_requests("first", "refused"): during(0, 35, lambda s: 2.0 if 20 <= s < 25 else 0.0),
            client_requests("second", "ok"): during(45, 90, lambda s: 1.0 if s == 65 else 2.0),
            client_requests("second", "refused"): during(45, 90, lambda s: 1.0 if s == 65 else 0.0),
        }
        assert_rules_say(tmp_path, (series, 90, [quiet_from(46, 90)]))

    def test_silence_is_broken_by_an_outage_of_the_current_load(self, tmp_path: Path) -> None:
        series: dict[str, Story] = {
            client_requests("first", "ok"): during(0, 35, lambda s: 2.0),
            client_requests("second", "ok"): during(45, 90, lambda s: 0.0 if 65 <= s < 70 else 2.0),
            client_requests("second", "refused"): during(45, 90, lambda s: 2.0 if 65 <= s < 70 else 0.0),
        }
        assert_rules_say(tmp_path, (series, 90, [fired_at(70, "AvailabilityFastBurn")]))

    def test_silence_of_errors_and_latency_holds_when_the_api_restarts(self, tmp_path: Path) -> None:
        series = {
            name: counted(lambda s: RATE, reset_at=26, gone=range(20, 26)) if 'outcome="ok"' in name else story
            for name, story in lab().items()
            if name.startswith("llmlab_requests_total")
        }
        assert_rules_say(tmp_path, ({**lab(), **series}, 60, [never_fired(60, "ApiErrorsHigh")]))


def test_an_increase_stays_right_across_a_restart(tmp_path: Path) -> None:
    restarted = {'llmlab_requests_total{outcome="ok"}': counted(lambda s: RATE, reset_at=26, gone=range(20, 26))}
    check = {
        "expr": "round(sum(increase(llmlab_requests_total[40s])) / 8)",
        "eval_time": "40s",
        # 20 s before the kill and 14 s after the start. Unscraped counts are lost.
        "exp_samples": [{"labels": "{}", "value": 33}],
    }

    assert_rules_say(tmp_path, (restarted, 40, [check]))


@pytest.mark.parametrize("slo", [slo for slo in SLOS if slo.alerts], ids=lambda slo: slo.name)
def test_each_factor_separates_what_is_below_from_what_is_above(slo: Slo, tmp_path: Path) -> None:
    how = "truncated" if slo.name == "stream-completeness" else "refused"
    histories: list[History] = []
    for one in alerts_of(slo, LAB_SCALE):
        share = one.alert.factor(slo.window_days) * slo.error_budget
        name = alert_name(slo, one.alert)
        for times, check in ((0.93, never_fired(40, name)), (1.07, fired_at(40, name))):
            if share * times < 1:
                histories.append((lab(rate=200, **{how: lambda s, x=share * times: x}), 40, [check]))

    assert_rules_say(tmp_path, *histories, every_s=5)


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

    assert_rules_say(tmp_path, (series, 40, checks), every_s=5)


# A quarter of the clients is refused. The API gets twice their requests, fails half.
SAID_OF_THE_LAB = [
    says("lab:api_latency_seconds:p50_5s", 0.16),
    says("lab:api_latency_seconds:p95_5s", 0.3),
    says("lab:api_latency_seconds:p99_5s", 0.32),
    says("lab:api_requests:rate5s", 16),
    says("lab:api_error_ratio:rate5s", 0.5),
    says("lab:api_ttft_seconds:p95_5s", 0.3),
    says("lab:clients_availability:rate5s", 0.75),
    says("lab:clients_latency_seconds:p50_5s", 0.21),
    says("lab:clients_latency_seconds:p95_5s", 20.48),
    says("lab:clients_latency_seconds:p99_5s", 20.48),
    says("lab:clients_ttft_seconds:p95_5s", 20.48),
    says('lab:service_up{service="model-1"} * 1', 1, '{service="model-1"}'),
]


def said_of(slo: Slo) -> list[dict[str, Any]]:
    """A fifth of the answers breaks off, bad for every SLO. The history lasts 40 s."""
    of_slo = f'{{slo="{slo.name}"}}'
    bad = 0.2
    alerts = alerts_of(slo, LAB_SCALE)
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


def test_indicators_match_what_clients_and_api_saw(tmp_path: Path) -> None:
    series = {
        **lab(refused=lambda s: 0.25),
        'llmlab_requests_total{outcome="upstream_5xx"}': counted(lambda s: RATE),
    }

    assert_rules_say(tmp_path, (series, 40, SAID_OF_THE_LAB))


@pytest.mark.parametrize("slo", SLOS, ids=lambda slo: slo.name)
def test_records_of_an_slo_are_its_arithmetic(slo: Slo, tmp_path: Path) -> None:
    assert_rules_say(tmp_path, (lab(truncated=lambda s: 0.2), 40, said_of(slo)), every_s=5)


def test_every_record_has_a_history_with_its_expected_value() -> None:
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


def test_every_expression_parses_in_all_supported_versions() -> None:
    newer = re.compile(
        r"\b(limitk|limit_ratio|info|mad_over_time|sort_by_label|histogram_avg|double_exponential_smoothing)\("
    )
    for rule in all_rules():
        promql_parser.parse(rule["expr"])
        assert not newer.search(rule["expr"]), rule["expr"]


def test_every_alert_has_severity_source_and_summary() -> None:
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


def client_requests(load: str, outcome: str) -> str:
    return f'llmchaos_client_requests_total{{load="{load}",outcome="{outcome}"}}'


def during(from_s: int, to_s: int, rate: Callable[[int], float]) -> Story:
    """A load's counter, pushed from `from_s` until 10 s after the load's end."""
    grown = counted(lambda s: rate(s) if from_s <= s < to_s else 0.0)
    return lambda second: grown(second) if from_s <= second < to_s + 10 else None


def quiet_from(from_s: int, until_s: int) -> dict[str, Any]:
    """No alert on a budget fires in between."""
    expression = f'count_over_time(ALERTS{{slo="availability",alertstate="firing"}}[{until_s - from_s}s])'
    return {"expr": expression, "eval_time": f"{until_s}s", "exp_samples": []}


def fired_at(at_s: int, alert: str) -> dict[str, Any]:
    expression = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    return {"expr": expression, "eval_time": f"{at_s}s", "exp_samples": samples}
