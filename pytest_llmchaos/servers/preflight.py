"""Reasons why a stack lacks a metric, by its model servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.contract import check, names_of, selectors_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmchaos.servers.contract import Cell
    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.mapping import Entry, Server
    from pytest_llmchaos.servers.recognition import Recognised


@dataclass(frozen=True, kw_only=True)
class ScrapedServer:
    """A scraped service whose model server is known.

    Attributes:
        service: its name.
        page: its metrics, after a first request was answered.
        server: the server that the user names, or the recognised one.
        version: its version, empty if unknown.
        recorded: True if its metrics are recorded under canonical names.
    """

    service: str
    page: Page
    server: Server
    version: str = ""
    recorded: bool = True

    def __str__(self) -> str:
        """For people."""
        return f"{f'{self.server.title} {self.version}'.strip()} on {self.service}"


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A series whose server has another name for it now.

    Attributes:
        old: the name that is missing.
        new: the name on the server's page.
        since: first version with the new name, empty if unknown.
        where: the service with the page.
    """

    old: str
    new: str
    since: str
    where: ScrapedServer

    def __str__(self) -> str:
        """One sentence without a point."""
        since = f" in {self.since}" if self.since else ""
        return f"{self.old} was renamed to {self.new}{since} ({self.where})"


def rename_of(name: str, scraped: Sequence[ScrapedServer]) -> Rename | None:
    """Return the new name of a series that no page has, None without one."""
    if any(name in one.page.names for one in scraped):
        return None
    return next((found for one in scraped for found in _renames(name, one)), None)


def _renames(name: str, one: ScrapedServer) -> Iterator[Rename]:
    for entry in _entries(name, one.server):
        for other in one.server.of(entry.canonical.key):
            for selector in selectors_of(other):
                if selector.name in one.page.names and _ending(selector.name) == _ending(name):
                    yield Rename(old=name, new=selector.name, since=other.since, where=one)


def is_late(name: str, scraped: Sequence[ScrapedServer]) -> bool:
    """Return whether a server may export a missing series with its first event."""
    return any(
        cell.state == "late" or (not one.version and any(entry.late for entry in _entries(name, one.server)))
        for one in scraped
        for cell in _cells(name, one)
    )


def reason_of(name: str, scraped: Sequence[ScrapedServer]) -> str:
    """Return why a missing series is missing, without a point. Empty if unknown."""
    if renamed := rename_of(name, scraped):
        return str(renamed)
    shown = [one for one in scraped if one.recorded] if name in BY_SERIES else scraped
    if name in BY_SERIES and not shown:
        return (
            f"{name} is recorded for a known model server alone, and no scraped service is one: scrape it by "
            "llmchaos_metrics, and name it in llmchaos_servers, such as model: vllm"
        )
    found = [text for one in shown for cell in _cells(name, one) if (text := _of_cell(name, cell, one))]
    return "; ".join(dict.fromkeys(found))


def _of_cell(name: str, cell: Cell, one: ScrapedServer) -> str:
    note = cell.note.rstrip(".")
    match cell.state:
        case "absent":
            return f"{name} is not available from {one}: {note}"
        case "needs option":
            return f"{name} is exported by {one} with {cell.entry.needs}: start it with that"
        case "late":
            return f"{name} is exported by {one} from its first event on"
        case "missing":
            wanted = ", ".join(cell.wanted[:1])
            return f"{name} is missing from {one}, whose page should have {wanted}" + (f": {note}" if note else "")
        case _:
            return ""


def _cells(name: str, one: ScrapedServer) -> tuple[Cell, ...]:
    """Return the cells of the canonical metrics that a series belongs to."""
    keys = {entry.canonical.key for entry in _entries(name, one.server)}
    if name in BY_SERIES and one.recorded:
        keys.add(BY_SERIES[name].key)
    if not keys:
        return ()
    return tuple(cell for cell in check(one.server, one.page, one.version, warm=True) if cell.metric.key in keys)


def _entries(name: str, server: Server) -> tuple[Entry, ...]:
    return tuple(one for one in server.entries if any(selector.name == name for selector in selectors_of(one)))


def _ending(name: str) -> str:
    return next((end for end in ("_bucket", "_sum", "_count", "_total") if name.endswith(end)), "")


def contradiction(
    service: str, server: Server, page: Page, recognised: Recognised, key: str = "llmchaos_servers"
) -> str:
    """Return why a page is not of the server that the user names, empty if it may be.

    Args:
        service: the service with the page, or the page's address.
        server: the server that the user names.
        page: the page. An empty one is no evidence, as before the first request.
        recognised: the server that the page shows.
        key: what names it.
    """
    other = recognised.server
    is_read = bool(names_of(server) & page.names)
    is_other = other is not None and other.kind != server.kind and recognised.with_version == "certain"
    if not page.names or (is_read and not is_other):
        return ""
    options = "" if other else ", ".join(dict.fromkeys(entry.needs for entry in server.entries if entry.needs))
    seen = f"it is of {other.title}" if other else f"it has {', '.join(sorted(page.names)[:2])}"
    return (
        f"{key} names {service} as {server.name}, whose metrics begin with {' or '.join(server.prefixes)}, "
        f"and the metrics page is another: {seen}; correct the entry"
        + (f", or start the server with its options ({options})" if options else "")
    )
