"""The trials of one session, planned at collection and performed once each."""

from __future__ import annotations

import functools
import itertools
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario, InvalidExperiment, LlmchaosError, verdict_after
from pytest_llmchaos.evidence import ledger
from pytest_llmchaos.evidence.journal_lines import Claim
from pytest_llmchaos.evidence.trial_result import ArmEffect, ClaimOutcome, KnownNote
from pytest_llmchaos.faults.compositions import wired_services
from pytest_llmchaos.faults.wire_faults import UNREADABLE_WAY
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.plan import schedule as planning
from pytest_llmchaos.plan.experiment import Experiment, TrialPlan
from pytest_llmchaos.plan.schedule import ScheduledTrial
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.replay import Recorded, require_same
from pytest_llmchaos.session.settings import Settings, abilities_of
from pytest_llmchaos.session.unmet import require_met
from pytest_llmchaos.trial.slo_result import ledger_entry

if TYPE_CHECKING:
    from pytest_llmchaos.session.run import Run
    from pytest_llmchaos.subject.lab import Subject
    from pytest_llmchaos.trial.perform import Performed

# What a load of tasks needs of the model, as `skipped: needs` names it.
CALLS_TOOLS = "a model that calls tools"
NOT_PERFORMED = "the claim was not performed, because the session ended before it"


