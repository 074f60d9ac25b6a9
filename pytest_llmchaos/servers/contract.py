"""Canonical metrics on a server's page."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Literal

import promql_parser

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.canonical import CANONICAL, PARTS
from pytest_llmchaos.servers.mapping import is_in, version_key
from pytest_llmchaos.servers.rules import expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_llmchaos.servers.canonical import CanonicalMetric
    from pytest_llmchaos.servers.exposition import Page, Series
    from pytest_llmchaos.servers.mapping import Entry, Server

State = Literal["found", "renamed", "late", "needs option", "absent", "missing"]
# The states that break the contract.
BROKEN: tuple[State, ...] = ("renamed", "missing")
# Metrics that a healthy server may lack for ever: their first event is an accident.
EVENTS = frozenset({"failed", "aborted", "preempted", "prefix_hits"})
# Metrics that an answer of one token, or one that is not streamed, may lack.
_GAPS = frozenset({"inter_token", "per_token"})
# Bounds of a query: beyond them the parser or a walk through its tree may crash.
_LONGEST = 10_000
_DEEPEST = 200
_MOST_OPERATORS = 200
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_BRACES = re.compile(r"\{[^{}]*\}")
_OPERATOR = re.compile(r"\b(?:and|or|unless|atan2)\b|[-+*/%^]|[=!]=|[<>]=?", re.IGNORECASE)
_ANY = frozenset(one.key for one in CANONICAL)
# A version before all others. A plain 0 is a build without a release.
_OLDEST = "0.0.1"
# Words that a new name of a metric may have more or less than the old one.
_MORE_WORDS = 2
# Words that make it the name of another metric.
_OTHER_METRIC = frozenset({"seconds", "created"})
_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A metric of an expression, with its matchers.

    Attributes:
        name: the metric's name, empty if only matchers select it.
        matchers: label, operator (=, !=, =~ or !~) and value.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def is_on(self, page: Page) -> bool:
        """True if the page has a series of it."""
        return bool(self.series_on(page))

    def series_on(self, page: Page) -> tuple[Series, ...]:
        """Return the series of a page that it selects."""
        return tuple(
            one for one in (page.by_name.get(self.name, ()) if self.name else page.series) if self._matches(one)
        )

    def is_declared_on(self, page: Page) -> bool:
        """True if the page declares its metric, and has no sample of it."""
        return self.name in page.names and self.name not in page.by_name

    def _matches(self, series: Series) -> bool:
        return self.fits({**series.labels, "__name__": series.name})

    def fits(self, labels: Mapping[str, str]) -> bool:
        """True if labels are as its matchers want them."""
        return all(_holds(labels.get(label, ""), how, value) for label, how, value in self.matchers)

    def __str__(self) -> str:
        """As in PromQL."""
        inner = ",".join(f'{label}{how}"{value}"' for label, how, value in self.matchers)
        return f"{self.name}{{{inner}}}" if inner else self.name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One canonical metric of one server's page.

    Attributes:
        metric: the canonical metric.
        state: found, missing, or one of these. renamed: the page has the name of
            another version. late: declared without a sample, or may appear after the
            first request or the first event of its kind. needs option: the server
            exports it with an option only. absent: the server's design.
        entry: the entry of the server's file for the version.
        wanted: the native series of the entry.
        seen: for renamed, the series of the other version that are there.
        note: the reason of the state, or the trap of the metric. May be empty.
        is_unproven: True if the metric is absent in older versions only, and the page
            without a version may be of a newer one.
    """

    metric: CanonicalMetric
    state: State
    entry: Entry
    wanted: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    note: str = ""
    is_unproven: bool = False

    @property
    def may_come(self) -> bool:
        """True if the series may appear later, with the first event of its kind."""
        if self.is_unproven:
            return self.entry.late and self.metric.key in EVENTS
        return self.state == "late"


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """The versions that a page's names allow.

    Attributes:
        since: the first version, empty if unlimited.
        until: the first version that is too new, empty if unlimited.
        reasons: the names that set the limits.
    """

    since: str = ""
    until: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def is_possible(self) -> bool:
        """False if the names are of different versions."""
        return not (self.since and self.until) or version_key(self.since) < version_key(self.until)

    @property
    def version(self) -> str:
        """The oldest version with all names, empty (the newest) if none has them."""
        return (self.since or _OLDEST) if self.is_possible else ""

    def allows(self, version: str) -> bool:
        """False if the names prove another version."""
        if not self.is_possible:
            return True
        at = version_key(version)
        if at == (0,):  # unknown, so it is taken as the newest
            return not self.until
        return (not self.since or version_key(self.since) <= at) and (not self.until or at < version_key(self.until))

    def __str__(self) -> str:
        """For people."""
        if not self.is_possible:
            return "unknown"
        return " and ".join([f"at least {self.since}"] * bool(self.since) + [f"before {self.until}"] * bool(self.until))


