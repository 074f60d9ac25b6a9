"""OpenSLO files of others: what is read, and what is refused in one round."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.cli import main
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.slo.arithmetic import InvalidSlo, Slo
from pytest_llmchaos.slo.openslo import load_slos, name_like
from pytest_llmchaos.slo.queries import counter_of, good_of
from pytest_llmchaos.slo.selectors import expected_of
from pytest_llmchaos.slo.yaml_nodes import Problems, documents, objects

ONE = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: answers
spec:
  service: app
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 4w
      isRolling: true
  objectives:
    - target: 0.99
  indicator:
    metadata: {name: i}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource: {type: Prometheus, spec: {query: 'x_total{result="ok"}'}}
        total:
          metricSource: {type: Prometheus, spec: {query: x_total}}
"""
SLI = """\
apiVersion: openslo/v1
kind: SLI
metadata: {name: ok-share}
spec:
  description: Share of whole answers.
  ratioMetric:
    counter: true
    good: {metricSource: {metricSourceRef: prom, spec: {query: 'x_total{result="ok"}'}}}
    total: {metricSource: {metricSourceRef: prom, spec: {query: x_total}}}
"""
REFERRING = ONE[: ONE.index("  indicator:")] + "  indicatorRef: ok-share\n  alertPolicies: [page]\n"
SOURCE = """\
apiVersion: openslo/v1
kind: DataSource
metadata: {name: prom}
spec: {type: prometheus, connectionDetails: {url: 'http://prometheus'}}
"""
ALERTING = """\
apiVersion: openslo/v1
kind: Service
metadata: {name: app, displayName: The App}
spec: {description: the app}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: page}
spec: {alertWhenBreaching: true, conditions: [{conditionRef: fast}], notificationTargets: [{targetRef: mail}]}
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: fast}
spec: {severity: page, condition: {kind: burnrate, threshold: 2, lookbackWindow: 1h, alertAfter: 5m}}
---
apiVersion: openslo/v1
kind: AlertNotificationTarget
metadata: {name: mail}
spec: {target: email}
"""


def one(text: str = ONE) -> Slo:
    (slo,) = load_slos(text, "slo.yaml")
    return slo


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidSlo) as refused:
        load_slos(text, "slo.yaml")
    return str(refused.value).splitlines()


def with_query(query: str, side: str = "total") -> str:
    read = yaml.safe_load(ONE)
    read["spec"]["indicator"]["spec"]["ratioMetric"][side] = {
        "metricSource": {"type": "Prometheus", "spec": {"query": query}}
    }
    return yaml.safe_dump(read, sort_keys=False)


def with_bad(bad: str, total: str) -> str:
    read = yaml.safe_load(with_query(total))
    ratio = read["spec"]["indicator"]["spec"]["ratioMetric"]
    ratio["bad"] = {"metricSource": {"type": "Prometheus", "spec": {"query": bad}}}
    del ratio["good"]
    return yaml.safe_dump(read, sort_keys=False)


