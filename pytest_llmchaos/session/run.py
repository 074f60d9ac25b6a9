"""One run of one worker: its folder, journal, stack and watchdog, opened when the first trial asks and closed for sure."""

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
from pytest_llmchaos.errors import HealFailed, LlmchaosError, NotReady
from pytest_llmchaos.evidence import journal_lines as lines
from pytest_llmchaos.evidence import latest
from pytest_llmchaos.evidence.journal import NAMES, Journal, open_intents
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.evidence.trial_result import Catalogue
from pytest_llmchaos.faults import CATALOGUE, foreign_names
from pytest_llmchaos.host import identity, measurement_lock
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.prometheus.required_metrics import require_metrics
from pytest_llmchaos.runtime.docker import notes, preflight
from pytest_llmchaos.session.environment import environment
from pytest_llmchaos.session.settings import Settings, make_runtime
from pytest_llmchaos.subject.lab import Subject, setup_command
from pytest_llmchaos.trial.own_load import judge_own_load
from pytest_llmchaos.trial.perform import Performed, perform

if TYPE_CHECKING:
    from pytest_llmchaos.model import Runtime
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.plan.schedule import ScheduleEntry
    from pytest_llmchaos.session.progress import Progress

INTERNAL_ERROR = 3  # pytest's exit status for it
SignalHandler = Callable[[int, FrameType | None], object] | int | None


class Run:
    """The open run of this process. `lab()` starts the stack at its first call; `close()` removes it and dismisses the watchdog."""

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

    @property
    def opened(self) -> bool:
        return self._journal is not None

    @property
    def trials(self) -> int:
        """Trials and loads that have begun on the running stack."""
        return 0 if self._lab is None else self._lab.trials

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            name = f"journal-{self.settings.worker}.jsonl" if self.settings.worker else "journal.jsonl"
            directory = self.settings.directory
            try:
                is_first = not any(directory.glob("journal*.jsonl"))  # of several workers
                self._journal = Journal(directory / name)
            except OSError as error:
                raise NotReady(
                    f"cannot write the run's evidence to {directory}: {error.strerror}; "
                    "give a folder that can be written to with --chaos-report"
                ) from None
            if is_first:
                latest.point_to(directory)
        return self._journal

    def announce(self, schedule: Sequence[ScheduleEntry]) -> None:
        """Write down what will be done, before anything starts."""
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
                catalogue=Catalogue(faults=(*CATALOGUE, *foreign_names()), targets=self.subject.targets),
            )
        )

    def preflight(self) -> Runtime:
        """Find out what is missing before anything starts. Raises NotReady or BadScenario."""
        project = identity.project_name(os.getpid(), self.settings.worker)
        if self.subject.own:
            self.subject = preflight.examine(self.subject)
            project = self.subject.project or project
        runtime = make_runtime(self.settings, self.subject, project=project, owner_id=identity.owner_label())
        runtime.prepare()
        self._runtime = runtime
        return runtime

    def lab(self) -> Lab:
        """The running stack, started while no other process of this machine measures.

        Raises NotReady, once and again, if it cannot be started.
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
                if isinstance(error, Exception):
                    self.failed_start = (
                        error  # what interrupts a start (Ctrl-C, a time limit) says nothing of the next one
                    )
                self._stop_stack()
                raise
        return self._lab

    def _measuring(self) -> contextlib.AbstractContextManager[None]:
        """The machine's measurement slot, before there is a stack that could rest."""

        def say(what: str, *, deadline_s: float) -> None:
            self.progress(None, what, deadline_s)

        return measurement_lock.measuring(say=say, waiting=self.test.waiting)

    def perform(self, plan: TrialPlan) -> Performed:
        """A trial on the running stack, or the error that it ended with. One that starts the stack keeps the machine for it."""
        try:
            with contextlib.nullcontext() if self._lab else self._measuring():
                return perform(self.lab(), plan)
        except LlmchaosError as error:
            return Performed(error=error)

    def _sweep(self, project: str) -> None:
        """Remove what dead runs left. An orphan that stays is one line, and not the end of this run.

        A session that does not use Docker does not wait for what is left there.
        Raises HealFailed where this run attaches to the very stack in which a dead run's fault is still open.
        """
        swept = sweep.sweep_dead_runs(
            self.progress.note, None if self.settings.runtime == "local" else sweep.in_docker()
        )
        for problem in swept.failed:
            self.progress.note(f"not removed, this run goes on without it: {problem}; see `llmchaos doctor`")
        for path in notes.unreadable() if self.subject.attach else ():
            self.progress.note(f"the note {path} of an attached run cannot be read; see `llmchaos heal --dry-run`")
        if self.subject.attach and any(dead.project == project for dead in notes.dead_runs()):
            raise HealFailed("; ".join(swept.failed) or f"a dead run's faults are open in project {project}")

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
            manifest = replace(manifest, run=settings.run, targets=tuple(self.subject.may_hit))
            manifest = self._noted = notes.note(manifest)
            self.journal.keep_intents(notes.intents_of(manifest))
        self.journal.write(lines.Stack(**structs.asdict(manifest)))
        self._watchdog = watchdog.start(manifest, settings.stack_directory / "watchdog.log")
        self._old_sigterm = signal.signal(signal.SIGTERM, _interrupt)
        begin = time.monotonic()
        doing = (
            "taking part, once no other trial of this machine is on, in"
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
            url = runtime.url(self.subject.prometheus)
            require_metrics(url, lab.slos, pushed=self.subject.pushgateway is not None)
        return lab

    def _stop_stack(self) -> list[str]:
        """Remove the stack, or leave that of others. Returns what is still broken in one that stays: its watchdog heals it."""
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
        """The services in which a fault is not undone, and where the journal does not say in which."""
        if self._journal is None:
            return []
        pending = open_intents(self._journal.path)
        return [*sorted({undo.service for undo in pending.undos}), *pending.unreadable]

    def close(self, exit_status: int, before: Sequence[str] = ()) -> list[str]:
        """Remove the stack, and say what did not go well, now and before. A run in which that is so did not end with status 0.

        If that fails the watchdog is left on, and tries on its own. So it is where faults are open in a stack that stays.
        """
        problems = [*before]
        if self._journal is None:
            return problems
        begin = time.monotonic()
        try:
            broken = self._stop_stack()
            if broken:
                problems.append(
                    f"faults in {', '.join(broken)} are not undone, and the stack is left running: the watchdog goes on with them; "
                    "see `llmchaos doctor`, and heal by hand with `llmchaos heal`"
                )
            self._journal.note(lines.StackDown(took_s=round(time.monotonic() - begin, 3)))
        except (LlmchaosError, OSError) as error:
            problems.append(
                f"the stack is not removed yet, its watchdog goes on with it: {error}; see `llmchaos doctor`"
            )
        self._lab = None
        is_bad = bool(problems or self._journal.lost)
        self._journal.note(lines.RunEnd(exit_status=exit_status or (INTERNAL_ERROR if is_bad else 0)))
        if self._journal.lost is not None:
            problems.append(f"the journal is not whole: {self._journal.lost}")
        self._journal.close()
        self._journal = None
        return problems


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM (a cancelled CI job) ends the session as Ctrl-C does, so that fixtures and faults are undone."""
    raise KeyboardInterrupt("SIGTERM")


def dashboards_line(url: str | None) -> str:
    """Where the dashboards are, or how to get them."""
    if url is not None:
        return f"dashboards at {url}"
    return f"dashboards are not served: no Grafana here; where its image can be pulled, `{setup_command()}` brings it"