def check(
    server: Server, page: Page, version: str = "", *, answered: bool = False, warm: bool = False
) -> tuple[Cell, ...]:
    """Return a cell for each canonical metric.

    A late metric is excused only until its trigger: the first answer, a streamed answer
    (of several tokens for a gap), or an event such as a failure.

    Args:
        server: the server of the page.
        page: its metrics.
        version: its version. If empty, the oldest that has all names of the page, so
            that nothing is called missing without evidence.
        answered: True if it has answered a request, maybe a short one. If the page has
            counted an answer, it has.
        warm: True if it has answered all kinds of requests, so that only the events
            may be late.
    """
    limits = bracket(server, page)
    at = version or limits.version
    options = {one.needs for one in server.entries if one.needs and _is_there(one, page)}
    late = EVENTS if warm else EVENTS | _GAPS if answered or has_answered(server, page) else _ANY
    found = (_cell(server.at(one.key, at), server, page, at, options, late) for one in CANONICAL)
    return tuple(one if version else _unproven(one, server, page, limits) for one in found)


def has_answered(server: Server, page: Page) -> bool:
    """True if the page has counted a whole answer.

    A derived count may have aborted requests, and tokens may be of a request that still
    runs. Both count only if no request runs, failed or was aborted.
    """
    done, tokens, running, *accidents = (
        [(entry, one) for entry in server.of(key) for one in _values(entry, page)]
        for key in ("done", "tokens_out", "running", "failed", "aborted")
    )
    counted = [entry for entry, value in (*done, *tokens) if value > 0]
    if any(entry.canonical.key == "done" and entry.status == "native" for entry in counted):
        return True
    is_idle = bool(running) and all(value == 0 for _, value in running)
    return bool(counted) and is_idle and not any(value > 0 for found in accidents for _, value in found)


def is_unproven(cell: Cell, server: Server, limits: Bracket) -> bool:
    """True for a metric of newer versions only, and the page may be of one of them."""
    newest = server.of(cell.metric.key)[0]
    is_newer = cell.state == "absent" and newest.status != "absent" and bool(newest.since)
    return is_newer and limits.allows(newest.since)


def _unproven(cell: Cell, server: Server, page: Page, limits: Bracket) -> Cell:
    if not is_unproven(cell, server, limits):
        return cell
    newest = server.of(cell.metric.key)[0]
    if close := _successors(newest, server, page):
        wanted = tuple(map(str, selectors_of(newest)))
        return replace(cell, state="missing", entry=newest, wanted=wanted, note=close)
    note = f"{cell.note} Without a version, such a page may be that of an older version."
    return replace(cell, entry=newest, note=note, is_unproven=True)


def is_shown(cell: Cell, page: Page) -> bool:
    """True if the page has the names of a cell's entry, also without a sample."""
    return cell.state == "found" or (cell.state == "late" and is_declared(cell.entry, page))


def _cell(  # noqa: PLR0917 - private, and called once
    entry: Entry, server: Server, page: Page, version: str, options: set[str], late: frozenset[str]
) -> Cell:
    metric, wanted = entry.canonical, tuple(map(str, selectors_of(entry)))
    if entry.status == "absent":
        return Cell(metric=metric, state="absent", entry=entry, note=entry.trap)
    if version and not is_in(version, entry):
        limits = [f"since {entry.since}"] * bool(entry.since) + [f"until {entry.until}"] * bool(entry.until)
        note = f"The server has it {' and '.join(limits)}."
        return Cell(metric=metric, state="absent", entry=entry, wanted=wanted, note=note)
    if _is_there(entry, page):
        return Cell(metric=metric, state="found", entry=entry, wanted=wanted, note=entry.trap)
    if is_declared(entry, page):
        note = "The page declares it, and has no sample of it yet."
        return Cell(metric=metric, state="late", entry=entry, wanted=wanted, note=note)
    other = next((one for one in server.of(metric.key) if _is_there(one, page)), None)
    state, note = _loss(entry, other, server, page, options, late)
    seen = tuple(map(str, selectors_of(other))) if other else ()
    return Cell(metric=metric, state=state, entry=entry, wanted=wanted, seen=seen, note=note)


