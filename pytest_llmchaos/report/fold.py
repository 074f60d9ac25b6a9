"""Folds journal lines into the run that becomes run.json. Pure: repeats what the judge wrote.

A trial that the judge let hold is `refuted` once a claim about it failed. It is `invalid`
where a claim could not be asked or was not performed, where it has no claim (it is not judged then), where the run died
before the trial was judged, or where a line that may have decided it cannot be read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from msgspec import structs

from pytest_llmchaos.errors import CLAIM_MAKES, Verdict
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.journal import Written
from pytest_llmchaos.evidence.trial_result import (
    Anchor,
    Catalogue,
    ClaimResult,
    Counts,
    EventNote,
    PhaseResult,
    ProofNote,
    RunResult,
    StackResult,
    TrialResult,
    UndoResult,
    Unreadable,
)
from pytest_llmchaos.report.formatting import VERDICTS
from pytest_llmchaos.report.unread import damaged, doubts

UNJUDGED = "the run ended before this trial was judged"
UNCLAIMED = "not judged: the journal has no claim about this trial"
LOST = "no line of this trial in the journal is readable"

Kind = TypeVar("Kind")


def fold(written: Iterable[Written], unreadable: Sequence[Unreadable] = ()) -> RunResult:
    """The run of these lines, which are in order of time."""
    written = tuple(written)
    every = [one.line for one in written]
    begun = next(iter(_of(lines.RunBegin, every)), None)  # xdist: each worker writes one, and the first one wins
    of_trial: dict[str, list[lines.TrialLine]] = {}
    for line in every:
        if isinstance(line, lines.TrialLine):
            of_trial.setdefault(line.trial, []).append(line)
    for one in damaged(unreadable):
        if one.trial:
            of_trial.setdefault(one.trial, [])
    doubt = doubts(unreadable)
    trials = tuple(_trial(name, its, begun, doubt.get(name)) for name, its in of_trial.items())
    return RunResult(
        run=begun.run if begun else "unknown",
        seed=begun.seed if begun else None,
        replay=_replay_of(begun),
        runtime=begun.runtime if begun else None,
        backend=begun.backend if begun else None,
        started_unix_s=min((one.at_unix_s for one in written), default=None),
        ended_unix_s=max((one.at_unix_s for one in written), default=None),
        exit_status=_exit_status(every),
        environment=begun.environment if begun else {},
        stack=_stack(every),
        schedule=begun.schedule if begun else (),
        catalogue=begun.catalogue if begun else Catalogue(),
        counts=Counts(**{verdict: sum(trial.verdict == verdict for trial in trials) for verdict in VERDICTS}),
        trials=trials,
        unreadable_lines=len(unreadable),
        unreadable=tuple(unreadable),
    )


def _of(kind: type[Kind], every: Iterable[object]) -> list[Kind]:
    return [line for line in every if isinstance(line, kind)]


def _last(kind: type[Kind], every: Iterable[object]) -> Kind | None:
    return next(reversed(_of(kind, every)), None)


def _exit_status(every: Sequence[object]) -> int | None:
    """The last status that is not 0. None where the run, or one of its workers, did not end by itself."""
    begun, ended = _of(lines.RunBegin, every), _of(lines.RunEnd, every)
    if len(ended) < max(1, len(begun)):
        return None
    return next((line.exit_status for line in reversed(ended) if line.exit_status), 0)


def _stack(every: Sequence[object]) -> StackResult:
    up, down = _last(lines.StackUp, every), _last(lines.StackDown, every)
    return StackResult(
        up_s=up.took_s if up else None, down_s=down.took_s if down else None, images=up.images if up else {}
    )


def _trial(name: str, its: Sequence[object], begun: lines.RunBegin | None, doubt: str | None) -> TrialResult:
    """One trial from its own lines: what was planned, overlaid by what the judge wrote.

    `doubt` says why its verdict is not known; None where it is.
    """
    judged = _last(lines.Judged, its)
    why = doubt or (UNJUDGED if its else LOST)
    known = _facts_of(_last(lines.TrialBegin, its)) | _facts_of(judged)
    result = structs.replace(TrialResult(trial=name, verdict="invalid", reason=why), **known)
    anchor = _last(lines.AnchorSet, its)
    claims = tuple(
        ClaimResult(nodeid=claim.nodeid, outcome=claim.outcome, message=claim.message)
        for claim in _of(lines.Claim, its)
    )
    verdict, reason = _verdict(
        result.verdict, judged.reason if judged else why, claims, doubt if claims else doubt or UNCLAIMED
    )
    return structs.replace(
        result,
        verdict=verdict,
        reason=reason,
        anchor=Anchor(unix_s=anchor.unix_s, monotonic_s=anchor.monotonic_s) if anchor else None,
        judged=judged is not None,
        phases=result.phases or _phases(its),
        proof=_proof(result, its),
        events=_events(result, its),
        findings=tuple(dict.fromkeys([*result.findings, *(line.what for line in _of(lines.Finding, its))])),
        claims=claims,
        undo=_undo(its),
        replay=result.replay or _replay(claims, begun),
    )


def _facts_of(line: msgspec.Struct | None) -> dict[str, object]:
    """What a line says beyond the defaults of its kind."""
    if line is None:
        return {}
    values = structs.asdict(line)
    silent = {one.name for one in structs.fields(line) if values[one.name] == one.default}
    return {name: value for name, value in values.items() if name not in silent}


def _verdict(
    verdict: Verdict, reason: str | None, claims: Sequence[ClaimResult], doubt: str | None
) -> tuple[Verdict, str | None]:
    """The judge's verdict after the claims. What is in doubt did not hold; what a claim that can be read says of it goes first."""
    if verdict != "held":
        return verdict, reason
    for outcome in CLAIM_MAKES:
        first = next((claim for claim in claims if claim.outcome == outcome), None)
        if first is not None:
            why = reason or first.message or f"{first.nodeid} {outcome}"
            return CLAIM_MAKES[outcome], f"not judged by {first.nodeid}: {why}" if outcome == "skipped" else why
    if doubt:
        return "invalid", doubt
    return verdict, reason


