"""The server of a metrics page."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pytest_llmchaos.servers.contract import BROKEN, Bracket, bracket, check, is_shown, is_unproven, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.mapping import Server

Certainty = Literal["certain", "likely", "unclear"]
# Found metrics, as a share of those expected, from which on a server is likely.
_LIKELY = 0.5
# Difference of two scores below which neither server is clear.
_CLEAR = 0.1
# Found metrics that no other server could have by chance.
_ENOUGH = 3
_LONGEST_VERSION = 60


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The server of a page.

    Attributes:
        server: None if the page is of no known server.
        version: its exact version, empty if unknown.
        bracket: the versions that the page's names allow.
        certainty: certain, likely or unclear.
        reasons: one sentence each.
        with_version: the certainty if the server itself reports its version.
    """

    server: Server | None
    version: str
    bracket: Bracket
    certainty: Certainty
    reasons: tuple[str, ...]
    with_version: Certainty = "unclear"

    @property
    def versions(self) -> str:
        """The version, or what is known of it, for people."""
        return self.version or str(self.bracket)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A server, compared with a page.

    Attributes:
        server: the server.
        found: number of canonical metrics that the page has.
        lacks: number of those that it should have, and lacks.
        is_sure: False if it may be an older version, which never has some metrics.
        read: names on the page that the server's file reads.
        score: 0 to 1, the harmonic mean of two shares: of the server's metrics that are
            on the page, and of the page's names that the server's file reads.
    """

    server: Server
    found: int
    lacks: int
    is_sure: bool
    read: frozenset[str]
    score: float

    @property
    def share(self) -> float:
        return self.found / max(1, self.found + self.lacks)


def recognise(page: Page, servers: Iterable[Server], version: str = "") -> Recognised:
    """Return the server that the page is of.

    Args:
        page: the page.
        servers: the servers to choose from.
        version: its version, if the user gives it.
    """
    known = tuple(servers)
    # Names that one of the servers may have made. Names without a prefix are read only
    # if no other is there: they may be anything.
    own = [name for name in page.names if any(name.startswith(one.prefixes) for one in known)]
    some = [one for one in known if any(name.startswith(one.prefixes) for name in own)]
    if not some:
        some = [one for one in known if names_of(one) & page.names]
        own = sorted(frozenset[str]().union(*(names_of(one) & page.names for one in some)))
    made = [one for one in (_candidate(one, page, version, len(own)) for one in some) if one.found]
    found = sorted((one for one in made if not _is_shadow(one, made, page)), key=lambda one: -one.score)
    if not found:
        return Recognised(
            server=None, version="", bracket=Bracket(), certainty="unclear", reasons=(_unknown(page, known),)
        )
    passing = [one for one in found if _passes_on(one, found, known)]
    best = (passing or [one for one in found if _narrows(one, found, page)] or found)[0]
    limits = bracket(best.server, page)
    rivals = [
        one
        for one in found
        if one is not best
        and not passing
        and best.score - one.score < _CLEAR
        and not one.read < best.read
        and not _narrows(best, [one], page)
    ]
    certainty = _certainty(best, page, rivals, limits)
    found_out = Recognised(
        server=best.server,
        version=version,
        bracket=limits,
        certainty=certainty if best.is_sure or certainty == "unclear" else "likely",
        reasons=tuple(_reasons(best, found, rivals, limits, page, is_passing=bool(passing))),
        with_version=certainty,
    )
    return found_out if version else with_reported(found_out, version_on(page, best.server))


def with_reported(found: Recognised, reported: str) -> Recognised:
    """Return a recognised server with its reported version, if its names allow it.

    A build from source may report any version.
    """
    version = re.sub(r"[^\w.+-]", "", reported, flags=re.ASCII)[:_LONGEST_VERSION]
    if not version:
        return found
    if not found.bracket.allows(version):
        why = f"It reports version {version}, and its names are of versions {found.bracket}: the names count."
        certainty: Certainty = "unclear" if found.certainty == "unclear" else "likely"
        return replace(found, certainty=certainty, reasons=(*found.reasons, why))
    return replace(found, version=version, certainty=found.with_version)


def _candidate(server: Server, page: Page, version: str, own: int) -> _Candidate:
    cells = check(server, page, version)
    found = sum(is_shown(one, page) for one in cells)
    lacks = sum(one.state in BROKEN for one in cells)
    read = names_of(server) & page.names
    parts = (found / max(1, found + lacks), len(read) / max(1, own))
    score = 2 * parts[0] * parts[1] / sum(parts) if all(parts) else 0.0
    limits = bracket(server, page)
    is_sure = bool(version) or not any(is_unproven(one, server, limits) for one in cells)
    return _Candidate(server=server, found=found, lacks=lacks, is_sure=is_sure, read=read, score=score)


def _passes_on(one: _Candidate, found: Sequence[_Candidate], known: Sequence[Server]) -> bool:
    """True for a gateway with names of its own, which has an engine's names as well.

    A worker of a gateway has a few of the gateway's names, none about requests.
    """
    if one.server.kind != "gateway" or one.share < _LIKELY or one.found < _ENOUGH:
        return False
    others = frozenset().union(*(names_of(other) for other in known if other is not one.server))
    return bool(one.read - others) and any(other.server.kind == "engine" for other in found)


def _narrows(one: _Candidate, found: Sequence[_Candidate], page: Page) -> bool:
    """True for a server that exports another one's names, and names of its own."""
    return one.share >= _LIKELY and any(
        set(other.server.prefixes) < set(one.server.prefixes) and _has_more(one, other, page) for other in found
    )


