"""Files of Sloth, Pyrra and OpenSLO v1alpha, converted to OpenSLO v1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.cli import main as llmchaos
from pytest_llmchaos.slo.arithmetic import InvalidSlo, Slo
from pytest_llmchaos.slo.conversion import convert
from pytest_llmchaos.slo.openslo import load_slos
from pytest_llmchaos.subject.own_stack import CLIENTS_SLO_FILE

SLOTH = """\
version: "prometheus/v1"
service: "shop"
labels: {owner: team, tier: "2"}
slo_plugins: {chain: [{id: "sloth.dev/contrib/alert_for/v1"}]}
slos:
  - name: "requests-availability"
    objective: 99.9
    description: "Common SLO based on availability."
    sli:
      events:
        error_query: sum(rate(x_count{job="shop",code=~"(5..|429)"}[{{.window}}]))
        total_query: sum(rate(x_count{job="shop"}[{{.window}}]))
    alerting:
      name: HighErrorRate
      page_alert: {labels: {severity: pageteam}}
      ticket_alert: {disable: true}
  - name: "Requests_Latency"
    objective: 99
    sli:
      events:
        error_query: |
          (
            sum(rate(x_count{verb!="WATCH"}[{{.window}}]))
            -
            sum(rate(x_bucket{le="0.4",verb!="WATCH"}[{{.window}}]))
          )
        total_query: sum(rate(x_count{verb!="WATCH"}[{{.window}}]))
    alerting:
      page_alert: {disable: true}
      ticket_alert: {disable: true}
"""
SLOTH_CRD = """\
apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata: {name: sloth-slo-shop, namespace: monitoring}
spec:
  service: "shop"
  slos:
    - name: "good"
      objective: 95
      sli:
        events:
          errorQuery: sum(rate(x_total{ok="no"}[{{.window}}])) OR on() vector(0)
          totalQuery: sum(rate(x_total[{{.window}}]))
      alerting: {pageAlert: {disable: true}, ticketAlert: {disable: true}}
"""
PYRRA = """\
apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata:
  name: api-errors
  namespace: monitoring
  labels: {prometheus: k8s}
spec:
  target: '99.9'
  window: 4w
  indicator:
    ratio:
      errors:
        metric: requests{namespace="shop",status=~"5.."}
      total:
        metric: requests{namespace="shop"}
      grouping: [handler]
---
apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: api-latency}
spec:
  target: "90"
  window: 28d
  description: |
    Quick
    enough.
  indicator:
    latency:
      success: {metric: 'seconds_bucket{job="shop",le="0.1"}'}
      total: {metric: 'seconds_count{job="shop"}'}
  alerting: {disabled: true}
"""
V1ALPHA = """\
apiVersion: openslo/v1alpha
kind: Service
metadata: {name: shop}
spec: {description: the shop}
---
apiVersion: openslo/v1alpha
kind: SLO
metadata: {name: latency, displayName: Latency}
spec:
  service: shop
  description: Quick enough.
  objectives:
    - ratioMetrics:
        good: {source: prometheus, queryType: promql, query: 'sum(rate(x_bucket{le="0.4"}[{{.window}}]))'}
        total: {source: Prometheus, queryType: promql, query: 'sum(rate(x_count[{{.window}}]))'}
      target: 0.99
    - ratioMetrics:
        good: {query: 'sum(rate(x_bucket{le="5"}[{{.window}}]))'}
        total: {query: 'sum(rate(x_count[{{.window}}]))'}
      target: 0.999
  timeWindows:
    - {count: 30, unit: Day}