def _loss(  # noqa: PLR0917 - private, and called once
    entry: Entry, other: Entry | None, server: Server, page: Page, options: set[str], late: frozenset[str]
) -> tuple[State, str]:
    """Return why a page lacks an entry, and the sentence for people."""
    if other:
        return "renamed", f"The page has the name of another version: {_short(other)}."
    if close := _successors(entry, server, page):
        return "missing", close
    if entry.needs and entry.needs not in options:
        return "needs option", f"The server exports it with {entry.needs}."
    if entry.late and (entry.canonical.key in late or (entry.streams and late >= _GAPS)):
        what = "event of its kind" if entry.canonical.key in EVENTS else "request"
        return "late", f"The server exports it from the first {what} on."
    return "missing", _similar(entry, page)


def bracket(server: Server, page: Page) -> Bracket:
    """Return the versions of a server that the page's names allow."""
    there = [one for one in server.entries if (one.since or one.until) and is_declared(one, page)]
    since = max((one for one in there if one.since), key=lambda one: version_key(one.since), default=None)
    until = min((one for one in there if one.until), key=lambda one: version_key(one.until), default=None)
    reasons = []
    if since:
        reasons.append(f"{_short(since)} is there since {since.since}")
    if until:
        reasons.append(f"{_short(until)} is there until {until.until}")
    return Bracket(since=since.since if since else "", until=until.until if until else "", reasons=tuple(reasons))


def selectors_of(entry: Entry) -> tuple[Selector, ...]:
    """Return the native series of an entry, those of a histogram with their endings."""
    return tuple(dict.fromkeys(chain.from_iterable(map(selectors_in, _trees(entry)))))


def parse(text: str) -> promql_parser.Expr:
    """Return the syntax tree of PromQL.

    Raises:
        BadScenario: It is no PromQL, or too long or too deep.
    """
    try:
        return tree_of(text)
    except ValueError as error:
        raise BadScenario(f"{text.strip()[:120]!r} must be PromQL: {error}") from None


def tree_of(text: str) -> promql_parser.Expr:
    """Return the syntax tree of PromQL.

    Raises:
        ValueError: It is no PromQL, or too long or too deep.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it must have at most {_LONGEST:,} characters, got {len(text):,}")
    plain = QUOTED.sub("", text)
    depth = deepest = 0
    for one in plain:
        depth += (one in "([{") - (one in ")]}")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ValueError(f"it must have at most {_DEEPEST} brackets inside one another, got {deepest:,}")
    if (count := len(_OPERATOR.findall(_BRACES.sub("", plain)))) > _MOST_OPERATORS:
        raise ValueError(f"it must have at most {_MOST_OPERATORS} operators such as `or`, got {count:,}")
    return promql_parser.parse(text)


def selectors_in(tree: promql_parser.Expr) -> Iterator[Selector]:
    """Yield the selectors of a syntax tree."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield _selector(tree)
    for part in _parts(tree):
        yield from selectors_in(part)


def lacking(tree: promql_parser.Expr, is_there: Callable[[Selector], bool]) -> tuple[Selector, ...]:
    """Return the selectors that are not there.

    One side of an `or` is enough, as in queries for two versions of a server. The right
    side of an `unless` need not be there.
    """
    if isinstance(tree, promql_parser.VectorSelector):
        one = _selector(tree)
        return () if is_there(one) else (one,)
    operator = str(tree.op) if isinstance(tree, promql_parser.BinaryExpr) else ""
    needed = _parts(tree)[:1] if operator == "unless" else _parts(tree)
    found: list[Selector] = []
    for part in needed:
        lacks = lacking(part, is_there)
        # A side without a metric, such as vector(0), is no alternative.
        if operator == "or" and not lacks and any(selectors_in(part)):
            return ()
        found += lacks
    return tuple(found)


def _parts(tree: promql_parser.Expr) -> Sequence[promql_parser.Expr]:
    match tree:
        case promql_parser.BinaryExpr():
            return tree.lhs, tree.rhs
        case promql_parser.Call():
            return tree.args
        case promql_parser.AggregateExpr():
            return (tree.expr,) if tree.param is None else (tree.param, tree.expr)
        case promql_parser.MatrixSelector():
            return (tree.vector_selector,)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            return (tree.expr,)
        case _:
            return ()