class TestDocuments:
    @pytest.mark.parametrize(
        "text",
        [
            f"---\n---\n{ONE}---\n# nothing\n",
            f"{ALERTING}---\n{ONE}",
            "- " + textwrap.indent(ONE, "  ").strip() + "\n",
            "apiVersion: v1\nkind: List\nitems:\n- " + textwrap.indent(ONE, "  ").strip() + "\n",
            f"\ufeff{ONE}",
            ONE.replace("openslo/v1", "openslo.com/v1"),
            ONE.replace("openslo/v1", "openslo.com/v1").replace("spec:\n  serv", "status: {seen: 1}\nspec:\n  serv"),
            ONE.replace("  name: answers", "  name: answers\n  labels: {team: [search, platform], tier: '1'}"),
            ONE.replace("  name: answers", "  name: answers\n  annotations: {other.com/owner: platform}"),
            ONE.replace("  name: answers", "  name: answers\n  namespace: shop\n  uid: 1-2"),
            ONE.replace("  service: app", "  service: app\n  description: ''\n  alertPolicies: null"),
            ONE.replace("type: Prometheus", "type: prometheus"),
            ONE.replace("type: Prometheus", "metricSourceRef: elsewhere"),
            ONE.replace("target: 0.99", "{displayName: good, op: gt, value: 1, targetPercent: 99}").replace(
                "- {", "- {"
            ),
            f"{SLI}---\n{REFERRING}",
            f"{REFERRING}---\n{SLI}---\n{SOURCE}---\n{ALERTING}",
        ],
    )
    def test_what_openslo_allows_is_read(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "slo.yaml").write_text(text)

        assert main(["slo", "check", str(tmp_path / "slo.yaml")]) == 0
        slo = one(text.removeprefix("\ufeff"))
        assert (slo.name, slo.objective, slo.window_days) == ("answers", 0.99, 28)
        assert (slo.good, slo.total, slo.description) == ('x_total{result="ok"}', "x_total", "answers")

    def test_anchors_and_merge_keys_are_read_as_yaml_merges_them(self) -> None:
        merged = """\
- &base
  apiVersion: openslo/v1
  kind: SLO
  metadata: {name: first}
  spec: &spec
    service: app
    budgetingMethod: Occurrences
    timeWindow: [{duration: 30d, isRolling: true}]
    objectives: [{target: 0.99}]
    indicator:
      spec:
        ratioMetric:
          counter: true
          good: {metricSource: {type: Prometheus, spec: {query: ok_total}}}
          total: {metricSource: {type: Prometheus, spec: {query: all_total}}}
- <<: [*base, {kind: SLI}]
  metadata: {name: second}
  spec: {<<: *spec, objectives: [{target: 0.9}]}
"""
        assert [(slo.name, slo.objective) for slo in load_slos(merged, "slo.yaml")] == [
            ("first", 0.99),
            ("second", 0.9),
        ]

    def test_a_merge_of_itself_ends(self) -> None:
        (place,) = documents("&a\n<<: *a\nb: 1\n", "odd.yaml")

        assert place.child("b").number() == 1

    def test_a_description_is_the_title_where_it_is_missing(self) -> None:
        assert one(ONE.replace("  name: answers", "  name: answers\n  displayName: Whole answers")).description == (
            "Whole answers"
        )

    def test_several_objectives_are_slos_of_their_own(self) -> None:
        text = ONE.replace("target: 0.99\n", "target: 0.99\n    - targetPercent: 99.95\n    - targetPercent: 99.9\n")

        assert [(slo.name, slo.objective) for slo in load_slos(text, "slo.yaml")] == [
            ("answers-99", 0.99),
            ("answers-99-95", 0.9995),
            ("answers-99-9", 0.999),
        ]

    @pytest.mark.parametrize(
        ("duration", "days"), [("1w", 7), ("28d", 28), ("50h", 50 / 24), ("3000m", 3000 / 1440), ("30d", 30)]
    )
    def test_a_window_is_rolling_or_a_calendar_one_of_fixed_length(self, duration: str, days: float) -> None:
        rolling = ONE.replace("4w", duration)
        calendar = rolling.replace("isRolling: true", "calendar: {startTime: 2022-01-01 12:00:00, timeZone: UTC}")

        assert one(rolling).window_days == one(calendar).window_days == days
        assert one(calendar.replace("calendar:", "isRolling: false\n      calendar:")).window_days == days

    @pytest.mark.parametrize("name", ["5xx-free", "a--b", "0", "x" * 63, "1e3", "null", "on"])
    def test_names_follow_rfc_1123(self, name: str) -> None:
        assert one(ONE.replace("name: answers", f"name: '{name}'")).name == name

    def test_a_problem_in_every_part_is_one_message_in_the_order_of_lines(self) -> None:
        bad = (
            ONE.replace("name: answers", "name: Answers")
            .replace("Occurrences", "Timeslices")
            .replace("4w", "1M")
            .replace("target: 0.99", "target: 99")
            .replace("counter: true", "counter: false")
            .replace("type: Prometheus", "type: Datadog")
            .replace("query: x_total", "query: 'delta(x_total[5m])'")
        )

        found = problems(f"{bad}---\n{bad.replace('service: app', 'servce: app')}")

        assert [line.split(":")[1:3] for line in found[:7]] == [
            ["4", "9"], ["7", "20"], ["9", "17"], ["12", "15"], ["17", "18"], ["19", "32"], ["21", "32"],
        ]  # fmt: skip
        assert len(found) == 17
        assert found[9].startswith("slo.yaml:28:3: a key of spec must be one of description, service, ")
        assert all(line.count("slo.yaml:") == 1 for line in found)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("4w", "1M", "slo.yaml:9:17: spec.timeWindow[0].duration must be of a fixed length, such as 30d or 4w"),
            ("4w", "1Q", "9:17: spec.timeWindow[0].duration must be of a fixed length"),
            ("4w", "30m", 'must be at least 50h for burn alerts (or write the annotation llmchaos/alerts: "false")'),
            ("4w", "2d", "9:17: spec.timeWindow[0].duration must be at least 50h"),
            ("isRolling: true", "isRolling: false", "10:18: spec.timeWindow[0].isRolling must be true, or have a calendar"),
            ("isRolling: true", "calendar: {zone: x}", "10:18: a key of spec.timeWindow[0].calendar must be one of start"),
            (
                "isRolling: true",
                "isRolling: true\n      calendar: {timeZone: UTC}",
                "10:18: spec.timeWindow[0].isRolling must be false or left out, because calendar is given",
            ),
            ("Occurrences", "RatioTimeslices", "7:20: spec.budgetingMethod must be 'Occurrences' (it counts events"),
            ("target: 0.99", "targetPercent: 0.0", "must be a percentage above 0 and below 100, by 1e-12 at least"),
            (
                "target: 0.99",
                "target: 0.99\n      targetPercent: 99",
                "13:22: spec.objectives[0].targetPercent must be left out, because target is given, got '99'",
            ),
            ("target: 0.99", "goal: 1", "12:7: spec.objectives[0] must have 'target', it has goal"),
            ("- target: 0.99", "- 0.99", "12:7: spec.objectives[0] must be a mapping, got '0.99'"),
            ("good:", "bad: {metricSource: 1}\n        good:", "must be left out, because good is given"),
            ("good:", "goood:", "spec.indicator.spec.ratioMetric must have 'good', it has counter, goood, total"),
            ("counter: true", "raw: {metricSource: 1}", "raw must be good and total, two counters (a share"),
            ("ratioMetric:", "thresholdMetric: {a: 1}\n      ratioMetric:", 'must be a ratioMetric: for latency, good is'),
            ("type: Prometheus, spec", "spec", "metricSource must have 'type', it has spec"),
            ("query: x_total", "queries: x_total", "must be one of query, got 'queries'"),
            ("  indicator:", "  indicatorRef: x\n  indicator:", "indicatorRef must be left out, because indicator is given"),
            ("metadata:\n  name: answers", "metadata: answers", "3:11: metadata must be a mapping, got 'answers'"),
            ("  name: answers", "  name: answers\n  annotations: [a]", "annotations must be a mapping, got a sequence"),
            ("  name: answers", "  name: answers\n  annotations: {a: 1, a: 2}", "a key of metadata.annotations must be given o"),
            ('{result="ok"}', "{}", "ratioMetric.good must be a part of total (all events are good here, so that no"),
            ("  name: answers", "  name: answers\n  lables: {a: 1}", "5:3: a key of metadata must be one of name, display"),
            ("kind: SLO\n", "kind: SLO\n? [a]\n: b\n", "3:3: a key of the document must be one of apiVersion, kind"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_judged_is_refused_at_its_place(self, old: str, new: str, said: str) -> None:
        assert old in ONE

        assert any(said in line for line in problems(ONE.replace(old, new, 1)) if line.startswith("slo.yaml:"))

    def test_references_are_resolved_in_the_file(self) -> None:
        assert problems(REFERRING) == [
            (
                "slo.yaml:13:17: spec.indicatorRef must be the name of a document of kind SLI in this file, which has no SLI "
                "(copy it into the file), got 'ok-share'"
            )
        ]
        assert problems(f"{REFERRING}---\n{SLI}---\n{SOURCE.replace('prometheus,', 'Datadog,')}") == [
            (
                "slo.yaml:29:14: spec.type must be 'Prometheus' (objectives are judged by counters that a Prometheus scrapes), "
                "got 'Datadog'"
            )
        ]
        assert problems(f"{SLI}---\n{SLI}---\n{REFERRING}") == [
            "slo.yaml:13:18: metadata.name must be unique among the documents of kind SLI, got 'ok-share'"
        ]
        assert problems(f"{SLI}---\n{SOURCE.replace('metadata: {name: prom}', 'metadata: null')}") == [
            "slo.yaml:11:1: the document must have 'metadata', it has apiVersion, kind, metadata, spec"
        ]

    def test_an_sli_that_no_slo_names_is_not_judged(self) -> None:
        assert one(f"{ONE}---\n{SLI.replace('x_total', 'delta(x_total)')}").name == "answers"

    def test_a_file_without_an_slo_lists_what_it_has(self) -> None:
        assert problems(f"{ALERTING}---\n{SLI}") == [
            (
                "slo.yaml:1:1: must hold at least one document of kind SLO, got AlertCondition, AlertNotificationTarget, "
                "AlertPolicy, SLI, Service"
            )
        ]

    def test_other_versions_are_refused_without_guesses_about_their_fields(self) -> None:
        assert problems(ONE.replace("openslo/v1", "openslo.com/v2alpha").replace("target:", "goal:")) == [
            "slo.yaml:1:13: apiVersion must be 'openslo/v1' or 'openslo.com/v1', got 'openslo.com/v2alpha'"
        ]

    @given(st.recursive(st.sampled_from(["x", 1, None, True, 0.5]), lambda n: st.lists(n) | st.dictionaries(
        st.sampled_from(["apiVersion", "kind", "metadata", "spec", "name", "items", "objectives", "indicator"]), n)))  # fmt: skip
    def test_any_yaml_is_refused_with_places(self, tree: object) -> None:
        assert all(line.startswith("slo.yaml:") for line in problems(yaml.safe_dump(tree)))

    @given(st.sampled_from(["metadata", "spec"]), st.data())
    def test_any_part_may_be_of_any_shape(self, part: str, data: st.DataObject) -> None:
        read = yaml.safe_load(ONE)
        node = read[part]
        while isinstance(node, dict | list) and data.draw(st.booleans()):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(node[key], dict | list) or data.draw(st.booleans()):
                node[key] = data.draw(st.sampled_from([None, [], {}, [1], {"a": 1}, "", "x", 5, True]))
                break
            node = node[key]
        said = ["slo.yaml:"]
        try:
            one(yaml.safe_dump(read))
        except InvalidSlo as error:
            said = str(error).splitlines()
        assert all(line.startswith("slo.yaml:") for line in said)


class TestQueries:
    @pytest.mark.parametrize(
        "query",
        [
            "x_total",
            "sum(x_total)",
            "sum (x_total)",
            "(x_total)",
            "rate(x_total[5m])",
            "increase(x_total[$__rate_interval])",
            "sum(rate(x_total[{{.window}}]))",
            "sum(rate(x_total[{{ .window }}]))",
            "sum(\n  irate(\n    x_total[1m]\n  )\n)\n",
            "sum(rate(x_total[5m])) or vector(0)",
            "(sum(rate(x_total[5m])) OR on() vector(0))",
        ],
    )
    def test_queries_with_one_counter_are_read(self, query: str) -> None:
        assert one(with_query(query)).total == "x_total"

    @pytest.mark.parametrize(
        ("query", "selector"),
        [
            ('sum(rate(x_total{a="b)", c=~"[ab]"}[5m]))', 'x_total{a="b)", c=~"[ab]"}'),
            ('x_total{a="two  blanks"}', 'x_total{a="two  blanks"}'),
            ("x_total{a=~`5\\d.`}", 'x_total{a=~"5\\\\d."}'),
            ('x_total{a=`"`}', 'x_total{a="\\""}'),
            ('x_total{\n  a="b",\n  c="d",\n}', 'x_total{ a="b", c="d", }'),
        ],
    )
    def test_label_values_stay_as_they_are(self, query: str, selector: str) -> None:
        assert one(with_query(query)).total == selector

    @pytest.mark.parametrize(
        "query",
        [
            "sum by (code) (x_total)",
            "sum(x_total) by (code)",
            "sum(rate(x_total[5m:1m]))",
            "delta(x_total[5m])",
            "sum(rate(a_total[5m])) - sum(rate(b_total[5m]))",
            "sum(a_total) / sum(b_total)",
            "rate(sum(x_total)[5m])",
            "x_total offset 5m",
            "x_total[5m]",
            "histogram_quantile(0.9, x_bucket)",
            "1",
            "SELECT count(*) FROM x",
        ],
    )
    def test_other_queries_are_refused_with_what_to_write(self, query: str) -> None:
        (line,) = problems(with_query(query))

        assert "query must be a selector of counters, alone or in sum(), rate() or increase(): metric_total{" in line

    @pytest.mark.parametrize("quote", ["`", '"'])
    def test_a_line_break_in_a_label_value_is_refused(self, quote: str) -> None:
        (line,) = problems(with_query(f"x_total{{a={quote}b\nc{quote}}}"))

        assert r"must be a query whose label values are on one line (write a line break as \n), got" in line

    def test_a_control_character_in_a_query_is_refused(self) -> None:
        assert "must be a text without control characters" in problems(with_query("x_total{a='\x07'}"))[0]

    @pytest.mark.parametrize(
        ("bad", "total", "good"),
        [
            ('x_total{code=~"5.."}', "x_total", 'x_total{code!~"5.."}'),
            ('sum(rate(x_total{code="500", job="a"}[5m]))', 'x_total{job="a"}', 'x_total{job="a", code!="500"}'),
            ('x_total{ok!="yes"}', "x_total{}", 'x_total{ok="yes"}'),
            ('x_total{code!~"2.."}', "sum(x_total)", 'x_total{code=~"2.."}'),
            ('(sum(x_count{a="b"}) - sum(x_bucket{a="b",le="0.4"}))', 'x_count{a="b"}', 'x_bucket{a="b",le="0.4"}'),
            ('sum(rate(x_count{a="-"}[1m]))-sum(rate(x_bucket[1m]))', 'x_count{a="-"}', "x_bucket"),
        ],
    )  # fmt: skip
    def test_bad_and_total_events_make_good_ones(self, bad: str, total: str, good: str) -> None:
        slo = one(with_bad(bad, total))

        assert slo.good == good
        assert expected_of(slo.good) is None

    @pytest.mark.parametrize(
        ("bad", "total"),
        [
            ("x_total", "x_total"),
            ('x_total{c="d"}', 'x_total{c="d"}'),
            ('x_total{a="b"}', 'x_total{c="d"}'),
            ("y_total - x_bucket", "x_total"),
            ("x_total - delta(x_bucket[5m])", "x_total"),
            ("delta(y[1m]) - x_bucket", "x_total"),
            ("x_total - a_total - b_total", "x_total"),
            ("delta(x_total[5m])", "x_total"),
            ("()", "x_total"),
        ],
    )
    def test_bad_events_that_do_not_complement_the_total_are_refused(self, bad: str, total: str) -> None:
        assert good_of(bad, total) is None
        (line,) = problems(with_bad(bad, total))
        assert "bad.metricSource.spec.query must be a part of total, such as" in line

    @pytest.mark.parametrize(
        ("bad", "total", "counted"),
        [
            ("x_failed_total", "x_total", "x_failed_total"),
            ('sum(rate(x_failed_total{job="a"}[5m]))', 'x_total{job="a"}', 'x_failed_total{job="a"}'),
            ('x_total{a="b",c="d"}', "x_total", 'x_total{a="b",c="d"}'),
        ],
    )
    def test_bad_events_with_no_selector_of_good_ones_are_counted_themselves(
        self, bad: str, total: str, counted: str
    ) -> None:
        slo = one(with_bad(bad, total))

        assert (slo.good, slo.bad, slo.total, slo.side) == ("", counted, total, "bad")
        assert slo.share == f"{total} without {counted}"

    def test_bad_events_need_a_total_that_can_be_read(self) -> None:
        assert len(problems(with_bad("delta(x[1m])", "delta(x[1m])"))) == 1

    @given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("uv"), max_size=3), st.data())
    def test_good_and_bad_events_are_all_of_the_total(self, labels: dict[str, str], data: st.DataObject) -> None:
        """By the matching rules of Prometheus, where a missing label is empty."""
        total = ",".join(f'{key}="{value}"' for key, value in labels.items())
        operator, value = data.draw(st.sampled_from(["=", "!="])), data.draw(st.sampled_from(["u", "w", ""]))
        good = good_of(f'sum(x{{{total}{"," * bool(total)}z{operator}"{value}"}})', f"x{{{total}}}")
        series = {**labels, **data.draw(st.dictionaries(st.just("z"), st.sampled_from(["u", "w"])))}

        assert good is not None
        is_good = f'z{"!=" if operator == "=" else "="}"{value}"'
        assert good.endswith(f"{is_good}}}")
        assert ((series.get("z", "") == value) == (operator == "=")) != (
            (series.get("z", "") == value) == ('z="' in is_good)
        )

    @given(st.text(alphabet="sumrate x_total(){}[]\"'`5-=,\\\n", max_size=40))
    def test_any_query_is_a_selector_or_refused(self, query: str) -> None:
        selector = counter_of(query)

        assert expected_of(selector) is None or expected_of(selector)
        assert good_of(query, "x_total") is None or expected_of(good_of(query, "x_total") or "") is None


