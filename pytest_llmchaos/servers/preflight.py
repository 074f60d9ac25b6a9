"""Reasons why a stack lacks a metric, by its model servers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.contract import check, entries_of, has_answered, names_of
from pytest_llmchaos.servers.losses import Target, explain, explain_canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmchaos.servers.contract import Cell
    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.losses import Fault
    from pytest_llmchaos.servers.mapping import Server
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
        replicas: pages of the other services with this server. The first request may
            have reached one of them.
    """

    service: str
    page: Page
    server: Server
    version: str = ""
    recorded: bool = True
    replicas: tuple[Page, ...] = ()

    @cached_property
    def target(self) -> Target:
        """Its page, checked as that of a server that has answered a request.

        With replicas only if the page itself has counted an answer.
        """
        answered = not self.replicas or has_answered(self.server, self.page)
        cells = check(self.server, self.page, self.version, answered=answered)
        expected = frozenset() if answered else frozenset().union(*(one.names for one in self.replicas))
        return Target(where=str(self), server=self.server, page=self.page, cells=cells, expected=expected)

    def __str__(self) -> str:
        """For people."""
        return f"{f'{self.server.title} {self.version}'.strip()} on {self.service}"


def rename_of(name: str, scraped: Sequence[ScrapedServer]) -> Fault | None:
    """Return the new name of a series that no page has, None without one."""
    if any(name in one.page.names for one in scraped):
        return None
    return next((found for _, found in _faults(name, scraped) if found and found.new), None)


def is_late(name: str, scraped: Sequence[ScrapedServer]) -> bool:
    """Return whether a server may export a missing series with its first event."""
    return any(not fault and cell.may_come for cell, fault in _faults(name, scraped))


def reason_of(name: str, scraped: Sequence[ScrapedServer]) -> str:
    """Return why a missing series is missing, without a point. Empty if unknown."""
    if name in BY_SERIES and not any(one.recorded for one in scraped):
        return (
            f"{name} is recorded for a known model server alone, and no scraped service is one: scrape it by "
            "llmchaos_metrics, and name it in llmchaos_servers, such as model: vllm"
        )
    renamed = rename_of(name, scraped)
    faults = [renamed] if renamed else [one for _, one in _faults(name, scraped) if one]
    return "; ".join(dict.fromkeys(f"{name}: {one.advice.rstrip('.')} ({one.where})" for one in faults))


def _faults(name: str, scraped: Sequence[ScrapedServer]) -> Iterator[tuple[Cell, Fault | None]]:
    """Yield the cell of each server with a name, and why its page lacks it.

    The reason is None if the name may come, or if rules record it.
    """
    metric = BY_SERIES.get(name)
    for one in scraped:
        if metric and one.recorded:
            part = name.removeprefix(metric.name).lstrip("_")
            yield one.target.cell(metric.key), explain_canonical(metric, part, one.target)
        elif name not in one.page.names and (found := entries_of(one.server, name)):
            yield one.target.cell(found[0][0].canonical.key), explain(name, one.target)


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
