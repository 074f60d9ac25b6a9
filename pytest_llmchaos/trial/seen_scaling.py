"""Reads what an autoscaler did in a trial: events, samples and its counters."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, NoData
from pytest_llmchaos.trial.scaling import SCRAPED_S, Scaling, acts_of, disagreement, spans_of, touched_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmchaos.evidence.samples_file import Samples
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.injector import Injected
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import RuntimeEvent
    from pytest_llmchaos.trial.attribution import Audit

SYNCS_COUNTER = "lab_autoscaler_syncs_total"
LASTING = frozenset({"start", "die", "pause", "unpause"})
ACTS_COUNTER = "lab_autoscaler_acts_total"
# The autoscaler starts before the load, which begins when the stack is ready for it.
STARTED_S = 60.0
DIRECTIONS = {"start": "up", "stop": "down"}


def scaling_of(lab: Lab, record: Record, injected: Injected, audit: Audit, samples: Samples) -> Scaling | None:
    """Return the autoscaler's acts in a trial, None without an autoscaler.

    Call it after the load has ended.

    Args:
        lab: The running stack.
        record: The trial's record.
        injected: The injected faults, with the instrument's own acts.
        audit: The remediator's audit log.
        samples: The clients' requests.
    """
    name = lab.subject.autoscaler
    if record.planned.autoscaler is None or name is None:
        return None
    ended_s = max(phase.to_s for phase in record.phases)
    replicas, ended_unix_s = lab.subject.scaled, record.unix_s(ended_s)
    # Acts before the load and after its end may be in its counters.
    near = lab.runtime.events(record.anchor_unix_s - STARTED_S, ended_unix_s + SCRAPED_S)
    events = [event for event in near if record.anchor_unix_s <= event.at_unix_s <= ended_unix_s]
    later = lab.runtime.events(record.anchor_unix_s, time.time())
    acts = acts_of(record, replicas, events, injected, audit)
    unknown: Inconclusive | None = None
    idle = _idle(lab, name, events, record.anchor_unix_s, ended_unix_s)
    if idle is not None:
        unknown = NoData(
            f"{idle}, so what it did not do proves nothing: see its log in the report's folder logs/, and let a fault on it end "
            "before the trial does"
        )
        record.finding(str(unknown))
    else:
        all_near = acts_of(record, replicas, near, injected, audit)
        edges = [one for one in all_near if not SCRAPED_S <= one.at_s <= ended_s - SCRAPED_S]
        try:
            counted = _counted(lab, record.anchor_unix_s, ended_unix_s)
        except Inconclusive as error:
            record.finding(f"the autoscaler's acts cannot be compared with its own counters: {error}")
        else:
            unknown = disagreement(acts, counted, edges=edges)
            if unknown is not None:
                record.finding(str(unknown))
    return Scaling(
        replicas=replicas,
        spans=spans_of(record, replicas, later, lab.runtime.states(), ended_s),
        acts=acts,
        ended_s=ended_s,
        samples=touched_by(acts, samples) if acts else (),
        unknown=unknown,
    )


def _idle(lab: Lab, name: str, events: Sequence[RuntimeEvent], from_unix_s: float, to_unix_s: float) -> str | None:
    """Return why the autoscaler cannot have acted, or None.

    It has to run at the end, and to have decided. One with a hold file, or in a dry
    run, decides nothing. Without its metrics that is unknown.
    """
    changes = [one.action for one in events if one.service == name and one.action in LASTING]
    if changes and changes[-1] in {"die", "pause"}:
        return f"{name} {'had ended' if changes[-1] == 'die' else 'was paused'} at the trial's end"
    query = f'sum(changes({SYNCS_COUNTER}{{result=~"acted|held|blind"}}[{math.ceil(to_unix_s - from_unix_s)}s]))'
    try:
        found = lab.prometheus.vector(query, to_unix_s, may_be_empty=True)
    except Inconclusive:
        return None
    return f"{name} decided nothing in the trial (hold file or dry run)" if found and not any(found.values()) else None


def _counted(lab: Lab, from_unix_s: float, to_unix_s: float) -> Mapping[str, float]:
    """Return the acts that the autoscaler itself counted, by direction.

    Raises:
        Inconclusive: Prometheus has no such counts, or the counter began anew.
    """
    first = _counts(lab, from_unix_s, may_be_empty=True)  # the autoscaler has only just started then
    last = _counts(lab, to_unix_s)
    found = {direction: count - first.get(direction, 0.0) for direction, count in last.items()}
    if any(count < 0 for count in found.values()):
        raise NoData(f"{ACTS_COUNTER} began anew")
    return found


def _counts(lab: Lab, at_unix_s: float, *, may_be_empty: bool = False) -> Mapping[str, float]:
    query = f'sum by (action) ({ACTS_COUNTER}{{result="done"}})'
    found = lab.prometheus.vector(query, at_unix_s, may_be_empty=may_be_empty)
    return {DIRECTIONS.get(dict(labels).get("action", ""), ""): value for labels, value in found.items()}
