"""One performed experiment as its claims see it: values with good reprs, and errors where a value does not exist. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, get_args

from pytest_llmchaos.errors import BadScenario, Inconclusive, InvalidExperiment, NoData, NotDetected, NotRecovered
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
    from pytest_llmchaos.trial.slo_result import SloResult


# Windows around the fault, beside the recorded phases and the whole.
FAULT_WINDOWS = ("before", "during", "after")
# Readiness is looked at once a second, and a look that has no answer takes one.
READY_LOOKS_S = 2.0
# Who brought the victims back; "mixed" where it was not the same for all of them.
Repairer = Literal["remediator", "instrument", "itself", "unknown", "mixed"]
Noted = TypeVar("Noted", "Action", Incident)
REPAIRERS = Known("repairer", get_args(Repairer))


@dataclass(frozen=True, kw_only=True)
class Action:
    """One act of the remediator, ended. `at_s` is in seconds since the load's start."""

    at_s: float
    action: str
    service: str
    rule: str
    succeeded: bool


@dataclass(frozen=True, kw_only=True)
class Trial(NoClaim):
    """One performance of an experiment, judged. Times are seconds.

    `detected_by` names the signal, `repaired_by` who brought the victim back: "remediator", "instrument" (our own revert),
    "itself" (a restart that needs nobody), "unknown", "mixed" (not the same for all victims), or None where nothing had
    to be repaired. A claim about a service, alert, rule, outcome or repairer that does not exist raises BadScenario:
    it is misspelt.
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
    readyz: tuple[ReadySpan, ...] = ()
    unserved_s: tuple[float, ...] = ()
    replicas_after: Replicas | None = None
    signals: tuple[Signal, ...] = ()
    could_not_fire: Inconclusive | None = None
    known_alerts: tuple[str, ...] = ()
    known_rules: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    attempts: float | Inconclusive | None = None
    _read: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _known_services: Known = field(init=False, repr=False, compare=False)

    # To a type checker, a class with this method has every name.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattribute__(self, name: str) -> object:
            """Notes the names of values that are read. A method notes the values that its call reads."""
            __tracebackhide__ = True  # pytest shows the claim, and not this
            value = super().__getattribute__(name)
            if name[0] != "_" and name != "name" and not callable(getattr(type(self), name, None)):
                self._read.add(name)
            return value

    def note_reads(self) -> set[str]:
        """The values that are read from now on, `plan` and `is_control` among them."""
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
                replace(one, service=Name(one.service, about), name=Name(one.name, of_kind[one.kind]))
                for one in self.signals
            ),
        }
        if self.repaired_by is not None:
            named["repaired_by"] = Name(self.repaired_by, REPAIRERS)
        if self.detected_by is not None:
            is_known = self.known_alerts and self.known_rules
            named["detected_by"] = Name(
                self.detected_by, Known("signal", {*signals, self.detected_by} if is_known else ())
            )
        for name, value in named.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        plan: TrialPlan = vars(self)["plan"]  # who prints a trial reads nothing of it
        return f"<trial {self.name}: {plan.scenario}, {plan.fault}>"

    @property
    def is_control(self) -> bool:
        """Whether this is the arm without a fault, where nothing may be detected and nothing has to recover."""
        return self.plan.is_control

    @property
    def time_to_detect_s(self) -> Seconds:
        """Seconds from the fault's start to the first signal of the system's own that the fault explains. Raises NotDetected.

        It began before our revert and is about a victim, about clients, or declared by the fault; `coincident` has others.
        """
        if self.detect_s is None:
            others = "; ".join(
                f"{one.what} after {one.after_s:g} s does not count: {one.why}" for one in self.coincident
            )
            raise NotDetected(
                f"no alert fired and the remediator noticed nothing after {self.plan.fault}"
                + (f" ({others})" if others else "")
            )
        return Seconds(self.detect_s)

    @property
    def alerts(self) -> tuple[str, ...]:
        """Names of the alerts that fired. Raises Inconclusive where none did, and a rule could not have fired.

        So does a claim that a certain one, or no other one, is among them.
        """
        if self.could_not_fire is not None and not self.fired:
            raise self.could_not_fire
        known = Known("alert", {*self.known_alerts, *self.fired} if self.known_alerts else ())
        return Names(self.fired, known, self.could_not_fire)

    @property
    def actions(self) -> tuple[Action, ...]:
        """Acts of the remediator, in order. Raises Inconclusive where there are none, and it could not have acted."""
        if isinstance(self.acted, Inconclusive):
            raise self.acted
        return Entries(self._with_names(self.acted), "any(act.action == {} for act in trial.actions)")

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """Incidents of the remediator, in order, with their ends.

        Raises Inconclusive where one is open, or none was written, and the remediator could have written nothing.
        """
        if isinstance(self.noticed, Inconclusive):
            raise self.noticed
        return Entries(self._with_names(self.noticed), "any(one.service == {} for one in trial.incidents)")

    def _with_names(self, noted: tuple[Noted, ...]) -> tuple[Noted, ...]:
        """The same, whose services and rules raise where they are compared with one that does not exist."""
        services = _with(self._known_services, (one.service for one in noted))
        rules = _with(Known("rule", self.known_rules), (one.rule for one in noted))
        return tuple(replace(one, service=Name(one.service, services), rule=Name(one.rule, rules)) for one in noted)

    def alert(self, name: str, service: str | None = None) -> Signal:
        """The first time that this alert began to fire after the fault.

        It is about `service` where that is given, else about a victim or about clients. Raises NotDetected naming what
        fired in its place, Inconclusive where it fired for other services alone, BadScenario for an alert that Prometheus
        does not have and for a service that the stack does not have.
        """
        return self._first("alert", name, service, self.known_alerts)

    def rule(self, name: str, service: str | None = None) -> Signal:
        """The first time that this rule of the remediator noticed something after the fault, of a service as in `alert`.

        Raises NotDetected naming what was noticed in its place, Inconclusive where that was of other services alone,
        BadScenario for a rule or a service that the subject does not have.
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
        """Requests that the service sent to its replicas, per request that it took, over the whole trial.

        By the service's own counters: 1 where nothing was tried again. Raises Inconclusive where the subject names no such
        counters, or one of them began again at 0.
        """
        if isinstance(self.attempts, Inconclusive):
            raise self.attempts
        if self.attempts is None:
            raise Inconclusive(
                "this subject names no counters of attempts, so nothing can be said of retries: drop the claim"
            )
        scale = Scale(
            what="attempts_per_request",
            least=0.0,
            most=math.inf,
            at_least="the service had sent none of its requests on",
            at_most="each had been tried again without end",
            advice="bound it above 0: 1 is each request once",
        )
        return BoundedFloat(self.attempts, scale)

    @property
    def time_to_recover_s(self) -> Seconds:
        """Seconds from the fault's start until the victims took part again and clients were served for good.

        Counts from the fault, not from its revert: clients suffer from then on. A recovery after our own revert does not
        count, nor does one that did not last until the end of what is known. Its `resolution_s` says how exactly it
        could be seen. Raises NotRecovered, and BadScenario after a passing fault.
        """
        if self.plan.is_passing:
            raise BadScenario(
                f"we end {self.plan.fault}, so nothing had to recover from it: ask for trial.time_to_settle_s"
            )
        return _took(self.recover)

    @property
    def time_to_settle_s(self) -> Seconds:
        """Seconds from the end of a passing fault until the service was good for good.

        Raises NotRecovered, and BadScenario after a fault that we do not end.
        """
        if not self.plan.is_passing:
            raise BadScenario(
                f"{self.plan.fault} is no fault that we end, so nothing settled after it: ask for trial.time_to_recover_s"
            )
        return _took(self.settle)

    @property
    def relapsed_s(self) -> float | None:
        """Seconds from the fault's start until a service that had been good again was bad again; None if it never was."""
        return (self.settle if self.plan.is_passing else self.recover).relapsed_s

    def slo(self, name: str) -> SloResult:
        """Prometheus' verdict on one SLO, from the fault's start to the end of the load and its last answers.

        Raises BadScenario for an SLO that slo.yaml has not, and what kept Prometheus from answering.
        """
        if name in self.slo_errors:
            raise self.slo_errors[name]
        if name not in self.slos:
            Known("SLO", {*self.slos, *self.slo_errors}).require(name)
        return self.slos[name]

    def phase(self, name: str) -> Window:
        """What clients saw of the requests that were due in the steady, fault or recovery phase."""
        if name not in self.windows:
            raise InvalidExperiment(f"this trial had no {name} window; it had {', '.join(self.windows)}")
        return self.windows[name]

    @property
    def before_fault(self) -> Window:
        """Requests that had ended when the fault began. Those in flight then are in `during_fault`."""
        return self.phase("before")

    @property
    def during_fault(self) -> Window:
        """Requests in flight when the fault began, or due before it was over.

        A fault is over when the system has recovered from it (`time_to_recover_s`), or with our revert.
        """
        return self.phase("during")

    @property
    def after_fault(self) -> Window:
        """Requests due after the fault was over: of a repaired one, the seconds that showed its recovery."""
        return self.phase("after")

    @property
    def whole(self) -> Window:
        """Requests of the whole trial."""
        return self.phase("whole")

    @property
    def replicas(self) -> Replicas:
        """The replicas after the fault: `assert trial.replicas.all_serve`.

        Raises NoData where it is not known which services are replicas.
        """
        if self.replicas_after is None:
            raise NoData("no service is known to be a replica: set llmchaos_replicas and llmchaos_replica_header")
        return self.replicas_after

    @property
    def falsely_ready_s(self) -> float:
        """Whole seconds in which requests were due, none was answered, and the service still said that it was ready.

        Load balancers send clients there. Raises Inconclusive where readiness was not recorded.
        """
        if not self.readyz:
            raise Inconclusive(
                "what the service's readiness path said was not recorded: set llmchaos_ready_path, such as /readyz"
            )
        seen_s = self.readyz[-1].to_s
        scale = Scale(
            what="falsely_ready_s",
            least=0.0,
            most=seen_s,
            at_least="the service had never said so",
            at_most=f"it had said so for all of the {seen_s:.0f} s",
            advice="bound it inside the length of the trial",
        )
        unseen = [s for s in self.unserved_s if s > seen_s + READY_LOOKS_S]
        if unseen:
            raise Inconclusive(
                f"what the service's readiness path said is known for {seen_s:.0f} s, and no client was served at {unseen[0]:.0f} s"
            )
        false = [s for s in self.unserved_s if any(r.ready and r.from_s <= s and s + 1 <= r.to_s for r in self.readyz)]
        return BoundedFloat(len(false), scale)

    @property
    def silently_truncated(self) -> float:
        """Answers that ended cleanly, without an error, before they were complete: the failure no status code shows."""
        return self.whole.count_of("truncated")

    @property
    def failed(self) -> float:
        """Requests of the whole trial without a good end."""
        return self.whole.failed


def _with(known: Known, seen: Iterable[str]) -> Known:
    """The names that there are, and those that were seen. What is about no service has an empty one."""
    return Known(known.what, {*known.names, *seen, ""} if known.names else ())


def _took(recovery: Recovery) -> Seconds:
    if recovery.took_s is None:
        raise NotRecovered(recovery.why_not)
    return Seconds(recovery.took_s, recovery.resolution_s or 0.0)
