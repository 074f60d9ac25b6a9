"""File of an agent's tasks, one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pytest_llmchaos.errors import BadScenario

NAME = "tasks.jsonl"
TaskStatus = Literal["completed", "failed", "cancelled", "lost", "stuck", "refused", "unfinished"]


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an agent as its caller saw it.

    Times are seconds since the start of the load, on the samples' clock.
    """

    id: str
    """Its id, also the request id of its sample."""
    plan: tuple[str, ...]
    """The steps, such as `refund 17`. The order number is unique in the run."""
    due_s: float
    """Second at which the caller should have sent it."""
    sent_s: float
    """Second at which the caller sent it first."""
    accepted_s: float | None
    """Second of the agent's first answer that it has the task, None without one."""
    ended_s: float | None
    """Second at which the caller saw the final state, or that the task is lost.

    None for the other states.
    """
    cancelled_s: float | None
    """Second at which the agent confirmed a cancellation, None without one."""
    status: TaskStatus
    """How it ended. `lost`: the agent accepted it, then answered 404. `stuck`:
    no final state until its deadline. `refused`: never accepted. `unfinished`: open
    and before its deadline when the load was ended at once."""
    steps: int
    """Steps, model calls and so on by the agent's newest answer, 0 without one."""
    tokens: int
    model_calls: int
    tool_calls: int
    error: str | None
    """The agent's or the caller's error, None without one."""
    left_s: float
    """Second from which its caller waited for it no longer."""


_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder(TaskRecord)


def line(record: TaskRecord) -> bytes:
    """Return a record as a line."""
    return _encoder.encode(record) + b"\n"


def load(folder: Path) -> tuple[TaskRecord, ...]:
    """Return the tasks of a trial by due time, without a torn last line.

    Empty for a load without tasks.

    Args:
        folder: The trial's folder.

    Raises:
        BadScenario: The file holds something else. The message has the line's number.
    """
    return _read(folder / NAME)


def merge(paths: Sequence[Path], into: Path) -> None:
    """Write several workers' records into one file, by due time."""
    found = sorted((record for path in paths for record in _read(path)), key=_place)
    into.write_bytes(b"".join(map(line, found)))


def _read(path: Path) -> tuple[TaskRecord, ...]:
    if not path.is_file():
        return ()
    found = []
    for number, text in enumerate(path.read_bytes().rpartition(b"\n")[0].splitlines(), 1):
        try:
            found.append(_decoder.decode(text))
        except msgspec.DecodeError as error:
            raise BadScenario(f"{path}, line {number}: expected a task's record, got {text[:80]!r}: {error}") from error
    return tuple(sorted(found, key=_place))


def _place(record: TaskRecord) -> tuple[float, str]:
    return record.due_s, record.id
