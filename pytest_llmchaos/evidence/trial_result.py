"""The values of a trial and of a run: what the journal, `run.json` and the report share.

`run.json` is `RunResult`, field by field. Both JSON Schemas are generated from these
classes (`llmchaos generate`); a string below a field is its description there.
`added` names the fields that files of an earlier version may lack.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pytest_llmchaos.errors import Verdict
from pytest_llmchaos.model import Fidelity, Lifetime

SCHEMA: Final = "llmchaos-run/1"
TimeName = Literal["time_to_detect_s", "time_to_recover_s", "time_to_settle_s"]
ClaimOutcome = Literal["passed", "failed", "error", "skipped"]
Count = Annotated[int, Meta(ge=0, le=2**53)]  # the largest that every JSON reader keeps exactly


class ProofNote(msgspec.Struct, frozen=True, kw_only=True):
    """What an independent witness saw."""

    step: Literal["injected", "healed"]
    witness: str
    """What the witness saw."""
    at_s: float
    """Seconds since the start of the trial's load."""


class EventNote(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, on the trial's clock."""

    at_s: float
    """Seconds since the start of the trial's load."""
    source: str
    """runtime, prometheus, remediator or instrument."""
    what: str
    """What happened."""
    service: str | None = None
    """To which service."""


class Coincidence(msgspec.Struct, frozen=True, kw_only=True):
    """A signal of the system's own that does not count as the detection of the fault."""

    what: str
    """The alert or the remediator's rule."""
    after_s: float
    """Seconds from the start of the fault."""
    service: str = ""
    """Which service it was about; empty for none."""
    why: str = ""
    """Why it does not count."""


class PhaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of a trial and the requests that were due in it."""

    added: ClassVar[frozenset[str]] = frozenset({"outcomes", "ttft_p95_s", "e2e_p95_s", "e2e_p99_s"})

    name: str
    """steady, fault or recovery."""
    from_s: float
    """Seconds since the start of the trial's load."""
    to_s: float | None = None
    """Seconds since the start of the trial's load."""
    offered: Count | None = None
    """Requests that were due."""
    ok: Count | None = None
    """Requests that were answered in full."""
    outcomes: dict[str, Count] | None = None
    """Requests by what became of them."""
    ttft_p95_s: float | None = None
    """95th percentile of the time to first token from the due time; null where it has no finite value or too few samples."""
    e2e_p95_s: float | None = None
    """The same of the whole answer."""
    e2e_p99_s: float | None = None
    """99th percentile of the whole answer."""


class ReadySpan(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a trial in which the service's readiness path gave one answer, looked at once a second."""

    from_s: float
    """Seconds since the start of the trial's load."""
    to_s: float
    """Seconds since the start of the trial's load."""
    status: Annotated[int, Meta(ge=0, le=999)]
    """HTTP status; 0 where no answer came within a second. 200 to 299 means ready."""

    @property
    def ready(self) -> bool:
        return 200 <= self.status < 300


class SloVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One service level over a trial, by Prometheus."""

    added: ClassVar[frozenset[str]] = frozenset(
        {"burn_rate", "raw", "window_s", "estimated", "met", "bad_s", "second_truth"}
    )

    name: str
    """Name of the service level."""
    objective: float | None = None
    """Share of good events aimed at."""
    value: float | None = None
    """Share of good events in the window, by Prometheus."""
    query: str | None = None
    """The PromQL behind the value."""
    met: bool | None = None
    """Whether the value reached the objective. Null where the window had too few events to say so: fewer than
    1 / (1 - objective) can miss an objective and cannot meet it."""
    bad_s: float | None = None
    """Seconds of the offered load without a good answer, from the fault's start to the end of the window."""
    budget_spent: float | None = None
    """Share of the whole window's error budget that this trial cost, by the SLO's own rate of events in the steady phase."""
    burn_rate: float | None = None
    """How many times faster than allowed the budget was spent; 1 spends it exactly in the SLO's window."""
    clients_say: float | None = None
    """The same share from the clients' own samples."""
    second_truth: str | None = None
    """What of the clients' samples it is compared with over the whole trial: availability, ttft or e2e; none where Prometheus
    alone says it. Null in runs of an early version."""
    raw: dict[str, float | None] = {}
    """The values that Prometheus returned."""
    window_s: float | None = None
    """Seconds from the fault's start to the end of the window."""
    estimated: bool | UnsetType = UNSET
    """Whether the value was interpolated; runs of an early version have it."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the load generator kept its schedule."""

    added: ClassVar[frozenset[str]] = frozenset(
        {"offered_rps", "achieved_ratio", "lateness_p99_s", "generator_cpu", "reconnected"}
    )

    offered_rps: float | None = None
    """Requests a second by schedule."""
    achieved_ratio: float | None = None
    """Sent of scheduled."""
    lateness_p99_s: float | None = None
    """99th percentile of sent minus due."""
    generator_cpu: float | None = None
    """Share of one core."""
    reconnected: Count | None = None
    """Requests sent again on a fresh connection, because the server had just closed an idle one."""


class ReplicaResult(msgspec.Struct, frozen=True, kw_only=True):
    """One replica after the fault."""

    name: str
    answered: Count
    """Whole answers that it gave."""
    of: Count
    """Whole answers that all replicas gave."""
    trouble: tuple[str, ...] = ()
    """What speaks against it; empty where it serves again."""
    unknown: tuple[str, ...] = ()
    """What could not be read of it."""


class ClaimResult(msgspec.Struct, frozen=True, kw_only=True):
    """One test's outcome."""

    nodeid: str
    """pytest's name of the test."""
    outcome: ClaimOutcome
    message: str | None = None
    """Why it did not pass."""


class UndoResult(msgspec.Struct, frozen=True, kw_only=True):
    """An announced fault and whether the journal shows its undo done."""

    fault: str
    """Kind of the fault."""
    victim: str
    """Its victim."""
    op: str
    """The undoing operation."""
    undone: bool


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The start of the load on both clocks."""

    unix_s: float
    """Unix seconds."""
    monotonic_s: float
    """The machine's monotonic clock."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of clients in both arms, their difference and its interval.

    Null where so many requests failed that there is no finite value, or where the
    samples do not bound it.
    """

    fault: float | None
    """In the trial with the fault."""
    control: float | None
    """In the control arm."""
    value: float | None
    """fault minus control."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests were compared in each arm."""

    fault: Count
    control: Count


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What the fault did to clients against its control arm.

    The control arm is the same scenario, load, seed and repeat with the fault `none`,
    over the requests due from the fault's start to the trial's end.
    """

    control: str
    """The control arm's trial."""
    confidence: float
    """Of the intervals, which take requests as independent."""
    requests: Compared
    reason: str | None
    """Why nothing can be compared; null where it can."""
    availability: Measure | None = None
    ttft_p50_s: Measure | None = None
    """Median time to first token; a failed request is slower than every answer."""
    e2e_p50_s: Measure | None = None
    """Median time to the whole answer."""


class PlanNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial was to do."""

    added: ClassVar[frozenset[str]] = frozenset(
        {
            "load",
            "injections",
            "steady_s",
            "fault_s",
            "recovery_s",
            "repair_within_s",
            "settle_within_s",
            "stable_s",
        }
    )

    load: str | None = None
    injections: tuple[str, ...] = ()
    steady_s: float | None = None
    fault_s: float | None = None
    recovery_s: float | None = None
    """The deadline that counts: of the repair for a lasting fault, of settling for a passing one."""
    repair_within_s: float | None = None
    settle_within_s: float | None = None
    stable_s: float | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a trial before it begins."""

    scenario: str = "unknown"
    hypothesis: str | None = ""
    """The sentence that the claims could refute."""
    fault: str = "unknown"
    """What was done, such as `kill api`; `none` in a control arm."""
    target: str | None = None
    """What was asked for."""
    fidelity: Fidelity | None = None
    """How real the fault is; a claim may not exceed it."""
    lifetime: Lifetime | None = None
    """lasting: the system must repair itself. passing: it must survive it. none: no fault."""
    remediator: bool | None = True
    """Whether the remediator ran; false is a control arm."""
    repeat: Count | None = 0
    plan: PlanNote | None = None


class TrialResult(Planned, frozen=True, kw_only=True):
    """The one value of a trial: what was planned, done, measured and claimed."""

    added: ClassVar[frozenset[str]] = frozenset(
        {
            "time_to_settle_s",
            "recovery_resolution_s",
            "relapsed_s",
            "attempts_per_request",
            "coincident",
            "samples",
            "plan",
            "effect",
            "replicas",
            "readyz",
        }
    )

    trial: str
    """Unique in the run; also the directory under trials/."""
    verdict: Verdict
    """held: a claim held and none did otherwise. refuted: a claim is wrong. invalid: the trial was not performed as planned,
    or not judged, because a claim was skipped or never performed.
    inconclusive: the judge could not answer. heal_failed: a fault could not be undone.
    invalid and inconclusive prove nothing."""
    reason: str | None = None
    """Why the trial did not hold."""
    victim: str | None = None
    """What was hit."""
    time_to_detect_s: float | None = None
    """From the start of the fault to the first signal that the system itself raised."""
    detected_by: str | None = None
    """That signal. It began after the fault and before the instrument's revert, and is about a victim, about clients, or
    declared by the fault."""
    coincident: tuple[Coincidence, ...] = ()
    """Other signals of that time, none of which counts as detection."""
    time_to_recover_s: float | None = None
    """From the start of the fault until the victims took part again and clients were served for good, before the
    instrument's own revert."""
    time_to_settle_s: float | None = None
    """From the end of a passing fault until the service was good for good."""
    recovery_resolution_s: float | None = None
    """How much shorter the time to recover or to settle may really have been: the spacing of what saw it."""
    attempts_per_request: float | None = None
    """Requests that the service sent to its replicas per request taken, by its own counters over the whole trial."""
    relapsed_s: float | None = None
    """From the start of the fault until a service that had been good again was bad again."""
    repaired_by: str | None = None
    """Who repaired it, read from the runtime's events and the remediator's audit log."""
    anchor: Anchor | None = None
    """The start of the load on both clocks."""
    judged: bool = False
    """False where the run ended before this trial was judged."""
    samples: str | None = None
    """Path of the samples, relative to the run."""
    proof: tuple[ProofNote, ...] = ()
    phases: tuple[PhaseResult, ...] = ()
    slos: tuple[SloVerdict, ...] = ()
    claims: tuple[ClaimResult, ...] = ()
    load: LoadResult | None = None
    """How the load generator kept its schedule."""
    events: tuple[EventNote, ...] = ()
    replicas: tuple[ReplicaResult, ...] = ()
    """Whether each replica serves again after the fault; empty where the subject names none."""
    findings: tuple[str, ...] = ()
    """What the trial showed beside its verdict."""
    readyz: tuple[ReadySpan, ...] = ()
    """What the service's readiness path answered during the trial; empty where it was not asked."""
    undo: tuple[UndoResult, ...] = ()
    """Every announced fault with its undo and whether the journal shows it done."""
    healed: bool | None = None
    """Whether a witness saw that nothing of the fault is left; null where nobody looked."""
    replay: str | None = None
    """The command line that performs this experiment again."""
    effect: Effect | None = None
    """What the fault did to clients against its control arm. Null where the run has no such arm."""


class TimeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One time of one experiment over its trials."""

    scenario: str
    fault: str
    remediator: bool
    time: TimeName
    n: Annotated[int, Meta(ge=1)]
    """Trials in which it came."""
    never: Count
    """Trials that prove something and in which it never came."""
    mean_s: float
    median_s: float
    deviation_s: float | None
    """Sample standard deviation; null for one trial."""
    least_s: float
    most_s: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Trials by verdict."""

    refuted: Count = 0
    heal_failed: Count = 0
    invalid: Count = 0
    inconclusive: Count = 0
    held: Count = 0

    def by_verdict(self) -> dict[str, int]:
        """What needs a reader first comes first."""
        return msgspec.structs.asdict(self)


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """What could have been exercised."""

    added: ClassVar[frozenset[str]] = frozenset({"faults", "targets", "slos"})

    faults: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    slos: tuple[str, ...] = ()


class StackResult(msgspec.Struct, frozen=True, kw_only=True):
    """The images that ran, and how long the stack took to come up and down, in seconds."""

    added: ClassVar[frozenset[str]] = frozenset({"up_s", "down_s", "images"})

    up_s: float | None = None
    down_s: float | None = None
    images: dict[str, str] = {}


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a journal that could not be read."""

    journal: str
    """Name of the file."""
    line: int
    """Number of the line, from 1."""
    why: str
    """What was expected there."""
    kind: str | None = None
    """Kind of the line, where that is readable."""
    trial: str | None = None
    """Its trial, where that is readable."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of chaos experiments (llmchaos-run/1).

    What pytest-llmchaos writes to reports/<run>/run.json. Fields may be added within
    version 1, so readers pass over what they do not know; none is removed or changes
    its meaning. A null is a value that nobody measured or that has no finite value,
    such as a p95 where more than 5 % of the requests failed. All times of a trial are
    seconds since the start of its load, on one monotonic clock; its anchor puts that
    instant on the wall clock.
    """

    added: ClassVar[frozenset[str]] = frozenset({"catalogue", "unreadable_lines", "unreadable", "stack", "times"})

    schema: Literal["llmchaos-run/1"] = SCHEMA
    run: str
    """Name of the run: start in local time, then the seed."""
    seed: int | None
    replay: str | None
    """The command line that performs the run again."""
    runtime: str | None
    """compose or local."""
    backend: str | None
    """What answered: ollama, llamacpp, or sim, the simulated engine."""
    started_unix_s: float | None
    """Wall clock of the first journal line."""
    ended_unix_s: float | None
    """Wall clock of the last journal line."""
    exit_status: int | None
    """pytest's exit status; null where the run, or a worker of it, did not end by itself."""
    environment: dict[str, object]
    """Versions, image digests, kernel, cores, commit: as the run recorded them."""
    stack: StackResult = StackResult()
    """The images that ran, and how long the stack took to come up and down, in seconds."""
    schedule: tuple[dict[str, object], ...] = ()
    """What was decided from the seed before anything started; the same seed gives the same bytes."""
    catalogue: Catalogue = Catalogue()
    """What could have been exercised."""
    counts: Counts
    trials: tuple[TrialResult, ...]
    times: tuple[TimeResult, ...] = ()
    """Times of each experiment over its trials (MTTD is the mean of time_to_detect_s, MTTR that of time_to_recover_s).
    Trials that prove nothing are not counted."""
    unreadable_lines: Count = 0
    """Journal lines that could not be read: what a killed process leaves half-written."""
    unreadable: tuple[Unreadable, ...] = ()
    """These lines, with the reason of each."""


def read_run(path: Path) -> RunResult:
    """The run in a `run.json`. Raises msgspec.ValidationError or ValueError for another file."""
    return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), RunResult)
