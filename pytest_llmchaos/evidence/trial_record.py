"""Record of one trial: its clock, phases and events, journalled live."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import UNSET, UnsetType, structs

from pytest_llmchaos.errors import EvidenceLost, LlmchaosError, Verdict, verdict_of
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.announced import announced
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_result import (
    CountsNote,
    EventNote,
    LoadResult,
    Planned,
    ProofNote,
    TrialResult,
    UndoResult,
)
from pytest_llmchaos.model import Proof, Undo

UNPLANNED = Planned()
NO_OPTIONS: Mapping[str, object] = {}


@dataclass(frozen=True, kw_only=True)
class PhaseBounds:
    """One phase on the trial's clock, in seconds from the load's start."""

    name: str
    from_s: float
    to_s: float


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """Seconds by which a clock was ahead of the trial's clock at one moment."""

    clock: str
    at_s: float
    offset_s: float


class Record:
    """Evidence of one trial, with times in seconds from the load's start (`anchor`)."""

    def __init__(self, journal: Journal, trial: str, directory: Path, planned: Planned = UNPLANNED) -> None:
        self.journal = journal
        self.trial = trial
        self.planned = planned
        self.directory = directory
        self.phases: list[PhaseBounds] = []
        self.events: list[EventNote] = []
        self.findings: list[str] = []
        self.proofs: list[ProofNote] = []
        self.clocks: list[ClockReading] = []
        self.phase_now = ""
        self.healed = True
        self.outcome: TrialResult | None = None  # for a load whose test gives the verdict
        self.replicas: dict[str, int] = {}  # number of each victim's container, for services with several
        self._victims: list[str] = []
        self._faults: list[lines.Intent | lines.Proved | lines.Undone] = []
        self._unix_s = time.time()
        self._monotonic_s = time.monotonic()

    @property
    def anchor_unix_s(self) -> float:
        return self._unix_s

    def anchor(self, unix_s: float, monotonic_s: float) -> None:
        self._unix_s, self._monotonic_s = unix_s, monotonic_s
        self.journal.write(lines.AnchorSet(trial=self.trial, unix_s=unix_s, monotonic_s=monotonic_s))

    def begin(self, samples: str) -> None:
        self.journal.write(lines.TrialBegin(trial=self.trial, samples=samples, **structs.asdict(self.planned)))

    def process(self, pid: int, started: str) -> None:
        """Journal a process that must not outlive the run."""
        self.journal.write(lines.Process(trial=self.trial, pid=pid, started=started))

    def intent(self, fault: str, victim: str, undo: Undo, strength: Mapping[str, object] = NO_OPTIONS) -> str:
        """Journal a fault and its undo before the injection, and return the id."""
        self._victims.append(victim)
        intent = f"{self.trial}#{len(self._victims)}"  # unique in the journal, matches the revert
        note = lines.UndoNote(op=undo.op, service=undo.service, args=dict(undo.args))
        line = lines.Intent(
            trial=self.trial,
            id=intent,
            step="inject",
            fault=fault,
            victim=victim,
            undo=note,
            strength=dict(strength) or UNSET,
        )
        self.journal.write(line)
        self._faults.append(line)
        return intent

    def undone(self, intent: str, victim: str, op: str, *, ok: bool, why: str | UnsetType = UNSET) -> None:
        line = lines.Undone(trial=self.trial, intent=intent, victim=victim, op=op, ok=ok, why=why)
        self._faults.append(line)
        self.journal.note(line)

    def now_s(self) -> float:
        return time.monotonic() - self._monotonic_s

    def read_clock(self, clock: str, offset_s: float) -> None:
        self.clocks.append(ClockReading(clock=clock, at_s=round(self.now_s(), 3), offset_s=offset_s))

    def read_wall_clock(self) -> None:
        """Read the wall clock's offset to the monotonic clock of the samples."""
        self.read_clock("this machine's wall clock", time.time() - self.unix_s(self.now_s()))

    def at_s(self, unix_s: float) -> float:
        """Return a Unix time on the trial's clock, to the millisecond."""
        return round(unix_s - self._unix_s, 3)

    def unix_s(self, at_s: float) -> float:
        return self._unix_s + at_s

    def judge(self, result: TrialResult) -> None:
        """Journal the trial's result, its last line."""
        self.journal.write(lines.Judged(**structs.asdict(result)))

    def event(self, source: str, what: str, *, at_s: float | None = None, service: str = "") -> None:
        at_s = round(self.now_s() if at_s is None else at_s, 3)
        self.events.append(EventNote(at_s=at_s, source=source, what=what, service=service))
        self.journal.write(lines.Event(trial=self.trial, at_s=at_s, source=source, what=what, service=service))

    def note_events(self, notes: Sequence[EventNote]) -> None:
        """Journal events that were read later, and sort the record's events by time."""
        for note in notes:
            self.event(note.source, note.what, at_s=note.at_s, service=note.service or "")
        self.events.sort(key=lambda event: event.at_s)

    def finding(self, what: str) -> None:
        self.findings.append(what)
        self.journal.write(lines.Finding(trial=self.trial, what=what))

    def proof(self, step: Literal["injected", "healed"], proof: Proof, *, intent: str) -> None:
        """Journal a witness's observation of a fault, with the fault's own counts."""
        at_s = self.at_s(proof.at_unix_s)
        counts: CountsNote | UnsetType = UNSET
        if proof.counts is not None:
            counts = CountsNote(
                counters=dict(proof.counts.counters),
                unit=proof.counts.unit,
                first_hit_after_s=proof.counts.first_hit_after_s,
            )
        self.proofs.append(ProofNote(step=step, witness=proof.witness, at_s=at_s))
        line = lines.Proved(trial=self.trial, intent=intent, step=step, witness=proof.witness, at_s=at_s, counts=counts)
        keep = {"injected": self.journal.write, "healed": self.journal.note}[step]
        keep(line)
        self._faults.append(line)

    @property
    def undo(self) -> tuple[UndoResult, ...]:
        """Every announced fault with what it did and its revert."""
        return announced(self._faults)

    @contextmanager
    def judged_by_its_test(self) -> Iterator[None]:
        """Journal the result of a load whose test gives the verdict.

        It holds unless the block raises or a claim of the test fails.
        """
        verdict: Verdict = "held"
        reason = ""
        try:
            yield
        except BaseException as error:
            refutes = isinstance(error, AssertionError)
            if isinstance(error, KeyboardInterrupt | SystemExit | LlmchaosError) and not refutes:
                verdict, reason = verdict_of(error), f"{type(error).__name__}: {error}"
            raise
        finally:
            known = self.outcome or self.seen()
            self.outcome = structs.replace(known, verdict=verdict, reason=reason or None)
            with suppress(EvidenceLost):
                self.judge(self.outcome)

    def seen(self) -> TrialResult:
        """Return the plan and the evidence so far as a result that holds."""
        return TrialResult(
            **structs.asdict(self.planned),
            trial=self.trial,
            verdict="held",
            judged=True,
            victim=", ".join(dict.fromkeys(self._victims)) or None,
            proof=tuple(self.proofs),
            load=LoadResult(),
            events=tuple(self.events),
            findings=tuple(self.findings),
            undo=self.undo,
            healed=self.healed,
        )

    @contextmanager
    def phase(self, name: str, *, from_s: float | None = None) -> Iterator[None]:
        """Record a phase for the length of the block, even if the block raises."""
        begin = round(self.now_s() if from_s is None else from_s, 3)
        self.phase_now = name
        self.journal.write(lines.PhaseBegin(trial=self.trial, name=name, from_s=begin))
        try:
            yield
        finally:
            end = max(begin, round(self.now_s(), 3))
            self.phases.append(PhaseBounds(name=name, from_s=begin, to_s=end))
            self.journal.note(lines.PhaseEnd(trial=self.trial, name=name, from_s=begin, to_s=end))
            self.phase_now = ""
