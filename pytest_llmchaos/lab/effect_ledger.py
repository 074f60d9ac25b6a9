"""Reader of the effect ledger, over HTTP.

A tool server keeps one row for each call. `docs/claims.md` has the format.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from pytest_llmchaos.errors import Inconclusive, NoData
from pytest_llmchaos.host.http_client import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE_S = 10.0
PAGE_BYTES = 16_000_000  # 10,000 rows with keys of 1,000 characters
MOST_ROWS = 1_000_000
MOST_KEY = 1024
# A call in flight may still arrive. A runaway agent never stops calling.
QUIET_S, QUIET_DEADLINE_S = 0.5, 3.0
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger, with Unix times in seconds."""

    id: int
    tool: str
    order: int
    key: str | None = None
    effect: int | None = None
    received_unix_s: float
    applied_unix_s: float | None = None
    answered_unix_s: float | None = None


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    calls: list[Row]


_decoder = msgspec.json.Decoder(_Page)


def last_row(url: str) -> Row | None:
    """Return the ledger's last row, None if it is empty.

    Args:
        url: Address of the ledger.

    Raises:
        NoData: The ledger does not respond.
        Inconclusive: Its answer is unusable, or it lacks rows.
    """
    found = None
    for row in _rows(url, 0):
        found = row
    return found


def rows_since(url: str, begin: Row | None, orders: frozenset[int]) -> tuple[Row, ...]:
    """Return the rows after one, once no more arrive or a deadline has passed.

    Args:
        url: Address of the ledger.
        begin: The last row of an earlier moment, None if the ledger was empty.
        orders: Order numbers of the rows to return.

    Raises:
        NoData: The ledger does not respond.
        Inconclusive: Its answer is unusable, or it lacks rows that it had.
    """
    _require_kept(url, begin)
    deadline = time.monotonic() + QUIET_DEADLINE_S
    found: list[Row] = []
    newest = 0 if begin is None else begin.id
    while True:
        known = newest
        for row in _rows(url, newest):
            newest = row.id
            if row.order in orders:
                found.append(row)
        if newest == known or time.monotonic() > deadline:
            break
        time.sleep(QUIET_S)
    return _without_open(url, tuple(found))


def _without_open(url: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows, each as it is by now if its call had no answer yet."""
    if not any(row.answered_unix_s is None for row in rows):
        return rows
    wanted = {row.id for row in rows}
    first = next(row.id for row in rows if row.answered_unix_s is None)
    now = {row.id: row for row in _rows(url, first - 1) if row.id in wanted}
    return tuple(now.get(row.id, row) for row in rows)


def _require_kept(url: str, begin: Row | None) -> None:
    """Raises Inconclusive if the ledger lacks a row that it had."""
    if begin is None:
        return
    kept = _page(url, begin.id - 1)[:1]
    if not kept or (kept[0].id, kept[0].received_unix_s) != (begin.id, begin.received_unix_s):
        raise Inconclusive(
            f"the effect ledger at {url} began anew during the trial: its row {begin.id} is gone, so effects are unknown; keep "
            "its file over restarts of the tool server"
        )


def _rows(url: str, after: int) -> Iterator[Row]:
    """Yield all rows with a greater id, page by page."""
    while page := _page(url, after):
        for row in page:
            after += 1
            if row.id != after:
                raise Inconclusive(
                    f"the effect ledger at {url} lacks row {after}, so effects are unknown: its ids must have no gap"
                )
            if after > MOST_ROWS:
                raise Inconclusive(
                    f"the effect ledger at {url} has more than {MOST_ROWS} rows: begin with an empty one"
                )
            yield row


def _page(url: str, after: int) -> Sequence[Row]:
    """Return one page of rows.

    Raises:
        NoData: No answer came.
        Inconclusive: It is no page of a ledger.
    """
    try:
        reply = exchange(
            "GET",
            f"{url}?after={after}",
            tls="",
            name="",
            timeout_s=PAGE_S,
            most_bytes=PAGE_BYTES,
            headers={"host": urlsplit(url).netloc, "accept": "application/json"},
        )
    except ConnectionError as error:
        raise NoData(
            f"the effect ledger at {url} does not respond ({error}): the tool server must run at the trial's end"
        ) from error
    if reply.status != 200 or reply.broken:
        raise NoData(
            f"the effect ledger at {url} answered {reply.status}{f', and {reply.broken}' if reply.broken else ''}, expected 200"
        )
    try:
        rows = _decoder.decode(reply.body).calls
    except msgspec.DecodeError as error:
        raise Inconclusive(
            f'the effect ledger at {url} must answer {{"calls": [...]}}, got {reply.body[:80]!r}: {error}'
        ) from error
    for row in rows:
        _require_usable(url, row)
    return rows


def _require_usable(url: str, row: Row) -> None:
    """Raises Inconclusive for a row that no tool server writes."""
    times = [row.received_unix_s, *(one for one in (row.applied_unix_s, row.answered_unix_s) if one is not None)]
    if not _TOOL.fullmatch(row.tool) or len(row.key or "") > MOST_KEY or not all(0 < one < 1e11 for one in times):
        raise Inconclusive(
            f"row {row.id} of the effect ledger at {url} must have the name of a tool, Unix times in seconds and a key of "
            f"at most {MOST_KEY} characters, got {repr(row)[:200]}"
        )