def _phases(its: Sequence[object]) -> tuple[PhaseResult, ...]:
    """Phases of a trial that was not judged: those that ended, and the one that had begun, open-ended (`to_s` null)."""
    phases: dict[str, PhaseResult] = {}
    for line in its:
        if isinstance(line, lines.PhaseBegin):
            phases[line.name] = PhaseResult(name=line.name, from_s=line.from_s)
        elif isinstance(line, lines.PhaseEnd):
            phases[line.name] = PhaseResult(name=line.name, from_s=line.from_s, to_s=line.to_s)
    return tuple(phases.values())


def _proof(result: TrialResult, its: Sequence[object]) -> tuple[ProofNote, ...]:
    """What the judge listed and what was noted on the way, each once, in order of time."""
    noted = [ProofNote(step=line.step, witness=line.witness, at_s=line.at_s) for line in _of(lines.Proved, its)]
    return tuple(sorted(dict.fromkeys([*result.proof, *noted]), key=lambda one: one.at_s))


def _events(result: TrialResult, its: Sequence[object]) -> tuple[EventNote, ...]:
    """The same of events."""
    noted = [
        EventNote(at_s=line.at_s, source=line.source, what=line.what, service=line.service)
        for line in _of(lines.Event, its)
    ]
    return tuple(sorted(dict.fromkeys([*result.events, *noted]), key=lambda one: one.at_s))


def _undo(its: Sequence[object]) -> tuple[UndoResult, ...]:
    """Every fault that was announced, and whether the journal shows its undo done afterwards."""
    announced: list[tuple[lines.Intent, bool]] = []
    for line in its:
        if isinstance(line, lines.Intent):
            announced.append((line, False))
        elif isinstance(line, lines.Undone) and line.ok:
            announced = [(intent, done or _undoes(line, intent)) for intent, done in announced]
    return tuple(
        UndoResult(fault=intent.fault, victim=intent.victim, op=intent.undo.op, undone=done)
        for intent, done in announced
    )


def _undoes(undone: lines.Undone, intent: lines.Intent) -> bool:
    return (undone.intent, undone.victim, undone.op) == (intent.id, intent.victim, intent.undo.op)


def _replay(claims: Sequence[ClaimResult], begun: lines.RunBegin | None) -> str | None:
    """The line that performs this trial's experiment again, claims and all."""
    files = sorted({claim.nodeid.split("::")[0] for claim in claims if claim.nodeid})
    if not files or begun is None:
        return _replay_of(begun)
    # The run's own line has the seed always, and spells it as it can be spelled beside the plugins that are installed there.
    ours = "--llmchaos" if "--llmchaos-seed=" in (_replay_of(begun) or "") else "--chaos"
    told = {"seed": begun.seed, "runtime": begun.runtime, "backend": begun.backend}
    return shlex.join(["pytest", *files, *(f"{ours}-{name}={value}" for name, value in told.items() if value != "")])


def _replay_of(begun: lines.RunBegin | None) -> str | None:
    return begun.replay if begun is not None and isinstance(begun.replay, str) else None
