"""SLO files, and the arithmetic of budgets, burn rates and windows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.errors import BadScenario, OpenRequests, TooFewSamples, VacuousClaim
from pytest_llmchaos.loadgen.metrics import DURATION_BUCKETS_S, TTFT_BUCKETS_S
from pytest_llmchaos.slo import recorded
from pytest_llmchaos.slo.arithmetic import (
    BURN_ALERTS,
    InvalidSlo,
    Slo,
    budget_events,
    budget_spent,
    burn_rate,
    scaled_window_s,
    window_query,
)
from pytest_llmchaos.slo.openslo import load_slos, slos_of
from pytest_llmchaos.slo.recorded import error_ratio, error_ratio_expression, events_expression
from pytest_llmchaos.slo.yaml_nodes import documents
from pytest_llmchaos.trial.slo_result import SloResult

LAB_FILE = Path(__file__).parent.parent / "stack" / "slo.yaml"
LAB = LAB_FILE.read_text()
ONE = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: availability
  displayName: Availability
  annotations:
    llmchaos/unit: answers
    llmchaos/threshold-seconds: "2.5"
    llmchaos/alerts: "false"
spec:
  service: lab
  description: >-
    The share of
    good ones.
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 4w
      isRolling: true
  objectives:
    - target: 0.995
  indicator:
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: Prometheus
            spec:
              query: asked_total{outcome="ok"}
        total:
          metricSource:
            type: Prometheus
            spec:
              query: asked_total
"""


def made(objective: float = 0.99, **others: object) -> Slo:
    values = {"name": "made-up", "window_days": 30.0, "description": "d", "good": "good_total", "total": "all_total"}
    return Slo(objective=objective, **{**values, **others})  # type: ignore[arg-type]


