"""Reader of the effect ledger, over HTTP.

A tool server keeps one row for each call. `docs/claims.md` has the format.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import msgspec

from pytest_llmchaos.errors import Inconclusive, NoData
from pytest_llmchaos.host.http_client import exchange
from pytest_llmchaos.loadgen.classify import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmchaos.loads.agent_tasks import Orders

PAGE_S = 10.0
PAGE_BYTES = 16_000_000  # 10,000 rows with keys of 1,000 characters
MOST_ROWS = 1_000_000
READ_S = 20.0  # for all pages of one reading
MOST_KEY = 1024
# A call in flight may still arrive. A runaway agent never stops calling.
QUIET_S, QUIET_DEADLINE_S = 0.5, 3.0
# An agent may repeat a call of a task without an end after so long: the lab's agents
# after up to 2 s, as a Retry-After that they obey.
RETRY_QUIET_S = 3.0
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

# Numbers that a file of evidence can keep.
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger, with Unix times in seconds."""

    id: Id
    tool: str
    order: int
    key: str | None = None
    effect: Id | None = None
    received_unix_s: float
    applied_unix_s: float | None = None
    answered_unix_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The ledger's rows of one load.

    Attributes:
        rows: The rows, by id. Those of orders of no task are among them.
        is_quiet: False if calls still arrived at the end of reading.
    """

    rows: tuple[Row, ...]
    is_quiet: bool


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    calls: list[Row]


_decoder = msgspec.json.Decoder(_Page)


def last_row(url: str, begin: Row | None = None) -> Row | None:
    """Return the ledger's last row, None if it is empty.

    Args:
        url: Address of the ledger.
        begin: The last row of an earlier moment. Earlier rows are not read.

    Raises:
        NoData: The ledger does not respond.
        Inconclusive: Its answer is unusable, or it lacks rows.
    """
    found = begin
    for row in _rows(url, 0 if begin is None else begin.id):
        found = row
    return found


def rows_since(
    url: str,
    begin: Row | None,
    orders: Orders,
    *,
    kept: Row | None = None,
    may_retry: bool = False,
) -> Rows:
    """Return the rows after one, once no more arrive or a deadline has passed.

    No more arrive if none does for 0.5 s, and for 3 s if calls may be repeated. A row
    of an order of no task is one of a call that an agent should not have made.

    Args:
        url: Address of the ledger.
        begin: The last row of an earlier moment, None if the ledger was empty.
        orders: Order numbers of the load's tasks, and who may have called for others.
        kept: The last row of a later moment. Both rows must still be there.
        may_retry: True if a task of these orders may still repeat its calls.

    Raises:
        NoData: The ledger does not respond.
        Inconclusive: Its answer is unusable, it lacks rows that it had, or two effects
            have one id.
    """
    for row in (begin, kept):
        _require_kept(url, row)
    quiet_s = RETRY_QUIET_S if may_retry else 0.0
    news_s = time.monotonic()
    deadline = news_s + QUIET_DEADLINE_S + quiet_s
    found: list[Row] = []
    newest = 0 if begin is None else begin.id
    while True:
        known = len(found)
        for row in _rows(url, newest):
            newest = row.id
            if not orders.is_of_earlier(row.order):
                found.append(row)
        now_s = time.monotonic()
        # Other clients may call for ever.
        is_more = not all(orders.is_doubtful(row.order) for row in found[known:])
        if is_more:
            news_s = now_s
        is_quiet = not is_more and now_s - news_s >= quiet_s
        if is_quiet or now_s > deadline:
            break
        time.sleep(QUIET_S)
    rows = _without_open(url, tuple(found))
    _require_unique(url, [row for row in rows if not orders.is_doubtful(row.order)])
    return Rows(rows=rows, is_quiet=is_quiet)


def _without_open(url: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows, each as it is by now if its call had no answer yet."""
    if not any(row.answered_unix_s is None for row in rows):
        return rows
    wanted = {row.id for row in rows}
    first = next(row.id for row in rows if row.answered_unix_s is None)
    now = {row.id: row for row in _rows(url, first - 1, rows[-1].id) if row.id in wanted}
    return tuple(now.get(row.id, row) for row in rows)


def _require_unique(url: str, rows: Sequence[Row]) -> None:
    """Raises Inconclusive if two effects have one id, as they would count as one.

    A row of a repeated key may have the id and time of the first one's effect.
    """
    known: dict[int, Row] = {}
    for row in rows:
        if row.effect is None:
            continue
        first = known.setdefault(row.effect, row)
        is_same = (first.tool, first.order) == (row.tool, row.order)
        times = {first.applied_unix_s, row.applied_unix_s} - {None}
        if not is_same or len(times) > 1:
            raise Inconclusive(
                f"the effect ledger at {url} has effect {row.effect} in rows {first.id} and {row.id} with different steps or "
                "times, so effects are unknown: each effect must have an id of its own, and a call without one null"
            )


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


def _rows(url: str, after: int, last: float = math.inf) -> Iterator[Row]:
    """Yield the rows with a greater id up to the last one, page by page."""
    deadline = time.monotonic() + READ_S
    while after < last and (page := _page(url, after)):
        if time.monotonic() > deadline:
            raise Inconclusive(
                f"the effect ledger at {url} has rows after row {after} which were not read within {READ_S:g} s, so effects are "
                "unknown: end what calls the tool server without end, or answer with larger pages"
            )
        for row in page:
            after += 1
            if row.id != after:
                raise Inconclusive(
                    f"the effect ledger at {url} lacks row {after}, and has row {row.id} in its place, so effects are unknown: "
                    "number the calls 1, 2, 3 and so on, and answer with the rows after an id in this order"
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
        rows = parse(reply.body, _decoder).calls
    except ValueError as error:
        raise Inconclusive(
            f'the effect ledger at {url} must answer {{"calls": [...]}}, got {reply.body[:80]!r}: {error}'
        ) from error
    for row in rows:
        _require_usable(url, row)
    return rows


def _require_usable(url: str, row: Row) -> None:
    """Raises Inconclusive for a row that no tool server writes."""
    times = [row.received_unix_s, *(one for one in (row.applied_unix_s, row.answered_unix_s) if one is not None)]
    key = row.key or ""
    # Half a surrogate pair is not printable, and no file could keep it.
    is_usable = _TOOL.fullmatch(row.tool) and len(key) <= MOST_KEY and key.isprintable()
    if not is_usable or not all(0 < one < 1e11 for one in times):
        raise Inconclusive(
            f"row {row.id} of the effect ledger at {url} must have the name of a tool, Unix times in seconds and a key of "
            f"at most {MOST_KEY} printable characters, got {repr(row)[:200]}"
        )
