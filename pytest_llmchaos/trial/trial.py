"""The value that claims read: one performed and judged experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, get_args

from pytest_llmchaos.errors import BadScenario, Inconclusive, InvalidExperiment, NoData, NotDetected, NotRecovered
from pytest_llmchaos.evidence.trial_result import SOURCES, DetectionSource
from pytest_llmchaos.stats.bounded import BoundedFloat, NoClaim, Scale, Seconds
from pytest_llmchaos.stats.names import Counts, Entries, Known, Name, Names
from pytest_llmchaos.trial import signals as own_signals
from pytest_llmchaos.trial.signals import Incident, Signal, SignalKind

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.trial_result import Coincidence, EventNote, LoadResult, ReadySpan
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.trial.recovery import Recovery
    from pytest_llmchaos.trial.replicas import Replicas
    from pytest_llmchaos.trial.scaling import Scaling
    from pytest_llmchaos.trial.slo_result import SloResult
    from pytest_llmchaos.trial.tasks import Tasks


# Windows around the fault. They exist alongside the recorded phases and "whole".
FAULT_WINDOWS = ("before", "during", "after")
# Readiness is polled every second, and a poll without an answer takes a second.
READY_LOOKS_S = 2.0
# An SLO among the names of values that a claim read.
OBJECTIVE = "objective {}"
Repairer = Literal["remediator", "runtime", "other", "instrument", "itself", "unknown", "mixed"]
Noted = TypeVar("Noted", "Action", Incident)
REPAIRERS = Known("repairer", get_args(Repairer))
_SOURCES = Known("source of a detection", SOURCES)


@dataclass(frozen=True, kw_only=True)
class Action:
    """One finished act of the remediator.

    Attributes:
        at_s: Seconds from the load's start to the act's start.
        action: The act, such as "restart".
        service: The service that the remediator acted on.
        rule: The rule that caused the act.
        succeeded: True if the remediator reported success.
    """

    at_s: float
    action: str
    service: str
    rule: str
    succeeded: bool


@dataclass(frozen=True, kw_only=True)
class Trial(NoClaim):
    """One performed and judged experiment, as its claims read it.

    All times are seconds. A claim that names a service, alert, rule, outcome or
    repairer that does not exist raises `BadScenario`, so a misspelt name cannot pass.

    Attributes:
        name: The trial's id in the journal and the report.
        plan: The planned load, faults and phases.
        windows: The clients' requests by window. Names are those of the phases,
            "before", "during", "after" and "whole".
        slos: Result of each SLO. Claims use `slo()`.
        slo_errors: Reason for each SLO that Prometheus could not give.
        detect_s: Seconds from the fault's start to its detection, or None. Claims use
            `time_to_detect_s`.
        detected_by: The signal that detected the fault, such as "alert ServiceDown".
            None if no signal did.
        detection_source: Program that raised it: "run_prometheus" (the one that a run
            adds to the user's stack), "user_prometheus" (`llmchaos_prometheus`),
            "stack_prometheus" (the only one, as in the lab) or "remediator".
        coincident: Signals after the fault's start that the fault does not explain.
        recover: Recovery from a lasting fault. Claims use `time_to_recover_s`.
        settle: Recovery after a passing fault. Claims use `time_to_settle_s`.
        repaired_by: What repaired the victims: "remediator" (by its audit log),
            "runtime" (by a restart policy), "other" (a program that keeps no such log),
            "instrument" (our own revert), "itself" (a forced restart), "unknown", or
            "mixed" if the victims differ. None if no victim needed a repair.
        victims: Services that the fault hit.
        fired: Names of the alerts that fired. Claims use `alerts`.
        acted: Acts of the remediator, or the reason why they are unknown. Claims use
            `actions`.
        noticed: Incidents of the remediator, or the reason why they are unknown. Claims
            use `incidents`.
        restarts: Number of restarts of each service, without those by our own revert.
        findings: Observations that no claim tests, one sentence each.
        events: All events of the trial, in order.
        load: Requests that were scheduled, sent and finished.
        readyz: Answers of the service's readiness path, as spans of one status.
        unserved_s: Starts of the seconds in which requests were due and none got an
            answer, from the load's start.
        replicas_after: State of the replicas after the fault. Claims use `replicas`.
        signals: Alerts and remediator rules after the fault's start, in order.
        could_not_fire: Reason why alerts could not have fired, or None.
        blind: Reason why Prometheus saw nothing for a while, as after a fault on it, or
            None.
        known_alerts: Names of all alerts in Prometheus.
        known_rules: Names of all rules of the remediator.
        services: Names of all services of the stack.
        attempts: Attempts per request, or the reason why they are unknown. Claims use
            `attempts_per_request`.
        agent_tasks: Tasks of an agent, None for a load without tasks. Claims use
            `tasks`.
        scaling: Acts of the autoscaler and running times of its replicas, None without
            one. Claims use `replica_hours`, `max_replicas`, `flaps` and
            `cut_by_scale_down`.
    """

    how_to_claim: ClassVar[str] = "such as trial.time_to_recover_s <= 20"

    name: str
    plan: TrialPlan
    windows: Mapping[str, Window]
    slos: Mapping[str, SloResult]
    slo_errors: Mapping[str, Inconclusive]
    detect_s: float | None
    detected_by: str | None
    coincident: tuple[Coincidence, ...]
    recover: Recovery
    settle: Recovery
    repaired_by: Repairer | None
    victims: tuple[str, ...]
    fired: tuple[str, ...]
    acted: tuple[Action, ...] | Inconclusive
    noticed: tuple[Incident, ...] | Inconclusive
    restarts: Mapping[str, int]
    findings: tuple[str, ...]
    events: tuple[EventNote, ...]
    load: LoadResult
    detection_source: DetectionSource | None = None
    readyz: tuple[ReadySpan, ...] = ()
    unserved_s: tuple[float, ...] = ()
    replicas_after: Replicas | None = None
    signals: tuple[Signal, ...] = ()
    could_not_fire: Inconclusive | None = None
    blind: Inconclusive | None = None
    known_alerts: tuple[str, ...] = ()
    known_rules: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    attempts: float | Inconclusive | None = None
    agent_tasks: Tasks | None = None
    scaling: Scaling | None = None
    _read: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _known_services: Known = field(init=False, repr=False, compare=False)

    # To a type checker, a class with this method has every name.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattribute__(self, name: str) -> object:
            """Record the name of each value that is read."""
            __tracebackhide__ = True  # pytest then shows the claim instead
            value = super().__getattribute__(name)
            if name[0] != "_" and name != "name" and not callable(getattr(type(self), name, None)):
                self._read.add(name)
                if name == "slos":
                    self._read.update(map(OBJECTIVE.format, value))
            return value

    def note_reads(self) -> set[str]:
        """Return a new set that collects the names of the values read from now on.

        Values that a method reads are in it too, such as `plan`.
        """
        read: set[str] = set()
        object.__setattr__(self, "_read", read)
        return read

    def __post_init__(self) -> None:
        services = Known("service", {*self.services, *self.victims, *self.restarts} if self.services else ())
        about = _with(services, (one.service for one in self.signals))
        of_kind = {
            kind: _with(Known(kind, known), (one.name for one in self.signals if one.kind == kind))
            for kind, known in (("alert", self.known_alerts), ("rule", self.known_rules))
        }
        signals = {f"alert {name}" for name in self.known_alerts} | {f"remediator rule {n}" for n in self.known_rules}
        named: dict[str, object] = {
            "_known_services": services,
            "restarts": Counts(self.restarts, services, lambda _: 0),
            "victims": Names(self.victims, services),
            "signals": tuple(
                replace(
                    one,
                    service=Name(one.service, about),
                    name=Name(one.name, of_kind[one.kind]),
                    after_s=Seconds(one.after_s, blind=self.blind if one.kind == "alert" else None),
                )
                for one in self.signals
            ),
        }
        if self.repaired_by is not None:
            named["repaired_by"] = Name(self.repaired_by, REPAIRERS)
        if self.detection_source is not None:
            named["detection_source"] = Name(self.detection_source, _SOURCES)
        if self.detected_by is not None:
            is_known = self.known_alerts and self.known_rules
            named["detected_by"] = Name(
                self.detected_by, Known("signal", {*signals, self.detected_by} if is_known else ())
            )
        for name, value in named.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        plan: TrialPlan = vars(self)["plan"]  # printing a trial is not reading a value
        return f"<trial {self.name}: {plan.scenario}, {plan.fault}{f', arm {plan.arm}' if plan.arm else ''}>"

    @property
    def is_control(self) -> bool:
        """True if this trial is the control arm, which has no fault."""
        return self.plan.is_control

    @property
    def arm(self) -> str:
        """Name of the arm of `experiment(arms=...)`, empty without arms."""
        return self.plan.arm

    @property
    def time_to_detect_s(self) -> Seconds:
        """Seconds from the fault's start to the first signal that the fault explains.

        Such a signal began before our revert. It is about a victim, about clients, or
        declared by the fault. All other signals are in `coincident`.

        If Prometheus saw nothing for a while, an alert may have fired earlier. Then
        `<= 5` can hold, and a bound that an earlier time would break is inconclusive.

        Raises:
            NotDetected: The system raised no such signal.
            Inconclusive: Prometheus saw nothing for a while, and no signal was seen, or
                an earlier time would break the bound.
        """
        if self.detect_s is None:
            if self.blind is not None:
                raise self.blind
            others = "; ".join(
                f"{one.what} after {one.after_s:g} s does not count: {one.why}" for one in self.coincident
            )
            raise NotDetected(
                f"no alert fired and no remediator noticed anything after {self.plan.fault}"
                + (f" ({others})" if others else "")
            )
        return Seconds(self.detect_s, blind=self.blind)

    @property
    def alerts(self) -> tuple[str, ...]:
        """Names of the alerts that fired after the fault's start.

        Raises:
            Inconclusive: No alert fired, and at least one could not have fired. A claim
                that one is absent raises it too in such a trial. A claim that one fired
                can hold.
        """
        if self.could_not_fire is not None and not self.fired:
            raise self.could_not_fire
        known = Known("alert", {*self.known_alerts, *self.fired} if self.known_alerts else ())
        return Names(self.fired, known, self.could_not_fire)

    @property
    def actions(self) -> tuple[Action, ...]:
        """Acts of the remediator in the order of their start.

        Raises:
            Inconclusive: There are no acts, and the remediator could not have acted.
        """
        if isinstance(self.acted, Inconclusive):
            raise self.acted
        return Entries(self._with_names(self.acted), "any(act.action == {} for act in trial.actions)")

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """Incidents of the remediator in the order of their start.

        Raises:
            Inconclusive: An incident is open or there are no incidents, and the
                remediator could not have written to its audit log.
        """
        if isinstance(self.noticed, Inconclusive):
            raise self.noticed
        return Entries(self._with_names(self.noticed), "any(one.service == {} for one in trial.incidents)")

    def _with_names(self, noted: tuple[Noted, ...]) -> tuple[Noted, ...]:
        """Return them with services and rules that raise on an unknown name."""
        services = _with(self._known_services, (one.service for one in noted))
        rules = _with(Known("rule", self.known_rules), (one.rule for one in noted))
        return tuple(replace(one, service=Name(one.service, services), rule=Name(one.rule, rules)) for one in noted)

    def alert(self, name: str, service: str | None = None) -> Signal:
        """Return the first time that this alert began to fire after the fault.

        It counts if it began before our revert. After a fault on Prometheus, an alert
        that fired is evidence, and the absence of one is not. An alert about Prometheus
        counts after our revert too, because Prometheus can fire it only then.

        Args:
            name: The alert's name.
            service: The service that the alert must be about. If None, it must be about
                a victim or about clients.

        Raises:
            NotDetected: The alert did not fire. The message lists what did.
            Inconclusive: It fired for other services only, or did not fire while
                Prometheus saw nothing. In such a trial, a bound of `after_s` that an
                earlier time would break raises it too, such as `>= 5`.
            BadScenario: Prometheus lacks the alert, or the stack lacks the service.
        """
        try:
            return self._first("alert", name, service, self.known_alerts)
        except NotDetected as error:
            raise self.blind or error from None

    def rule(self, name: str, service: str | None = None) -> Signal:
        """Return the first time that this remediator rule matched after the fault.

        Its evidence is the remediator's own log, also after a fault on Prometheus.

        Args:
            name: The rule's name.
            service: The service that the rule must have matched. If None, it must be a
                victim.

        Raises:
            NotDetected: The rule did not match. The message lists the rules that did.
            Inconclusive: It matched other services only.
            BadScenario: The remediator lacks the rule, or the stack lacks the service.
        """
        return self._first("rule", name, service, self.known_rules)

    def _first(self, kind: SignalKind, name: str, service: str | None, known: tuple[str, ...]) -> Signal:
        return own_signals.first(
            self.signals,
            kind,
            name,
            service,
            victims=self.victims,
            known=known,
            services=self._known_services,
            after=str(self.plan.fault),
        )

    @property
    def attempts_per_request(self) -> float:
        """Requests that the service sent to its replicas per request that it accepted.

        It covers the whole trial and uses the service's own counters. 1 means that no
        request was retried.

        Raises:
            Inconclusive: The subject has no such counters, or one restarted at 0.
        """
        if isinstance(self.attempts, Inconclusive):
            raise self.attempts
        if self.attempts is None:
            raise Inconclusive(
                "this subject has no counters of attempts, so the number of retries is unknown: drop the claim"
            )
        scale = Scale(
            what="attempts_per_request",
            least=0.0,
            most=math.inf,
            at_least="the service had sent no request to a replica",
            at_most="each request had been retried without end",
            advice="bound it above 0: 1 means that no request was retried",
        )
        return BoundedFloat(self.attempts, scale)

    @property
    def time_to_recover_s(self) -> Seconds:
        """Seconds from the fault's start until the system has recovered from it.

        The system has recovered when all victims take part again and clients are
        served within their latency targets, without a relapse. Time counts from the
        fault, because clients suffer from then on. A recovery after our own revert does
        not count. The value's `resolution_s` is its precision in seconds.

        Raises:
            NotRecovered: The system did not recover before our revert, or relapsed.
            BadScenario: The fault is a passing one. Use `time_to_settle_s`.
        """
        if self.plan.is_passing:
            raise BadScenario(
                f"{self.plan.fault} is a passing fault, which the instrument ends: use trial.time_to_settle_s"
            )
        return _took(self.recover)

    @property
    def time_to_settle_s(self) -> Seconds:
        """Seconds from the end of a passing fault until the service has recovered.

        The service has recovered when clients are served within their latency targets,
        without a relapse.

        Raises:
            NotRecovered: The service did not recover before its deadline.
            BadScenario: The fault is not a passing one. Use `time_to_recover_s`.
        """
        if not self.plan.is_passing:
            raise BadScenario(
                f"{self.plan.fault} is not a passing fault, which the instrument ends: use trial.time_to_recover_s"
            )
        return _took(self.settle)

    @property
    def relapsed_s(self) -> float | None:
        """Seconds from the fault's start to the first relapse of a recovered service.

        None if the service did not relapse.
        """
        return (self.settle if self.plan.is_passing else self.recover).relapsed_s

    def slo(self, name: str) -> SloResult:
        """Return Prometheus' result for one SLO since the fault's start.

        The window ends with the load's last answers.

        Args:
            name: The SLO's name in `slo.yaml`.

        Raises:
            BadScenario: `slo.yaml` lacks the SLO.
            Inconclusive: Prometheus could not compute it. The message has the reason.
        """
        self._read.add(OBJECTIVE.format(name))
        slos: Mapping[str, SloResult] = vars(self)["slos"]  # reading `slos` is reading each of them
        if name in self.slo_errors:
            raise self.slo_errors[name]
        if name not in slos:
            Known("SLO", {*slos, *self.slo_errors}).require(name)
        return slos[name]

    def phase(self, name: str) -> Window:
        """Return the clients' view of the requests due in one window.

        Args:
            name: "steady", "fault" or "recovery", or a key of `windows`.

        Raises:
            InvalidExperiment: The trial has no such window.
        """
        if name not in self.windows:
            raise InvalidExperiment(f"this trial had no {name} window; it had {', '.join(self.windows)}")
        return self.windows[name]

    @property
    def before_fault(self) -> Window:
        """Requests that had ended when the fault began.

        Requests in flight at that time are in `during_fault`.
        """
        return self.phase("before")

    @property
    def during_fault(self) -> Window:
        """Requests in flight when the fault began, or due before it was over.

        A fault is over when the system has recovered from it, as in
        `time_to_recover_s`, or with our revert.
        """
        return self.phase("during")

    @property
    def after_fault(self) -> Window:
        """Requests due after the fault was over.

        After a repaired fault, these are the seconds that showed the recovery.
        """
        return self.phase("after")

    @property
    def whole(self) -> Window:
        """All requests of the trial."""
        return self.phase("whole")

    @property
    def replicas(self) -> Replicas:
        """State of the replicas after the fault: `assert trial.replicas.all_serve`.

        Raises:
            NoData: The configuration does not name the replicas, or an autoscaler
                starts and stops them.
        """
        if self.plan.autoscaler is not None:
            raise NoData(
                "an autoscaler stopped and started replicas, so their state at the end shows nothing: drop the claim"
            )
        if self.replicas_after is None:
            raise NoData("no service is known to be a replica: set llmchaos_replicas and llmchaos_replica_header")
        return self.replicas_after

    @property
    def tasks(self) -> Tasks:
        """Tasks of an agent: `assert trial.tasks.duplicate_effects == 0`.

        Raises:
            BadScenario: The trial's load has no tasks.
        """
        if self.agent_tasks is None:
            raise BadScenario(
                f"the load of {self.plan.scenario} has no tasks: write experiment(load=loads.tasks(rate_rps=2), ...) to claim "
                "something about an agent's tasks"
            )
        return self.agent_tasks

    @property
    def replica_hours(self) -> float:
        """Hours that the autoscaler's replicas ran, summed over the whole trial.

        A replica counts from its start, so a cold one costs too. The runtime's events
        give the times, and the autoscaler's own counters do not.

        Raises:
            BadScenario: The experiment has no autoscaler.
        """
        return self._scaled("replica_hours").replica_hours

    @property
    def max_replicas(self) -> float:
        """Most replicas that ran at once, cold and draining ones included.

        Raises:
            BadScenario: The experiment has no autoscaler.
        """
        return self._scaled("max_replicas").max_replicas

    @property
    def flaps(self) -> float:
        """Acts of the autoscaler that reversed its act before within 30 s.

        A start after a stop and a stop after a start are reversals, of whichever
        replica. A start that replaces a replica that died does not count, and acts of
        faults and of the remediator do not. If the remediator may have done some, or a
        start may have replaced a replica that died, the value has an upper bound.

        Raises:
            BadScenario: The experiment has no autoscaler.
            Inconclusive: The autoscaler did not run at the trial's end or decided
                nothing, or its own counters contradict the runtime's events.
        """
        return self._scaled("flaps").flaps

    @property
    def cut_by_scale_down(self) -> float:
        """Streams of clients that a scale-down broke.

        Such a stream was served by the stopped replica and ended broken between 0.5 s
        before the signal to the replica and 1.5 s after its end. One whose replica is
        unknown raises the upper bound alone.

        Raises:
            BadScenario: The experiment has no autoscaler.
            NoData: No replica was certainly scaled down, or none that served a client
                in its last 30 s.
            Inconclusive: As for `flaps`.
        """
        return self._scaled("cut_by_scale_down").cut_by_scale_down

    def _scaled(self, what: str) -> Scaling:
        if self.scaling is None:
            raise BadScenario(
                f"trial.{what} needs an autoscaler, and {self.plan.scenario} lacks one: write "
                "experiment(autoscaler='slo', ...)"
            )
        return self.scaling

    @property
    def falsely_ready_s(self) -> float:
        """Seconds in which the service reported ready while it answered no request.

        Only whole seconds in which requests were due count. A load balancer sends
        clients to such a service.

        Raises:
            Inconclusive: The answers of the readiness path were not recorded.
        """
        if not self.readyz:
            raise Inconclusive(
                "the answers of the service's readiness path were not recorded: set llmchaos_ready_path, such as /readyz"
            )
        seen_s = self.readyz[-1].to_s
        scale = Scale(
            what="falsely_ready_s",
            least=0.0,
            most=seen_s,
            at_least="the service had never reported ready",
            at_most=f"it had reported ready for all of the {seen_s:.0f} s",
            advice="bound it inside the length of the trial",
        )
        unseen = [s for s in self.unserved_s if s > seen_s + READY_LOOKS_S]
        if unseen:
            raise Inconclusive(
                f"the answers of the service's readiness path end at {seen_s:.0f} s, and no client was served at {unseen[0]:.0f} s"
            )
        false = [s for s in self.unserved_s if any(r.ready and r.from_s <= s and s + 1 <= r.to_s for r in self.readyz)]
        return BoundedFloat(len(false), scale)

    @property
    def silently_truncated(self) -> float:
        """Number of answers that ended without an error before they were complete.

        No status code shows this failure.
        """
        return self.whole.count_of("truncated")

    @property
    def failed(self) -> float:
        """Number of requests in the whole trial without a good end."""
        return self.whole.failed


def _with(known: Known, seen: Iterable[str]) -> Known:
    """Return the known names with the seen ones and "", which means no service."""
    return Known(known.what, {*known.names, *seen, ""} if known.names else ())


def _took(recovery: Recovery) -> Seconds:
    if recovery.took_s is None:
        raise NotRecovered(recovery.why_not)
    return Seconds(recovery.took_s, recovery.resolution_s or 0.0)