"""


def written(text: str) -> list[Slo]:
    return list(load_slos(convert(text, "in.yaml").text, "out.yaml"))


def short(slos: list[Slo]) -> list[tuple[object, ...]]:
    return [(slo.name, slo.objective, slo.window_days, slo.good, slo.total, slo.alerts) for slo in slos]


def test_files_of_sloth_are_converted_with_its_default_window() -> None:
    done = convert(SLOTH, "in.yaml")

    assert done.problems == ()
    assert done.notes == (
        "in.yaml:6:5: Sloth's default window is written, 30d",
        "in.yaml:17:5: Sloth's default window is written, 30d",
    )
    assert short(written(SLOTH)) == [
        (
            "requests-availability", 0.999, 30,
            'x_count{job="shop", code!~"(5..|429)"}', 'x_count{job="shop"}', True,
        ),
        ("requests-latency", 0.99, 30, 'x_bucket{le="0.4",verb!="WATCH"}', 'x_count{verb!="WATCH"}', False),
    ]  # fmt: skip
    assert [slo.description for slo in written(SLOTH)] == ["Common SLO based on availability.", "Requests_Latency"]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SLOTH, 'x_count{job="shop",code=~"(5..|429)"}', "errors_total"),
        (PYRRA, 'requests{namespace="shop",status=~"5.."}', "errors_total"),
    ],
)
def test_errors_with_a_counter_of_their_own_are_converted_to_bad_events(text: str, old: str, new: str) -> None:
    assert old in text
    done = convert(text.replace(old, new), "in.yaml")

    first = load_slos(done.text, "out.yaml")[0]
    assert (done.problems, first.good, first.bad) == ((), "", "errors_total")


def test_objects_of_sloth_for_kubernetes_are_converted() -> None:
    assert short(written(SLOTH_CRD)) == [("good", 0.95, 30, 'x_total{ok!="no"}', "x_total", False)]


def test_files_of_pyrra_are_converted() -> None:
    done = convert(PYRRA, "in.yaml")

    assert (done.problems, done.notes) == ((), ("in.yaml:16:17: one SLO over all groups is written",))
    assert short(written(PYRRA)) == [
        ("api-errors", 0.999, 28, 'requests{namespace="shop", status!~"5.."}', 'requests{namespace="shop"}', True),
        ("api-latency", 0.9, 28, 'seconds_bucket{job="shop",le="0.1"}', 'seconds_count{job="shop"}', False),
    ]
    assert [slo.description for slo in written(PYRRA)] == ["api-errors", "Quick enough."]


def test_files_of_openslo_v1alpha_are_converted_with_an_slo_for_each_objective() -> None:
    assert convert(V1ALPHA, "in.yaml").problems == ()
    assert short(written(V1ALPHA)) == [
        ("latency-99", 0.99, 30, 'x_bucket{le="0.4"}', "x_count", True),
        ("latency-99-9", 0.999, 30, 'x_bucket{le="5"}', "x_count", True),
    ]
    alone = (
        V1ALPHA[: V1ALPHA.index("    - ratioMetrics:\n        good: {query")]
        + "  timeWindows: [{count: 2, unit: Week}]\n"
    )
    assert [(slo.name, slo.window_days) for slo in written(alone)] == [("latency", 14)]


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (SLOTH, "events:", "raw: {error_ratio_query: x}\n      events:", "in.yaml:10:12: slos[0].sli.raw must be two counters"),
        (SLOTH, "events:", "plugin: {id: x}\n      events:", "slos[0].sli.plugin must be events with the plugin's queries"),
        (SLOTH, 'x_count{job="shop",code=~"(5..|429)"}', "delta(errors_total", "must be a part of total, such as"),
        (SLOTH, 'sum(rate(x_count{job="shop"}', 'sum(delta(x_count{job="shop"}', "a selector of counters, alone or in sum"),
        (SLOTH, "objective: 99.9", "objective: 100", "in.yaml:6:5: cannot be written as OpenSLO v1: spec.objectives[0].tar"),
        (SLOTH, "objective: 99.9", "goal: 100", "slos[0] must have 'objective'"),
        (SLOTH, "Requests_Latency", "requests_availability", ""),
        (SLOTH_CRD, "spec:", "specs:", "in.yaml:1:1: the document must have 'spec'"),
        (PYRRA, "'99.9'", "most", "in.yaml:8:11: spec.target must be a number, got 'most'"),
        (PYRRA, "window: 4w", "window: 1h", "cannot be written as OpenSLO v1: spec.timeWindow[0].duration must be at le"),
        (PYRRA, "    ratio:", "    bool_gauge: {metric: up}\n    ratio:", "spec.indicator.bool_gauge must be ratio or latency o"),
        (PYRRA, "    ratio:", "    latencyNative: {latency: 1s}\n    ratio:", "spec.indicator.latencyNative must be ratio or"),
        (PYRRA, ',le="0.1"', "", 'must be a bucket, with its bound in the label le, such as le="0.5"'),
        (PYRRA, "kind: ServiceLevelObjective", "kind: Other", "kind must be 'ServiceLevelObjective', got 'Other'"),
        (V1ALPHA, "service: shop", "budgetingMethod: Timeslices", "in.yaml:10:20: spec.budgetingMethod must be 'Occurrences',"),
        (V1ALPHA, "    - ratioMetrics:", "    - ratioMetrics:\n        counter: false", "ratioMetrics.counter must be true (two"),
        (V1ALPHA, "    - ratioMetrics:", "    - ratioMetrics:\n        incremental: no", "incremental must be true (two"),
        (V1ALPHA, "source: prometheus", "source: datadog", "good.source must be 'prometheus', got 'datadog'"),
        (V1ALPHA, "- {count: 30, unit: Day}", "[]", "spec.timeWindows must be a list of one rolling window"),
        (V1ALPHA, "unit: Day}", "unit: Day, calendar: {a: 1}}", "spec.timeWindows must be a list of one rolling window"),
        (V1ALPHA, "unit: Day", "unit: Month", "cannot be written as OpenSLO v1: spec.timeWindow[0].duration must be of a"),
        (V1ALPHA, "unit: Day", "unit: Moon", "unit must be 'Minute' or 'Hour' or"),
        (V1ALPHA, "kind: SLO", "kind: Thing", "kind must be 'SLO' or 'Service'"),
        (PYRRA, "apiVersion: pyrra.dev/v1alpha1", "apiVersion: openslo/v1", "the document must be of Sloth's prometheus/v1, "),
        (PYRRA, "apiVersion: pyrra.dev/v1alpha1", "api: 1", "in.yaml:1:1: the document must be of Sloth's prometheus/v1, "),
        ("- [a]", "a", "b", "in.yaml:1:3: [0] must be a mapping, got a sequence of 1"),
        ("# nothing", "n", "N", "in.yaml:1:1: must hold at least one SLO, got an empty file"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_listed_with_its_place_and_reason(text: str, old: str, new: str, said: str) -> None:
    assert old in text

    done = convert(text.replace(old, new, 1), "in.yaml")

    assert any(said in line for line in done.problems) or not said
    assert not done.text or load_slos(done.text, "out.yaml")


def test_two_slos_of_one_name_are_named_by_their_service_too() -> None:
    twice = f"{SLOTH}---\n{SLOTH.replace('shop', 'bank')}"

    assert [slo.name for slo in written(twice)] == [
        "requests-availability", "requests-latency", "bank-requests-availability", "bank-requests-latency",
    ]  # fmt: skip
    assert convert(f"{twice}---\n{SLOTH.replace('shop', 'bank')}", "in.yaml").problems == (
        (
            "in.yaml:68:5: slos[0] must be an SLO with a name of its own (there are two of bank-requests-availability), "
            "got a mapping of 5"
        ),
        (
            "in.yaml:79:5: slos[1] must be an SLO with a name of its own (there are two of bank-requests-latency), "
            "got a mapping of 4"
        ),
    )


def test_a_line_break_in_a_label_value_is_not_converted() -> None:
    text = SLOTH.replace('total_query: sum(rate(x_count{job="shop"}[{{.window}}]))', "total_query: \"x{a='b\\nc'}\"")

    assert "rate() or increase(): on one line, got" in convert(text, "in.yaml").problems[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (SLOTH, "Sloth's prometheus/v1"),
        (SLOTH_CRD, "Sloth's sloth.slok.dev/v1"),
        (PYRRA, "Pyrra's pyrra.dev/v1alpha1"),
        (V1ALPHA, "OpenSLO v1alpha"),
    ],
)
def test_a_run_names_the_format_and_the_command_that_converts_it(text: str, name: str) -> None:
    with pytest.raises(InvalidSlo) as refused:
        load_slos(text, "mine.yaml")

    lines = str(refused.value).splitlines()
    assert lines[0] == (
        f"mine.yaml:1:1: the document must be OpenSLO v1, got {name}: "
        "write it as OpenSLO with `llmchaos slo convert mine.yaml`"
    )
    assert len(lines) == text.count("---\n") + 1


@given(
    st.text(min_size=1, max_size=80),
    st.floats(1, 99.9999),
    st.dictionaries(st.sampled_from("abc"), st.text(alphabet='xy"\\é 5', max_size=4), max_size=3),
    st.text(max_size=30),
)
def test_what_is_converted_is_accepted(name: str, percent: float, labels: dict[str, str], description: str) -> None:
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in labels.items()}
    matchers = ",".join(f'{key}="{value}"' for key, value in escaped.items())
    total = f"sum(rate(x_total{{{matchers}}}[{{{{.window}}}}]))"
    events = {"error_query": total.replace("}[", f'{"," * bool(labels)}z=~"5.."}}['), "total_query": total}
    slo = {"name": name, "objective": percent, "description": description, "sli": {"events": events}}
    done = convert(yaml.safe_dump({"version": "prometheus/v1", "service": "s", "slos": [slo]}), "in.yaml")

    if done.problems:
        assert not name.isprintable() or not name.strip() or not description.isprintable()
        assert not done.text
    else:
        (made,) = load_slos(done.text, "out.yaml")
        assert made.objective == pytest.approx(percent / 100)
        assert made.total == f"x_total{{{matchers}}}"


class TestCommand:
    def test_it_prints_the_converted_file_and_notes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "sloth.yaml").write_text(SLOTH)

        assert llmchaos(["slo", "convert", str(tmp_path / "sloth.yaml")]) == 0
        out, err = capsys.readouterr()
        assert len(load_slos(out, "out")) == 2
        assert err.startswith(f"note: {tmp_path}/sloth.yaml:6:5: Sloth's default window")

    def test_it_writes_what_can_be_converted_and_lists_the_rest_on_request(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, out = tmp_path / "pyrra.yaml", tmp_path / "slo.yaml"
        source.write_text(PYRRA.replace("    ratio:", "    bool_gauge: {metric: up}\n    ratio:"))

        assert llmchaos(["slo", "convert", str(source), "--out", str(out), "--partial"]) == 1
        assert [slo.name for slo in load_slos(out.read_text(), "slo.yaml")] == ["api-latency"]
        said = capsys.readouterr()
        assert said.out == f"wrote {out}\n"
        assert said.err.startswith(f"not converted: {source}:11:17: spec.indicator.bool_gauge must be ")

    def test_a_conversion_with_a_problem_leaves_no_file_so_the_next_one_can_write_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, out = tmp_path / "pyrra.yaml", tmp_path / "slo.yaml"
        source.write_text(PYRRA.replace("    ratio:", "    bool_gauge: {metric: up}\n    ratio:"))

        assert llmchaos(["slo", "convert", str(source), "--out", str(out)]) == 1
        assert not out.exists()
        assert capsys.readouterr().err.splitlines()[-1].startswith("llmchaos slo convert: nothing was written: ")

        source.write_text(PYRRA)
        assert llmchaos(["slo", "convert", str(source), "--out", str(out)]) == 0
        assert len(load_slos(out.read_text(), "slo.yaml")) == 2

    def test_a_file_that_cannot_be_written_whole_is_not_left(self, tmp_path: Path) -> None:
        source, out = tmp_path / "sloth.yaml", tmp_path / "slo.yaml"
        source.write_text(SLOTH)
        code = (
            "import resource, signal, sys; from pytest_llmchaos.cli import main; "
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
            "sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-B", "-c", code, "slo", "convert", str(source), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert done.returncode == 1
        assert f"{out} cannot be written: File too large" in done.stderr
        assert not out.exists()

    def test_counters_that_a_killed_service_loses_are_noted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "sloth.yaml").write_text(SLOTH)
        note = "note: requests-availability, requests-latency: the counters are lost when the service that has them is"

        assert llmchaos(["slo", "convert", str(tmp_path / "sloth.yaml"), "--out", str(tmp_path / "slo.yaml")]) == 0
        assert note in capsys.readouterr().err
        assert "(CounterReset)" in (tmp_path / "slo.yaml").read_text()
        assert llmchaos(["slo", "check", str(tmp_path / "slo.yaml")]) == 0
        assert note in capsys.readouterr().err
        assert llmchaos(["slo", "check", str(CLIENTS_SLO_FILE)]) == 0
        assert capsys.readouterr().err == ""

    def test_it_overwrites_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = tmp_path / "sloth.yaml"
        source.write_text(SLOTH)

        for out in (source, tmp_path, tmp_path / "no" / "slo.yaml"):
            assert llmchaos(["slo", "convert", str(source), "--out", str(out)]) == 1
            assert f"llmchaos slo convert: {out} " in capsys.readouterr().err
        assert source.read_text() == SLOTH
        assert sorted(tmp_path.iterdir()) == [source]

    def test_nothing_is_written_where_nothing_can_be_converted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "odd.yaml").write_text("a: [")
        (tmp_path / "other.yaml").write_text("a: 1")

        for name in ("odd.yaml", "other.yaml", "missing.yaml"):
            assert llmchaos(["slo", "convert", str(tmp_path / name), "--out", str(tmp_path / "slo.yaml")]) == 1
            assert f"{tmp_path / name}" in capsys.readouterr().err
        assert not (tmp_path / "slo.yaml").exists()

    def test_it_checks_files_as_a_run_reads_them(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
        good.write_text(convert(V1ALPHA, "in.yaml").text)
        bad.write_text(good.read_text().replace("30d", "1M"))

        assert llmchaos(["slo", "check", str(good)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f'{good}: latency-99 0.99 over 30 days: x_bucket{{le="0.4"}} of x_count',
            f'{good}: latency-99-9 0.999 over 30 days: x_bucket{{le="5"}} of x_count',
        ]
        assert llmchaos(["slo", "check", str(bad), str(good)]) == 1
        said = capsys.readouterr()
        problems = [line for line in said.err.splitlines() if not line.startswith("note: ")]
        assert [line.split(": ")[0] for line in problems] == [f"{bad}:12:15", f"{bad}:42:15"]
        assert len(said.out.splitlines()) == 2
