"""Metrics pages in the formats of Prometheus and OpenMetrics.

The parser of prometheus_client adds `_total` to the names of counters. This one keeps
the names as a scrape stores them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_TEXT = r'"(?:[^"\\]|\\.)*+"'
_TERM = rf"(?:(?:{_NAME}|{_TEXT})\s*+=\s*+)?{_TEXT}\s*+"
# Name, labels and value. A timestamp and an exemplar may follow, and are not read. Its
# spaces are matched once, so that the time of a line grows with its length only.
_SAMPLE = re.compile(
    rf"({_NAME})?+(?![a-zA-Z0-9_:])\s*+(?:\{{\s*+((?:{_TERM}(?:,\s*+{_TERM})*+,?+)?+)\s*+\}}\s*+)?+"
    r"([^\s{}_]++)(?:\s++[-+0-9.eE]++)?+(?:\s++#.*)?"
)
_PARTS = re.compile(rf"(?:({_NAME}|{_TEXT})\s*=\s*)?({_TEXT})")
_DECLARED = re.compile(rf"#\s*(HELP|TYPE)\s+({_NAME}|{_TEXT})(?:\s+(.*))?")
# Most characters of a line. Those of real servers have less than a thousand.
_LONGEST = 65_536
# Control characters, and those that turn the direction of a text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_IN_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(r'\\([\\n"])')
# Endings of the series of a family, by its type.
_ENDINGS = {
    "histogram": ("_bucket", "_sum", "_count"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "summary": ("", "_sum", "_count"),
    "counter": ("", "_total"),
    "info": ("", "_info"),
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One sample of a page.

    Attributes:
        name: name as Prometheus stores it, with `_bucket` or `_total`.
        labels: by name.
        value: its value.
    """

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, kw_only=True)
class Page:
    """A metrics page.

    Attributes:
        types: type of each family that a HELP or TYPE line declares, "" without TYPE.
        series: in the order of the page.
    """

    types: Mapping[str, str]
    series: tuple[Series, ...]

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Series, ...]]:
        """Series by name."""
        found: dict[str, list[Series]] = {}
        for one in self.series:
            found.setdefault(one.name, []).append(one)
        return {name: tuple(series) for name, series in found.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all series, also of declared families without a sample."""
        families = [[f"{name}{ending}" for ending in _ENDINGS.get(kind, ("",))] for name, kind in self.types.items()]
        return frozenset(self.by_name).union(
            *(names for names in families if not any(one in self.by_name for one in names))
        )

    def bounds(self, name: str) -> tuple[float, ...]:
        """Return the upper bounds of a histogram's buckets, in ascending order."""
        return tuple(sorted({float(one.labels["le"]) for one in self.by_name.get(f"{name}_bucket", ())}))


def parse_page(text: str, where: str = "the page") -> Page:
    """Return the page of a text.

    Args:
        text: the page.
        where: its name in messages.

    Raises:
        BadScenario: The text is another format, or a line is no sample. Prometheus
            refuses such a page as a whole.
    """
    begin = text.lstrip("\ufeff \t\r\n")[:200]
    if begin[:1] in ("<", "[") or re.match(r'\{\s*("[^"]*"\s*:|\})', begin):
        kind = "HTML" if begin[0] == "<" else "JSON"
        raise BadScenario(
            f"{where} must be a metrics page in Prometheus' format, got {kind}: {begin[:60]!r}; "
            "give the address of the metrics, which mostly ends in /metrics"
        )
    types: dict[str, str] = {}
    series: list[Series] = []
    for number, raw in enumerate(_CONTROL_IN_LINES.sub("", text.lstrip("\ufeff")).split("\n"), 1):
        line = raw.strip()
        if len(line) > _LONGEST:
            raise BadScenario(
                f"{where}: line {number} must have at most {_LONGEST} characters, got {len(line)}: "
                f"{line[:40]!r}; check that it is a metrics page"
            )
        if line.startswith("#"):
            if found := _DECLARED.fullmatch(line):
                name = plain(_unquoted(found[2]))
                kind = (found[3] or "").strip() if found[1] == "TYPE" else ""
                types[name] = kind or types.get(name, "")
        elif line:
            sample = _sample(line)
            if sample is None:
                raise BadScenario(
                    f'{where}: line {number} must be a sample such as name{{label="value"}} 1, got {line[:80]!r}; '
                    "Prometheus refuses a page with such a line"
                )
            series.append(sample)
    return Page(types=types, series=tuple(series))


def plain(text: str) -> str:
    """Return a text without control characters, which a terminal would obey."""
    return _CONTROL.sub("", text)


def _sample(line: str) -> Series | None:
    found = _SAMPLE.fullmatch(line)
    if found is None:
        return None
    name, labels = found[1] or "", {}
    for label, value in _PARTS.findall(found[2] or ""):
        if label:
            labels[_unquoted(label)] = _unquoted(value)
        else:
            name = name or plain(_unquoted(value))
    try:
        number = float(found[3])
        float(labels.get("le", "0"))
    except ValueError:
        return None
    return Series(name=name, labels=labels, value=number) if name else None


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text[1:-1])
