"""The record of one trial: one clock, phases, events, all of it in the journal as it happens. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmchaos.errors import LlmchaosError, verdict_of
from pytest_llmchaos.evidence.journal import Journal


@dataclass(frozen=True, kw_only=True)
class PhaseBounds:
    """One phase on the trial's clock (seconds since the start of the load)."""

    name: str
    from_s: float
    to_s: float


class Record:
    """What one trial leaves behind. Times are seconds since the start of its load; `anchor` fixes that instant."""

    def __init__(self, journal: Journal, trial: str, directory: Path) -> None:
        self.journal = journal
        self.trial = trial
        self.directory = directory
        self.phases: list[PhaseBounds] = []
        self.events: list[dict[str, Any]] = []
        self.findings: list[str] = []
        self.proofs: list[dict[str, Any]] = []
        self.phase_now = ""
        self.healed = True
        self._unix_s = time.time()
        self._monotonic_s = time.monotonic()

    @property
    def anchor_unix_s(self) -> float:
        return self._unix_s

    def anchor(self, unix_s: float, monotonic_s: float) -> None:
        self._unix_s, self._monotonic_s = unix_s, monotonic_s
        self.write("anchor", unix_s=unix_s, monotonic_s=monotonic_s)

    def write(self, kind: str, **fields: Any) -> None:
        self.journal.write(kind, trial=self.trial, **fields)

    def note(self, kind: str, **fields: Any) -> None:
        self.journal.note(kind, trial=self.trial, **fields)

    def now_s(self) -> float:
        return time.monotonic() - self._monotonic_s

    def at_s(self, unix_s: float) -> float:
        """A wall-clock time (Docker's, Prometheus') on the trial's clock, to the millisecond."""
        return round(unix_s - self._unix_s, 3)

    def unix_s(self, at_s: float) -> float:
        return self._unix_s + at_s

    def event(self, source: str, what: str, *, at_s: float | None = None, service: str = "") -> None:
        entry = {
            "at_s": round(self.now_s() if at_s is None else at_s, 3),
            "source": source,
            "what": what,
            "service": service,
        }
        self.events.append(entry)
        self.write("event", **entry)

    def finding(self, what: str) -> None:
        self.findings.append(what)
        self.write("finding", what=what)

    def proof(self, step: str, witness: str, at_unix_s: float) -> None:
        entry = {"step": step, "witness": witness, "at_s": self.at_s(at_unix_s)}
        self.proofs.append(entry)
        (self.write if step == "injected" else self.note)("proof", **entry)

    @contextmanager
    def left_to_its_test(self) -> Iterator[None]:
        """For what no trial judges: it held, unless it broke off here or a claim of its test fails."""
        verdict, reason = "held", ""
        try:
            yield
        except BaseException as error:
            refutes = isinstance(error, AssertionError)
            if isinstance(error, KeyboardInterrupt | SystemExit | LlmchaosError) and not refutes:
                verdict, reason = verdict_of(error), f"{type(error).__name__}: {error}"
            raise
        finally:
            self.note("judged", verdict=verdict, reason=reason or None)

    @contextmanager
    def phase(self, name: str, *, from_s: float | None = None) -> Iterator[None]:
        """A phase that ends when its block does, also by an error: then it is still recorded as far as it came."""
        begin = round(self.now_s() if from_s is None else from_s, 3)
        self.phase_now = name
        self.write("phase_begin", name=name, from_s=begin)
        try:
            yield
        finally:
            end = max(begin, round(self.now_s(), 3))
            self.phases.append(PhaseBounds(name=name, from_s=begin, to_s=end))
            self.note("phase", name=name, from_s=begin, to_s=end)
            self.phase_now = ""
