"""Values of a trial and a run, shared by journal, `run.json` and report.

`run.json` has the fields of `RunResult`. `llmchaos generate` makes both JSON Schemas
from these classes, with the string below a field as its description. `added` names the
fields that files of an earlier version may lack.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pytest_llmchaos.errors import Verdict
from pytest_llmchaos.evidence.tool_calls import ToolCall
from pytest_llmchaos.model import Fidelity, Lifetime

SCHEMA: Final = "llmchaos-run/1"
TimeName = Literal["time_to_detect_s", "time_to_recover_s", "time_to_settle_s"]
DetectionSource = Literal["run_prometheus", "user_prometheus", "stack_prometheus", "remediator"]
SOURCES: Final[tuple[DetectionSource, ...]] = get_args(DetectionSource)
ClaimOutcome = Literal["passed", "failed", "error", "skipped"]
Count = Annotated[int, Meta(ge=0, le=2**53)]  # the largest integer that every JSON reader keeps exact


class ProofNote(msgspec.Struct, frozen=True, kw_only=True):
    """An independent witness's observation of a fault or of its end."""

    step: Literal["injected", "healed"]
    witness: str
    """What the witness saw."""
    at_s: float
    """Seconds since the start of the trial's load."""


class EventNote(msgspec.Struct, frozen=True, kw_only=True):
    """An event on the trial's clock."""

    at_s: float
    """Seconds since the start of the trial's load."""
    source: str
    """runtime, prometheus, remediator or instrument."""
    what: str
    """What happened."""
    service: str | None = None
    """The service that it happened to."""