def _selector(tree: promql_parser.VectorSelector) -> Selector:
    found = [(one.name, _OPERATORS[str(one.op)], one.value) for one in tree.matchers.matchers]
    name = tree.name or next((value for label, how, value in found if (label, how) == ("__name__", "=")), "")
    return Selector(name=name, matchers=tuple(one for one in found if not name or one[0] != "__name__"))


def _holds(value: str, how: str, wanted: str) -> bool:
    if how in ("=", "!="):
        return (value == wanted) == (how == "=")
    try:
        return (re.fullmatch(wanted, value) is not None) == (how == "=~")
    except re.error:  # of RE2 only
        return True


@cache
def _trees(entry: Entry) -> tuple[promql_parser.Expr, ...]:
    return tuple(parse(text) for part in _parts_of(entry) if (text := expression(entry, part)))


def _parts_of(entry: Entry) -> tuple[str, ...]:
    return PARTS if entry.canonical.kind == "histogram" else ("",)


def _is_there(entry: Entry, page: Page) -> bool:
    return entry.status != "absent" and not any(lacking(tree, lambda one: one.is_on(page)) for tree in _trees(entry))


def is_declared(entry: Entry, page: Page) -> bool:
    """True if the page has the names of an entry, some of them without a sample."""
    return entry.status != "absent" and not any(
        lacking(tree, lambda one: one.is_on(page) or one.is_declared_on(page)) for tree in _trees(entry)
    )


def _values(entry: Entry, page: Page) -> list[float]:
    return [one.value for wanted in selectors_of(entry) for one in wanted.series_on(page)]


def _similar(entry: Entry, page: Page) -> str:
    found = [
        close
        for one in selectors_of(entry)
        if one.name not in page.names
        for close in difflib.get_close_matches(one.name, page.names, n=1, cutoff=0.8)
    ]
    return f"The page has {', '.join(dict.fromkeys(found))}, which is similar." if found else ""


def _successors(entry: Entry, server: Server, page: Page) -> str:
    """Return names that may be new ones of an entry, as a sentence, empty without one.

    Such a name is read by no entry, and is the wanted one with a few words more.
    """
    found = [
        name
        for one in selectors_of(entry)
        if one.name not in page.names
        for name in sorted(page.names - names_of(server))
        if _is_close(_words(one.name), _words(name))
    ]
    return f"The page has {', '.join([*dict.fromkeys(found)][:3])}, which is similar." if found else ""


@cache
def names_of(server: Server) -> frozenset[str]:
    """Return all names that a server's file has."""
    return frozenset(
        name for entry in server.entries for part in _parts_of(entry) for name in native_names(entry, part)
    )


@cache
def entries_of(server: Server, name: str) -> tuple[tuple[Entry, str], ...]:
    """Return the entries of a server with a name, each with the part of a histogram.

    An entry that has this name alone is before one that adds it to others.
    """
    found = (
        (entry, part)
        for entry in server.entries
        for part in _parts_of(entry)
        if {name, f"{name}_total"} & {*native_names(entry, part)}
    )
    return tuple(sorted(found, key=lambda one: len(native_names(*one))))


@cache
def native_names(entry: Entry, part: str) -> tuple[str, ...]:
    """Return the names of an entry, for a part of a histogram or an empty one."""
    text = expression(entry, part) or entry.instead
    return tuple(dict.fromkeys(one.name for one in selectors_in(parse(text)))) if text else ()


@cache
def _words(name: str) -> tuple[str, ...]:
    """The words of a name, without numbers of versions."""
    return tuple(one for one in re.split("[_:]", name) if not re.fullmatch(r"v\d+", one))


def _is_close(wanted: Sequence[str], seen: Sequence[str]) -> bool:
    """True if the seen words are the wanted ones with a few more before the last."""
    if not 0 <= len(seen) - len(wanted) <= _MORE_WORDS or not _is_same(wanted[-1], seen[-1]):
        return False
    if _OTHER_METRIC & {*seen} - {*wanted}:
        return False
    left = iter(seen)
    return all(any(_is_same(word, other) for other in left) for word in wanted)


def _is_same(word: str, other: str) -> bool:
    """True for forms of one word, such as failure and failures, or cached and cache."""
    short, long = sorted((word, other), key=len)
    return short == long or (len(short) > 3 and len(long) - len(short) < 3 and long.startswith(short[:-1]))


def _short(entry: Entry) -> str:
    return (entry.expr or entry.sum).replace("{}", "")
