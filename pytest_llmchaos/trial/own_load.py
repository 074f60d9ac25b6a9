"""Results of a load outside a trial, whose test gives the verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import structs

from pytest_llmchaos.evidence import readiness_file
from pytest_llmchaos.evidence.samples_file import load as load_samples
from pytest_llmchaos.stats.windows import parts
from pytest_llmchaos.trial.agreement import require_evidence
from pytest_llmchaos.trial.attribution import events_of, readiness_events, require_heard, require_whole_records
from pytest_llmchaos.trial.comparison import require_truths
from pytest_llmchaos.trial.judge import await_last_push, parts_of, require_answers, require_every_sample
from pytest_llmchaos.trial.result import phase_of
from pytest_llmchaos.trial.unprovoked import unprovoked

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.evidence.trial_result import TrialResult
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.lab.live_load import RunningLoad


def judge_own_load(lab: Lab, record: Record, load: RunningLoad, injected: Injected) -> TrialResult:
    """Return the result of a load, after the same gates that a trial passes.

    Raises:
        ProvesNothing: The evidence does not pass a gate, as in `LoadNotHeld`,
            `NoData`, `TruthsDisagree` or `PartialScrape`.
    """
    about_load = load.require_held()
    samples = load_samples(record.directory / "samples.jsonl")
    counted_unix_s = await_last_push(lab, load)
    wanted = parts_of(record, samples)
    *seen, whole = parts(samples, wanted.values(), limits=load.limits)
    require_answers(whole)
    require_every_sample(samples, load)
    require_evidence(lab, record, whole, counted_unix_s, injected)
    require_truths(lab, record, samples, injected, counted_unix_s)
    begun, now = record.anchor_unix_s, time.time()
    audit = lab.remediator.audit(begun) or []
    fired = lab.prometheus.firing_spells(begun, now)
    require_whole_records(record, lab.runtime.event_gaps(begun, now), audit)
    events = lab.runtime.events(begun, now)
    require_heard(record, events, lab.runtime.states(), now)
    record.note_events(events_of(record, injected, events, audit, fired))
    readyz = readiness_file.load(record.directory)
    record.note_events(readiness_events(readyz, lab.subject.api))
    for finding in unprovoked(lab, record).findings:
        record.finding(finding)
    return structs.replace(record.seen(), load=about_load, readyz=readyz, phases=tuple(map(phase_of, wanted, seen)))