class TestFile:
    def test_a_file_has_every_field_of_an_slo(self) -> None:
        (slo,) = load_slos(ONE, "slo.yaml")

        assert slo == Slo(
            name="availability",
            display_name="Availability",
            objective=0.995,
            window_days=28,
            description="The share of good ones.",
            good='asked_total{outcome="ok"}',
            total="asked_total",
            unit="answers",
            threshold_s=2.5,
            alerts=False,
        )

    def test_the_labs_file_has_the_promised_objectives(self) -> None:
        objectives = {slo.name: slo.objective for slo in load_slos(LAB, "stack/slo.yaml")}

        assert objectives == {
            "availability": 0.995,
            "availability-without-429": 0.995,
            "latency-p95": 0.95,
            "latency-p99": 0.99,
            "ttft-p95": 0.95,
            "stream-completeness": 0.999,
            "goodput": 0.99,
        }
        assert all(slo.window_days == 30 and slo.description for slo in load_slos(LAB, "stack/slo.yaml"))

    def test_the_labs_file_reads_the_same_as_its_text(self) -> None:
        assert slos_of(LAB_FILE) == load_slos(LAB, str(LAB_FILE))

    def test_the_labs_file_bounds_latency_at_the_described_edge(self) -> None:
        for slo in load_slos(LAB, "stack/slo.yaml"):
            if slo.threshold_s is not None:
                edge = re.search(r'le=~?"([0-9.]+)', slo.good)
                assert edge is not None
                assert float(edge[1]) == slo.threshold_s, slo.name
                assert f"within {slo.threshold_s:g} s" in slo.description, slo.name

    def test_the_labs_file_bounds_latency_at_an_edge_of_the_histograms(self) -> None:
        for slo in load_slos(LAB, "stack/slo.yaml"):
            edges_s = TTFT_BUCKETS_S if "time_to_first_token" in slo.good else DURATION_BUCKETS_S
            assert slo.threshold_s is None or slo.threshold_s in edges_s, slo.name

    @pytest.mark.parametrize("clients", ["ttft", "e2e", "none"])
    def test_a_file_names_the_clients_measure_to_compare_with(self, clients: str) -> None:
        (slo,) = load_slos(ONE.replace("llmchaos/unit: answers", f"llmchaos/clients: {clients}"), "slo.yaml")

        assert slo.clients == clients
        assert [one.clients for one in load_slos(ONE, "slo.yaml")] == [None]

    @pytest.mark.parametrize(
        ("clients", "threshold", "said"),
        [
            (
                "itl",
                '"2.5"',
                r"slo.yaml:7:\d+: .*must be 'availability' or 'ttft' or 'e2e' or 'none', got 'itl'",
            ),
            ("ttft", "", "availability: clients 'ttft' needs a bound: add llmchaos/threshold-seconds"),
            ("e2e", "", "availability: clients 'e2e' needs a bound: add llmchaos/threshold-seconds"),
            (
                "availability",
                '"2.5"',
                "availability: clients 'availability' takes no bound, got 2.5 s: write ttft or e2e",
            ),
        ],
    )
    def test_names_no_truth_that_clients_lack(self, clients: str, threshold: str, said: str) -> None:
        text = ONE.replace("llmchaos/unit: answers", f"llmchaos/clients: {clients}")
        text = text if threshold else text.replace('    llmchaos/threshold-seconds: "2.5"\n', "")

        with pytest.raises(InvalidSlo, match=said):
            load_slos(text, "slo.yaml")

    def test_a_file_may_be_about_availability(self) -> None:
        text = ONE.replace("llmchaos/unit: answers", "llmchaos/clients: availability")

        (slo,) = load_slos(text.replace('    llmchaos/threshold-seconds: "2.5"\n', ""), "slo.yaml")

        assert slo.clients == "availability"

    def test_a_file_needs_no_annotations(self) -> None:
        plain = re.sub(r"  displayName.*?spec:", "spec:", ONE, count=1, flags=re.DOTALL)

        (slo,) = load_slos(plain, "slo.yaml")

        assert (slo.unit, slo.threshold_s, slo.alerts, slo.display_name) == ("requests", None, True, "")

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("target: 0.995", "target: 99.5", r"slo.yaml:20:15: .*target must be a share .* got '99.5'"),
            ("target: 0.995", 'target: "high"', r"20:15: .*target must be a number, without quotes, got 'high'"),
            (
                "target: 0.995",
                "target: 0.995\n    - target: 0.995",
                r"20:5: .*objectives with different targets, got a sequence of 2",
            ),
            ("target: 0.995", "target: 0", "20:15: .*target must be a share above 0 and below 1 .* got '0'"),
            ("target: 0.995", "target: -0.5", "20:15: .*target must be a share .* got '-0.5'"),
            ("target: 0.995", "target: 1.5", "20:15: .*target must be a share .* got '1.5'"),
            (
                "target: 0.995",
                "target: !!float [1]",
                "20:15: .*target must be a number, without quotes, got a sequence of 1",
            ),
            ("target: 0.995", "target: true", "20:15: .*target must be a number, without quotes, got 'true'"),
            (
                "  objectives:\n    - target: 0.995",
                "  objectives: []",
                "19:15: .*a list of at least one objective, got a sequence of 0",
            ),
            (
                "target: 0.995",
                "goal: 0.995",
                r"20:7: a key of spec.objectives\[0\] must be one of displayName, target, targetP",
            ),
            ("duration: 4w", "duration: 1 month", r"17:17: .*duration must be a duration such as 30d.*'1 month'"),
            ("duration: 4w", "duration: 0d", "17:17: .*duration must be"),
            (
                "isRolling: true",
                "isRolling: false",
                "18:18: .*isRolling must be true, or have a calendar next to it, got 'false'",
            ),
            ("isRolling: true", "isRolling: maybe", "18:18: .*isRolling must be true or false, got 'maybe'"),
            ("isRolling: true", "isRolling: !own true", "18:18: .*isRolling must be true or false, got 'true'"),
            ("isRolling: true", "isRolling: !!bool [yes]", "18:18: .*must be true or false, got a sequence of 1"),
            ("      isRolling: true", "      isRolling: true\n    - duration: 30d", "17:5: .*exactly one window"),
            ("    - duration: 4w\n      isRolling: true\n", "    []\n", "17:5: .*exactly one window"),
            (
                "budgetingMethod: Occurrences",
                "budgetingMethod: Timeslices",
                r"15:20: .*must be 'Occurrences' \(it counts events.*\), got 'Time",
            ),
            ("counter: true", "counter: false", r"24:18: .*counter must be true \(rates"),
            ("type: Prometheus", "type: Datadog", r"27:19: .*type must be 'Prometheus' \(.*\), got 'Datadog'"),
            ("openslo/v1", "openslo/v2", "1:13: apiVersion must be 'openslo/v1' or 'openslo.com/v1', got 'openslo/v2'"),
            ("kind: SLO", "kind: Service", "^slo.yaml:1:1: must hold at least one document of kind SLO, got Service$"),
            (
                "name: availability",
                "name: Availability",
                r"^slo.yaml:4:9: .*lower-case .* \(RFC 1123\), such as 'availability', got 'Avail",
            ),
            (
                "name: availability",
                "name:  Availability",
                "^slo.yaml:4:10: metadata.name must be up to 63 lower-case letters",
            ),
            ("name: availability", 'name: ""', "4:9: metadata.name must be a text"),
            (
                "query: asked_total\n",
                "query: delta(asked_total[5m])\n",
                r"34:22: .*total.*query must be a selector .*, got 'delta",
            ),
            (
                "query: asked_total\n",
                "query: asked_total{code=200}\n",
                r"34:22: .*must be a selector .*, got 'asked_total\{",
            ),
            ('"2.5"', '"soon"', "8:33: .*must be seconds above 0"),
            ("target: 0.995", "target: .nan", "20:15: .*target must be a decimal number, got '.nan'"),
            ("target: 0.995", "target: 0x1", "20:15: .*target must be a decimal number, got '0x1'"),
            ('"2.5"', '"-1"', "8:33: .*must be seconds above 0"),
            ('alerts: "false"', "alerts: sometimes", "9:22: .*must be 'true' or 'false'"),
            ("llmchaos/unit", "llmchaos/units", "7:5: a key of metadata.annotations must be one of"),
            ("  budgetingMethod: Occurrences\n", "", "11:3: spec must have 'budgetingMethod', it has description, "),
            ("  service: lab", "  service: lab\n  service: lab", "12:3: a key of spec must be given once"),
            ("    - target: 0.995", "    target: 0.995", "20:5: spec.objectives must be a list, got a mapping of 1"),
            ("      ratioMetric:\n", "      - ratioMetric:\n", "23:7: .*indicator.spec must be a mapping"),
            ("kind: SLO", "kind: [SLO", r"^slo.yaml:3:9: must be YAML, got: expected ',' or '\]', but got ':'$"),
            ("kind: SLO", "kind: *SLO", r"^slo.yaml:2:7: must be YAML, got: found undefined alias 'SLO'$"),
            ("kind: SLO", f"kind: {'x' * 79}yz", "2:7: kind must be 'SLO' or .*, got 'x{79}y'$"),
            ("kind: SLO", "kind: {}", "2:7: kind must be a text, got a mapping of 0"),
            (
                "    spec:\n      ratioMetric",
                "    spec: {}\n    metadata:\n      ratioMetric",
                "22:11: .* it has nothing$",
            ),
            ("  name: availability\n", "", "4:3: metadata must have 'name', it has annotations, displayName$"),
            (
                "apiVersion: openslo/v1\n",
                "",
                "^slo.yaml:1:1: the document must have 'apiVersion', it has kind, metadata, spec$",
            ),
            (
                "kind: SLO",
                "kinds: SLO",
                "2:1: a key of the document must be one of apiVersion, kind, metadata, spec, status, got",
            ),
            ("kind: SLO", "kind: " + "[" * 3000, "slo.yaml: must be YAML that is nested a few levels deep"),
            ("duration: 4w", f"duration: {'9' * 400}d", "17:17: .*duration must be a duration .* of at most 3660d"),
            ("duration: 4w", f"duration: {'9' * 5000}d", "17:17: .*duration must be a duration"),
            ("duration: 4w", "duration: 3661d", "17:17: .*duration must be a duration"),
            ("duration: 4w", "duration: \u0664d", "17:17: .*duration must be a duration"),
            ('"2.5"', "inf", "8:33: .*must be seconds above 0"),
            ('"2.5"', "1e999", "8:33: .*must be seconds above 0"),
            ('"2.5"', "nan", "8:33: .*must be seconds above 0"),
            ('"2.5"', "0", "8:33: .*must be seconds above 0"),
            ("target: 0.995", "target: 0.9999999999999999", "20:15: .*target must be a share .* by 1e-12 at least"),
            (
                "query: asked_total\n",
                'query: asked_total{b=~"("}\n',
                "34:22: .*regular expressions that Prometheus accepts",
            ),
            ("displayName: Availability", r'displayName: "a\0b"', "5:16: .*must be a text without control characters"),
            ("llmchaos/unit: answers", r'llmchaos/unit: "a\x07"', "7:20: .*must be a text without control characters"),
        ],
    )
    def test_a_wrong_file_is_an_error_with_place_expectation_and_value(self, old: str, new: str, said: str) -> None:
        assert old in ONE

        with pytest.raises(InvalidSlo, match=said):
            load_slos(ONE.replace(old, new, 1), "slo.yaml")

    @pytest.mark.parametrize(
        ("duration", "days"), [("1d", 1), ("3660d", 3660), ("4w", 28), ("12h", 0.5), ("1h", 1 / 24), ("00030d", 30)]
    )
    def test_a_file_has_windows_of_days_weeks_or_hours(self, duration: str, days: float) -> None:
        (slo,) = load_slos(ONE.replace("4w", duration), "slo.yaml")

        assert slo.window_days == days

    @pytest.mark.parametrize(("said", "fires"), [("true", True), ("false", False)])
    def test_a_file_can_switch_alerts_off(self, said: str, fires: bool) -> None:
        (slo,) = load_slos(ONE.replace('"false"', f'"{said}"'), "slo.yaml")

        assert slo.alerts is fires

    @pytest.mark.parametrize(("said", "bound_s"), [("0.5", 0.5), ("1e-3", 0.001), ("60", 60), (".25", 0.25)])
    def test_a_file_has_bounds_of_any_seconds(self, said: str, bound_s: float) -> None:
        (slo,) = load_slos(ONE.replace("2.5", said), "slo.yaml")

        assert slo.threshold_s == bound_s

    def test_a_file_may_leave_the_least_budget(self) -> None:
        (slo,) = load_slos(ONE.replace("0.995", "0.999999999999"), "slo.yaml")

        assert slo.error_budget == 1e-12

    def test_a_file_has_several_slos_in_its_order(self) -> None:
        text = "---\n".join(ONE.replace("name: availability", f"name: {name}") for name in ("zeal", "ardour", "calm"))

        assert [slo.name for slo in load_slos(text, "slo.yaml")] == ["zeal", "ardour", "calm"]

    def test_a_file_is_named_by_its_path_or_a_given_name(self, tmp_path: Path) -> None:
        (tmp_path / "own.yaml").write_text("kind: SLO\n")

        with pytest.raises(InvalidSlo, match=f"^{re.escape(str(tmp_path))}/own.yaml:1:1: the document must have"):
            slos_of(tmp_path / "own.yaml")
        with pytest.raises(InvalidSlo, match=r"^own\.yaml:1:1: the document must have"):
            slos_of(tmp_path / "own.yaml", "own.yaml")

    def test_a_file_that_is_empty_is_wrong(self) -> None:
        with pytest.raises(InvalidSlo, match=r"slo.yaml:1:1: must hold at least one document"):
            load_slos("# nothing\n", "slo.yaml")

    def test_a_file_with_one_name_twice_is_wrong(self) -> None:
        with pytest.raises(InvalidSlo, match=r"slo.yaml:39:9: metadata.name must be unique in the file, got 'availab"):
            load_slos(f"{ONE}---\n{ONE}", "slo.yaml")

    def test_a_file_with_a_character_that_yaml_forbids_is_wrong(self) -> None:
        with pytest.raises(InvalidSlo, match="must be YAML"):
            load_slos("a: \x00", "slo.yaml")

    def test_a_file_with_text_in_place_of_a_mapping_is_wrong(self) -> None:
        with pytest.raises(InvalidSlo, match=r"1:1: the document must be a mapping of .*, got 'text'"):
            load_slos("text", "slo.yaml")

    def test_a_file_that_is_binary_or_missing_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")

        for name in ("bytes.yaml", "missing.yaml"):
            with pytest.raises(InvalidSlo, match=rf"{name}: must be a text file in UTF-8 that can be read: "):
                slos_of(tmp_path / name)

    @given(st.text(max_size=200))
    def test_a_file_of_any_text_is_read_or_refused_with_its_name(self, text: str) -> None:
        with pytest.raises(InvalidSlo, match=r"odd.yaml"):
            load_slos(text, "odd.yaml")


