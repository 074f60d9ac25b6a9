"""Reader and writer of the clients' samples, one JSON array a line.

The first line is a header with the names of the fields. The load generator writes one
line for each request when the request ends.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast, overload

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import OUTCOMES, Outcome, Sample
from pytest_llmchaos.stats.columns import CODES, NO_FIRST, NO_RETRY, OK, Columns, refusal

SCHEMA = "llmchaos-samples/1"
OLD_FIELDS = ("due_s", "sent_s", "first_s", "end_s", "max_gap_s", "tokens", "outcome", "replica", "request_id")
"""Fields of earlier versions. The other fields then have defaults."""
FIELDS = (*OLD_FIELDS, "status", "retry_after_s")
HEADER = json.dumps({"schema": SCHEMA, "fields": FIELDS}, separators=(",", ":"))

LONGEST_S = 366 * 86_400
"""Upper bound of all times. No trial lasts that long."""
EARLIEST_S = -1.0
"""Lower bound of times. A timer may fire shortly before the load's start."""

_BLOCK_BYTES = 262_144

Row = tuple[float, float, float | None, float, float, int, Outcome, str, str, int, float | None]
"""Values of one line, in the order of FIELDS."""


def read(path: Path) -> Iterator[Sample]:
    """Yield the samples of one trial by time of end, without a torn last line."""
    yield from load(path)


def load(path: Path) -> Samples:
    """Return the samples of one trial as compact columns (1,000,000 need 150 MB).

    Raises:
        BadScenario: The file holds something else. The message has the line's number.
    """
    samples = Samples()
    with path.open("rb") as file:
        header = file.readline()
        if not header.endswith(b"\n"):
            return samples
        fields = _fields_of(path, header)
        rest, number = b"", 2
        while block := file.read(_BLOCK_BYTES):
            whole, cut, rest = (rest + block).rpartition(b"\n")
            if cut:
                number += _append_line_values(samples, path, whole, number, fields)
    return samples


def _append_line_values(samples: Samples, path: Path, block: bytes, number: int, fields: Sequence[str]) -> int:
    rows = parse(path, block, number, fields)
    try:
        return samples.take(rows)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadScenario(f"{path}, lines {number} to {number + len(rows) - 1}: {error}") from error


def line(sample: Sample) -> str:
    """Return a sample as a line, with times to the microsecond."""
    first = "null" if sample.first_s is None else f"{sample.first_s:.6f}"
    return (
        f"[{sample.due_s:.6f},{sample.sent_s:.6f},{first},{sample.end_s:.6f},{sample.max_gap_s:.6f},"
        f'{sample.tokens},"{sample.outcome}",{_quote(sample.replica)},"{sample.request_id}",'
        f"{sample.status},{'null' if sample.retry_after_s is None else f'{sample.retry_after_s:.15g}'}]\n"
    )


@lru_cache
def _quote(text: str) -> str:
    return json.dumps(text)


def parse(path: Path, block: bytes, number: int = 2, fields: Sequence[str] = FIELDS) -> list[Row]:
    """Return the rows of complete lines. One call for many lines is twice as fast.

    Args:
        path: The file, for messages.
        block: The lines.
        number: Number of the first line, for messages.
        fields: Names of the fields of each row.

    Raises:
        BadScenario: A line is not a row of these fields.
    """
    try:
        rows = json.loads(b"[" + block.replace(b"\n", b",") + b"]", parse_constant=_refuse_constant)
    except ValueError:
        rows = [_row(path, line, number + i) for i, line in enumerate(block.split(b"\n"))]
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(fields) or str(row[6]) not in CODES:
            raise BadScenario(f"{path}, line {number + i}: expected {', '.join(fields)}, got {str(row)[:80]}")
    if "status" not in fields:
        rows = [(*row, 0, None) for row in rows]
    return cast(list[Row], rows)  # only lengths and outcomes are checked here, numbers by the columns


def _row(path: Path, line: bytes, number: int) -> object:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BadScenario(f"{path}, line {number}: expected a JSON array, got {line[:80]!r}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a time")


def _require_times(name: str, values: Sequence[float], least_s: float) -> None:
    """Raise ValueError if a time is outside the possible range."""
    if min(values) < least_s or max(values) > LONGEST_S:
        odd = next(value for value in values if not least_s <= value <= LONGEST_S)
        raise ValueError(f"expected {name} from {least_s:g} to {LONGEST_S} s, got {odd!r:.40}")


