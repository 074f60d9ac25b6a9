"""Hooks of a pytest session with experiments: plan, trials, end."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmchaos import options, report
from pytest_llmchaos.chaos_session.claim_reports import ASKED, EFFECTS, Asked, ClaimReports
from pytest_llmchaos.chaos_session.known_refutations import Ratchet
from pytest_llmchaos.chaos_session.terminal import progress_of, terminal_of, write_problems, write_summary
from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady, NoVictim, Unsupported
from pytest_llmchaos.evidence.redaction import hide, redact
from pytest_llmchaos.experiment_mark import Case, case_alone, experiment_of, wire_of
from pytest_llmchaos.host.identity import new_run_name
from pytest_llmchaos.plan.arms import settings_words
from pytest_llmchaos.plan.experiment import hypothesis_of
from pytest_llmchaos.plan.schedule import described, plan_trial
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.replay import read_replay
from pytest_llmchaos.session.settings import Settings, choose_runtime, default_backend
from pytest_llmchaos.trial.arms import Arms

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan
    from pytest_llmchaos.trial.trial import Trial


WIRE = pytest.StashKey[frozenset[str]]()


class ChaosSession:
    """The hooks of a session in which a test uses `trial` or `lab`.

    Attributes:
        config: pytest's configuration.
        is_worker: True in a pytest-xdist worker.
        only_plans: True if the session prints its plan and performs nothing.
        campaign: the trials.
        claims: the reports of tests.
    """

    def __init__(self, config: pytest.Config, seed: int) -> None:
        self.config = config
        self.is_worker = hasattr(config, "workerinput")
        self.only_plans = options.only_plans(config)
        self.campaign = Campaign(settings_of(config, seed), lambda: progress_of(config))
        self.campaign.test.waiting = self._without_time_limit
        self._timer: tuple[pytest.Item, object] | None = None
        self._ratchet = ratchet_of(config, self.campaign.settings)
        self.claims = ClaimReports(self.campaign, self._ratchet, is_worker=self.is_worker)
        self._problems: list[str] = []
        self._once: set[str] = set()  # tests that no plugin may run again
        if options.is_leashed(config):
            self.campaign.refused = NotReady(options.leash_message(config))

    def plan(
        self, items: Sequence[pytest.Function], with_lab: Sequence[pytest.Function] = (), *, may_run: bool = True
    ) -> None:
        """Plan the trials of these items and check the machine. Raises UsageError.

        Without `may_run` the session ends before its first test, and the machine is not
        checked.
        """
        self._once = {item.nodeid for item in (*items, *with_lab)}
        try:
            options.check_keys(self.config)
            self._take(items)
            for item in (*items, *with_lab):
                with self._naming_file(item):
                    found = wire_of(item, self.campaign.services)
                self.campaign.expect_wire(found)
                item.stash[WIRE] = found
            self._ratchet.take((*items, *with_lab), whole_files=self._has_whole_files)
            if may_run and not self.only_plans and not self.config.option.collectonly:
                self._print_where()
                self.campaign.preflight()
        except LlmchaosError as error:
            if not self.is_worker:
                raise pytest.UsageError(str(error)) from None
            self.campaign.refused = error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise pytest.UsageError(f"the run cannot be prepared: {where}{error.strerror or error}") from error

    @property
    def _has_whole_files(self) -> bool:
        """True if no other process performs tests of this process's files."""
        return not self.is_worker or bool(self.config.workerinput["llmchaos_whole_files"])  # type: ignore[attr-defined]

    def _take(self, items: Sequence[pytest.Function]) -> None:
        for item in items:
            with self._naming_file(item):
                plans = plans_of(item, self.campaign)
                item.stash[ASKED] = [Asked(plan=plan) for plan in plans]
                self.campaign.require_readable(plans[0].experiment)
                for plan in plans:
                    self.campaign.require_met(plan)
        replay = options.given(self.config, "replay")
        recorded = read_replay(Path(replay)) if replay else None
        self.campaign.take({item.nodeid: [one.plan for one in item.stash[ASKED]] for item in items}, recorded)

    @contextlib.contextmanager
    def _naming_file(self, item: pytest.Item) -> Iterator[None]:
        """Add an item's file to an error of its marks."""
        try:
            yield
        except (BadScenario, NoVictim) as error:
            if isinstance(error, NoVictim) and (misspelt := self.campaign.misspelt_targets()):
                raise BadScenario("; ".join(misspelt)) from None
            raise type(error)(f"{item.location[0]}: {error}") from None

    def _print_where(self) -> None:
        """Print where the trials will run and why, before checks and downloads."""
        terminal, settings = terminal_of(self.config), self.campaign.settings
        if terminal is not None and not self.is_worker and self.config.get_verbosity() >= 0:
            where = f"runtime {settings.runtime} ({settings.why_runtime}), backend {settings.backend}"
            terminal.write_line(f"llmchaos: {where}, run {settings.run}")

    def lab(self) -> Lab:
        """The running stack, started at the first call."""
        if self.campaign.refused is not None:
            raise self.campaign.refused
        self.claims.lab = self.campaign.run.lab()
        return self.claims.lab

    def trial(self, item: pytest.Item) -> Trial:
        """Return an item's trial, or raise its error.

        Skips if the runtime lacks an ability.
        """
        (only,) = self._asked(item, "trial")
        return self._perform(item, only)

    def arms(self, item: pytest.Item) -> Arms:
        """Return the trials of all arms of an item's experiment, or raise the error.

        Skips before the first trial if the runtime lacks an ability for one of them.
        """
        by_arm = {one.plan.arm: one for one in self._asked(item, "arms")}
        in_order = self.campaign.in_order([one.plan for one in by_arm.values()])
        trials = {plan.arm: self._perform(item, by_arm[plan.arm]) for plan in in_order}
        made = Arms({arm: trials[arm] for arm in by_arm})
        item.stash[EFFECTS] = made.effects
        return made

    def _asked(self, item: pytest.Item, fixture: str) -> list[Asked]:
        asked = item.stash.get(ASKED, [])
        if not asked and self.campaign.refused is not None:
            raise self.campaign.refused
        if (len(asked) > 1) != (fixture == "arms") or not asked:
            raise NotReady(
                f"{item.nodeid} got no plan, because pytest collected it without this plugin's `{fixture}`: name `{fixture}` among "
                "the arguments of the test or of its fixtures, and give a fixture of your own around it another name"
            )
        return asked

    def _perform(self, item: pytest.Item, asked: Asked) -> Trial:
        performed = self.campaign.perform_once(asked.plan)
        asked.name = performed.name
        if performed.result is not None:
            item.user_properties.extend(report.junit_properties(performed.result))
        if isinstance(performed.error, Unsupported):
            pytest.skip(str(performed.error))
        trial = performed.require()
        asked.read = trial.note_reads()
        return trial

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin a test, or the same one again, as plugins do that run it again."""
        self.campaign.test.begin(item.nodeid, hypothesis_of(getattr(item, "obj", None).__doc__))
        self.campaign.test.wire = tuple(sorted(item.stash.get(WIRE, ())))
        item.user_properties[:] = [one for one in item.user_properties if not one[0].startswith("llmchaos_")]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run a test with a trial or a lab once, before plugins that run it again.

        A second run of a claim would judge the same trial, and JUnit files would show
        its first failure as a pass. After Ctrl-C the claim has not ended.
        """
        if item.nodeid not in self._once:
            return None
        runner: Any = self.config.pluginmanager.getplugin("runner")
        done: object = runner.pytest_runtest_protocol(item=item, nextitem=nextitem)
        for one in item.stash.get(ASKED, []):
            self.campaign.end_claim(item.nodeid, one.plan)
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        with self.claims.call():
            return (yield)

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: object) -> Generator[None, object, object]:
        self._timer = (item, settings)
        return (yield)

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_timeout_cancel_timer(self) -> Generator[None, object, object]:
        self._timer = None
        return (yield)

    @contextlib.contextmanager
    def _without_time_limit(self) -> Iterator[None]:
        """Restart a test's pytest-timeout after waiting for another session."""
        timer, hook = self._timer, self.config.pluginmanager.hook
        if timer is None:
            yield
            return
        item, settings = timer
        hook.pytest_timeout_cancel_timer(item=item)
        try:
            yield
        finally:
            hook.pytest_timeout_set_timer(item=item, settings=settings)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Give a shared fixture its own draws, independent of test order."""
        if fixturedef.scope == "function":
            return (yield)
        case = f"[{getattr(request, 'param_index', 0)}]" if hasattr(request, "param") else ""
        with self.campaign.test.within(f"{request.node.nodeid}::{fixturedef.argname}{case}"):
            return (yield)

    def pytest_runtestloop(self) -> bool | None:
        """With `--chaos-plan`, or on the leash, print the plan and run nothing."""
        if not self.only_plans or self.is_worker:
            return None
        seed = f"{options.spelling(self.config, 'seed')}={self.campaign.settings.seed}"
        count = len(self.campaign.schedule())
        last = f"{count} trial{'s' * (count != 1)} planned with {seed}; nothing was touched"
        terminal = terminal_of(self.config)
        for line in (*plan_lines(self.campaign), last):
            if terminal is not None:
                terminal.write_line(line)
        if options.is_leashed(self.config) and not options.given(self.config, "plan"):
            pytest.exit(options.leash_message(self.config), returncode=pytest.ExitCode.NO_TESTS_COLLECTED)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._problems = self.campaign.close(int(exitstatus), whole_files=self._has_whole_files)
        if self.is_worker:  # whose exit status and terminal are not shown
            self.config.workeroutput["llmchaos_problems"] = self._problems  # type: ignore[attr-defined] # xdist's
        if self._problems:
            session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write_problems(terminalreporter, self._problems)
        if not self.is_worker:
            write_summary(terminalreporter, self.campaign.settings.directory)


def settings_of(config: pytest.Config, seed: int) -> Settings:
    """The settings from command line, ini file and xdist controller."""
    own = options.own_subject_of(config)
    if own is not None:
        hide(own.secrets(os.environ))
    runtime, why = choose_runtime(options.runtime_of(config), own=own is not None)
    return Settings(
        run=str(getattr(config, "workerinput", {}).get("llmchaos_run", "")) or new_run_name(seed),
        seed=seed,
        runtime=runtime,
        backend="own" if own else options.backend_of(config) or default_backend(runtime),
        own=own,
        reports=options.reports_of(config),
        repeat=options.repeat_of(config),
        worker=os.environ.get("PYTEST_XDIST_WORKER", ""),
        why_runtime=why,
        replay_line=repeat_line(config, seed),
    )


def ratchet_of(config: pytest.Config, settings: Settings) -> Ratchet:
    """The known refutations on this runtime and backend, none with `--runxfail`."""
    known = [one for one in options.known_of(config) if one.applies_on(settings.runtime, settings.backend)]
    file = "" if config.option.runxfail else options.known_file_of(config)
    return Ratchet(file, known, dt.datetime.now(dt.UTC).date())


def repeat_line(config: pytest.Config, seed: int) -> str:
    """The shell command that repeats this schedule."""
    name = options.spelling(config, "seed")
    names = {"--llmchaos-seed", name}
    arguments = [str(argument) for argument in config.invocation_params.args]
    kept = [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if argument.partition("=")[0] not in names and before not in names
    ]
    return redact(shlex.join(["pytest", *kept, f"{name}={seed}"]))


def plans_of(item: pytest.Function, campaign: Campaign) -> list[TrialPlan]:
    """Plan an item's trial, or one for each arm for `arms`.

    Raises UsageError without an experiment.
    """
    experiment = experiment_of(item)
    params = getattr(getattr(item, "callspec", None), "params", {})
    case: Case = params.get("trial") or params.get("arms") or case_alone(item)
    return [
        plan_trial(
            scenario=item.path.stem.removeprefix("test_"),
            hypothesis=hypothesis_of(item.function.__doc__ or item.module.__doc__),
            experiment=experiment,
            fault=case.fault,
            repeat=case.repeat,
            seed=campaign.settings.seed,
            services=campaign.services_of(experiment),
            capacity_tokens_per_s=campaign.settings.subject.capacity_tokens_per_s,
            arm=arm,
        )
        for arm in case.arms
    ]


def plan_lines(campaign: Campaign) -> Iterator[str]:
    """Yield a line for each trial, and for a user's stack what a run would find."""
    subject = campaign.settings.subject
    if subject.own:
        yield f"requests: {subject.requests} to {subject.api}, model {subject.model}"
    for trial in campaign.schedule():
        plan, entry = trial.plan, trial.entry
        acts = ", ".join(map(described, plan.injections)) or "no fault"
        arm = f", arm {plan.arm}{f' ({settings_words(plan.variables)})' if plan.variables else ''}" if plan.arm else ""
        lacking = campaign.lacking(plan)
        skipped = f" (skipped: needs {', '.join(lacking)})" if lacking else ""
        yield f"{plan.scenario}{arm}: {acts}; {entry.load}; {entry.arrivals} arrivals {entry.arrivals_sha256[:12]}{skipped}"
    yield from campaign.foresee()
