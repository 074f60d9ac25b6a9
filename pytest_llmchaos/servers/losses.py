"""Reasons why a page lacks a series."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.contract import entries_of, native_names
from pytest_llmchaos.servers.rules import expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.servers.canonical import CanonicalMetric
    from pytest_llmchaos.servers.contract import Cell
    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.mapping import Server

# States of a cell whose series Prometheus has, or will have.
_USABLE = ("found", "late", "renamed")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A page with its server.

    Attributes:
        where: its address or file.
        server: None if unknown.
        page: its metrics.
        cells: what `check` returned for it, empty if the server is unknown.
        expected: names that the page will have with its first answer, because that of
            another replica has them.
    """

    where: str
    server: Server | None
    page: Page
    cells: tuple[Cell, ...] = ()
    expected: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The server's name for people."""
        return self.server.title if self.server else "the server"

    def owns(self, name: str) -> bool:
        """True if the name begins as those of the server, or its file has it."""
        return self.server is not None and (
            name.startswith(self.server.prefixes) or bool(entries_of(self.server, name))
        )

    def cell(self, key: str) -> Cell:
        """Return the cell of a canonical metric."""
        return next(one for one in self.cells if one.metric.key == key)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a series is not there.

    Attributes:
        where: the page that lacks it, empty if no page is expected to have it.
        new: native series to read instead, empty if none is known.
        canonical: canonical series to read instead, empty without one.
        advice: one sentence.
    """

    where: str = ""
    new: tuple[str, ...] = ()
    canonical: str = ""
    advice: str


def explain(name: str, target: Target, makers: Sequence[Server] = ()) -> Fault | None:
    """Return why a page lacks a native name of its server, None if it may come.

    Args:
        name: the name.
        target: the page, and its server.
        makers: servers whose names the server has, too. It lacks some of them.
    """
    fault = _fault(name, target, makers)
    is_replaced = fault is not None and any(one in target.page.names for one in fault.new)
    return fault if is_replaced or name not in target.expected else None


def _fault(name: str, target: Target, makers: Sequence[Server]) -> Fault | None:
    servers = [target.server] * (target.server is not None) + [*makers]
    entry, part = next((one for server in servers for one in entries_of(server, name)), (None, ""))
    if entry is None:
        close = difflib.get_close_matches(name, target.page.names, n=1, cutoff=0.8)
        more = f" It has {close[0]}, which is similar." if close else ""
        return Fault(where=target.where, advice=f"The page lacks it.{more}")
    cell = target.cell(entry.canonical.key)
    new = native_names(cell.entry, part)
    canonical = canonical_name(cell, part)
    if name in new:
        if cell.may_come:
            return None
        if cell.state == "renamed":
            there = tuple(one for one in cell.seen if one.endswith(f"_{part}" if part else "")) or cell.seen
            advice = f"This version of {target.title} exports {', '.join(there)}."
            return Fault(where=target.where, new=there, canonical=canonical, advice=advice)
        advice = f"The page lacks it ({cell.state}). {cell.note}".strip()
        return Fault(where=target.where, advice=advice)
    if cell.state in ("found", "late"):
        since = f" since {cell.entry.since}" if cell.entry.since else ""
        advice = f"{target.title} has {', '.join(new)} in its place{since}."
        return Fault(where=target.where, new=new, canonical=canonical, advice=advice)
    advice = f"The page lacks this name of another version, and the metric ({cell.state}). {cell.note}".strip()
    return Fault(where=target.where, advice=advice)


def explain_canonical(metric: CanonicalMetric, part: str, target: Target) -> Fault | None:
    """Return why no rule can record a canonical name, None if one can or will.

    Args:
        metric: the canonical metric.
        part: bucket, sum or count of a histogram, else empty.
        target: the page, whose server is known.
    """
    cell = target.cell(metric.key)
    if cell.state not in _USABLE:
        if cell.may_come:
            return None
        return Fault(where=target.where, advice=f"{target.title} lacks it ({cell.state}). {cell.note}".strip())
    if expression(cell.entry, part):
        return None
    return Fault(where=target.where, advice=f"{target.title} gives a sum and a count only, so it has no buckets.")


def canonical_name(cell: Cell, part: str) -> str:
    """Return the canonical name of a cell, of a histogram that of a part."""
    return cell.metric.name + (f"_{part}" if part else "")
