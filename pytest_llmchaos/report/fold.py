"""Folds journal lines into the content of `run.json`.

The judge's verdict is copied, with two exceptions. A `held` trial becomes `refuted` if
a claim about it failed. It becomes `invalid` if

- a claim raised an error or was skipped,
- it has no claim,
- the run ended before the judgement, or
- a line that may have decided it is unreadable.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from msgspec import structs

from pytest_llmchaos.errors import CLAIM_MAKES, Verdict
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence.announced import announced
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
    Unreadable,
)
from pytest_llmchaos.report.formatting import VERDICTS
from pytest_llmchaos.report.unread import damaged, doubts

UNJUDGED = "the run ended before this trial was judged"
UNCLAIMED = "not judged: the journal has no claim about this trial"
LOST = "no line of this trial in the journal is readable"

Kind = TypeVar("Kind")


def fold(written: Iterable[Written], unreadable: Sequence[Unreadable] = ()) -> RunResult:
    """Return the run of these lines, which must be sorted by time."""
    written = tuple(written)
    every = [one.line for one in written]
    begun = next(iter(_of(lines.RunBegin, every)), None)  # with xdist, each worker writes one
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
    """Return the last status other than 0, None if the run or a worker was killed."""
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
    """Return one trial from its lines: the plan, overridden by the judgement.

    `doubt` is the reason why the verdict is unknown, None if it is known.
    """
    judged = _last(lines.Judged, its)
    why = doubt or (UNJUDGED if its else LOST)
    known = _facts_of(_last(lines.TrialBegin, its)) | _facts_of(judged)
    result = structs.replace(TrialResult(trial=name, verdict="invalid", reason=why), **known)
    anchor = _last(lines.AnchorSet, its)
    claims = tuple(
        ClaimResult(**{name: getattr(claim, name) for name in ClaimResult.__struct_fields__})
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
        undo=announced(its),
        replay=result.replay or _replay(claims, begun),
    )


def _facts_of(line: msgspec.Struct | None) -> dict[str, object]:
    """Return the fields of a line that differ from the defaults of its kind."""
    if line is None:
        return {}
    values = structs.asdict(line)
    silent = {one.name for one in structs.fields(line) if values[one.name] == _default(one)}
    return {name: value for name, value in values.items() if name not in silent}


def _default(of: structs.FieldInfo) -> object:
    return of.default if of.default_factory is msgspec.NODEFAULT else of.default_factory()


def _verdict(
    verdict: Verdict, reason: str | None, claims: Sequence[ClaimResult], doubt: str | None
) -> tuple[Verdict, str | None]:
    """Return the verdict after the claims, with its reason.

    A doubt makes the trial invalid, unless a readable claim already failed.
    """
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
    """Return the phases of a trial without a judgement, with `to_s` None if open."""
    phases: dict[str, PhaseResult] = {}
    for line in its:
        if isinstance(line, lines.PhaseBegin):
            phases[line.name] = PhaseResult(name=line.name, from_s=line.from_s)
        elif isinstance(line, lines.PhaseEnd):
            phases[line.name] = PhaseResult(name=line.name, from_s=line.from_s, to_s=line.to_s)
    return tuple(phases.values())


def _proof(result: TrialResult, its: Sequence[object]) -> tuple[ProofNote, ...]:
    """Return the proofs of the judgement and of single lines, each once, by time."""
    noted = [ProofNote(step=line.step, witness=line.witness, at_s=line.at_s) for line in _of(lines.Proved, its)]
    return tuple(sorted(dict.fromkeys([*result.proof, *noted]), key=lambda one: one.at_s))


def _events(result: TrialResult, its: Sequence[object]) -> tuple[EventNote, ...]:
    """Return the events of the judgement and of single lines, each once, by time."""
    noted = [
        EventNote(at_s=line.at_s, source=line.source, what=line.what, service=line.service)
        for line in _of(lines.Event, its)
    ]
    return tuple(sorted(dict.fromkeys([*result.events, *noted]), key=lambda one: one.at_s))


def _replay(claims: Sequence[ClaimResult], begun: lines.RunBegin | None) -> str | None:
    """Return the command line that repeats this trial's experiment and its claims."""
    files = sorted({claim.nodeid.split("::")[0] for claim in claims if claim.nodeid})
    if not files or begun is None:
        return _replay_of(begun)
    # The run's own line always has the seed, with the prefix that its plugins allow.
    ours = "--llmchaos" if "--llmchaos-seed=" in (_replay_of(begun) or "") else "--chaos"
    options = {"seed": begun.seed, "runtime": begun.runtime, "backend": begun.backend}
    return shlex.join(["pytest", *files, *(f"{ours}-{name}={value}" for name, value in options.items() if value != "")])


def _replay_of(begun: lines.RunBegin | None) -> str | None:
    return begun.replay if begun is not None and isinstance(begun.replay, str) else None
