"""Queries in rule files, Grafana dashboards and KEDA objects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.contract import QUOTED, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import promql_parser

_VARIABLE = re.compile(r"\$\{(\w+)(?:[.:][^}]*)?\}|\$(\w+)|\[\[(\w+)(?::\w+)?\]\]")
# Grafana's macros for a span of time, and for its number of seconds or milliseconds.
_SPAN = re.compile(r"__(rate_interval|interval|range|auto.*)")
_NUMBER = re.compile(r"__(interval_ms|range_s|range_ms|rate_interval_ms|from|to)")
_LITERAL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_VALUES = re.compile(r"label_values\(\s*(.+?)\s*,\s*[^,{}()]+\)", re.DOTALL)
_QUERY_RESULT = re.compile(r"query_result\((.+)\)", re.DOTALL)
_METRICS = re.compile(r"metrics\((.+)\)", re.DOTALL)
# Values of a variable outside of quotes: a span, a number, a name of a label.
_GUESSES = ("5m", "1", "x")
# Nesting of YAML. Far beyond it the parser crashes, and Python with it.
_DEEPEST = 100
_SCALED = ("ScaledObject", "ScaledJob")
# Data sources of the old form have a name only.
_PROMETHEUS = re.compile("prom|mimir|thanos|cortex|victoria|metrics", re.IGNORECASE)
_OTHER = re.compile(
    "loki|elastic|opensearch|influx|graphite|tempo|jaeger|zipkin|cloudwatch|stackdriver|azure|opentsdb|testdata|sql|"
    "postgres|clickhouse|bigquery|pyroscope|sentry",
    re.IGNORECASE,
)
# A name of which variables are a part, and the braces and brackets before it.
_PART = rf"(?:{_VARIABLE.pattern})"
_JOINED = re.compile(rf"(?:[a-zA-Z0-9_:]|{_PART})*{_PART}(?:[a-zA-Z0-9_:]|{_PART})*(?:\s*(?P<next>[{{(]))?")
_INSIDE = re.compile(r"(?:[{\[][^}\]]*|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Want:
    """A query of a file.

    Attributes:
        file: name of the file.
        place: the rule, panel, variable, trigger or objective.
        tree: its syntax tree.
    """

    file: str
    place: str
    tree: promql_parser.Expr


@dataclass(frozen=True, kw_only=True)
class Wants:
    """All queries of one or more files.

    Attributes:
        queries: in their order.
        recorded: names that the files' recording rules make.
        foreign: queries of dashboards that are of other data sources. One line each.
        unread: queries of dashboards that should be PromQL, and are not. One line each.
    """

    queries: tuple[Want, ...] = ()
    recorded: frozenset[str] = frozenset()
    foreign: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def __add__(self, other: Wants) -> Wants:
        """Both together."""
        return Wants(
            queries=self.queries + other.queries,
            recorded=self.recorded | other.recorded,
            foreign=self.foreign + other.foreign,
            unread=self.unread + other.unread,
        )


def wants_of_rules(text: str, file: str) -> Wants:
    """Return the queries of a file of Prometheus rules, or of PrometheusRule objects.

    Raises:
        BadScenario: The file is another one, or an expression is no PromQL.
    """
    queries, recorded = [], set()
    for document in _documents(text, file):
        spec = _at(document, "spec") if _at(document, "kind") == "PrometheusRule" else document
        for group in _list(_at(spec, "groups")):
            for rule in _list(_at(group, "rules")):
                name = _text(_at(rule, "record"))
                place = f"record {name}" if name else f"alert {_text(_at(rule, 'alert'))}"
                queries.append(_want(file, place, _text(_at(rule, "expr"))))
                recorded |= {name} if name else set()
    return Wants(
        queries=_some(queries, file, "rules of Prometheus (groups, or objects of kind PrometheusRule)"),
        recorded=frozenset(recorded),
    )


def wants_of_scaled_objects(text: str, file: str) -> Wants:
    """Return the queries of KEDA's objects. Triggers of other types are left out.

    Raises:
        BadScenario: The file has no trigger of Prometheus, or a query is no PromQL.
    """
    queries = [
        _want(
            file, f"{_text(_at(document, 'kind'))} {_text(_at(document, 'metadata', 'name'))}, trigger {number}", query
        )
        for document in _documents(text, file)
        if _at(document, "kind") in _SCALED
        for number, trigger in enumerate(_list(_at(document, "spec", "triggers")), 1)
        if _at(trigger, "type") == "prometheus" and (query := _text(_at(trigger, "metadata", "query")))
    ]
    return Wants(queries=_some(queries, file, "a ScaledObject or ScaledJob of KEDA with a trigger of type prometheus"))


def wants_of_dashboard(text: str, file: str) -> Wants:
    """Return the queries of a Grafana dashboard: of panels, variables and annotations.

    Grafana's macros and variables are replaced. Queries of other data sources are not
    read. They are known by their data source, or by a pipe, which PromQL lacks.

    Raises:
        BadScenario: The file is no dashboard, or none of its queries is PromQL.
    """
    try:
        board: object = json.loads(text)
        queries = [*_queries_in(board, "dashboard")]
    except (ValueError, RecursionError) as error:
        raise BadScenario(f"{file} must be a Grafana dashboard in JSON: {error}") from None
    values = {
        _text(_at(one, "name")): _value(_at(one, "current", "value"))
        for one in _list(_at(board, "templating", "list") or _at(board, "dashboard", "templating", "list"))
    }
    found: list[Want] = []
    foreign: list[str] = []
    unread: list[str] = []
    problem = None
    for place, expr, is_foreign in queries:
        if is_foreign or "|" in QUOTED.sub("", _VARIABLE.sub("", expr)):
            foreign.append(f"{file}: {place}: its data source is not Prometheus")
            continue
        try:
            found.append(_want(file, place, expr, values))
        except BadScenario as error:
            problem = problem or error
            unread.append(str(error))
    if problem and not found:
        raise problem
    return Wants(
        queries=_some(found, file, "a Grafana dashboard with queries of Prometheus"),
        foreign=tuple(dict.fromkeys(foreign)),
        unread=tuple(dict.fromkeys(unread)),
    )


def wants_of(pairs: Iterable[tuple[str, str]], file: str) -> Wants:
    """Return queries that another reader found, as pairs of place and PromQL."""
    return Wants(queries=tuple(_want(file, place, expr) for place, expr in pairs))


def _queries_in(node: object, place: str, *, is_foreign: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield the queries below a node of a dashboard, whatever its schema is.

    Each has its place, its text, and whether its data source is not Prometheus.
    """
    if isinstance(node, list):
        for one in node:
            yield from _queries_in(one, place, is_foreign=is_foreign)
    if not isinstance(node, dict):
        return
    is_foreign = is_foreign or _is_foreign(node.get("datasource"))
    title = _text(node.get("title")) or _text(_at(node, "spec", "title"))
    if title:
        place = f"panel {title!r}"
    elif isinstance(node.get("name"), str) and "query" in node:
        place = f"variable {node['name']}"
    elif isinstance(node.get("name"), str) and "expr" in node:
        place = f"annotation {node['name']!r}"
    if isinstance(node.get("expr"), str) and node["expr"].strip():
        yield place, node["expr"], is_foreign
    if isinstance(query := node.get("query"), str) and (expr := _of_variable(query)):
        yield place, expr, is_foreign
    for key, one in node.items():
        if key not in ("expr", "datasource"):
            yield from _queries_in(one, place, is_foreign=is_foreign)