@pytest.mark.parametrize("said", ["true", "True", "yes", "on"])
def test_a_flag_is_set_by_each_word_for_true(said: str) -> None:
    (place,) = documents(said, "flag.yaml")

    assert place.flag()


def test_a_flag_is_unset_by_the_words_for_false() -> None:
    assert [place.flag() for place in documents("no\n---\nfalse\n---\nOff\n", "flag.yaml")] == [False] * 3


def test_a_number_is_a_decimal_one() -> None:
    assert [place.number() for place in documents("1\n---\n-2.5\n---\n1.0e+3\n", "number.yaml")] == [1, -2.5, 1000]


@pytest.mark.parametrize(("text", "line", "column"), [("a: [x\n", 2, 1), ("a:\n\n  'b\n\n", 5, 1), ("a: b: c", 1, 5)])
def test_a_text_that_is_no_yaml_is_refused_where_it_ceases_to_be(text: str, line: int, column: int) -> None:
    with pytest.raises(BadScenario, match=rf"^odd.yaml:{line}:{column}: must be YAML, got: \w+ "):
        documents(text, "odd.yaml")


def test_a_key_of_a_list_is_an_error_that_names_the_list() -> None:
    (place,) = documents("- a", "list.yaml")

    with pytest.raises(
        BadScenario, match=r"list.yaml:1:1: the document must be a mapping with 'key', got a sequence of 1"
    ):
        place.optional("key")


