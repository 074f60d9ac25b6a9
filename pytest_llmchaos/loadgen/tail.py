"""Readers of files that another process still writes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.model import Sample

# Lines are in the order in which requests ended, except among several workers.
DISORDER_S = 2.0


class Tail:
    """Whole lines that were added to a file since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def lines(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                added = file.read()
        except FileNotFoundError:
            return b""
        whole = added[: added.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole


class SamplesTail:
    """The samples of all workers while they run. Each file is read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._tails = [Tail(path) for path in paths]
        self._headers = [True] * len(self._tails)
        self._seen: list[Sample] = []

    def recent(self, since_s: float) -> list[Sample]:
        """Samples of requests due at or after `since_s`, in the order of their ends."""
        return [sample for sample in self._since(since_s) if sample.due_s >= since_s]

    def ended(self, since_s: float) -> list[Sample]:
        """Samples of requests that ended at or after `since_s`, in that order."""
        return [sample for sample in self._since(since_s) if sample.end_s >= since_s]

    def _since(self, since_s: float) -> list[Sample]:
        self._read()
        start = len(self._seen)
        while start and self._seen[start - 1].end_s >= since_s - DISORDER_S:
            start -= 1
        return self._seen[start:]

    def _read(self) -> None:
        for position, tail in enumerate(self._tails):
            block = tail.lines()
            if block and self._headers[position]:
                self._headers[position] = False
                block = block.partition(b"\n")[2]
            if block:
                self._seen += [Sample(*row) for row in samples_file.parse(tail.path, block[:-1])]


def merge(paths: Sequence[Path], into: Path) -> None:
    """Write several workers' samples into one file, in the order of their ends."""
    every = [samples_file.load(path) for path in paths if path.exists()]
    with into.open("w", encoding="utf-8") as file:
        file.write(samples_file.HEADER + "\n")
        for sample in heapq.merge(*every, key=lambda s: s.end_s):
            file.write(samples_file.line(sample))
