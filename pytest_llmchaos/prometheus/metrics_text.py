"""Output of `llmchaos metrics`, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.servers.canonical import CANONICAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_llmchaos.prometheus.metrics_command import Looked
    from pytest_llmchaos.servers.contract import Cell
    from pytest_llmchaos.servers.mapping import Server
    from pytest_llmchaos.servers.wanted import Judged

SCHEMA = "llmchaos-metrics/1"
# The package of the servers' files that are no other package's.
OWN = "pytest-llmchaos"
_MOST_NAMES = 5
# Characters of a server's expression in a table. JSON has the whole.
_WIDEST = 66


def as_text(looked: Sequence[Looked], judged: Judged | None) -> str:
    """Return tables for a terminal."""
    lines: list[str] = []
    for one in looked:
        lines += [*_page(one), ""]
    if len(looked) > 1:
        lines += [*_matrix(looked), ""]
    if judged:
        lines += [*_wanted(judged), ""]
    return "\n".join(lines[:-1]) + "\n" if lines else ""


def known_servers(known: Iterable[Server]) -> str:
    """Return a table of the servers."""
    rows = [("name", "server", "kind", "facts of", "from", "names begin with")]
    rows += [
        (one.name, one.title, one.kind, one.checked, one.package or OWN, ", ".join(one.prefixes) or "(no metrics page)")
        for one in known
    ]
    return "\n".join(_table(rows)) + "\n"


def as_json(looked: Sequence[Looked], judged: Judged | None, *, is_whole: bool) -> dict[str, object]:
    """Return the same as values for JSON. docs/metrics-contract.md has the shape."""
    wanted = None
    if judged:
        wanted = {
            "found": sorted(judged.found),
            "late": sorted(judged.late),
            "skipped": sorted(judged.skipped),
            "unread": list(judged.unread),
            "unrecorded": sorted(judged.unrecorded),
            "lacks": [
                {
                    "file": one.file,
                    "place": one.place,
                    "series": one.series,
                    "page": one.fault.where or None,
                    "new": list(one.fault.new),
                    "canonical": one.fault.canonical or None,
                    "advice": one.fault.advice,
                }
                for one in judged.lacks
            ],
        }
    return {"schema": SCHEMA, "ok": is_whole, "pages": [_page_json(one) for one in looked], "wanted": wanted}


def _page_json(one: Looked) -> dict[str, object]:
    server, known = one.target.server, one.recognised
    return {
        "page": one.target.where,
        "server": server.name if server else None,
        "title": server.title if server else None,
        "package": (server.package or OWN) if server else None,
        "version": known.version or None,
        "since": known.bracket.since or None,
        "until": known.bracket.until or None,
        "certainty": known.certainty,
        "reasons": list(known.reasons),
        "metrics": [
            {
                "key": cell.metric.key,
                "name": cell.metric.name,
                "kind": cell.metric.kind,
                "unit": cell.metric.unit,
                "state": cell.state,
                "origin": cell.entry.status if cell.state != "absent" else "absent",
                "series": list(cell.wanted),
                "seen": list(cell.seen),
                "note": cell.note,
            }
            for cell in one.target.cells
        ],
        "never": list(server.never) if server else [],
    }


def _page(one: Looked) -> Iterator[str]:
    server, known = one.target.server, one.recognised
    yield one.target.where
    if server is None:
        yield "  unknown server"
        yield from (f"  {reason}" for reason in known.reasons)
        yield "  Give its name with --server NAME. `llmchaos metrics --list` has the names."
        return
    yield f"  {' '.join(filter(None, (server.title, _version(one))))} ({known.certainty})"
    yield from (f"  {reason}" for reason in known.reasons)
    if server.package:
        yield f"  Its file is from {server.package}."
    yield ""
    rows = [("canonical metric", "state", "name on this server", "note")]
    rows += [
        (cell.metric.name, _state(cell), _native(cell), cell.note)
        for cell in one.target.cells
        if cell.state != "absent"
    ]
    yield from (f"  {line}" for line in _table(rows))
    never = [f"{cell.metric.name}: {cell.note}" for cell in one.target.cells if cell.state == "absent"]
    if never or server.never:
        yield ""
        yield f"  {server.title} cannot show:"
        yield from (f"  - {line}" for line in [*never, *server.never])


def _version(one: Looked) -> str:
    known = one.recognised
    return known.version or (f"({known.versions})" if known.versions else "of an unknown version")


def _state(cell: Cell) -> str:
    return f"{cell.state}, derived" if cell.state == "found" and cell.entry.status == "derived" else cell.state


def _native(cell: Cell) -> str:
    expr = cell.entry.expr or f"{cell.entry.sum} / {cell.entry.count}"
    text = expr.replace("{}", "")
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _matrix(looked: Sequence[Looked]) -> Iterator[str]:
    known = [one for one in looked if one.target.cells]
    heads = [f"{one.target.server.title} {one.recognised.version}".strip() for one in known if one.target.server]
    rows = [("canonical metric", *heads)]
    rows += [(metric.name, *(_state(one.target.cell(metric.key)) for one in known)) for metric in CANONICAL]
    yield "side by side"
    yield from (f"  {line}" for line in _table(rows))


def _wanted(judged: Judged) -> Iterator[str]:
    counts = [f"{len(judged.found)} found"]
    counts += [f"{len(judged.late)} late"] * bool(judged.late)
    counts += [f"{len({one.series for one in judged.lacks})} not there"] * bool(judged.lacks)
    yield f"series that the files want: {', '.join(counts)}"
    if judged.skipped:
        few = ", ".join(sorted(judged.skipped)[:_MOST_NAMES])
        more = f" and {len(judged.skipped) - _MOST_NAMES} more" if len(judged.skipped) > _MOST_NAMES else ""
        yield f"  not judged, because they are of other systems: {few}{more}"
    if judged.remark:
        yield f"  {judged.remark}"
    if judged.unread:
        yield ""
        yield f"  {_queries(judged.unread)} could not be read, so nothing is known about the series:"
        yield from (f"  - {line}" for line in judged.unread)
    for one in judged.lacks:
        yield ""
        yield f"  {one.file}: {one.place}"
        new = f" -> {', '.join(one.fault.new)}" if one.fault.new else ""
        yield f"    {one.series}{new}"
        yield f"    {one.fault.advice}" + (f" ({one.fault.where})" if one.fault.where else "")
        if one.fault.canonical:
            yield f"    The same for every server, with recording rules: {one.fault.canonical}"


def _queries(lines: Sequence[str]) -> str:
    return "1 query" if len(lines) == 1 else f"{len(lines)} queries"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
