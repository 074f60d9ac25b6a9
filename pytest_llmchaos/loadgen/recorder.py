"""What the generator leaves on disk while it runs: samples as they end, and its own health four times a second."""

from __future__ import annotations

import json
import os
import time
from array import array
from itertools import accumulate
from pathlib import Path
from typing import Any

from pytest_llmchaos.evidence.samples_file import HEADER, line
from pytest_llmchaos.model import Sample

# Lateness is counted in bins of a quarter of a millisecond up to a second: fine enough for bounds of 10 and 50 ms.
_BIN_S = 0.00025
_BINS = 4000


class Lateness:
    """How late requests left, as a distribution of fixed size."""

    def __init__(self) -> None:
        self._bins = array("q", [0]) * (_BINS + 1)
        self._worst_s = 0.0

    def add(self, late_s: float) -> None:
        self._bins[min(_BINS, int(late_s / _BIN_S))] += 1
        self._worst_s = max(self._worst_s, late_s)

    def p99_s(self) -> float:
        """The upper edge of the bin that holds the 99th percentile; the worst of all beyond a second."""
        sums = list(accumulate(self._bins))
        if not sums[-1]:
            return 0.0
        rank = sums[-1] * 0.99
        at = next(i for i, seen in enumerate(sums) if seen >= rank)
        return self._worst_s if at == _BINS else min(self._worst_s, (at + 1) * _BIN_S)


class Lines:
    """A file that whole lines are added to. What a full disk did not take is written with the next ones."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._rest = b""

    def write(self, lines: bytes) -> None:
        """Raises OSError, and keeps what was not written."""
        self._rest += lines
        while self._rest:
            self._rest = self._rest[self._file.write(self._rest) :]

    def close(self) -> None:
        self._file.close()


class Recorder:
    """The samples file and the status file. Each flush writes whole lines, so that a reader sees whole samples."""

    def __init__(self, samples_file: Path, status_file: Path) -> None:
        self._samples, self._status = Lines(samples_file), Lines(status_file)
        self._samples.write(HEADER.encode() + b"\n")
        self._waiting: list[str] = []

    def add(self, sample: Sample) -> None:
        self._waiting.append(line(sample))

    def flush(self) -> None:
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._samples.write("".join(lines).encode())

    def status(self, about: dict[str, Any]) -> None:
        """Samples first: a reader of this line finds every sample that it counts."""
        self.flush()
        self._status.write(json.dumps(about, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        self.flush()
        self._samples.close()
        self._status.close()


class Cpu:
    """How much of a core this process uses: on the whole, and since the last question."""

    def __init__(self) -> None:
        self._start = self._last = (time.monotonic(), time.process_time())

    def _since(self, then: tuple[float, float]) -> float:
        wall_s = time.monotonic() - then[0]
        return (time.process_time() - then[1]) / wall_s if wall_s > 0 else 0.0

    def lately(self) -> float:
        if time.monotonic() - self._last[0] < 0.1:
            return self.on_the_whole()
        share, self._last = self._since(self._last), (time.monotonic(), time.process_time())
        return share

    def on_the_whole(self) -> float:
        return self._since(self._start)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """All of it or nothing: the other side polls for this file."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(value))
    half.replace(path)