class TestSlo:
    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("objective", 1.0, "objective must be above 0 and below 1, got 1.0"),
            ("objective", 0.0, "objective must be above 0 and below 1, got 0.0"),
            ("objective", -0.5, "objective must be above 0 and below 1, got -0.5"),
            ("objective", 1.5, "objective must be above 0 and below 1, got 1.5"),
            ("objective", math.nan, "got nan"),
            ("window_days", 0.0, "window_days must be above 0, got 0.0"),
            ("window_days", -1.0, "window_days must be above 0, got -1.0"),
            ("window_days", math.inf, "got inf"),
            ("window_days", float("inf"), "got inf"),
            ("window_days", math.nan, "got nan"),
            ("name", "two words", "got 'two words'"),
            ("good", "sum(x)", r"good must select counters, got 'sum\(x\)'"),
            ("total", "x[5m]", r"total must select counters, got 'x\[5m\]'"),
            ("total", 'x{a="b"', "total must select counters"),
            ("total", "x{a=b}", "total must select counters"),
            ("total", 'x{"b"}', "total must select counters"),
            (
                "objective",
                0.9999999999999999,
                "objective must leave a budget of at least 1e-12, got 0.9999999999999999",
            ),
        ],
    )
    def test_an_slo_with_impossible_values_is_refused(self, field: str, value: object, said: str) -> None:
        with pytest.raises(InvalidSlo, match=said):
            made(**{field: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "selector", ["x", 'x{a="b"}', "x{ a!='b' , }", 'x{a=~"b{2}|c\\"}",d!="e"}', "vllm:x_total{}"]
    )
    def test_an_slo_may_select_by_any_label(self, selector: str) -> None:
        assert made(good=selector).good == selector

    def test_an_slo_may_have_a_window_of_any_length(self) -> None:
        assert [made(window_days=days).window_days for days in (0.01, 1, 1e6)] == [0.01, 1, 1e6]

    def test_an_slo_has_alerts_and_counts_requests_by_default(self) -> None:
        slo = made()

        assert (slo.alerts, slo.unit, slo.threshold_s, slo.display_name) == (True, "requests", None, "")

    def test_an_slo_has_a_budget_in_whole_steps_of_the_least(self) -> None:
        assert made(1 - 1e-12).error_budget == 1e-12
        assert made(1 - 0.6e-12).error_budget == 1e-12
        assert made(1 - 2.4e-12).error_budget == 2e-12

    def test_prints_what_it_promises_however_near_to_1(self) -> None:
        assert str(made(0.9999999)) == "made-up 0.9999999 over 30 days"

    def test_prints_what_it_promises(self) -> None:
        assert str(made(0.995)) == "made-up 0.995 over 30 days"

    def test_an_slo_has_a_budget_without_rounding_errors(self) -> None:
        assert made(0.995).error_budget == 0.005
        assert made(0.999).error_budget == 0.001


class TestBurn:
    def test_factors_are_those_of_the_workbook(self) -> None:
        assert [alert.factor() for alert in BURN_ALERTS] == [14.4, 6, 3, 1]

    def test_factors_follow_the_window(self) -> None:
        assert [alert.factor(28) for alert in BURN_ALERTS] == [13.44, 5.6, 2.8, 0.933333]

    def test_short_windows_are_a_twelfth_of_the_long_ones(self) -> None:
        assert {alert.long_s / alert.short_s for alert in BURN_ALERTS} == {12}

    def test_the_burn_rate_at_the_objective_is_one(self) -> None:
        assert burn_rate(0.995, made(0.995)) == pytest.approx(1)

    def test_the_burn_rate_of_total_failure_is_the_inverse_of_the_budget(self) -> None:
        assert burn_rate(0, made(0.995)) == pytest.approx(200)

    @given(st.floats(1, 1e6), st.floats(1, 1e7), st.floats(0.01, 60))
    def test_windows_are_whole_scrapes_and_at_least_four(self, scale: float, window_s: float, scrape_s: float) -> None:
        scaled = scaled_window_s(window_s, scale, scrape_s)

        assert scaled >= 4 * scrape_s
        assert scaled / scrape_s == pytest.approx(round(scaled / scrape_s))
        assert scaled >= window_s / scale * (1 - 1e-6)

    @pytest.mark.parametrize(
        ("window_s", "scale", "interval_s", "scaled_s"),
        [
            (3600, 1, 1, 3600),
            (3600, 1.5, 0.5, 2400),
            (100, 30, 0.5, 3.5),  # 6.67 scrapes are 7
            (1000, 7, 3, 144),  # 47.6 are 48
            (300, 240, 1, 4),
            (300, 240, 0.25, 1.25),
            (60, 1e6, 15, 60),
            (10 + 3e-10, 1, 1, 10),  # less than a billionth of a scrape is dust of floating point
            (10 + 3e-9, 1, 1, 11),
        ],
    )
    def test_windows_are_shorter_by_the_scale_in_scrapes_that_are_begun(
        self, window_s: float, scale: float, interval_s: float, scaled_s: float
    ) -> None:
        assert scaled_window_s(window_s, scale, interval_s) == pytest.approx(scaled_s, abs=1e-6)

    def test_windows_are_in_whole_seconds_without_another_interval(self) -> None:
        assert scaled_window_s(100, 30) == 4
        assert scaled_window_s(100, 8) == 13

    @pytest.mark.parametrize(("scale", "interval_s"), [(0.5, 1.0), (0, 1.0), (-2, 1.0), (2.0, 0.0), (2.0, -1.0)])
    def test_windows_are_not_stretched(self, scale: float, interval_s: float) -> None:
        with pytest.raises(BadScenario, match=rf"scale must be >= 1 .* above 0, got {scale} and {interval_s}$"):
            scaled_window_s(60, scale, interval_s)


class TestBudget:
    def test_the_budget_is_kept_in_events_of_the_window(self) -> None:
        """8 a second for 30 days are 20,736,000 events, of which 0.5 % may be bad."""
        assert budget_events(made(0.995), 8) == pytest.approx(103_680)

    def test_spent_by_an_outage_of_the_whole_service_is_its_share_of_the_allowed_downtime(self) -> None:
        """99.9 % of 30 days allows 43.2 minutes of silence, whatever the rate."""
        for rate_rps in (0.5, 8, 2000):
            bad = rate_rps * 43.2 * 60 / 10
            assert budget_spent(bad, made(0.999), rate_rps) == pytest.approx(0.1)

    @given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.1, 1e4))
    def test_spent_adds_up(self, one: float, other: float, rate_rps: float) -> None:
        slo = made()

        both = budget_spent(one, slo, rate_rps) + budget_spent(other, slo, rate_rps)

        assert both == pytest.approx(budget_spent(one + other, slo, rate_rps), rel=1e-6, abs=1e-12)

    @pytest.mark.parametrize("rate_rps", [0, -1, math.nan])
    def test_the_budget_of_no_traffic_is_not_defined(self, rate_rps: float) -> None:
        with pytest.raises(BadScenario, match="rate_rps must be above 0"):
            budget_events(made(), rate_rps)


