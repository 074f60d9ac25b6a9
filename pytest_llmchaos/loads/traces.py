"""Recorded request traces: CSV and JSON of several sources.

docs/load.md has the formats and their sources. Each row keeps its distance in time to
the first one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Literal, NamedTuple, get_args

from pytest_llmchaos.errors import BadScenario

Unit = Literal["s", "ms", "us", "ns"]
UNITS: Mapping[Unit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNIT_NAMES: tuple[Unit, ...] = get_args(Unit)
PARTS = ("time", "prompt", "answer")
# A day of the largest published trace. A schedule is held in memory.
MAX_ROWS = 200_000
# Seconds since 1970 of the years 2001 to 2065. Numbers of this size, or a thousand, a
# million or a billion times it, are absolute times. No known trace is 31 years long.
EPOCH_S = (9.8e8, 3e9)
# The published Mooncake traces have 3 to 10 requests per second. Whole numbers that
# would be more than this as milliseconds could as well be seconds.
MOONCAKE_RPS = 100
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))? ?(Z|UTC|[+-]\d\d:?\d\d)?")


class Format(NamedTuple):
    """A published format: the columns of time, prompt and answer, and the unit."""

    name: str
    columns: tuple[str, str, str]
    unit: Unit | None = None


AZURE = Format("Azure", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
BURSTGPT = Format("BurstGPT", ("Timestamp", "Request tokens", "Response tokens"), "s")
# Qwen-Bailian has the same names and seconds.
MOONCAKE = Format("Mooncake", ("timestamp", "input_length", "output_length"))
FORMATS = (AZURE, BURSTGPT, MOONCAKE)


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
        times: The file's times: a unit such as `ms`, or `dates`.
    """

    name: str
    rows: tuple[Row, ...]
    cut: bool
    times: str

    @property
    def length_s(self) -> float:
        return self.rows[-1].at_s

    def mean_rps(self) -> float:
        return len(self.rows) / max(self.length_s, 1.0)

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

    def __str__(self) -> str:
        return (
            f"trace {self.identity} (times in {self.times}: {len(self.rows):,} rows over {self.length_s:,.6g} s, "
            f"mean {self.mean_rps():.3g}/s, peak {self.peak_rps():.3g}/s)"
        )


class _Read(NamedTuple):
    """One request as it is in the file."""

    at: float
    kind: str  # a `whole` number, a `fraction` or a `date`
    prompt_tokens: int
    answer_tokens: int


def parse(
    name: str,
    lines: Iterable[str],
    *,
    columns: Mapping[str, str] | None = None,
    unit: Unit | None = None,
    max_rows: int = MAX_ROWS,
) -> Trace:
    """Return the trace in `lines`. Its columns and times determine the format.

    Args:
        name: Name of the file.
        lines: Lines of the file.
        columns: Names of the columns `time`, `prompt` and `answer` of another format.
        unit: Unit of the times. None: determined by the format.
        max_rows: Most rows that are read.

    Raises:
        BadScenario: It is not a trace, or its unit is not certain. The message has the
            line's number, or what to write.
    """
    found, places = _tables(name, lines)
    first = next(found, None)
    if first is None:
        raise BadScenario(f"trace {name!r} has a header and no request: give a file with rows")
    form = _format(name, first[1], columns)
    kept: list[_Read] = []
    cut = False
    for number, row in chain([first], found):
        if len(kept) == max_rows:
            cut = True
            break
        kept.append(_read(f"trace {name!r}, {places} {number}", row, form))
        if (kept[-1].kind == "date") != (kept[0].kind == "date"):
            raise BadScenario(f"trace {name!r}, {places} {number}: dates and numbers are mixed: write all times alike")
    kept.sort(key=lambda row: row.at)
    times = _unit(name, form, kept, first[1], unit)
    factor = 1.0 if times is None else UNITS[times]
    start = kept[0].at
    moved = tuple(Row((row.at - start) * factor, row.prompt_tokens, row.answer_tokens) for row in kept)
    return Trace(name=name, rows=moved, cut=cut, times=times or "dates")


