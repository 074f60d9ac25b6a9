"""Effect ledger: one row for each tool call, in SQLite.

Every row is committed before the desk goes on, so it survives a SIGKILL.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGE_ROWS = 10_000
READ_ONLY = "find_order"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, tool TEXT NOT NULL, "order" INTEGER NOT NULL, key TEXT, effect INTEGER,
    received_unix_s REAL NOT NULL, applied_unix_s REAL, answered_unix_s REAL
);
CREATE TABLE IF NOT EXISTS effects (
    id INTEGER PRIMARY KEY, call INTEGER NOT NULL UNIQUE REFERENCES calls (id), tool TEXT NOT NULL, "order" INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, tool TEXT NOT NULL, result TEXT NOT NULL) WITHOUT ROWID;
"""


class LedgerError(Exception):
    """A file that is no ledger."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a tool.

    Attributes:
        key: the idempotency key, None without one.
    """

    tool: str
    order: int
    key: str | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a tool, as its caller gets it.

    Attributes:
        effect: id of the effect, None for a tool that only reads.
    """

    order: int
    status: Literal["found", "done"]
    effect: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a call.

    Attributes:
        kind: `repeated` has the result of the key's first call. `conflict` lacks one:
            the key belongs to another call.
    """

    kind: Literal["done", "repeated", "conflict"]
    result: Result | None


class Ledger:
    """The ledger's file. All methods but `page` belong to one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            LedgerError: the file cannot be opened, or is no ledger.
        """
        self._path = path
        try:
            self._rows = sqlite3.connect(path, isolation_level=None)
            self._rows.execute("PRAGMA journal_mode=WAL")
            # A killed process loses no page that it wrote, because the kernel has it.
            # An fsync protects against a loss of power only, and stalls the event loop.
            self._rows.execute("PRAGMA synchronous=OFF")
            self._rows.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise LedgerError(f"cannot open the ledger {path}: {error}; give LAB_LEDGER_FILE another file") from None

    def receive(self, call: Call) -> int:
        """Record a call before its effect, and return the id of its row."""
        inserted = self._rows.execute(
            'INSERT INTO calls (tool, "order", key, received_unix_s) VALUES (?, ?, ?, ?)',
            (call.tool, call.order, call.key, time.time()),
        )
        return int(inserted.lastrowid or 0)

    def apply(self, row: int, call: Call) -> Outcome:
        """Apply a call's effect, its row and its result in one transaction.

        A key that was used before applies nothing.
        """
        with self._transaction():
            if call.key is not None and (stored := self._stored(call.key)):
                tool, result = stored
                same = (tool, result.order) == (call.tool, call.order)
                return Outcome(kind="repeated", result=result) if same else Outcome(kind="conflict", result=None)
            if call.tool == READ_ONLY:
                result = Result(order=call.order, status="found")
            else:
                result = Result(order=call.order, status="done", effect=self._effect(row, call))
            if call.key is not None:
                stored_as = json.dumps(asdict(result))
                self._rows.execute("INSERT INTO results VALUES (?, ?, ?)", (call.key, call.tool, stored_as))
            return Outcome(kind="done", result=result)

    def answer(self, row: int) -> None:
        """Record that the answer goes to the transport now."""
        self._rows.execute("UPDATE calls SET answered_unix_s = ? WHERE id = ?", (time.time(), row))

    def page(self, after: int) -> list[Mapping[str, object]]:
        """Rows with a greater id, at most PAGE_ROWS. Safe in any thread."""
        with closing(sqlite3.connect(self._path)) as rows:
            rows.row_factory = sqlite3.Row
            found = rows.execute("SELECT * FROM calls WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE_ROWS))
            return [dict(row) for row in found]

    def close(self) -> None:
        self._rows.close()

    def _stored(self, key: str) -> tuple[str, Result] | None:
        found = self._rows.execute("SELECT tool, result FROM results WHERE key = ?", (key,)).fetchone()
        return (str(found[0]), Result(**json.loads(found[1]))) if found else None

    def _effect(self, row: int, call: Call) -> int:
        inserted = self._rows.execute(
            'INSERT INTO effects (call, tool, "order") VALUES (?, ?, ?)', (row, call.tool, call.order)
        )
        effect = int(inserted.lastrowid or 0)
        self._rows.execute("UPDATE calls SET effect = ?, applied_unix_s = ? WHERE id = ?", (effect, time.time(), row))
        return effect

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a second desk on this file waits, so it sees the key.
        self._rows.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._rows.execute("COMMIT")
        except BaseException:
            if self._rows.in_transaction:
                self._rows.execute("ROLLBACK")
            raise
