"""One worker's run: report folder, journal, stack and watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from msgspec import structs, to_builtins
from msgspec.structs import replace

from pytest_llmchaos.cleanup import sweep, watchdog
from pytest_llmchaos.errors import HealFailed, InvalidExperiment, LlmchaosError, NotReady
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence import latest
from pytest_llmchaos.evidence.journal import NAMES, Journal, open_intents
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.evidence.trial_result import Catalogue
from pytest_llmchaos.faults import CATALOGUE, foreign_names
from pytest_llmchaos.host import identity, measurement_lock
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.loadgen.first_request import require_answer
from pytest_llmchaos.loadgen.first_task import require_agent
from pytest_llmchaos.prometheus.required_metrics import coarse_bounds, require_metrics, require_rules, require_scrapes
from pytest_llmchaos.runtime.docker import notes
from pytest_llmchaos.runtime.docker.judge_project import project_name
from pytest_llmchaos.session import model_servers, own_checks
from pytest_llmchaos.session.environment import environment
from pytest_llmchaos.session.settings import Settings, make_runtime
from pytest_llmchaos.subject.lab import Subject, setup_command
from pytest_llmchaos.trial.own_load import judge_own_load
from pytest_llmchaos.trial.perform import Performed, explain, perform

if TYPE_CHECKING:
    from pytest_llmchaos.model import Runtime
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.plan.schedule import ScheduleEntry
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.servers.preflight import ScrapedServer
    from pytest_llmchaos.session.progress import Progress

INTERNAL_ERROR = 3  # pytest's exit status for it
SignalHandler = Callable[[int, FrameType | None], object] | int | None


class Run:
    """The run of this process.

    `lab()` starts the stack at its first call. `close()` removes it and stops the
    watchdog.

    Attributes:
        settings: the run's settings.
        test: the test that runs now.
        progress: prints progress.
        subject: the stack's services.
        failed_start: the error of a start that failed, else None.
        wire: services that wire faults may hit, known before the preflight.
    """

    def __init__(self, settings: Settings, progress: Progress, test: CurrentTest | None = None) -> None:
        self.settings = settings
        self.test = test or CurrentTest(settings.seed)
        self.progress = progress
        self.subject: Subject = settings.subject
        self._lab: Lab | None = None
        self._runtime: Runtime | None = None
        self._watchdog: watchdog.Watchdog | None = None
        self._journal: Journal | None = None
        self._old_sigterm: SignalHandler = None
        self._noted: RunManifest | None = None
        self.failed_start: BaseException | None = None
        self.wire: frozenset[str] = frozenset()

    @property
    def opened(self) -> bool:
        """True if the journal is open."""
        return self._journal is not None

    @property
    def newest_trial(self) -> str:
        """Name of the newest trial or load that has begun on the running stack."""
        return "" if self._lab is None else self._lab.newest_trial

    @property
    def journal(self) -> Journal:
        """The run's journal, opened at the first call. Raises NotReady."""
        if self._journal is None:
            name = f"journal-{self.settings.worker}.jsonl" if self.settings.worker else "journal.jsonl"
            directory = self.settings.directory
            try:
                is_first = not any(directory.glob("journal*.jsonl"))  # the first of several workers
                self._journal = Journal(directory / name)
            except OSError as error:
                raise NotReady(
                    f"cannot write the run's evidence to {directory}: {error.strerror}; "
                    "give a writable folder with --chaos-report"
                ) from None
            if is_first:
                latest.point_to(directory)
        return self._journal

    def announce(self, schedule: Sequence[ScheduleEntry]) -> None:
        """Journal the schedule before anything starts."""
        settings, runtime = self.settings, self._runtime
        self.journal.write(
            lines.RunBegin(
                schema=lines.SCHEMA,
                run=settings.run,
                seed=settings.seed,
                replay=settings.replay_line,
                runtime=settings.runtime,
                backend=settings.backend,
                environment={**environment(), "services run as": runtime.services_run_as if runtime else "containers"},
                schedule=tuple(map(to_builtins, schedule)),
                kinds=tuple(sorted(NAMES)),
                catalogue=Catalogue(faults=self._applicable(), targets=self.subject.targets),
            )
        )

    def _applicable(self) -> tuple[str, ...]:
        """Faults for the coverage table. Some cannot hit a user's own stack."""
        able = self._runtime.abilities if self.subject.own and self._runtime else None
        return (*(name for name, needs in CATALOGUE.items() if able is None or needs <= able), *foreign_names())

    def preflight(self) -> Runtime:
        """Check the machine and the stack before the start.

        Raises NotReady or BadScenario.
        """
        project = identity.project_name(os.getpid(), self.settings.worker)
        problems = own_checks.Problems()
        if self.subject.own:
            examined = own_checks.examine(self.subject, problems, self.wire, local=self.settings.runtime == "local")
            if examined is None:
                problems.require_none()
            self.subject = examined or self.subject
            project = self.subject.project or project
            for line in self.subject.notices:
                self.progress.note(line)
        runtime = make_runtime(
            self.settings,
            self.subject,
            project=project,
            owner_id=identity.owner_label(),
            wire=self.wire,
            say=lambda what, left_s: self.progress(None, what, left_s),
        )
        problems.of(runtime.prepare)
        problems.require_none()
        self._runtime = runtime
        return runtime

    def foresee(self, require: Callable[[Subject], None]) -> list[str]:
        """Return lines on what the start would find in a user's stack, untouched.

        `require` raises BadScenario if the session's faults cannot hit it.
        """
        return own_checks.foresee(self.settings, self.wire, require)

    def misspelt_targets(self) -> list[str]:
        """List entries of `llmchaos_targets` that a user's stack lacks."""
        return own_checks.misspelt_targets(self.settings)

    def lab(self) -> Lab:
        """Return the running stack, and start it at the first call.

        The start waits until no other process of this machine measures. After a failed
        start each call raises NotReady.
        """
        if self.failed_start is not None:
            raise NotReady(f"the stack could not be started: {self.failed_start}") from None
        if self._lab is None:
            try:
                with self._measuring():
                    self._lab = self._start()
            except OSError as error:
                self.failed_start = NotReady(f"{type(error).__name__}: {error}")
                self._stop_stack()
                raise self.failed_start from error
            except BaseException as error:
                if isinstance(error, Exception):  # after Ctrl-C or a time limit the next start may succeed
                    self.failed_start = error
                else:
                    error.add_note("the stack was starting; the next test starts it again")
                self._stop_stack()
                raise
        return self._lab

    def _measuring(self) -> contextlib.AbstractContextManager[None]:
        """Take the machine's measurement lock before there is a stack to pause."""

        def say(what: str, *, deadline_s: float) -> None:
            self.progress(None, what, deadline_s)

        return measurement_lock.measuring(say=say, waiting=self.test.waiting)

    def perform(self, plan: TrialPlan) -> Performed:
        """Perform a trial, or return its error.

        The first trial keeps the measurement lock while the stack starts.
        """
        try:
            with contextlib.nullcontext() if self._lab else self._measuring():
                return perform(self.lab(), plan)
        except LlmchaosError as error:
            return Performed(error=error)

    def interrupted(self, error: BaseException) -> Performed:
        """Return the newest trial for its other claims, such as after a time limit."""
        why = f"the trial was interrupted during another of its claims: {type(error).__name__}: {explain(error)}"
        return Performed(name=self.newest_trial, error=InvalidExperiment(why))

    def _sweep(self, project: str) -> None:
        """Remove orphans of dead runs. One that stays is printed, and the run goes on.

        A session without Docker does not wait for orphans there.
        Raises HealFailed if a dead run's fault is still open in the stack to attach to.
        """
        swept = sweep.sweep_dead_runs(
            self.progress.note, None if self.settings.runtime == "local" else sweep.in_docker()
        )
        for problem in swept.failed:
            self.progress.note(f"could not remove an orphan, the run continues: {problem}; see `llmchaos doctor`")
        for path in notes.unreadable() if self.subject.attach else ():
            self.progress.note(f"the note {path} of an attached run cannot be read; see `llmchaos heal --dry-run`")
        if self.subject.attach and any(dead.project == project for dead in notes.dead_runs()):
            raise HealFailed(
                "; ".join(swept.failed)
                or f"faults of a dead run are not reverted in project {project}: run `llmchaos heal`"
            )

    def _start(self) -> Lab:
        runtime = self._runtime or self.preflight()
        settings, project = self.settings, runtime.project
        self._sweep(project)
        manifest = RunManifest(
            runtime=settings.runtime,
            project=project,
            owner=identity.owner_label(),
            owned=not self.subject.attach,
            journal=str(self.journal.path),
            directory=str(settings.stack_directory),
        )
        if self.subject.attach:
            targets, selectors = tuple(self.subject.may_hit), dict(self.subject.selectors)
            manifest = replace(manifest, run=settings.run, targets=targets, selectors=selectors, judge=project_name())
            manifest = self._noted = notes.note(manifest)
            self.journal.keep_intents(notes.intents_of(manifest))
        self.journal.write(lines.Stack(**structs.asdict(manifest)))
        self._watchdog = watchdog.start(manifest, settings.stack_directory / "watchdog.log")
        self._old_sigterm = signal.signal(signal.SIGTERM, _interrupt)
        begin = time.monotonic()
        doing = (
            "attaching, after any other trial on this machine, to"
            if self.subject.attach
            else f"starting the stack ({settings.runtime}, {settings.backend}) as"
        )
        self.progress.note(f"{doing} {project}")
        runtime.up(remediator=True)
        if self._noted is not None:
            notes.keep_as_found(self._noted)
        up_s = time.monotonic() - begin
        self.journal.write(lines.StackUp(took_s=round(up_s, 3), images=dict(runtime.images())))
        self.progress.note(f"stack is up after {up_s:.1f} s; Prometheus at {runtime.url(self.subject.prometheus)}")
        if not self.subject.own:
            self.progress.note(dashboards_line(runtime.dashboards))
        lab = Lab(
            runtime=runtime,
            subject=self.subject,
            journal=self.journal,
            directory=settings.directory,
            seed=settings.seed,
            say=self.progress,
            judge=judge_own_load,
            worker=settings.worker,
            test=self.test,
        )
        if self.subject.own:
            self._require_service(runtime.url(self.subject.api), lab)
        return lab

    def _require_service(self, url: str, lab: Lab) -> None:
        """Check a user's stack that is up. One message has all problems.

        Many services export a metric only after their first good answer.
        """
        problems = own_checks.Problems()
        problems.of(require_answer, url, self.subject, self.progress.note)
        if (agent := self.subject.agents) is not None:
            problems.of(require_agent, lab.runtime.url(agent.service), agent, self.subject, self.progress.note)
        jobs = [one.service for one in self.subject.scrapes]
        if problems.errors and jobs:
            problems.of(require_scrapes, lab.prometheus, jobs)
        found = None if problems.errors else self._require_metrics(lab, jobs, problems)
        if lab.prometheus.also is not None:
            problems.of(self._require_rules, lab.prometheus.also, found or ())
        problems.require_none()

    def _require_metrics(
        self, lab: Lab, jobs: Sequence[str], problems: own_checks.Problems
    ) -> tuple[ScrapedServer, ...] | None:
        """Check the metrics of objectives and queries. Returns the model servers."""
        subject, found = self.subject, None
        if jobs and subject.pushgateway:
            push_url = lab.runtime.url(subject.pushgateway)
            found = problems.of(model_servers.find, lab.prometheus, subject, push_url, self.progress.note)
        queries = {"llmchaos_busy_query": subject.busy_query, "llmchaos_rotation_query": subject.rotation_query}
        also = model_servers.names_in_queries(queries, found or ())
        problems.of(require_metrics, lab.prometheus, lab.slos, jobs=jobs, servers=found or (), also=also)
        for note in problems.of(coarse_bounds, lab.prometheus, lab.slos) or ():
            self.progress.note(note)
        if found and not problems.errors:
            problems.of(model_servers.require_distinct, lab.prometheus, lab.slos, found)
        problems.of(model_servers.require_series, subject.query_files, found or ())
        return found

    def _require_rules(self, theirs: Prometheus, found: Sequence[ScrapedServer]) -> None:
        """Check the rules of the user's own Prometheus. Raises NotReady."""
        require_rules(theirs)
        if found:
            model_servers.require_live_rules(theirs, found, self.progress.note)

    def _stop_stack(self) -> list[str]:
        """Remove our own stack.

        Returns the services with open faults in an attached one.
        Its watchdog keeps trying to revert them.
        """
        broken = self._open_faults() if self.subject.attach else []
        if self._runtime is not None:
            self._runtime.down()
            self._runtime = None
        if self._watchdog is not None:
            (self._watchdog.leave if broken else self._watchdog.dismiss)()
            self._watchdog = None
        if self._noted is not None and not broken:
            notes.forget(self._noted)
            self._noted = None
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)
            self._old_sigterm = None
        return broken

    def _open_faults(self) -> list[str]:
        """Services with open faults, and unreadable lines of the journal."""
        if self._journal is None:
            return []
        pending = open_intents(self._journal.path)
        return [*sorted({undo.service for undo in pending.undos}), *pending.unreadable]

    def close(self, exit_status: int, before: Sequence[str] = ()) -> list[str]:
        """Remove the stack and close the journal.

        If the stack cannot be removed, or faults stay open in an attached stack, the
        watchdog stays and keeps trying.

        Args:
            exit_status: the session's exit status. The journal gets another one than 0
                if there are problems.
            before: earlier problems.

        Returns:
            All problems, one message each.
        """
        problems = [*before]
        if self._journal is None:
            return problems
        begin = time.monotonic()
        try:
            broken = self._stop_stack()
            if broken:
                problems.append(
                    f"faults in {', '.join(broken)} are not reverted, and the stack still runs: its watchdog keeps trying; "
                    "see `llmchaos doctor`, or run `llmchaos heal`"
                )
            self._journal.note(lines.StackDown(took_s=round(time.monotonic() - begin, 3)))
        except (LlmchaosError, OSError) as error:
            problems.append(
                f"the stack is not removed yet, and its watchdog keeps trying: {error}; see `llmchaos doctor`"
            )
        self._lab = None
        is_bad = bool(problems or self._journal.lost)
        self._journal.note(lines.RunEnd(exit_status=exit_status or (INTERNAL_ERROR if is_bad else 0)))
        if self._journal.lost is not None:
            problems.append(f"the journal is incomplete: {self._journal.lost}")
        self._journal.close()
        self._journal = None
        return problems


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the session on SIGTERM, as a cancelled CI job sends it, like Ctrl-C."""
    raise KeyboardInterrupt("SIGTERM")


def dashboards_line(url: str | None) -> str:
    """The address of the dashboards, or the way to get them."""
    if url is not None:
        return f"dashboards at {url}"
    return f"dashboards are not served: Grafana's image is missing; where it can be pulled, run `{setup_command()}`"