def _is_foreign(source: object) -> bool:
    if isinstance(source, str):
        return bool(_OTHER.search(source)) and not _PROMETHEUS.search(source)
    kind = _text(_at(source, "type"))
    return bool(kind) and not re.search(r"prom|metrics|datasource|mixed|grafana$", kind)


def _of_variable(query: str) -> str:
    """Return the PromQL in the query of a variable, empty if it has no metric."""
    for form, wrap in ((_LABEL_VALUES, "{}"), (_QUERY_RESULT, "{}"), (_METRICS, '{{__name__=~"{}"}}')):
        if found := form.fullmatch(query.strip()):
            return wrap.format(found[1].strip())
    return ""


def _want(file: str, place: str, expr: str, values: Mapping[str, str] | None = None) -> Want:
    problem = "is empty"
    for guess in _GUESSES if values is not None else ("",):
        try:
            text = expr if values is None else substituted(expr, values, guess)
            return Want(file=file, place=place, tree=tree_of(text))
        except ValueError as error:
            problem = str(error)
    raise BadScenario(f"{file}: {place}: the query must be PromQL ({problem}), got {expr.strip()[:120]!r}")


def substituted(expr: str, values: Mapping[str, str], other: str) -> str:
    """Return a query with values for Grafana's macros and variables.

    Args:
        expr: the query.
        values: value of each variable of the dashboard.
        other: for variables outside of quotes without a value. If they are a part of a
            metric's name, the name becomes a pattern.
    """

    def value(found: re.Match[str], other: str = other) -> str:
        name = found[1] or found[2] or found[3]
        if _NUMBER.fullmatch(name):
            return "300"
        return "5m" if _SPAN.fullmatch(name) else values.get(name) or other

    def joined(found: re.Match[str]) -> str:
        text, after = found[0], found["next"] or ""
        name = text.removesuffix(after).rstrip()
        is_alone = _VARIABLE.fullmatch(name) or name[0].isdigit()
        if is_alone or after == "(" or _INSIDE.search(plain + found.string[: found.start()]):
            return _VARIABLE.sub(value, text)
        pattern = _VARIABLE.sub(lambda one: value(one, ".+"), name)
        if _LITERAL.fullmatch(pattern):
            return f"{pattern}{after}"
        return f'{{__name__=~"{pattern}"' + ("," if after else "}")

    parts, end, plain = [], 0, ""
    for quoted in QUOTED.finditer(expr):
        between = expr[end : quoted.start()]
        parts += [_JOINED.sub(joined, between), _VARIABLE.sub(".*", quoted[0])]
        plain += between
        end = quoted.end()
    return "".join([*parts, _JOINED.sub(joined, expr[end:])])


def _value(given: object) -> str:
    first = given[0] if isinstance(given, list) and given else given
    text = _text(first)
    return "" if text in ("$__all", "All") or text.startswith("$__") else text


def _documents(text: str, file: str) -> Iterator[object]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _require_shallow(text, loader)
        for document in yaml.load_all(text, Loader=loader):
            yield from _list(_at(document, "items")) if _at(document, "kind") == "List" else [document]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as the 99th of a month
        raise BadScenario(
            f"{file} must be YAML (render templates of Helm first): {' '.join(str(error).split())}"
        ) from None


def _require_shallow(text: str, loader: type[yaml.SafeLoader]) -> None:
    """Require few levels, by events, which need no recursion. Raises ValueError."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it must have at most {_DEEPEST} levels inside one another, got more")


def _some(found: list[Want], file: str, expected: str) -> tuple[Want, ...]:
    if not found:
        raise BadScenario(f"{file} must be {expected}, and has no query")
    return tuple(found)


def _at(node: object, *keys: str) -> object:
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _list(node: object) -> list[object]:
    return node if isinstance(node, list) else []


def _text(node: object) -> str:
    return str(node) if isinstance(node, str | int | float) else ""
