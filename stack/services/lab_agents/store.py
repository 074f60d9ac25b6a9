"""Tasks in memory, or on disk so that they survive the process."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from lab_agents.tasks import RUNNING, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_COLUMNS = ("id", "input", "accepted_unix_s", "status", "steps", "tokens", "model_calls", "tool_calls", "error")


class NotSavedError(Exception):
    """A task could not be written, with the reason."""


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Context in which this process alone works on a folder of tasks.

    The kernel ends it at any end of the process.

    Raises:
        OSError: another process works on it, or it cannot be written.
    """
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((folder / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"another agent works on LAB_STATE_DIR {folder}; end it, or choose another folder"
            raise OSError(problem) from None
        except OSError as error:
            problem = f"cannot use LAB_STATE_DIR {folder}: {error.strerror}; choose another folder"
            raise OSError(problem) from None
        yield


class Store(Protocol):
    """Tasks by their id."""

    def save(self, task: Task) -> None:
        """Save a task. Raises NotSavedError."""

    def find(self, task_id: str) -> Task | None: ...

    def forget(self, task_id: str) -> None:
        """Delete a task. Raises NotSavedError."""

    def unfinished(self) -> list[Task]: ...

    def ended(self) -> list[str]:
        """The ids of the tasks that have ended, the oldest first."""


class Memory:
    """Tasks of this process. They end with it."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def save(self, task: Task) -> None:
        self._tasks[task.id] = task

    def find(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def forget(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)

    def unfinished(self) -> list[Task]:
        return []

    def ended(self) -> list[str]:
        return []


class Disk:
    """Tasks in SQLite. What `save` has written survives a kill of the process."""

    def __init__(self, path: Path) -> None:
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode=WAL")
        # Survives a kill of the process. FULL would survive a power cut, too.
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute(f"CREATE TABLE IF NOT EXISTS tasks ({', '.join(_COLUMNS)}, PRIMARY KEY (id))")

    def save(self, task: Task) -> None:
        values = [getattr(task, name) for name in _COLUMNS]
        self._write(f"INSERT OR REPLACE INTO tasks VALUES ({', '.join('?' * len(_COLUMNS))})", values)  # noqa: S608 -- no text of a client

    def find(self, task_id: str) -> Task | None:
        found = self._read("id = ?", task_id)
        return found[0] if found else None

    def forget(self, task_id: str) -> None:
        self._write("DELETE FROM tasks WHERE id = ?", [task_id])

    def _write(self, query: str, values: Sequence[object]) -> None:
        try:
            self._rows.execute(query, values)
        except (sqlite3.Error, OverflowError) as error:  # OverflowError: a model's count of tokens
            raise NotSavedError(f"tasks cannot be saved: {error}") from error

    def unfinished(self) -> list[Task]:
        return self._read("status = ?", RUNNING)

    def ended(self) -> list[str]:
        # Each save gives the row a new number.
        rows = self._rows.execute("SELECT id FROM tasks WHERE status != ? ORDER BY rowid", (RUNNING,))
        return [str(row[0]) for row in rows]

    def _read(self, where: str, value: str) -> list[Task]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM tasks WHERE {where} ORDER BY accepted_unix_s"  # noqa: S608 -- as above
        tasks = [Task(**dict(zip(_COLUMNS, row, strict=True))) for row in self._rows.execute(query, (value,))]
        for task in tasks:
            if task.status != RUNNING:
                task.ended.set()
        return tasks