def _tables(name: str, lines: Iterable[str]) -> tuple[Iterator[tuple[int, Mapping[str, object]]], str]:
    """Return the rows by column with their numbers, and the word for a number."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise BadScenario(f"trace {name!r} is empty: expected Azure or BurstGPT CSV, or Mooncake JSONL")
    head = first[1].strip()
    rest = chain([(first[0], head)], numbered)
    if head.startswith("["):
        return _json_array(name, "\n".join(line for _, line in rest)), "entry"
    if head.startswith("{"):
        return ((number, _json_row(name, number, line)) for number, line in rest), "line"
    return _csv_rows(name, head, numbered), "line"


def _json_array(name: str, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadScenario(f"trace {name!r} is not valid JSON ({error}): repair the file") from error
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise BadScenario(f"trace {name!r}, entry {number}: expected an object, got {str(entry)[:80]!r}")
        yield number, entry


def _json_row(name: str, number: int, line: str) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"trace {name!r}, line {number}", line, str(error)) from error
    if not isinstance(row, dict):
        raise _unreadable(f"trace {name!r}, line {number}", line, "expected an object")
    return row


def _csv_rows(name: str, head: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, object]]]:
    delimiter = max(",;\t", key=head.count)
    names = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter))]
    if any(_DATE.fullmatch(cell) or re.fullmatch(r"-?[\d.]+", cell) for cell in names):
        raise BadScenario(
            f"trace {name!r} lacks a header, its first line is the row {head[:80]!r}: "
            f"write {','.join(AZURE.columns)} above it, or the columns that it has"
        )
    for number, line in lines:
        try:
            cells = next(csv.reader([line], delimiter=delimiter))
            yield number, dict(zip(names, chain(cells, repeat(None)), strict=False))
        except csv.Error as error:
            raise _unreadable(f"trace {name!r}, line {number}", line, str(error)) from error


def _unreadable(where: str, text: object, why: str) -> BadScenario:
    return BadScenario(f"{where}: cannot read {str(text).strip()[:80]!r} ({why}): repair the line")


def _plain(name: str) -> str:
    """Return the name without case, blanks and underscores."""
    return re.sub(r"[\W_]", "", name).lower()


def _format(name: str, row: Mapping[str, object], columns: Mapping[str, str] | None) -> Format:
    """Return the format with the columns as the file spells them."""
    given = ", ".join(str(column)[:40] for column in row)
    if columns is not None:
        if sorted(columns) != sorted(PARTS):
            raise BadScenario(
                f"trace {name!r}: columns must name {', '.join(PARTS)}, got {columns!r}: "
                'write columns={"time": "...", "prompt": "...", "answer": "..."}'
            )
        time, prompt, answer = (columns[part] for part in PARTS)
        missing = [column for column in (time, prompt, answer) if column not in row]
        if missing:
            raise BadScenario(f"trace {name!r} lacks the column {missing[0]!r}: it has {given}")
        return Format("its", (time, prompt, answer))
    by_plain_name = {_plain(str(column)): column for column in row}
    for form in FORMATS:
        spelt = [by_plain_name[plain] for plain in map(_plain, form.columns) if plain in by_plain_name]
        if len(spelt) == len(PARTS):
            return form._replace(columns=(spelt[0], spelt[1], spelt[2]))
    if "conversations" in row or "messages" in row or ("prompt" in row and "timestamp" not in row):
        raise BadScenario(
            f"trace {name!r} has conversations without times: write loads.poisson(rate_rps=..., prompts={name!r})"
        )
    known = ", ".join(f"{'/'.join(form.columns)} ({form.name})" for form in FORMATS)
    raise BadScenario(
        f"trace {name!r}: expected the columns {known}, got {given}: name them as "
        'columns={"time": "...", "prompt": "...", "answer": "..."}, unit="s"'
    )


def _read(where: str, row: Mapping[str, object], form: Format) -> _Read:
    missing = [column for column in form.columns if row.get(column) is None]
    if missing:
        raise _unreadable(where, ",".join(map(str, row.values())), f"it lacks {missing[0]}")
    time, prompt, answer = (row[column] for column in form.columns)
    text = ",".join(map(str, (time, prompt, answer)))
    try:
        at, kind = _moment(time)
        counts = int(float(str(prompt))), int(float(str(answer)))
    except (ValueError, OverflowError) as error:
        raise _unreadable(where, text, str(error)) from error
    # 1e20 is more than the nanoseconds since 1970.
    if not (math.isfinite(at) and abs(at) < 1e20) or min(counts) < 0:
        raise BadScenario(f"{where}: expected a finite time and counts >= 0, got {text[:80]!r}")
    return _Read(at, kind, *counts)


def _moment(value: object) -> tuple[float, str]:
    text = str(value).strip()
    if dated := _DATE.fullmatch(text):
        # 2023: `2023-11-16 18:17:03.9799600`. 2024: `2024-05-10 00:00:00.009930+00:00`.
        # `fromisoformat` drops the seventh digit of a second, so it is read apart.
        day, clock, fraction, offset = dated.groups()
        zone = "+00:00" if offset in (None, "Z", "UTC") else offset
        seconds = (
            datetime.fromisoformat(f"{day}T{clock}{zone}") - datetime.fromisoformat("2020-01-01T00:00:00+00:00")
        ).total_seconds()
        return seconds + (float(f"0.{fraction}") if fraction else 0.0), "date"
    return float(text), "whole" if re.fullmatch(r"-?\d+", text) else "fraction"


def _unit(name: str, form: Format, rows: list[_Read], first: Mapping[str, object], given: Unit | None) -> Unit | None:
    """Return the unit of the times, None for dates.

    Raises:
        BadScenario: It is not certain. Both readings are in the message.
    """
    start, last = rows[0].at, rows[-1].at
    if rows[0].kind == "date":
        if given is not None:
            raise BadScenario(f"trace {name!r} has dates, which need no unit: drop unit={given!r}")
        return None
    if given is not None:
        return given
    for unit, factor in UNITS.items():
        if EPOCH_S[0] <= start * factor and last * factor < EPOCH_S[1]:
            return unit
    if form.unit is not None or start == last:
        return form.unit or "s"
    if form.name == MOONCAKE.name:
        if "chat_id" in first or "turn" in first:  # Qwen-Bailian
            return "s"
        whole = all(row.kind == "whole" for row in rows)
        if whole and "hash_ids" in first and len(rows) / (last - start) * 1000 <= MOONCAKE_RPS:
            return "ms"
    readings = ", ".join(f"{(last - start) * UNITS[unit]:,.6g} s for unit={unit!r}" for unit in UNIT_NAMES)
    raise BadScenario(f"trace {name!r}: the unit of its times is not certain. It lasts {readings}: write one of these")
