"""A server's file: its names of the canonical metrics."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import promql_parser

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.canonical import BY_KEY, CANONICAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmchaos.servers.canonical import CanonicalMetric

ServerKind = Literal["engine", "gateway", "provider"]
Status = Literal["native", "derived", "absent"]
Ticks = Literal["", "step", "batch", "request"]
_VERSION = re.compile(r"\d+(\.\d+)*")
# Content of braces, texts, and labels of aggregations and matches.
_LABELS = re.compile(r"""(?<=\{)[^}]*|"[^"]*"|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)""")
# A name without braces that is neither a function nor a word of PromQL.
_UNMARKED = re.compile(
    r"(?<![\w:.])(?!(?:and|or|unless|bool|offset|atan2|inf|nan|by|without)\b)[a-zA-Z_:][\w:]*(?![\w:]*\s*[({])",
    re.IGNORECASE,
)
_BRACE_IN_TEXT = re.compile(r"""("[^"]*[{}][^"]*"|'[^']*[{}][^']*')""")
# Bounds of buckets are labels, which no arithmetic of PromQL reaches. Digits behind the
# point by factor.
BUCKET_FACTORS = {1.0: 0, 1e-3: 3, 1e-6: 6}
# A metric with its matchers.
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^{}]*\})", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_]\w*", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One canonical metric of a server, in some of its versions.

    Attributes:
        canonical: the metric.
        status: native (the server counts it), derived (computed from its metrics, or
            from other requests by a gateway) or absent.
        expr: PromQL of the value, or the selector of a histogram without its suffix.
            Empty if absent, or if only `sum` and `count` exist.
        sum: PromQL of a histogram's sum, if it is not `expr` with `_sum`.
        count: PromQL of a histogram's count, if it is not `expr` with `_count`.
        since: first version with it, empty for all.
        until: first version without it, empty for none.
        factor: multiply a value with it for the base unit.
        late: True if it is exported after the first request only.
        streams: True if it is late, and only streamed answers have it.
        needs: option of the server without which it lacks the metric.
        instead: of an absent metric, PromQL of what the server counts in its place and
            in another unit. It is known, and not recorded.
        ticks: what moves a heartbeat: a step (at most a second apart while there is
            work), a batch (may take longer) or a finished request.
        trap: what a reader would get wrong, in one line. Why, if absent.
        source: where the fact is from.
    """

    canonical: CanonicalMetric
    status: Status
    expr: str = ""
    sum: str = ""
    count: str = ""
    since: str = ""
    until: str = ""
    factor: float = 1.0
    late: bool = False
    streams: bool = False
    needs: str = ""
    instead: str = ""
    ticks: Ticks = ""
    trap: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class VersionAt:
    """Place of a server's version.

    Attributes:
        path: path of a JSON page, such as `/version`.
        key: key in that page, with dots for a key inside another.
        metric: metric whose label has it, such as `vllm:build_info`.
        label: that label.
    """

    path: str = ""
    key: str = ""
    metric: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A model server, gateway or provider.

    Attributes:
        name: as in `llmchaos_servers`, the name of its file.
        title: its name for people.
        kind: engine, gateway (in front of engines) or provider (no metrics page: what
            it gives is documentation).
        source: where its facts are from.
        checked: the newest version that the facts were read for.
        prefixes: beginnings of its metrics' names.
        metrics_path: path of its metrics.
        version: where it reports its version.
        service_label: label of its metrics that names the server, if a gateway exports
            them for several. Recorded series have it as `service`.
        never: what it can never show, besides what is absent. One sentence each.
        entries: newest version first for each canonical metric.
        package: the other package with its file, empty for a file of this package.
    """

    name: str
    title: str
    kind: ServerKind
    source: str
    checked: str
    prefixes: tuple[str, ...] = ()
    metrics_path: str = "/metrics"
    version: VersionAt = VersionAt()
    service_label: str = ""
    never: tuple[str, ...] = ()
    entries: tuple[Entry, ...]
    package: str = ""

    def of(self, key: str) -> tuple[Entry, ...]:
        """Return the entries of a canonical metric, newest first."""
        return tuple(one for one in self.entries if one.canonical.key == key)

    def at(self, key: str, version: str = "") -> Entry:
        """Return a canonical metric's entry for a version, by default the newest."""
        found = self.of(key)
        return next((one for one in found if is_in(version, one)), found[0])


def parse_server(text: str, name: str) -> Server:
    """Return the server of a TOML file.

    Args:
        text: the file's content.
        name: the server's name, for messages.

    Raises:
        BadScenario: The file is not TOML, or a value is missing, unknown or wrong. The
            message has the place.
    """
    if not _NAME.fullmatch(name):
        raise _bad(name, "name", "lower-case letters, digits and -", name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"the file of server {name} must be TOML: {error}") from None
    given = table.pop("metrics", {})
    if not isinstance(given, dict) or set(given) != set(BY_KEY):
        lacks = sorted(set(BY_KEY) - set(given)) if isinstance(given, dict) else sorted(BY_KEY)
        extra = sorted(set(given) - set(BY_KEY)) if isinstance(given, dict) else []
        wrong = [f"it lacks {', '.join(lacks)}"] * bool(lacks) + [f"{', '.join(extra)} is not one of them"] * bool(
            extra
        )
        raise BadScenario(
            f'server {name} must map each canonical metric, also those it lacks (status = "absent" with a trap): '
            f"{'; '.join(wrong)}"
        )
    version = VersionAt(**_checked(table.pop("version", {}), VersionAt, f"{name}: version"))
    plain = _checked(table, Server, name, ("name", "entries", "version", "package"))
    if "" in plain.get("prefixes", ()):
        raise _bad(name, "prefixes", "beginnings of names, without an empty one", plain["prefixes"])
    if (label := plain.get("service_label", "")) and not _LABEL.fullmatch(label):
        raise _bad(name, "service_label", "a label's name", label)
    entries = tuple(
        _entry(one, metric, f"{name}: metrics.{metric.key}")
        for metric in CANONICAL
        for one in _listed(given[metric.key], name)
    )
    return Server(name=name, version=version, entries=entries, **plain)