class TestWindow:
    def test_a_window_is_written_in_milliseconds(self) -> None:
        queries = window_query(made(), 12.3456)

        assert queries.good == "sum(good_total) - sum(good_total offset 12346ms)"
        assert queries.total == "sum(all_total) - sum(all_total offset 12346ms)"
        assert queries.ratio == f"({queries.good}) / ({queries.total})"
        assert queries.gone == (
            "(good_total offset 12346ms unless good_total) or (all_total offset 12346ms unless all_total)"
        )

    @pytest.mark.parametrize(
        "slo",
        [*load_slos(LAB, "stack/slo.yaml"), made(name="of-failures", good="", bad="failed_total")],
        ids=lambda slo: slo.name,
    )
    def test_gives_queries_that_parse(self, slo: Slo) -> None:
        for query in vars(window_query(slo, 0.5)).values():
            assert promql_parser.parse(query)

    @pytest.mark.parametrize("sides", [{"good": ""}, {"bad": "failed_total"}])
    def test_an_slo_has_good_or_bad_events(self, sides: dict[str, str]) -> None:
        with pytest.raises(InvalidSlo, match="made-up: needs good or bad, and not both"):
            made(**sides)

    def test_failures_that_are_not_counted_yet_are_0(self) -> None:
        queries = window_query(made(good="", bad="failed_total"), 3)

        assert queries.good == (
            "(sum(all_total) - sum(all_total offset 3000ms)) - "
            "(sum(failed_total or vector(0)) - sum(failed_total offset 3000ms or vector(0)))"
        )
        assert queries.resets.startswith("(sum(resets(failed_total[3000ms])) or vector(0)) + ")

    @pytest.mark.parametrize("window_s", [0, -1.0, math.nan])
    def test_a_window_without_length_is_refused(self, window_s: float) -> None:
        with pytest.raises(BadScenario, match="window_s must be above 0"):
            window_query(made(), window_s)