class Campaign:
    """Plans and performs trials. One per pytest process.

    Attributes:
        settings: the run's settings.
        services: services that faults may hit.
        test: the test that runs now.
        refused: the error of each trial if the run cannot start, else None.
        known: listed refutations that tests met or missed, by test.
    """

    def __init__(self, settings: Settings, make_progress: Callable[[], Progress]) -> None:
        self.settings = settings
        self.services: tuple[str, ...] = settings.subject.may_hit
        self.test = CurrentTest(settings.seed)
        self._make_progress = make_progress
        self._run: Run | None = None
        self._performed: dict[Hashable, Performed] = {}
        self._claims_left: dict[Hashable, list[str]] = {}
        self._problems: list[str] = []
        self._early: dict[Hashable, list[tuple[str, ClaimOutcome, str | None, KnownNote | None]]] = {}
        self._claimed: dict[tuple[str, str], ClaimOutcome] = {}
        self._schedule: list[ScheduledTrial] = []
        self._wire: set[str] = set()
        self._met: set[Hashable] = set()  # trials whose loads meet their faults
        self.refused: LlmchaosError | None = None

    def _with(self, *experiments: Experiment) -> Settings:
        """The settings of a session with these. A user's own stack has its services."""
        if self.settings.own is not None:
            return self.settings
        return replace(
            self.settings,
            agents=self.settings.agents or any(one.load.tasks is not None for one in experiments),
            scales=self.settings.scales or any(one.is_scaled for one in experiments),
        )

    def services_of(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the services that faults of an experiment may hit.

        They depend on no other experiment of the session, so that no draw does.
        """
        is_more = experiment.load.tasks is not None or experiment.is_scaled
        return self._with(experiment).subject.may_hit if is_more else self.services

    @property
    def run(self) -> Run:
        """The run, created at the first call."""
        if self._run is None:
            from pytest_llmchaos.session.run import Run  # noqa: PLC0415 - a plan need not spend 0.1 s on these imports

            self._run = Run(self.settings, self._make_progress(), self.test)
        return self._run

    def expect_wire(self, services: Iterable[str]) -> None:
        """Add services that tests without an experiment hit with wire faults."""
        self._wire |= set(services)

    def require_readable(self, experiment: Experiment) -> None:
        """Check that fault agents can read the requests that its faults hit.

        Raises:
            BadScenario: Clients reach the service through TLS, or its settings show
                that it takes no HTTP/1.
            NoVictim: A target matches no service.
        """
        self._require_readable(self.settings.subject, experiment)

    def _require_all_readable(self, subject: Subject) -> None:
        """Check the faults of all trials against a stack whose settings are known."""
        for trial in self._schedule:
            if not self.lacking(trial.plan):
                self._require_readable(subject, trial.plan.experiment, f"scenario {trial.plan.scenario!r}: ")

    def _require_readable(self, subject: Subject, experiment: Experiment, where: str = "") -> None:
        services = self.services_of(experiment)
        for fault in experiment.faults:
            wired_services([fault], services)  # names a service that it lacks
            read = wired_services([fault], services, reads_http=True)
            for service, shown in subject.unreadable:
                if service in read:
                    raise BadScenario(
                        f"{where}{fault} has to read requests of {service} as HTTP/1 without TLS, and {service} takes {shown}: "
                        f"{UNREADABLE_WAY}"
                    )
            if subject.requests.tls and subject.api in read:
                raise BadScenario(
                    f"{where}{fault} has to read requests of {subject.api}, and clients send them through TLS (llmchaos_tls): "
                    f"{UNREADABLE_WAY}"
                )

    def require_met(self, plan: TrialPlan) -> None:
        """Check that the load of a plan can meet its faults on the wire.

        Raises:
            BadScenario: One of them can hit no request.
        """
        if plan.key in self._met or self.lacking(plan) or "proxy" not in plan.needs:  # a skipped trial sends no load
            return
        if plan.load.tasks is not None:  # the agent's own requests meet the faults
            return
        self._met.add(plan.key)
        subject = self.settings.subject
        subject = replace(subject, requests=subject.requests.with_headers(plan.load.headers))
        require_met(subject, f"scenario {plan.scenario!r}", plan.injections, planning.arrivals_of(plan))

    def wire(self) -> frozenset[str]:
        """The services that wire faults of this session may hit.

        All trials of an experiment have the same fault agents, so a pattern stands for
        each of its services, not only for the drawn one.
        """
        performed = [trial.plan.experiment for trial in self._schedule if not self.lacking(trial.plan)]
        found = (wired_services(one.faults, self.services_of(one)) for one in performed)
        return frozenset(self._wire.union(*found))

    def take(self, plans: Mapping[str, Sequence[TrialPlan]], recorded: Recorded | None = None) -> None:
        """Set the plans of the selected tests, by test id.

        Raises BadScenario for a load that is too high or too low, or a replay that
        differs.
        """
        taken = list(itertools.chain.from_iterable(plans.values()))
        subject = self.settings.subject
        self.settings = self._with(*(plan.experiment for plan in taken if not self.lacking(plan)))
        subject = self.settings.subject
        self.services = subject.may_hit
        for plan in taken:
            if not self.lacking(plan):  # a skipped trial sends no load
                planning.require_capacity(plan, subject.capacity_tokens_per_s, self.settings.backend)
                if plan.load.tasks is not None:
                    subject.for_tasks()
                if plan.autoscaler is not None:
                    subject.for_scaling()
        self._schedule = planning.schedule(taken)
        self._claims_left = {plan.key: [] for plan in taken}
        for nodeid, its in plans.items():
            for plan in its:
                self._claims_left[plan.key].append(nodeid)
        if recorded is not None:
            entries = [trial.entry for trial in self._schedule]
            require_same(entries, recorded, runtime=self.settings.runtime, backend=self.settings.backend)

    def schedule(self) -> list[ScheduledTrial]:
        """The trials of the selected tests, in order."""
        return self._schedule

    def in_order(self, plans: Sequence[TrialPlan]) -> list[TrialPlan]:
        """Return the trials of one pair in their order in the schedule.

        Those that the runtime cannot perform come first: they skip the test.
        """
        scheduled = {trial.plan.key: at for at, trial in enumerate(self._schedule)}
        return sorted(plans, key=lambda plan: (not self.lacking(plan), scheduled.get(plan.key, 0)))

    def lacking(self, plan: TrialPlan) -> list[str]:
        """Abilities that a trial needs and the runtime or the model lacks.

        Such a trial is skipped.
        """
        tools = () if plan.load.tasks is None or self.settings.subject.calls_tools else (CALLS_TOOLS,)
        return sorted({*(plan.needs - self._abilities), *tools})

    @functools.cached_property
    def _abilities(self) -> frozenset[str]:
        return abilities_of(self.settings)

    def foresee(self) -> list[str]:
        """Return lines on what the start would find in a user's stack, untouched."""
        if not self.settings.subject.own:
            return []
        self.run.wire = self.wire()
        return self.run.foresee(self._require_all_readable)

    def misspelt_targets(self) -> list[str]:
        """List entries of `llmchaos_targets` that a user's stack lacks."""
        return self.run.misspelt_targets() if self.settings.subject.own else []

    def preflight(self) -> None:
        """Check the machine and the stack before the start.

        Raises NotReady or BadScenario.
        """
        self.run.wire = self.wire()
        self.run.preflight()
        self._require_all_readable(self.run.subject)  # the preflight has read its services' settings
        self.run.announce([trial.entry for trial in self._schedule])

    def perform_once(self, plan: TrialPlan) -> Performed:
        """Return a plan's trial, performed at the first call.

        An interruption is raised. If the trial had begun, later calls raise
        InvalidExperiment.
        """
        if self.refused is not None:
            raise self.refused
        key = plan.key
        if key not in self._performed:
            before = self._newest()
            try:
                self._keep(key, self._perform(plan))
            except BaseException as error:
                if self._newest() != before:
                    # By a time limit, for example. Other claims get no new trial.
                    self._keep(key, self.run.interrupted(error))
                raise
            finally:
                if self._run is not None:
                    self._run.progress.done()
        return self._performed[key]

    def _keep(self, key: Hashable, performed: Performed) -> None:
        """Keep a trial for its other claims, and journal those that came before it."""
        self._performed[key] = performed
        _clear_frames(performed.error)
        for nodeid, outcome, message, known in self._early.pop(key, ()):
            self.note_claim([performed.name] if performed.name else [], nodeid, outcome, message, known=known)

    def is_last_claim(self, nodeid: str, plan: TrialPlan) -> bool:
        """True if every other claim of this plan is over."""
        return self._claims_left[plan.key] == [nodeid]

    def end_claim(self, nodeid: str, plan: TrialPlan) -> None:
        """End a claim. The last claim of a trial frees its samples."""
        left = self._claims_left[plan.key]
        if nodeid in left:
            left.remove(nodeid)
        performed = self._performed.get(plan.key)
        if performed is None or left:
            return
        self._keep_ledger(performed)
        error = performed.error or InvalidExperiment(
            f"trial {performed.name} was judged and its samples were freed, because no other test was collected for it"
        )
        self._performed[plan.key] = replace(performed, trial=None, error=error)

    def _newest(self) -> str:
        """Name of the newest trial that has begun, empty before the first.

        A trial that is interrupted during the stack's start, or while another session
        measures, has not begun.
        """
        return "" if self._run is None else self._run.newest_trial

    def _perform(self, plan: TrialPlan) -> Performed:
        return self.run.perform(plan)

    def _keep_ledger(self, performed: Performed) -> None:
        """Add the trial's cost of error budgets, and its verdict, to the ledger."""
        trial = performed.trial
        if trial is None:
            return
        verdict = verdict_after(outcome for (name, _), outcome in self._claimed.items() if name == trial.name)
        entries = [
            ledger_entry(
                result,
                at_unix_s=time.time(),
                run=self.settings.run,
                trial=trial.name,
                scenario=trial.plan.scenario,
                fault=str(trial.plan.fault),
                arm=trial.plan.arm,
                verdict=verdict,
            )
            for result in trial.slos.values()
            if result.rate_rps is not None
        ]
        path = self.settings.reports / "ledger.jsonl"
        try:
            ledger.append(path, entries)
        except OSError as error:
            self._problems.append(f"the ledger {path} cannot be written: {error.strerror or error}")

    def note_claim(
        self,
        trials: Iterable[str],
        nodeid: str,
        outcome: ClaimOutcome,
        message: str | None,
        *,
        objectives: tuple[str, ...] | None = None,
        effects: tuple[ArmEffect, ...] = (),
        known: KnownNote | None = None,
    ) -> None:
        """Journal a test's outcome for its trial and for each of its own loads.

        Written once, even if a plugin runs a failed test again on the same trial.
        `objectives` are those whose results it read, None if they are unknown.
        `effects` are those between arms that it read. `known` is the entry of a known
        refutation that it met or missed.
        """
        if self._run is None or not self._run.opened:
            return
        for name in trials:
            if self._claimed.get((name, nodeid)) != outcome:
                self._claimed[name, nodeid] = outcome
                self._run.journal.note(
                    Claim(
                        trial=name,
                        nodeid=nodeid,
                        outcome=outcome,
                        message=message,
                        objectives=objectives,
                        effects=effects,
                        known=known,
                    )
                )

    def note_unasked(
        self, plan: TrialPlan, nodeid: str, outcome: ClaimOutcome, message: str | None, known: KnownNote | None
    ) -> None:
        """Note a claim that was skipped, or failed in a fixture, before its trial."""
        performed = self._performed.get(plan.key)
        if performed is None:
            self._early.setdefault(plan.key, []).append((nodeid, outcome, message, known))
        elif performed.name:
            self.note_claim([performed.name], nodeid, outcome, message, known=known)

    def close(self, exit_status: int, *, whole_files: bool = True) -> list[str]:
        """Remove the stack and return the problems.

        Claims that were not performed are journalled, so their trial is not judged.
        `whole_files` is False if other processes may have performed them.
        """
        for key, left in self._claims_left.items():
            performed = self._performed.get(key)
            if performed is None or not left:
                continue
            for nodeid in left if whole_files else ():
                self.note_claim([performed.name], nodeid, "skipped", NOT_PERFORMED)
            self._keep_ledger(performed)
        return self._problems if self._run is None else self._run.close(exit_status, self._problems)


def _clear_frames(error: BaseException | None) -> None:
    """Free the variables in a kept error's frames, such as samples.

    The traceback stays.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
