"""The lines of a journal: one class a kind, read and written by `journal`."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.evidence.trial_result import (
    Anchor,
    Catalogue,
    ClaimResult,
    EventNote,
    Planned,
    ProofNote,
    TrialResult,
)

SCHEMA: Final = "llmchaos-journal/1"
Trial = Annotated[str, Meta(description="which trial of the run; `trials/<trial>/` holds its samples")]
IntentId = Annotated[str, Meta(description="id of the intent; earlier versions wrote none")]


class RunBegin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The first line: what will be done, before anything starts."""

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
        Meta(description="every kind of line that this journal may hold: another kind is a damaged line"),
    ] = ()


class Stack(RunManifest, frozen=True, tag_field="kind", tag="stack"):
    """What a watchdog or `llmchaos heal` needs to remove the stack, before it exists."""


class StackUp(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="stack_up"):
    """The stack is up."""

    took_s: float
    images: dict[str, str] = {}


class TrialBegin(Planned, frozen=True, kw_only=True, tag_field="kind", tag="trial"):
    """A trial begins."""

    trial: Trial
    samples: str


class AnchorSet(Anchor, frozen=True, kw_only=True, tag_field="kind", tag="anchor"):
    """Second 0 of the trial's clock."""

    trial: Trial


class Process(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="process"):
    """A helper process that must not outlive the run."""

    trial: Trial
    pid: int
    started: str


class PhaseBegin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="phase_begin"):
    """A phase begins, in seconds on the trial's clock."""

    trial: Trial
    name: str
    from_s: float


class PhaseEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="phase"):
    """A phase has ended."""

    trial: Trial
    name: str
    from_s: float
    to_s: float


class UndoNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to take a fault back, also from another process."""

    op: str
    service: str
    args: dict[str, object]


class Intent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="intent"):
    """A fault is about to be injected; `undo` is what takes it back, also from another process."""

    trial: Trial
    id: str | UnsetType = UNSET
    """Unique in the journal; earlier versions wrote none."""
    step: Literal["inject"]
    fault: str
    victim: str
    undo: UndoNote


class Undone(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="undone"):
    """An undo is over; `ok` false leaves its intent open."""

    trial: Trial
    intent: IntentId | UnsetType = UNSET
    victim: str
    op: str
    ok: bool
    why: str | UnsetType = UNSET


class Proved(ProofNote, frozen=True, kw_only=True, tag_field="kind", tag="proof"):
    """An independent witness saw the fault take hold, or saw that nothing of it is left."""

    trial: Trial
    intent: IntentId | UnsetType = UNSET


class Event(EventNote, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """Something that happened, on the trial's clock."""

    trial: Trial
    service: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="finding"):
    """Something worth knowing that no claim asks for."""

    trial: Trial
    what: str


class Judged(TrialResult, frozen=True, tag_field="kind", tag="judged"):
    """The trial as it stands in run.json."""


class Claim(ClaimResult, frozen=True, kw_only=True, tag_field="kind", tag="claim"):
    """One test's outcome."""

    trial: Trial


class StackDown(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="stack_down"):
    """The stack is removed, or left as it was found."""

    took_s: float


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run_end"):
    """The last line."""

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