def _is_shadow(one: _Candidate, found: Sequence[_Candidate], page: Page) -> bool:
    """True for such a server if the page has only the names of the other one."""
    return any(
        set(other.server.prefixes) < set(one.server.prefixes) and not _has_more(one, other, page) for other in found
    )


def _has_more(one: _Candidate, other: _Candidate, page: Page) -> bool:
    return any(name.startswith(_more(one.server, other.server)) for name in page.names)


def _more(server: Server, other: Server) -> tuple[str, ...]:
    return tuple(prefix for prefix in server.prefixes if prefix not in other.prefixes)


def _certainty(best: _Candidate, page: Page, rivals: Sequence[_Candidate], limits: Bracket) -> Certainty:
    if rivals or best.share < _LIKELY:
        return "unclear"
    if not limits.is_possible or best.lacks:
        return "likely"
    return "certain" if best.server.version.metric in page.names or best.found >= _ENOUGH else "likely"


def _reasons(
    best: _Candidate,
    found: Sequence[_Candidate],
    rivals: Sequence[_Candidate],
    limits: Bracket,
    page: Page,
    *,
    is_passing: bool,
) -> Iterator[str]:
    title = best.server.title
    yield f"The page has {best.found} of {best.found + best.lacks} metrics that {title} should have."
    if best.server.version.metric in page.names:
        yield f"It has {best.server.version.metric}."
    for one in rivals:
        yield f"It may be {one.server.title} as well, with {one.found} of {one.found + one.lacks} metrics."
    engines = [one.server.title for one in found if is_passing and one.server.kind == "engine"]
    if engines:
        yield f"{title} has names of its own, and passes on those of {', '.join(engines)}."
    for one in found:
        if not is_passing and one is not best and _narrows(best, [one], page):
            more = ", ".join(_more(best.server, one.server))
            yield f"Of the two servers with these names, {title} alone has names that begin with {more}."
    yield from (f"{one}." for one in limits.reasons)
    if not limits.is_possible:
        yield "These are names of different versions."


def _unknown(page: Page, known: Sequence[Server]) -> str:
    expected = ", ".join(dict.fromkeys(prefix for one in known for prefix in one.prefixes))
    if not page.names:
        return "The page is empty. Some servers export nothing before their first request."
    return (
        f"No metric of a known server is on the page: expected names that begin with one of {expected}, "
        f"got {len(page.names)} names such as {', '.join(sorted(page.names)[:3])}."
    )


def version_on(page: Page, server: Server) -> str:
    """Return the version in a label of the page, empty without one."""
    series = page.by_name.get(server.version.metric, ())
    return next((one.labels[server.version.label] for one in series if server.version.label in one.labels), "")
