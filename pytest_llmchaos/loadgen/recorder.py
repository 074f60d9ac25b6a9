"""The generator's output files: samples, and its own status four times a second."""

from __future__ import annotations

import contextlib
import json
import os
import time
from array import array
from itertools import accumulate
from pathlib import Path
from typing import Any

from pytest_llmchaos.evidence.samples_file import HEADER, line
from pytest_llmchaos.model import Sample

# Bins of 0.25 ms up to 1 s, fine enough for limits of 10 and 50 ms.
_BIN_S = 0.00025
_BINS = 4000


class Lateness:
    """Distribution of how late requests left, of fixed size."""

    def __init__(self) -> None:
        self._bins = array("q", [0]) * (_BINS + 1)
        self._worst_s = 0.0

    def add(self, late_s: float) -> None:
        self._bins[min(_BINS, int(late_s / _BIN_S))] += 1
        self._worst_s = max(self._worst_s, late_s)

    def p99_s(self) -> float:
        """Upper edge of the 99th percentile's bin, or the maximum beyond a second."""
        sums = list(accumulate(self._bins))
        if not sums[-1]:
            return 0.0
        rank = sums[-1] * 0.99
        at = next(i for i, seen in enumerate(sums) if seen >= rank)
        return self._worst_s if at == _BINS else min(self._worst_s, (at + 1) * _BIN_S)


class Lines:
    """A file of whole lines.

    Lines that a full disk refused are written with the next ones.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._rest = b""

    def write(self, lines: bytes) -> None:
        """Append lines. On OSError the unwritten rest is kept."""
        self._rest += lines
        while self._rest:
            self._rest = self._rest[self._file.write(self._rest) :]

    def close(self) -> None:
        """Write what is left and close the file."""
        with contextlib.suppress(OSError):  # the disk is still full: readers miss the lines
            self.write(b"")
        self._file.close()


class Recorder:
    """The samples file and the status file, written in whole lines."""

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
        """Write samples first: a reader of this line then finds them all."""
        self.flush()
        self._status.write(json.dumps(about, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        self.flush()
        self._samples.close()
        self._status.close()


class Cpu:
    """Share of a core that this process uses, in total and since the last reading."""

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
    """Write a file atomically, because the other process polls for it."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(value))
    half.replace(path)
