"""Pages of metrics of servers, as each version exports them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import promql_parser

from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.rules import PARTS, expression

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_llmchaos.servers.mapping import Entry, Server

FOLDER = Path(__file__).parents[1] / "expositions"
# No label of these pages has a quote or a backslash in its value.
_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(\{[^"]*(?:"[^"]*"[^"]*)*\})? (\S+)')
_LABEL = re.compile(r'(\w+)="([^"]*)"')
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Exposition:
    """One server's page in one version.

    Attributes:
        stem: name of the file, such as `vllm-0.8.5`.
        server: its server.
        version: its version.
        samples: value of each series.
        kinds: type of each metric, of its TYPE line.
    """

    stem: str
    server: Server
    version: str
    samples: dict[tuple[str, Labels], float]
    kinds: dict[str, str]

    def names(self) -> set[str]:
        """Names of the series."""
        return {name for name, _ in self.samples}

    def select(self, selector: promql_parser.VectorSelector) -> dict[tuple[str, Labels], float]:
        """The series that a selector reads."""
        return {
            (name, labels): value
            for (name, labels), value in self.samples.items()
            if name == selector.name and all(_holds(one, dict(labels)) for one in selector.matchers.matchers)
        }

    def without(self, gone: Iterable[tuple[str, Labels]]) -> Exposition:
        """The same page without some series, or a word of the metrics that lack all."""
        gone = set(gone)
        samples = {key: value for key, value in self.samples.items() if key not in gone}
        lost = {name for name, _ in gone} - {name for name, _ in samples}
        return replace(self, samples=samples, kinds={one: kind for one, kind in self.kinds.items() if one not in lost})

    def with_series(self, name: str, labels: dict[str, str]) -> Exposition:
        """The same page with one more series."""
        return replace(self, samples={**self.samples, (name, tuple(sorted(labels.items()))): 1.0})


def _holds(matcher: promql_parser.Matcher, labels: dict[str, str]) -> bool:
    value, op = labels.get(matcher.name, ""), str(matcher.op)
    same = re.fullmatch(matcher.value, value) is not None if op.endswith("Re") else matcher.value == value
    return same != ("Not" in op)


@cache
def expositions() -> dict[str, Exposition]:
    """All pages by the names of their files."""
    return {file.stem: parse(file.stem, file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.txt"))}


def parse(stem: str, text: str) -> Exposition:
    """The page of a file's name and content."""
    name = max((one for one in servers() if stem.startswith(f"{one}-")), key=len)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    samples = {
        (found[1], tuple(sorted(_LABEL.findall(found[2] or "")))): float(found[3])
        for found in map(_SAMPLE.fullmatch, lines)
        if found
    }
    assert len(samples) == len(lines), f"{stem} has a series twice, or a line that is no sample"
    return Exposition(
        stem=stem, server=servers()[name], version=stem.removeprefix(f"{name}-"), samples=samples, kinds=kinds
    )


def parts_of(entry: Entry) -> dict[str, str]:
    """PromQL of an entry by part of a histogram, with the key "" for another metric."""
    parts = PARTS if entry.canonical.kind == "histogram" else ("",)
    return {part: text for part in parts if (text := expression(entry, part))}


def selectors(texts: Iterable[str]) -> list[promql_parser.VectorSelector]:
    """The selectors of PromQL, each once."""
    found: dict[str, promql_parser.VectorSelector] = {}

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found[node.prettify()] = node
        return True

    for text in texts:
        promql_parser.walk(promql_parser.parse(text), visit)
    return list(found.values())