class Coincidence(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that does not count as the detection of the fault."""

    what: str
    """The alert or the remediator's rule."""
    after_s: float
    """Seconds from the start of the fault."""
    service: str = ""
    """The service that it is about. Empty if it is about no service."""
    why: str = ""
    """Reason why it does not count."""


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
    """Requests by outcome."""
    ttft_p95_s: float | None = None
    """95th percentile of the seconds from the due time to the first token. Null if it
    is not finite or there are too few samples."""
    e2e_p95_s: float | None = None
    """95th percentile of the seconds from the due time to the whole answer."""
    e2e_p99_s: float | None = None
    """99th percentile of the seconds from the due time to the whole answer."""


class ReadySpan(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which the service's readiness path gave one answer."""

    from_s: float
    """Seconds since the start of the trial's load."""
    to_s: float
    """Seconds since the start of the trial's load."""
    status: Annotated[int, Meta(ge=0, le=999)]
    """HTTP status, polled each second. 0 without an answer, 200-299 if ready."""

    @property
    def ready(self) -> bool:
        """True if the status is from 200 to 299."""
        return 200 <= self.status < 300


class ShareInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A share of requests within a latency bound that is no edge of the histogram."""

    low: float
    """Share of the requests within the lower edge, which are within the bound."""
    high: float
    """Share of the requests within the upper edge. All others are not within the
    bound."""
    bound_s: float
    """The SLO's latency bound in seconds."""
    lower_edge_s: float
    """Seconds of the next lower edge. 0 if the bound is below the first one."""
    upper_edge_s: float | None
    """Seconds of the next higher edge. Null if the bound is above the last one."""


class SloVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One SLO over a trial, by Prometheus."""

    added: ClassVar[frozenset[str]] = frozenset(
        {"burn_rate", "raw", "window_s", "estimated", "met", "bad_s", "second_truth", "interval"}
    )

    name: str
    """Name of the SLO."""
    objective: float | None = None
    """Objective, as a share of good events."""
    value: float | None = None
    """Share of good events in the window, by Prometheus. Its least value if there is
    an interval. The seconds, the budget and the burn rate are then the most."""
    query: str | None = None
    """PromQL query of the value."""
    met: bool | None = None
    """True if the value reached the objective. Null if the window has too few events:
    fewer than 1 / (1 - objective) can miss an objective but cannot meet it. Null as
    well if the objective lies in the interval."""
    bad_s: float | None = None
    """Seconds of load without a good answer, from the fault's start to the end of the
    window."""
    budget_spent: float | None = None
    """Share of the SLO window's error budget that this trial spent, by the rate of
    events in the steady phase."""
    burn_rate: float | None = None
    """Error ratio divided by error budget. 1 spends the budget in the SLO's window."""
    clients_say: float | None = None
    """Share of good events by the clients' samples."""
    second_truth: str | None = None
    """Measure of the clients' samples that it is compared with over the whole trial:
    availability, ttft or e2e, or none without such a measure. Null in runs of an early
    version."""
    raw: dict[str, float | None] = {}
    """Counter values that Prometheus returned."""
    window_s: float | None = None
    """Seconds from the fault's start to the end of the window."""
    interval: ShareInterval | None = None
    """The share, if the latency bound is no edge of the histogram. Null if the value is
    exact."""
    estimated: bool | UnsetType = UNSET
    """True if the value was interpolated. Only runs of an early version have it."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Adherence of the load generator to its schedule."""

    added: ClassVar[frozenset[str]] = frozenset(
        {"offered_rps", "achieved_ratio", "lateness_p99_s", "generator_cpu", "reconnected"}
    )

    offered_rps: float | None = None
    """Scheduled requests per second."""
    achieved_ratio: float | None = None
    """Sent requests divided by scheduled ones."""
    lateness_p99_s: float | None = None
    """99th percentile of the seconds from due to sent."""
    generator_cpu: float | None = None
    """CPU use of the load generator, as a share of one core."""
    reconnected: Count | None = None
    """Requests sent again on a new connection, because the server had just closed an
    idle one."""


class ReplicaResult(msgspec.Struct, frozen=True, kw_only=True):
    """One replica after the fault."""

    name: str
    answered: Count
    """Complete answers of this replica."""
    of: Count
    """Complete answers of all replicas."""
    trouble: tuple[str, ...] = ()
    """Reasons why it does not serve. Empty if it serves again."""
    unknown: tuple[str, ...] = ()
    """Checks that could not be made."""


class ArmEffect(msgspec.Struct, frozen=True, kw_only=True):
    """An effect between two arms that a claim read: the first arm minus the second.

    A null is infinite, because too many requests failed.
    """

    measure: str
    """Window and value, such as `during_fault.availability`."""
    first: str
    """Name of the first arm."""
    second: str
    """Name of the second arm."""
    is_ratio: bool
    """True for the first divided by the second."""
    first_value: float | None
    second_value: float | None
    value: float | None
    """Difference or ratio."""
    low: float | None
    """Lower end of the 95 % interval, which treats requests as independent."""
    high: float | None
    """Upper end of the interval."""
    first_requests: Count
    """Requests of the first arm that it is about."""
    second_requests: Count


class KnownNote(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the list of known refutations."""

    issue: str
    """Link to the issue about the refutation."""
    why: str
    """Reason, in one line."""


class ClaimResult(msgspec.Struct, frozen=True, kw_only=True):
    """One test's outcome."""

    added: ClassVar[frozenset[str]] = frozenset({"objectives", "effects", "known"})

    nodeid: str
    """pytest's id of the test."""
    outcome: ClaimOutcome
    message: str | None = None
    """Reason why it did not pass."""
    objectives: tuple[str, ...] | None = None
    """Names of the SLOs whose results it read. Null if that is unknown."""
    effects: tuple[ArmEffect, ...] = ()
    """Effects between arms that it read."""
    known: KnownNote | None = None
    """The known refutation that it met (`failed`), or that has vanished (`passed`)."""


class CountsNote(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of what a fault did, by the engine or agent that performs it."""

    counters: dict[str, float]
    """Counts by name, such as `met` and `hit` of a fault on the wire."""
    unit: str = ""
    """What `met` and `hit` count: requests or connections. Empty without them."""
    first_hit_after_s: float | None = None
    """Seconds from the fault's start to its first hit. Null if that is unknown."""


class UndoResult(msgspec.Struct, frozen=True, kw_only=True):
    """An announced fault, what it did, and its revert, as the journal shows them."""

    added: ClassVar[frozenset[str]] = frozenset({"strength", "counts"})

    fault: str
    """Kind of the fault."""
    victim: str
    """Victim of the fault."""
    op: str
    """Operation that reverts it."""
    undone: bool
    """True if the revert succeeded."""
    strength: dict[str, object] = {}
    """Options of the fault by name."""
    counts: CountsNote | None = None
    """The last counts. Null if no program counts what this fault does."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The load's start on the wall clock and on the monotonic clock."""

    unix_s: float
    """Unix seconds."""
    monotonic_s: float
    """Seconds on the machine's monotonic clock."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of clients in both arms, their difference and its interval.

    Null if so many requests failed that it is not finite, or if the samples do not
    bound it.
    """

    fault: float | None
    """Value in the trial with the fault."""
    control: float | None
    """Value in the control arm."""
    value: float | None
    """Difference, fault minus control."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Number of compared requests in each arm."""

    fault: Count
    control: Count


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The fault's effect on clients, compared with its control arm.

    The control arm has the same scenario, load, seed and repeat, and the fault `none`.
    Compared are the requests due from the fault's start to the trial's end.
    """

    control: str
    """The control arm's trial."""
    confidence: float
    """Confidence of the intervals, which treat requests as independent."""
    requests: Compared
    reason: str | None
    """Reason why the arms cannot be compared. Null if they can."""
    availability: Measure | None = None
    ttft_p50_s: Measure | None = None
    """Median seconds to the first token. A failed request is slower than every
    answer."""
    e2e_p50_s: Measure | None = None
    """Median seconds to the whole answer."""


class PlanNote(msgspec.Struct, frozen=True, kw_only=True):
    """The planned load, faults and phases of a trial, in seconds."""

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
    """Deadline of the repair for a lasting fault, of settling for a passing one."""
    repair_within_s: float | None = None
    settle_within_s: float | None = None
    stable_s: float | None = None


class TaskNote(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an agent, as its caller and the effect ledger saw it.

    Times are seconds since the start of the trial's load.
    """

    id: str
    status: str
    """How it ended, such as `completed` or `lost`."""
    plan: tuple[str, ...]
    """Its steps, such as `refund 17`."""
    due_s: float
    accepted_s: float | None
    """Second of the agent's first answer that it has the task."""
    ended_s: float | None
    """Second at which the caller saw the final state."""
    cancelled_s: float | None
    """Second at which the agent confirmed a cancellation."""
    error: str | None
    """The agent's or the caller's error."""
    troubles: tuple[str, ...] = ()
    """What is wrong with it. Empty for a task that is shown because it was slow."""
    calls: tuple[ToolCall, ...] = ()
    """Its first calls in the ledger, by time."""
    more_calls: Count = 0
    """Further calls of it, which are in `calls.jsonl`."""


class KillNote(msgspec.Struct, frozen=True, kw_only=True):
    """A kill of a service during tasks."""

    service: str
    at_s: float
    """Seconds since the start of the trial's load."""


class TasksResult(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's tasks in one trial. A null is a value that the evidence lacks."""

    offered: Count
    """Tasks that were due."""
    statuses: dict[str, Count]
    """Tasks by how they ended."""
    duplicate_effects: Count | None = None
    """Effects beyond those of the plans."""
    missing_effects: Count | None = None
    """Effects of completed tasks that the ledger lacks."""
    effects_after_cancel: Count | None = None
    """Effects of calls that began after the agent confirmed a cancellation."""
    false_success: Count | None = None
    """Tasks reported completed with an effect of their plan missing."""
    false_failure: Count | None = None
    """Tasks reported failed, lost or stuck with all effects of their plan."""
    calls_after_budget: Count | None = None
    """Tool calls of tasks after they were reported failed for their budget."""
    model_calls_repeated: Count | None = None
    """Model calls beyond those of the plans."""
    tool_amplification: float | None = None
    """Calls that the tool server received per planned call."""
    retry_after_honoured: bool | None = None
    """False if a call came again before the time that an answer named."""
    latency_p50_s: float | None = None
    """Median seconds from the due time to the completion. Null if too many tasks were
    not completed, or if there are too few."""
    latency_p95_s: float | None = None
    """95th percentile of the same."""
    resume_max_s: float | None = None
    """Most seconds from a kill to the first progress of a task that was open then. Null
    if a task had none."""
    tokens_max: float | None = None
    """Most tokens of a task as the agent reported them."""
    no_ledger: str | None = None
    """Reason why the effects are unknown. Null if the ledger was read."""
    kills: tuple[KillNote, ...] = ()
    worst: tuple[TaskNote, ...] = ()
    """Tasks with trouble, the most harmful first, then the slowest."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a trial that is known before it begins."""

    scenario: str = "unknown"
    hypothesis: str | None = ""
    """Sentence that the claims can refute."""
    fault: str = "unknown"
    """The fault, such as `kill api`, or `none` in a control arm."""
    target: str | None = None
    """The requested target."""
    fidelity: Fidelity | None = None
    """Fidelity of the fault, which a claim may not exceed."""
    lifetime: Lifetime | None = None
    """lasting: the system must repair itself. passing: it must survive it. none: no
    fault."""
    remediator: bool | None = True
    """True if the remediator ran. False in a control arm for it."""
    repeat: Count | None = 0
    plan: PlanNote | None = None
    arm: str | None = None
    """Name of the arm: one of several settings of the system that are compared under
    the same load and faults. Null in an experiment without arms."""
    environment: dict[str, dict[str, str]] = {}
    """Further environment variables of services in that arm, by service."""
    autoscaler: str | None = None
    """Policy of the autoscaler. Null if it changed nothing."""


class ScaleNote(msgspec.Struct, frozen=True, kw_only=True):
    """A start or a stop of a replica by the autoscaler."""

    at_s: float
    """Seconds since the start of the trial's load."""
    replica: str
    direction: Literal["up", "down"]


class ScalingResult(msgspec.Struct, frozen=True, kw_only=True):
    """An autoscaler's acts in one trial. A null is a value that the evidence lacks."""

    replica_hours: float
    """Hours that its replicas ran, summed."""
    max_replicas: Count
    """Most replicas that ran at once."""
    flaps: Count | None = None
    """Acts that reversed an act of the 30 s before."""
    cut_by_scale_down: Count | None = None
    """Streams that ended broken when a scale-down stopped their replica."""
    acts: tuple[ScaleNote, ...] = ()


class TrialResult(Planned, frozen=True, kw_only=True):
    """A trial's plan, evidence, results and claims."""

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
            "detection_source",
            "arm",
            "environment",
            "tasks",
            "autoscaler",
            "scaling",
        }
    )

    trial: str
    """Unique in the run. Also the name of the folder under trials/."""
    verdict: Verdict
    """held: all claims passed, and there was at least one. refuted: a claim is false.
    invalid: the trial was not performed as planned, or a claim was skipped or did not
    run. inconclusive: the evidence does not give an answer. heal_failed: a fault could
    not be reverted. invalid and inconclusive prove nothing."""
    reason: str | None = None
    """Reason why the trial did not hold."""
    victim: str | None = None
    """Services that were hit."""
    time_to_detect_s: float | None = None
    """Seconds from the fault's start to the first signal that the system raised."""
    detected_by: str | None = None
    """That signal. It began after the fault and before the instrument's revert. It is
    about a victim, about clients, or declared by the fault."""
    detection_source: DetectionSource | None = None
    """Program that raised that signal: the run's own Prometheus, the user's Prometheus
    (`llmchaos_prometheus`), the stack's only Prometheus, or the remediator."""
    coincident: tuple[Coincidence, ...] = ()
    """Other signals of that time, which do not count as detection."""
    time_to_recover_s: float | None = None
    """Seconds from the fault's start until the victims took part again and clients were
    served without a relapse, before the instrument's own revert."""
    time_to_settle_s: float | None = None
    """Seconds from the end of a passing fault until clients were served without a
    relapse."""
    recovery_resolution_s: float | None = None
    """Seconds by which the time to recover or to settle may have been shorter: the
    interval of the watcher that saw it."""
    attempts_per_request: float | None = None
    """Requests that the service sent to its replicas per accepted request, by its own
    counters over the whole trial."""
    relapsed_s: float | None = None
    """Seconds from the fault's start to the first relapse of a recovered service."""
    repaired_by: str | None = None
    """Repairer of the victims, by the runtime's events and the remediator's audit
    log."""
    anchor: Anchor | None = None
    """The load's start on the wall clock and on the monotonic clock."""
    judged: bool = False
    """False if the run ended before this trial was judged."""
    samples: str | None = None
    """Path of the samples, relative to the run's folder."""
    proof: tuple[ProofNote, ...] = ()
    phases: tuple[PhaseResult, ...] = ()
    slos: tuple[SloVerdict, ...] = ()
    claims: tuple[ClaimResult, ...] = ()
    load: LoadResult | None = None
    """Adherence of the load generator to its schedule."""
    tasks: TasksResult | None = None
    """An agent's tasks. Null for a load without tasks."""
    scaling: ScalingResult | None = None
    """The autoscaler's acts. Null in a trial without one."""
    events: tuple[EventNote, ...] = ()
    replicas: tuple[ReplicaResult, ...] = ()
    """State of each replica after the fault. Empty if the subject names no replicas."""
    findings: tuple[str, ...] = ()
    """Observations that no claim tests."""
    readyz: tuple[ReadySpan, ...] = ()
    """Answers of the service's readiness path. Empty if it was not polled."""
    undo: tuple[UndoResult, ...] = ()
    """Every announced fault with its revert."""
    healed: bool | None = None
    """True if a witness saw that no fault is left in place. Null if it was not
    checked."""
    replay: str | None = None
    """Command line that performs this experiment again."""
    effect: Effect | None = None
    """The fault's effect on clients, compared with its control arm. Null if the run
    lacks that arm."""


class TimeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of time of one experiment over its trials, in seconds."""

    added: ClassVar[frozenset[str]] = frozenset({"arm"})

    scenario: str
    fault: str
    remediator: bool
    time: TimeName
    n: Annotated[int, Meta(ge=1)]
    """Trials that have this time."""
    never: Count
    """Trials without this time. Invalid and inconclusive trials are not counted."""
    mean_s: float
    median_s: float
    deviation_s: float | None
    """Sample standard deviation. Null for one trial."""
    least_s: float
    most_s: float
    arm: str | None = None
    """Name of the arm. Null in an experiment without arms."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Trials by verdict."""

    refuted: Count = 0
    heal_failed: Count = 0
    invalid: Count = 0
    inconclusive: Count = 0
    held: Count = 0

    def by_verdict(self) -> dict[str, int]:
        """Return the counts, most urgent verdict first."""
        return msgspec.structs.asdict(self)


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, targets and SLOs that the run could have exercised."""

    added: ClassVar[frozenset[str]] = frozenset({"faults", "targets", "slos"})

    faults: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    slos: tuple[str, ...] = ()


class StackResult(msgspec.Struct, frozen=True, kw_only=True):
    """Images of the stack, and the seconds that it took to start and stop."""

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
    """Reason why it cannot be read."""
    kind: str | None = None
    """Kind of the line, if readable."""
    trial: str | None = None
    """Trial of the line, if readable."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of chaos experiments (llmchaos-run/1).

    pytest-llmchaos writes it to reports/<run>/run.json. Version 1 may gain fields, so
    readers must ignore unknown ones. No field is removed or changes its meaning. A null
    is a value that was not measured or is not finite, such as a p95 if more than 5 % of
    the requests failed. All times of a trial are seconds since the start of its load,
    on one monotonic clock. The trial's anchor gives that instant on the wall clock.
    """

    added: ClassVar[frozenset[str]] = frozenset({"catalogue", "unreadable_lines", "unreadable", "stack", "times"})

    schema: Literal["llmchaos-run/1"] = SCHEMA
    run: str
    """Name of the run: its start in local time and its seed."""
    seed: int | None
    replay: str | None
    """Command line that performs the run again."""
    runtime: str | None
    """compose or local."""
    backend: str | None
    """Inference engine: ollama, llamacpp, or sim for the simulated one."""
    started_unix_s: float | None
    """Wall clock of the first journal line."""
    ended_unix_s: float | None
    """Wall clock of the last journal line."""
    exit_status: int | None
    """pytest's exit status. Null if the run or one of its workers was killed."""
    environment: dict[str, object]
    """Versions, image digests, kernel, cores and commit."""
    stack: StackResult = StackResult()
    """Images of the stack, and the seconds that it took to start and stop."""
    schedule: tuple[dict[str, object], ...] = ()
    """Decisions from the seed before the run started. The same seed gives the same
    bytes."""
    catalogue: Catalogue = Catalogue()
    """Faults, targets and SLOs that the run could have exercised."""
    counts: Counts
    trials: tuple[TrialResult, ...]
    times: tuple[TimeResult, ...] = ()
    """Times of each experiment over its trials. MTTD is the mean of time_to_detect_s,
    MTTR that of time_to_recover_s. Invalid and inconclusive trials are not counted."""
    unreadable_lines: Count = 0
    """Number of journal lines that could not be read, such as one cut off by a kill."""
    unreadable: tuple[Unreadable, ...] = ()
    """These lines, with the reason for each."""


def read_run(path: Path) -> RunResult:
    """Return the run in a `run.json`.

    Raises:
        ValueError: The file is not JSON, or lacks a field (`msgspec.ValidationError`).
    """
    return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), RunResult)
