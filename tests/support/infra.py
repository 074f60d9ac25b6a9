"""Checks of the lab's monitoring. Each returns a list of complaints.

Each check has a mutant that it catches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import promql_parser
import requests
from support.grafana_queries import substituted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric
    from support.grafana_queries import Asked

    from pytest_llmchaos.generate.boards.panels import Board
    from pytest_llmchaos.prometheus.queries import Prometheus, Target

# Above this number of series, some label takes its values from requests.
MOST_SERIES = 400


def unscraped(config: Mapping[str, Any], services: Iterable[str], targets: Sequence[Target]) -> list[str]:
    """Services without a scrape job, and those that are not up."""
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    up = {target.service for target in targets if target.up and target.job in jobs}
    return [f"{service} is not scraped" for service in sorted(set(services) - up)]


def questions(rule_groups: Iterable[Mapping[str, Any]], boards: Iterable[Board]) -> Iterator[str]:
    """Every expression of rules and dashboards, as Prometheus gets it."""
    for group in rule_groups:
        yield from (rule["expr"] for rule in group["rules"])
    for board in boards:
        variables = {variable.name: ".*" for variable in board.variables}
        for panel in board.panels:
            yield from (substituted(query.expr, 60, 1, variables) for query in panel.queries)


def unknown(labels: Callable[[str], set[str]], expressions: Iterable[str]) -> list[str]:
    """Metrics without a series, and labels that none of an expression's metrics has.

    `labels` returns the labels of a metric's series, none for an unknown metric.
    """
    complaints = []
    known: dict[str, set[str]] = {}
    for expression in expressions:
        used = Used(expression)
        for metric in used.metrics:
            if metric not in known:
                known[metric] = labels(metric)
                if not known[metric]:
                    complaints.append(f"{metric} does not exist")
            if known[metric]:
                missing = used.matched.get(metric, set()) - known[metric]
                complaints += [f"{metric} has no label {label}" for label in sorted(missing)]
        there = used.made.union(*(known[metric] for metric in used.metrics))
        complaints += [f"no metric of {expression} has the label {label}" for label in sorted(used.grouped - there)]
    return sorted(set(complaints))


class Used:
    """Metrics and labels that an expression reads."""

    def __init__(self, expression: str) -> None:
        self.metrics: list[str] = []
        self.matched: dict[str, set[str]] = {}
        self.grouped: set[str] = set()
        self.made: set[str] = set()
        promql_parser.walk(promql_parser.parse(expression), self._visit)

    def _visit(self, node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            self.metrics.append(node.name)
            self.matched.setdefault(node.name, set()).update(m.name for m in node.matchers.matchers if not _may_lack(m))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            self.grouped.update(node.modifier.labels)
        elif isinstance(node, promql_parser.Call) and node.func.name == "label_replace":
            self.made.add(node.args[1].val)
            self.grouped.add(node.args[3].val)
        return True


def _may_lack(matcher: Any) -> bool:
    """True if a series without the label matches too: an empty label is equal."""
    return matcher.op == promql_parser.MatchOp.Re and re.fullmatch(matcher.value, "") is not None


def labels_of(prometheus: Prometheus, metric: str, from_unix_s: float, to_unix_s: float) -> set[str]:
    """Labels of a metric's series in the window, with its name, if it has any."""
    window = f"{round((to_unix_s - from_unix_s) * 1000)}ms"
    found = prometheus.vector(f'count_over_time({{__name__="{metric}"}}[{window}])', to_unix_s, may_be_empty=True)
    return {name for labels in found for name, _ in labels} | ({"__name__"} if found else set())


def exported(families: Iterable[Metric]) -> dict[str, set[str]]:
    """Labels of each series that exporters have, with those of a scraped target."""
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, {"__name__", "job", "service"}).update(sample.labels)
    return found


def loaded_rules(prometheus: Prometheus) -> dict[str, Mapping[str, Any]]:
    """Prometheus' state of its rules, by name. Of several with a name, a broken one."""
    answer = requests.get(f"{prometheus.url}/api/v1/rules", timeout=5).json()["data"]["groups"]
    rules = [rule for group in answer for rule in group["rules"]]
    return {rule["name"]: rule for rule in sorted(rules, key=lambda one: one["health"] != "ok")}


def broken_rules(loaded: Mapping[str, Mapping[str, Any]], wanted: Iterable[str]) -> list[str]:
    """Rules that are not loaded, or that Prometheus cannot evaluate."""
    complaints = [f"{name} is not loaded" for name in sorted(set(wanted) - set(loaded))]
    return complaints + [f"{name}: {rule['lastError']}" for name, rule in loaded.items() if rule["health"] != "ok"]


def empty_panels(boards: Iterable[Board], asked: Asked) -> list[str]:
    """Panels without data, except those where no data is good."""
    complaints = []
    for board in boards:
        variables = {variable.name: ".*" for variable in board.variables}
        shown = (panel for panel in board.panels if not panel.may_be_empty)
        complaints += [f"{board.title}: {panel.title}" for panel in shown if not asked.values(panel, variables)]
    return complaints


def without_choices(boards: Iterable[Board], prometheus: Prometheus, at_unix_s: float) -> list[str]:
    """Variables for which Grafana's label_values() is empty."""
    complaints = []
    for board in boards:
        for variable in board.variables:
            found = prometheus.vector(
                f'count by ({variable.label}) ({variable.metric}{{{variable.label}!=""}})', at_unix_s, may_be_empty=True
            )
            complaints += [] if found else [f"{board.title}: ${variable.name} has nothing to choose from"]
    return complaints


def crowded(prometheus: Prometheus, at_unix_s: float) -> list[str]:
    """Metric names with too many series."""
    counts = prometheus.vector('count by (__name__) ({__name__!=""})', at_unix_s)
    return sorted(f"{dict(labels)['__name__']}: {n:.0f} series" for labels, n in counts.items() if n > MOST_SERIES)


def request_like(prometheus: Prometheus, at_unix_s: float) -> list[str]:
    """Label values that look like a request's id, a prompt or a client's address."""
    odd = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}|[0-9a-f]{24,}|\s\S+\s\S+\s\S+\s\S+\s")
    complaints = set()
    for labels in prometheus.vector('{__name__=~"llmlab_.*|gen_ai_.*|llmchaos_.*|remediation_.*"}', at_unix_s):
        complaints |= {f"{name}={value!r}" for name, value in labels if odd.search(value)}
    return sorted(complaints)