class TestRecorded:
    def test_the_share_of_bad_events_is_recorded_over_a_window(self) -> None:
        assert error_ratio("15s") == "slo:error_ratio:rate15s"
        assert error_ratio_expression(made(), "15s") == (
            "clamp_min(1 - sum(rate(good_total[15s])) / (sum(rate(all_total[15s])) > 0), 0)"
        )
        assert events_expression(made(), "15s") == "sum(increase(all_total[15s]))"

    def test_the_newest_seconds_can_be_left_out(self) -> None:
        assert "rate(good_total[13s] offset 2s)" in error_ratio_expression(made(), "15s", without_s=2)

    def test_counters_of_clients_are_those_of_one_load(self) -> None:
        total = 'llmchaos_client_requests_total{outcome!="cancelled"}'

        assert events_expression(made(total=total), "4s") == f"sum(increase({total}[4s]) and {total})"


class TestResult:
    def result(self, good: float, total: float, **others: object) -> SloResult:
        values = {"slo": made(0.995), "window_s": 12.0, "rate_rps": 8.0, "query": "q"}
        return SloResult(good=good, total=total, **{**values, **others})  # type: ignore[arg-type]

    def test_shows_in_a_failed_assert_what_it_counted(self) -> None:
        assert repr(self.result(589, 600)) == (
            "<slo made-up: 0.981667 of objective 0.995, 11 of 600 requests bad in 12.0 s of load: 0.22 s without a good answer, "
            "0.000106 of the month's budget spent, burn rate 3.67>"
        )

    def test_shows_the_seconds_from_which_its_bad_seconds_follow(self) -> None:
        shown = repr(self.result(300, 600, window_s=20.0, load_s=10.0))

        assert "300 of 600 requests bad in 10.0 s of load: 5 s without a good answer" in shown

    def test_meets_the_objective_exactly_at_it(self) -> None:
        assert self.result(199, 200).met
        assert not self.result(198, 200).met

    @pytest.mark.parametrize("total", [1, 50, 199])
    def test_a_result_of_too_few_events_can_miss_the_objective_and_not_meet_it(self, total: int) -> None:
        assert not self.result(total - 1, total).met
        with pytest.raises(TooFewSamples, match=rf"value of made-up >= 0\.995 needs 200 events to hold, got {total}"):
            _ = self.result(total, total).met

    def test_bounds_what_clients_suffered_in_seconds_of_load(self) -> None:
        """Half of the answers of 10 s of load were bad, in a window of 12 s."""
        result = self.result(40, 80, load_s=10.0)

        assert result.bad_s == 5
        assert result.bad_s <= 5
        assert not result.bad_s <= 4
        assert self.result(40, 80).bad_s == 6

    @pytest.mark.parametrize(
        ("claim", "said"),
        [
            (
                lambda one: one.budget_spent <= 0.02,
                r"even if every one of the 160 requests had been bad, it would be 0\.0015",
            ),
            (lambda one: one.burn_rate <= 200, "even if every one of the 160 requests had been bad, it would be 200"),
            (lambda one: one.bad_s <= 12, "even if every one of the 160 requests had been bad, it would be 12"),
            (lambda one: one.bad <= 160, "even if every one of the 160 requests had been bad, it would be 160"),
            (lambda one: one.value >= 0, "even if every one of the 160 requests had been bad, it would be 0"),
        ],
    )
    def test_refuses_a_bound_that_its_window_cannot_break(self, claim: Any, said: str) -> None:
        with pytest.raises(VacuousClaim, match=f"cannot fail: {said}[0-9]*; .*bound bad_s, bad or value"):
            claim(self.result(150, 160))

    def test_a_result_of_a_quick_recovery_is_bounded_by_the_cost_of_a_slow_one(self) -> None:
        """Repaired after 3 of 40 s: a bound of 10 s could have been broken."""
        result = self.result(50, 56, load_s=7.0, longest_s=70.0)

        assert result.bad_s <= 10
        assert result.bad <= 60
        with pytest.raises(VacuousClaim, match="even if every one of the 560 requests had been bad, it would be 70"):
            assert result.bad_s <= 70

    def test_a_result_has_bounds_for_each_of_its_values(self) -> None:
        """160 requests of 8 s of load, which could have lasted 9.5 times as long."""
        result = self.result(149, 160, load_s=8.0, longest_s=76.0)
        values = {name: getattr(result, name) for name in ("value", "burn_rate", "bad", "bad_s", "budget_spent")}
        month = 0.005 * 8 * 30 * 86_400

        assert {name: float(one) for name, one in values.items()} == {
            "value": 149 / 160,
            "burn_rate": pytest.approx(11 / 160 / 0.005),
            "bad": 11,
            "bad_s": 0.55,
            "budget_spent": pytest.approx(11 / month),
        }
        assert {name: (one.scale.least, one.scale.most) for name, one in values.items()} == {
            "value": (0, 1),
            "burn_rate": (0, pytest.approx(200)),
            "bad": (0, 1520),
            "bad_s": (0, 76),
            "budget_spent": (0, pytest.approx(1520 / month)),
        }
        assert {name: (one.scale.at_most, one.scale.events) for name, one in values.items()} == {
            "value": ("none of the 160 requests had been bad", 160),
            "burn_rate": ("every one of the 160 requests had been bad", 160),
            "bad": ("every one of the 1520 requests had been bad", None),
            "bad_s": ("every one of the 1520 requests had been bad", None),
            "budget_spent": ("every one of the 1520 requests had been bad", None),
        }
        assert values["value"].scale.at_least == "every one of the 160 requests had been bad"
        assert values["bad"].scale.at_least == "none of the 1520 requests had been bad"
        assert {name for name, one in values.items() if "too short for a budget of 30 days" in one.scale.advice} == {
            "budget_spent"
        }

    def test_reaches_no_farther_than_its_own_load_where_that_was_the_longest(self) -> None:
        for result in (self.result(150, 160, load_s=12.0, longest_s=6.0), self.result(150, 160, window_s=0.5)):
            assert result.bad.scale.most == 160  # type: ignore[attr-defined]

    def test_lies_between_what_open_requests_could_make_of_it(self) -> None:
        result = self.result(150, 160, unknown=10)

        ends = {name: getattr(result, name) for name in ("value", "bad", "bad_s", "burn_rate")}

        assert {name: (one.low, one.high) for name, one in ends.items()} == {
            "value": (150 / 170, 160 / 170),
            "bad": (10, 20),
            "bad_s": (10 * 12 / 170, 20 * 12 / 170),
            "burn_rate": (pytest.approx(10 / 170 / 0.005), pytest.approx(20 / 170 / 0.005)),
        }
        assert float(result.value) == 150 / 160
        assert result.value.scale.events == 160  # type: ignore[attr-defined]

    def test_depends_on_requests_that_were_open_where_they_could_change_it(self) -> None:
        result = self.result(150, 160, unknown=10)

        assert result.bad <= 30
        assert (float(result.bad), result.bad.low, result.bad.high) == (10, 10, 20)  # type: ignore[attr-defined]
        with pytest.raises(OpenRequests, match="it lies between 10 and 20"):
            assert result.bad <= 15

    def test_a_result_has_the_name_and_objective_of_its_slo(self) -> None:
        result = self.result(199, 200)

        assert (result.name, result.objective, result.burn_rate) == ("made-up", 0.995, pytest.approx(1))

    def test_never_shows_more_good_than_there_was(self) -> None:
        result = self.result(11, 10)

        assert (result.value, result.bad, result.budget_spent) == (1, 0, 0)

    def test_a_result_may_have_a_part_of_an_event_and_no_good_one(self) -> None:
        """Prometheus extrapolates."""
        assert float(self.result(0, 0.5).bad) == 0.5
        assert float(self.result(0.25, 2).value) == 0.125

    @pytest.mark.parametrize(("good", "total"), [(0, 0), (-1, 5), (math.nan, 0), (0, math.nan), (-0.5, 5)])
    def test_a_result_without_events_is_refused(self, good: float, total: float) -> None:
        with pytest.raises(BadScenario, match="needs total > 0"):
            self.result(good, total)


@pytest.mark.parametrize(
    ("counter", "only"),
    [("answers_total", ""), ("llmchaos_client_requests_total", " and llmchaos_client_requests_total")],
)
def test_recorded_series_have_one_name_and_one_expression(counter, only):
    slo = Slo(name="one", objective=0.9, window_days=30, description="", good=f'{counter}{{ok="1"}}', total=counter)

    assert recorded.error_ratio("15s") == "slo:error_ratio:rate15s"
    assert recorded.events_expression(slo, "15s") == f"sum(increase({counter}[15s]){only})"
    assert f"sum(rate({counter}[15s]){only})" in recorded.error_ratio_expression(slo, "15s")
    assert f"sum(rate({counter}[13s] offset 2s){only})" in recorded.error_ratio_expression(slo, "15s", 2)