def _fields_of(path: Path, line: bytes) -> tuple[str, ...]:
    """Return the fields of each row, or raise BadScenario for another header."""
    try:
        header = json.loads(line)
        seen = (header["schema"], tuple(header["fields"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadScenario(f"{path}, line 1: expected the header {HEADER}, got {line[:80]!r}") from error
    if seen not in ((SCHEMA, FIELDS), (SCHEMA, OLD_FIELDS)):
        raise BadScenario(f"{path}, line 1: expected the header {HEADER}, got {line[:200]!r}: another version wrote it")
    return seen[1]


class Samples(Sequence[Sample]):
    """Samples as columns. Each `Sample` is made on access."""

    def __init__(self) -> None:
        self.columns = Columns()
        self._sent_s = array("d")
        self._tokens = array("l")
        self._replicas: list[str] = []
        self._ids: list[str] = []
        self._statuses = array("H")
        self._retries_s = array("d")
        self._names: dict[str, str] = {}

    def take(self, rows: list[Row]) -> int:
        """Append rows from `parse` and return their number.

        Raises:
            TypeError: A value is not a number.
            ValueError: A time is outside the possible range.
            OverflowError: A number is too large for its column.
        """
        if not rows:
            return 0
        due, sent, first, end, gap, tokens, outcomes, replicas, ids, statuses, retries = zip(*rows, strict=True)
        _require_times("due_s", due, 0)
        _require_times("sent_s", sent, EARLIEST_S)
        _require_times("end_s", end, EARLIEST_S)
        firsts = [NO_FIRST if f is None else f for f in first]
        _require_times("first_s", firsts, NO_FIRST)
        _require_times("max_gap_s", gap, 0)
        retries_s = [NO_RETRY if r is None else r for r in retries]
        _require_times("retry_after_s", retries_s, NO_RETRY)
        columns = self.columns
        columns.due_s.extend(due)
        columns.first_s.extend(firsts)
        columns.end_s.extend(end)
        columns.max_gap_s.extend(gap)
        columns.outcomes.extend(map(CODES.__getitem__, outcomes))
        columns.refusals.extend(map(refusal, statuses, retries))
        self._sent_s.extend(sent)
        self._tokens.extend(tokens)
        name = self._names.setdefault
        self._replicas.extend([name(r, r) for r in replicas])
        self._ids.extend(ids)
        self._statuses.extend(statuses)
        self._retries_s.extend(retries_s)
        return len(rows)

    def answers_by_replica(self, from_s: float) -> Counter[str]:
        """Return the complete answers to requests due from `from_s` on, by replica."""
        rows = zip(self.columns.due_s, self.columns.outcomes, self._replicas, strict=True)
        return Counter(replica for due_s, code, replica in rows if due_s >= from_s and code == OK)

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        columns = self.columns
        first = columns.first_s[index]
        return Sample(
            due_s=columns.due_s[index],
            sent_s=self._sent_s[index],
            first_s=None if first < 0 else first,
            end_s=columns.end_s[index],
            max_gap_s=columns.max_gap_s[index],
            tokens=self._tokens[index],
            outcome=OUTCOMES[columns.outcomes[index]],
            replica=self._replicas[index],
            request_id=self._ids[index],
            status=self._statuses[index],
            retry_after_s=None if self._retries_s[index] < 0 else self._retries_s[index],
        )

    def __iter__(self) -> Iterator[Sample]:
        columns = self.columns
        times = (columns.due_s, self._sent_s, columns.first_s, columns.end_s, columns.max_gap_s)
        about = (self._tokens, columns.outcomes, self._replicas, self._ids, self._statuses, self._retries_s)
        for due, sent, first, end, gap, tokens, code, replica, name, status, retry in zip(*times, *about, strict=True):
            sample = _new(Sample)
            _set_due(sample, due)
            _set_sent(sample, sent)
            _set_first(sample, None if first < 0 else first)
            _set_end(sample, end)
            _set_gap(sample, gap)
            _set_tokens(sample, tokens)
            _set_outcome(sample, OUTCOMES[code])
            _set_replica(sample, replica)
            _set_id(sample, name)
            _set_status(sample, status)
            _set_retry(sample, None if retry < 0 else retry)
            yield sample


# A frozen dataclass sets each field through object.__setattr__. The slots' own setters
# take half the time, and a judgement iterates over a million samples several times.
_new = cast(Callable[[type[Sample]], Sample], object.__new__)
(
    _set_due,
    _set_sent,
    _set_first,
    _set_end,
    _set_gap,
    _set_tokens,
    _set_outcome,
    _set_replica,
    _set_id,
    _set_status,
    _set_retry,
) = (cast(Callable[[Sample, object], None], getattr(Sample, name).__set__) for name in FIELDS)
