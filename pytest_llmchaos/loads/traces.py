"""Recorded request traces: Azure LLM inference CSV, BurstGPT CSV, Mooncake JSONL.

docs/load.md has the formats and their sources. Each row keeps its distance in time to
the first one.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from pytest_llmchaos.errors import BadScenario

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
# A day of the largest published trace. A schedule is held in memory.
MAX_ROWS = 200_000


@dataclass(frozen=True)
class Row:
    """One recorded request. Its fields are positional, because a trace has many rows.

    Attributes:
        at_s: Seconds since the first request.
        prompt_tokens: Length of the prompt, in tokens.
        answer_tokens: Length of the answer, in tokens.
    """

    at_s: float
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Recorded requests in order of time.

    Attributes:
        name: Name of the file.
        rows: The requests.
        cut: True if the file has more rows than were read.
    """

    name: str
    rows: tuple[Row, ...]
    cut: bool

    @property
    def length_s(self) -> float:
        return self.rows[-1].at_s

    def peak_rps(self) -> float:
        """Return the most requests in any whole second."""
        counts: dict[int, int] = {}
        for row in self.rows:
            counts[int(row.at_s)] = counts.get(int(row.at_s), 0) + 1
        return float(max(counts.values()))

    @property
    def identity(self) -> str:
        text = "\n".join(f"{row.at_s:.6f},{row.prompt_tokens},{row.answer_tokens}" for row in self.rows)
        return f"{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def parse(name: str, lines: Iterable[str], *, max_rows: int = MAX_ROWS) -> Trace:
    """Return the trace in `lines`. Its first line determines the format.

    Raises:
        BadScenario: It is not a trace. The message has the line's number.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise BadScenario(f"trace {name!r} is empty: expected Azure or BurstGPT CSV, or Mooncake JSONL")
    head = first[1].strip().removeprefix("\ufeff")
    is_json = head.startswith("{")
    rows = _rows(
        name, _chain(first, numbered) if is_json else numbered, _mooncake if is_json else _csv_reader(name, head)
    )
    kept: list[Row] = []
    cut = False
    for row in rows:
        if len(kept) == max_rows:
            cut = True
            break
        kept.append(row)
    if not kept:
        raise BadScenario(f"trace {name!r} has a header and no request: give a file with rows")
    kept.sort(key=lambda row: row.at_s)
    start = kept[0].at_s
    moved = tuple(Row(row.at_s - start, row.prompt_tokens, row.answer_tokens) for row in kept)
    return Trace(name=name, rows=moved, cut=cut)


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _rows(name: str, numbered: Iterator[tuple[int, str]], read: Callable[[str], Row]) -> Iterator[Row]:
    for number, line in numbered:
        try:
            row = read(line)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
            raise BadScenario(
                f"trace {name!r}, line {number}: cannot read {line.strip()[:80]!r} ({error}): repair the line"
            ) from error
        if not (row.at_s == row.at_s and abs(row.at_s) < 1e12) or row.prompt_tokens < 0 or row.answer_tokens < 0:
            raise BadScenario(
                f"trace {name!r}, line {number}: expected a finite time and counts >= 0, got {line.strip()[:80]!r}"
            )
        yield row


def _mooncake(line: str) -> Row:
    # `timestamp` is in milliseconds. `hash_ids` describe prefix sharing, not used here.
    row = json.loads(line)
    return Row(row["timestamp"] / 1000, int(row["input_length"]), int(row["output_length"]))


def _csv_reader(name: str, head: str) -> Callable[[str], Row]:
    columns = next(csv.reader([head]))
    if all(column in columns for column in AZURE):
        time_at, prompt_at, answer_at = (columns.index(column) for column in AZURE)
        seconds: Callable[[str], float] = _azure_seconds
    elif all(column in columns for column in BURSTGPT):
        time_at, prompt_at, answer_at = (columns.index(column) for column in BURSTGPT)
        seconds = float
    else:
        raise BadScenario(
            f"trace {name!r}: expected the columns {', '.join(AZURE)} (Azure), {', '.join(BURSTGPT)} (BurstGPT) "
            f"or JSON lines (Mooncake), got the first line {head[:80]!r}"
        )

    def read(line: str) -> Row:
        cells = next(csv.reader([line]))
        return Row(seconds(cells[time_at]), int(float(cells[prompt_at])), int(float(cells[answer_at])))

    return read


def _azure_seconds(text: str) -> float:
    # 2023: `2023-11-16 18:17:03.9799600`. 2024: `2024-05-10 00:00:00.009930+00:00`.
    # `fromisoformat` refuses seven digits of a second, so the fraction is read apart.
    # No trace spans a change of offset.
    day, _, fraction = text.strip().removesuffix("+00:00").removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(day) - datetime(2020, 1, 1)).total_seconds()  # noqa: DTZ001 - only differences matter
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)