def is_in(version: str, entry: Entry) -> bool:
    """Return whether a version has the entry.

    A version without a number above 0 has the newest: it is unknown, or that of a
    build without a release, such as llama.cpp's `b0-unknown`. `0` is before all others.
    """
    if version != "0" and version_key(version) == (0,):
        return not entry.until
    at = version_key(version)
    return (not entry.since or version_key(entry.since) <= at) and (not entry.until or at < version_key(entry.until))


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version for comparison, such as (0, 11, 2)."""
    found = _VERSION.search(version)
    numbers = [int(one) for one in found[0].split(".")] if found else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _listed(given: Any, name: str) -> list[Any]:
    found = given if isinstance(given, list) else [given]
    if not found or not all(isinstance(one, dict) for one in found):
        raise _bad(name, "metrics", "a table, or a list of tables with the newest version first", given)
    return found


def _entry(given: Mapping[str, Any], metric: CanonicalMetric, where: str) -> Entry:
    entry = Entry(canonical=metric, **_checked(given, Entry, where, ("canonical",)))
    if entry.status == "absent":
        if entry.expr or entry.sum or entry.count:
            raise _bad(where, "expr", "empty for an absent metric", entry.expr or entry.sum or entry.count)
        if not entry.trap:
            raise _bad(where, "trap", "the reason why it is absent", "")
    elif entry.instead:
        raise _bad(where, "instead", "empty unless the metric is absent", entry.instead)
    elif not entry.expr and not (metric.kind == "histogram" and entry.sum and entry.count):
        raise _bad(where, "expr", "PromQL, or sum and count of a histogram", "")
    for field in ("since", "until"):
        value = getattr(entry, field)
        if value and not _VERSION.fullmatch(value):
            raise _bad(where, field, "a version such as 0.11.2", value)
    if entry.since and entry.until and version_key(entry.since) >= version_key(entry.until):
        raise _bad(where, "until", f"a version after {entry.since}", entry.until)
    if entry.streams and not entry.late:
        raise _bad(where, "streams", "false unless the metric is late", entry.streams)
    _check_expressions(entry, where)
    if (metric.key == "heartbeat" and entry.status != "absent") != bool(entry.ticks):
        raise _bad(where, "ticks", "one of step, batch, request for a heartbeat, and for nothing else", entry.ticks)
    if not entry.source:
        raise _bad(where, "source", "where the fact is from", "")
    return entry


def _check_expressions(entry: Entry, where: str) -> None:
    """Check that rules can be made of an entry. Raises BadScenario."""
    for key, text in (
        ("expr", entry.expr),
        ("sum", entry.sum),
        ("count", entry.count),
        ("instead", entry.instead),
    ):
        _require_promql(text, where, key)
        if unmarked := _UNMARKED.search(_LABELS.sub("", text)):
            raise _bad(where, key, f"{unmarked[0]}{{}}, with braces after each metric", text)
    if entry.canonical.kind == "histogram" and entry.expr:
        if not _SELECTOR.fullmatch(entry.expr):
            raise _bad(where, "expr", "a selector such as name{} for a histogram", entry.expr)
        if entry.factor not in BUCKET_FACTORS:
            raise _bad(where, "factor", f"one of {', '.join(map(str, BUCKET_FACTORS))} for buckets", entry.factor)


def _require_promql(text: str, where: str, key: str) -> None:
    if _BRACE_IN_TEXT.search(text):
        raise _bad(where, key, "without braces in its strings", text)
    try:
        if text:
            promql_parser.parse(text)
    except ValueError as error:
        raise _bad(where, key, f"PromQL ({error})", text) from None


def _checked(given: Any, kind: type, where: str, taken: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a table's values. Raises BadScenario for another key, type or choice."""
    if not isinstance(given, dict):
        raise _bad(where, "value", "a table", given)
    allowed = {one.name: one for one in fields(kind) if one.name not in taken}
    for key, value in given.items():
        if key not in allowed:
            raise BadScenario(f"server {where} has the unknown key {key!r}; the keys are {', '.join(allowed)}")
        expected, good = _EXPECTED[allowed[key].type]
        if not good(value):
            raise _bad(where, key, expected, value)
    for key, field in allowed.items():
        if key not in given and field.default is field.default_factory:  # both are MISSING
            raise BadScenario(f"server {where}: {key} must be given, and it is missing")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() == value


def _one_of(kind: object) -> tuple[str, Any]:
    choices = get_args(kind)
    return f"one of {', '.join(one for one in choices if one)}", choices.__contains__


_EXPECTED: dict[object, tuple[str, Any]] = {
    "str": ("a string without spaces around it", _is_text),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "float": (
        "a number above 0",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf,
    ),
    "tuple[str, ...]": ("a list of strings", lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "ServerKind": _one_of(ServerKind),
    "Status": _one_of(Status),
    "Ticks": _one_of(Ticks),
}


def _bad(where: str, key: str, expected: str, seen: object) -> BadScenario:
    return BadScenario(f"server {where}: {key} must be {expected}, got {seen!r:.80}")
