"""Lines of a journal, with one class for each kind."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.evidence.trial_result import (
    Anchor,
    Catalogue,
    ClaimResult,
    CountsNote,
    EventNote,
    Planned,
    ProofNote,
    TrialResult,
)

SCHEMA: Final = "llmchaos-journal/1"
Trial = Annotated[str, Meta(description="trial of the run, with its samples in `trials/<trial>/`")]
IntentId = Annotated[str, Meta(description="id of the intent, which earlier versions lack")]


class RunBegin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The first line: the plan of the run, written before anything starts."""

    schema: Literal["llmchaos-journal/1"]
    run: str
    seed: Annotated[int, Meta(ge=0)]
    replay: str | UnsetType = UNSET
    runtime: str
    backend: str
    environment: dict[str, object] = {}
    schedule: tuple[dict[str, object], ...]
    catalogue: Catalogue = Catalogue()
    kinds: Annotated[
        tuple[str, ...],
        Meta(description="every kind of line in this journal; a line of another kind is damaged"),
    ] = ()


class Stack(RunManifest, frozen=True, tag_field="kind", tag="stack"):
    """Data with which the watchdog or `llmchaos heal` removes the stack.

    It is written before the stack exists.
    """


class StackUp(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="stack_up"):
    """The stack is up."""

    took_s: float
    images: dict[str, str] = {}


class TrialBegin(Planned, frozen=True, kw_only=True, tag_field="kind", tag="trial"):
    """A trial begins."""

    trial: Trial
    samples: str


class AnchorSet(Anchor, frozen=True, kw_only=True, tag_field="kind", tag="anchor"):
    """The start of the trial's clock."""

    trial: Trial


class Process(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="process"):
    """A process that must not outlive the run, such as the load generator."""

    trial: Trial
    pid: int
    started: str


class PhaseBegin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="phase_begin"):
    """A phase begins. Times are seconds on the trial's clock."""

    trial: Trial
    name: str
    from_s: float


class PhaseEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="phase"):
    """A phase ended. Times are seconds on the trial's clock."""

    trial: Trial
    name: str
    from_s: float
    to_s: float


class UndoNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operation that reverts a fault, from any process."""

    op: str
    service: str
    args: dict[str, object]


class Intent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="intent"):
    """A fault is about to be injected. `undo` reverts it, from any process."""

    trial: Trial
    id: str | UnsetType = UNSET
    """Unique in the journal. Earlier versions lack it."""
    step: Literal["inject"]
    fault: str
    victim: str
    undo: UndoNote
    strength: dict[str, object] | UnsetType = UNSET
    """Options of the fault by name, if it has some."""


class Undone(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="undone"):
    """A revert ended. If `ok` is false, its intent stays open."""

    trial: Trial
    intent: IntentId | UnsetType = UNSET
    victim: str
    op: str
    ok: bool
    why: str | UnsetType = UNSET


class Proved(ProofNote, frozen=True, kw_only=True, tag_field="kind", tag="proof"):
    """An independent witness saw that the fault is in place, or that it is gone."""

    trial: Trial
    intent: IntentId | UnsetType = UNSET
    counts: CountsNote | UnsetType = UNSET
    """What the fault did until then, if a program counts it."""


class Event(EventNote, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """An event on the trial's clock."""

    trial: Trial
    service: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="finding"):
    """An observation that no claim tests."""

    trial: Trial
    what: str


class Judged(TrialResult, frozen=True, tag_field="kind", tag="judged"):
    """The trial's value, as in `run.json`."""


class Claim(ClaimResult, frozen=True, kw_only=True, tag_field="kind", tag="claim"):
    """One test's outcome."""

    trial: Trial


class StackDown(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="stack_down"):
    """The stack was removed, or left as it was found."""

    took_s: float


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run_end"):
    """The last line: the run ended."""

    exit_status: int


TrialLine = (
    TrialBegin
    | AnchorSet
    | Process
    | PhaseBegin
    | PhaseEnd
    | Intent
    | Proved
    | Undone
    | Event
    | Finding
    | Judged
    | Claim
)
Line = RunBegin | Stack | StackUp | TrialLine | StackDown | RunEnd
KINDS: tuple[type[msgspec.Struct], ...] = get_args(Line)