@pytest.mark.parametrize(
    ("text", "name"), [("TestSLO", "testslo"), ("a b.c/d", "a-b-c-d"), ("??", "availability"), ("x" * 70, "x" * 63)]
)
def test_a_name_that_is_refused_comes_with_one_that_is_not(text: str, name: str) -> None:
    assert name_like(text) == name


def test_a_list_of_objects_has_no_list_in_it() -> None:
    assert [place.is_list for place in objects("- [a]\n-\n- kind: List\n", "list.yaml")] == [True, False]
    assert len(objects("kind: List\n", "list.yaml")) == 1


def test_problems_are_sorted_by_their_place_and_listed_once() -> None:
    first, second = documents("a: 1\n---\n\nb: 2\n", "odd:1.yaml")
    found = Problems(source="odd:1.yaml")
    for place, key in ((second, "x"), (first, "y"), (second, "x"), (first, "x")):
        assert found.of(place.child, key) is None

    assert found.of(first.child, "a") is not None
    assert [line.split(": ")[0] for line in found.lines] == ["odd:1.yaml:1:1", "odd:1.yaml:1:1", "odd:1.yaml:4:1"]
    with pytest.raises(BadScenario, match=r"(?s)'x'.*\n.*'y'.*\n.*'x'"):
        found.stop()
