"""A pytest session with experiments: its plan, its trials, its outcome and its report."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmchaos import claims, options, report
from pytest_llmchaos.errors import (
    CLAIM_MAKES,
    BadScenario,
    EvidenceLost,
    HealFailed,
    LlmchaosError,
    NotReady,
    ProvesNothing,
    Refuted,
    Unsupported,
)
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.experiment_mark import experiment_of
from pytest_llmchaos.host.identity import new_run_name
from pytest_llmchaos.plan.experiment import TrialPlan, hypothesis_of
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.replay import read_replay
from pytest_llmchaos.session.settings import Settings, choose_runtime, default_backend

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.trial.trial import Trial

PLAN = pytest.StashKey[TrialPlan]()
TRIAL_NAME = pytest.StashKey[str]()
READ = pytest.StashKey[set[str]]()


class ChaosSession:
    """The hooks of a session in which a test asks for `trial` or `lab`. Registered by the plugin, once."""

    def __init__(self, config: pytest.Config, seed: int) -> None:
        self.config = config
        self.is_worker = hasattr(config, "workerinput")
        self.only_plans = options.only_plans(config)
        self.campaign = Campaign(settings_of(config, seed), lambda: progress_of(config))
        self.campaign.test.waiting = self._without_time_limit
        self._timer: tuple[pytest.Item, object] | None = None
        self._called: pytest.Item | None = None
        self._lab: Lab | None = None
        self._judged: set[object] = set()  # keys of trials of which a claim read a value
        self._problems: list[str] = []
        if options.is_leashed(config):
            self.campaign.refused = NotReady(options.leash_message(config))

    def plan(self, items: Sequence[pytest.Function]) -> None:
        """Plan the trials of these items, and find what is wrong before anything starts. Raises UsageError."""
        try:
            options.check_keys(self.config)
            self._take(items)
            if not self.only_plans and not self.config.option.collectonly:
                self._say_where()
                self.campaign.preflight()
        except LlmchaosError as error:
            if not self.is_worker:
                raise pytest.UsageError(str(error)) from None
            self.campaign.refused = error

    def _take(self, items: Sequence[pytest.Function]) -> None:
        for item in items:
            item.stash[PLAN] = plan_of(item, self.campaign)
        replay = options.given(self.config, "replay")
        recorded = read_replay(Path(replay)) if replay else None
        self.campaign.take({item.nodeid: item.stash[PLAN] for item in items}, recorded)

    def _say_where(self) -> None:
        """Where the trials will run and why there, before anything is looked for or fetched."""
        terminal, settings = terminal_of(self.config), self.campaign.settings
        if terminal is not None and not self.is_worker and self.config.get_verbosity() >= 0:
            where = f"runtime {settings.runtime} ({settings.why_runtime}), backend {settings.backend}"
            terminal.write_line(f"llmchaos: {where}, run {settings.run}")

    def lab(self) -> Lab:
        if self.campaign.refused is not None:
            raise self.campaign.refused
        self._lab = self.campaign.run.lab()
        return self._lab

    def trial(self, item: pytest.Item) -> Trial:
        """The trial of an item. Raises what it ended with; a runtime that lacks an ability is a SKIP."""
        plan = item.stash.get(PLAN, None)
        if plan is None and self.campaign.refused is not None:
            raise self.campaign.refused
        if plan is None:
            raise NotReady(
                f"{item.nodeid} got no plan, for its collection showed no `trial` of this plugin: name `trial` among the arguments of "
                "the test or of its fixtures, and give a fixture of your own around it another name"
            )
        performed = self.campaign.perform_once(plan)
        item.stash[TRIAL_NAME] = performed.name
        if performed.result is not None:
            item.user_properties.extend(report.junit_properties(performed.result))
        if isinstance(performed.error, Unsupported):
            pytest.skip(str(performed.error))
        trial = performed.require()
        item.stash[READ] = trial.note_reads()
        return trial

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Not at the protocol's begin: a plugin that runs a failed test again sets it up again."""
        self.campaign.test.begin(item.nodeid, hypothesis_of(getattr(item, "obj", None).__doc__))
        item.user_properties[:] = [one for one in item.user_properties if not one[0].startswith("llmchaos_")]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Around a plugin that runs a failed test again. What Ctrl-C breaks off is no ended claim."""
        outcome = yield
        if PLAN in item.stash:
            self.campaign.end_claim(item.nodeid, item.stash[PLAN])
        return outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A report that is made meanwhile is one of a subtest."""
        self._called = item
        try:
            return (yield)
        except Exception as raised:
            claims.note_guess(raised)
            raise
        finally:
            self._called = None

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
        """A test's time limit (pytest-timeout) begins anew once no other session measures: the wait is not the test's."""
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
        """What a fixture of several tests draws is its own: which test comes first depends on order and selection."""
        if fixturedef.scope == "function":
            return (yield)
        case = f"[{getattr(request, 'param_index', 0)}]" if hasattr(request, "param") else ""
        with self.campaign.test.within(f"{request.node.nodeid}::{fixturedef.argname}{case}"):
            return (yield)

    def pytest_runtestloop(self) -> bool | None:
        """With `--chaos-plan`, or on the leash, print the plan instead of running anything."""
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

    def note_report(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> None:
        """Judge a test's report: what proves nothing is an ERROR, what the runtime lacks a SKIP; its outcome goes to the journal."""
        stop_after(raised, item.session)
        if isinstance(raised, Unsupported) and found.failed:
            found.outcome, found.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {raised}")
        if self.is_worker and raised is not None and raised is self.campaign.refused:
            item.session.shouldfail = str(raised)  # the others of this worker would say the same
        if isinstance(raised, ProvesNothing | NotReady | HealFailed | BadScenario):
            found.longrepr = told(raised)
            if found.when == "call":
                # pytest, JUnit files and HTML pages call an error what went wrong before a test could judge, and this did.
                found.when = "setup"
        elif isinstance(raised, Refuted) and found.when == "setup":
            found.when = "call"  # the judge refuted the claim before it could ask
        if found.when == "call" or (found.when == "setup" and not found.passed):
            self._note_claim(item, found, raised)

    def _note_claim(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> None:
        """Write the claim's outcome to the journal, once: at its call, or where its trial proved nothing."""
        own = self.campaign.test.claim()
        if item.stash.get(READ, set()) - claims.TELLS_ARMS:
            self._judged.add(item.stash[PLAN].key)
        void = (
            self._void(item, found, raised) if PLAN in item.stash or own or self._passed_with_lab(item, found) else None
        )
        outcome = "error" if found.when == "setup" and found.failed else found.outcome
        for result in filter(None, own.values()):
            item.user_properties.extend(report.junit_properties(result))
        if ("llmchaos_verdict", "held") in item.user_properties and outcome in CLAIM_MAKES:
            at = item.user_properties.index(("llmchaos_verdict", "held"))
            item.user_properties[at] = ("llmchaos_verdict", CLAIM_MAKES[outcome])
        said = found.longreprtext[-500:] if raised is None else str(raised).split("\n\n")[0]
        message = None if found.passed else void or said
        trials = [name for name in (item.stash.get(TRIAL_NAME, None), *own) if name]
        self.campaign.note_claim(trials, item.nodeid, outcome, message)
        if PLAN in item.stash and TRIAL_NAME not in item.stash:
            self.campaign.note_unasked(item.stash[PLAN], item.nodeid, outcome, message)

    def _passed_with_lab(self, item: pytest.Item, found: pytest.TestReport) -> bool:
        """Of a test that failed, and has no trial of its own, nothing was performed that could be void."""
        return found.passed and self._lab is not None and getattr(item, "funcargs", {}).get("lab") is self._lab

    def _void(self, item: pytest.Item, found: pytest.TestReport, raised: BaseException | None) -> str | None:
        """Make an ERROR of a claim that did not come to judge, or that passed whatever its trial showed. Returns why."""
        if found.when != "call":
            return None
        if found.failed and raised is not None and not claims.refutes(raised):
            found.when = "setup"
            return claims.broken_off(raised)
        why = None
        if found.passed and isinstance(item, pytest.Function) and self._called is None:
            arms = len(item.stash[PLAN].experiment.faults) if PLAN in item.stash else 0
            why = claims.passes_anyway(
                item.function, item.stash.get(READ, None), arms=arms, is_unjudged=self._is_unjudged(item)
            )
        if why is not None:
            found.outcome, found.when, found.longrepr = "failed", "setup", f"{item.location[0]}: {why}"
            vars(found).pop("wasxfail", None)  # of a test that passed though it was expected to fail
        return why

    def _is_unjudged(self, item: pytest.Item) -> bool:
        """Whether this claim, which passed, is the last one of its trial, and no claim of that trial read a value."""
        plan = item.stash.get(PLAN, None)
        return plan is not None and plan.key not in self._judged and self.campaign.is_last_claim(item.nodeid, plan)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        whole_files = not self.is_worker or bool(self.config.workerinput["llmchaos_whole_files"])  # type: ignore[attr-defined]
        self._problems = self.campaign.close(int(exitstatus), whole_files=whole_files)
        if self.is_worker:  # whose own exit status and terminal nobody sees
            self.config.workeroutput["llmchaos_problems"] = self._problems  # type: ignore[attr-defined] # xdist's
        if self._problems:
            session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write_problems(terminalreporter, self._problems)
        if not self.is_worker:
            write_summary(terminalreporter, self.campaign.settings.directory)


def settings_of(config: pytest.Config, seed: int) -> Settings:
    """What the command line, the ini file and an xdist controller decided for this run."""
    own = options.own_subject_of(config)
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


def repeat_line(config: pytest.Config, seed: int) -> str:
    """The command that performs the same schedule again, ready for a shell."""
    name = options.spelling(config, "seed")
    names = {"--llmchaos-seed", name}
    arguments = [str(argument) for argument in config.invocation_params.args]
    kept = [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if argument.partition("=")[0] not in names and before not in names
    ]
    return redact(shlex.join(["pytest", *kept, f"{name}={seed}"]))


def plan_of(item: pytest.Function, campaign: Campaign) -> TrialPlan:
    """The trial that an item will ask for. Raises UsageError where it has no experiment."""
    experiment = experiment_of(item)
    callspec = getattr(item, "callspec", None)
    fault, repeat = callspec.params["trial"] if callspec and "trial" in callspec.params else (experiment.faults[0], 0)
    return plan_trial(
        scenario=item.path.stem.removeprefix("test_"),
        hypothesis=hypothesis_of(item.function.__doc__ or item.module.__doc__),
        experiment=experiment,
        fault=fault,
        repeat=repeat,
        seed=campaign.settings.seed,
        services=campaign.services,
        capacity_tokens_per_s=campaign.settings.subject.capacity_tokens_per_s,
    )


def plan_lines(campaign: Campaign) -> Iterator[str]:
    """A line for each trial of the schedule."""
    for trial in campaign.schedule():
        plan, entry = trial.plan, trial.entry
        acts = ", ".join(map(str, plan.injections)) or "no fault"
        lacking = campaign.lacking(plan)
        skipped = f" (skipped: needs {', '.join(lacking)})" if lacking else ""
        yield f"{plan.scenario}: {acts}; {entry.load}; {entry.arrivals} arrivals {entry.arrivals_sha256[:12]}{skipped}"


def stop_after(raised: BaseException | None, session: pytest.Session) -> None:
    """After a failed revert or lost evidence nothing more may run, whichever fixture, test or block it came from."""
    for error in causes_of(raised):
        if isinstance(error, HealFailed):
            session.shouldfail = f"heal_failed: {error}"
            return
        if isinstance(error, EvidenceLost):
            session.shouldfail = "evidence lost: nothing more is done that cannot be written down"


def causes_of(raised: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it came of: another may have taken its place on its way out of a test, or a group holds it."""
    waiting, seen = [raised], set[int]()
    while waiting:
        error = waiting.pop(0)
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__cause__, error.__context__]
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions


def told(raised: BaseException) -> str:
    """An error in one line, and below it what the test had found before: it must not be hidden by what makes it void."""
    before = [error for error in causes_of(raised) if error is not raised and isinstance(error, AssertionError)]
    lines = [f"before that, the test had failed: {type(error).__name__}: {error}" for error in before]
    return "\n\n".join([f"{type(raised).__name__}: {raised}", *lines])


def write_problems(terminal: pytest.TerminalReporter, problems: Sequence[str]) -> None:
    for problem in problems:
        terminal.write_line(f"llmchaos: {problem}", red=True)


def write_summary(terminal: pytest.TerminalReporter, directory: Path) -> None:
    """Build the report from the evidence on disk, and write a line for each trial."""
    if not directory.exists():
        return
    try:
        page = report.build(directory)
    except OSError as error:
        again = f"`llmchaos report {directory}` builds it later"
        write_problems(terminal, [f"the report cannot be written: {error.strerror or error}; {again}"])
        return
    except LlmchaosError as error:
        write_problems(terminal, [str(error)])
        return
    terminal.section("reliability")
    for line in report.summary_lines(report.read_run(directory / "run.json")):
        terminal.write_line(line)
    shown = page if not page.is_relative_to(Path.cwd()) else page.relative_to(Path.cwd())
    terminal.write_line(f"report: {shown}")


def terminal_of(config: pytest.Config) -> pytest.TerminalReporter | None:
    found: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    return found


def progress_of(config: pytest.Config) -> Progress:
    """Live progress through pytest's own terminal, past its capture; silent with -q and in xdist workers."""
    reporter = terminal_of(config)
    if reporter is None or config.get_verbosity() < 0 or hasattr(config, "workerinput"):
        return Progress(None, tty=False)
    capture = config.pluginmanager.getplugin("capturemanager")

    def write(text: str, end: bool) -> None:
        with capture.global_and_fixture_disabled():
            if end:
                reporter.ensure_newline()
                reporter.write_line(text)
            else:
                # A line that wraps could not be written over.
                reporter.rewrite(text[: shutil.get_terminal_size().columns - 1], erase=True)
            if not text:
                restore_line(reporter, config.invocation_params.dir)
            reporter.flush()

    return Progress(write, tty=bool(reporter.isatty))


def restore_line(reporter: pytest.TerminalReporter, folder: Path) -> None:
    """Write again the file's name that the updating line has replaced."""
    current = reporter.currentfspath
    if isinstance(current, Path):
        reporter.rewrite(f"{current.relative_to(folder) if current.is_relative_to(folder) else current} ")
    else:  # -v: the whole id is written anew, once the line is known to be gone
        reporter.currentfspath = None
