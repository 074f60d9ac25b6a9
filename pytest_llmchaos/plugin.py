"""The door between pytest and the instrument: options, marks, fixtures, reports. Each hook calls one named thing."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmchaos import options
from pytest_llmchaos.errors import (
    CLAIM_MAKES,
    EvidenceLost,
    HealFailed,
    LlmchaosError,
    NotReady,
    ProvesNothing,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import Experiment, TrialPlan
    from pytest_llmchaos.session.campaign import Campaign
    from pytest_llmchaos.trial.trial import Trial

CAMPAIGN = pytest.StashKey["Campaign"]()
PLAN = pytest.StashKey["TrialPlan"]()
TRIAL_NAME = pytest.StashKey[str]()
SEED = pytest.StashKey[int]()
RUN = pytest.StashKey[str]()
UNCLEAN = pytest.StashKey[list[str]]()
WORKER_DIED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "llmchaos(experiment): a chaos experiment; made by pytest_llmchaos.experiment(...)"
    )
    try:
        resolve(config)
    except LlmchaosError as error:
        raise pytest.UsageError(str(error)) from None
    if config.pluginmanager.hasplugin("xdist"):
        if only_plans(config):
            # A plan is printed by one process; workers would know nothing of it and perform it.
            config.option.dist, config.option.tx, config.option.numprocesses = "no", [], None
        config.pluginmanager.register(WithXdist(), "llmchaos-xdist")


def resolve(config: pytest.Config) -> None:
    """The run's seed and name: the controller's where this is an xdist worker. Wrong options end the session here."""
    from_controller = getattr(config, "workerinput", {})
    replay = options.given(config, "replay")
    options.check(config)
    if "llmchaos_seed" in from_controller:
        seed = int(from_controller["llmchaos_seed"])
    elif replay:
        from pytest_llmchaos.session.replay import read_replay  # noqa: PLC0415 - only for replays

        seed = options.replayed_seed(config, read_replay(Path(replay))[0])
    else:
        seed = options.seed_of(config)
    config.stash[SEED] = seed
    config.stash[RUN] = str(from_controller.get("llmchaos_run", ""))


class WithXdist:
    """Hooks that exist only with pytest-xdist."""

    def pytest_configure_node(self, node: Any) -> None:
        from pytest_llmchaos.session.settings import new_run_name  # noqa: PLC0415 - only where workers are

        config = node.config
        config.stash[RUN] = config.stash[RUN] or new_run_name(config.stash[SEED])
        node.workerinput["llmchaos_seed"] = config.stash[SEED]
        node.workerinput["llmchaos_run"] = config.stash[RUN]

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        from pytest_llmchaos.xdist import scheduler_for  # noqa: PLC0415 - only where workers are

        return scheduler_for(config, log)

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker that crashed cannot remove its stack; its watchdog does, and what that leaves is swept at the end."""
        if error:
            node.config.stash[WORKER_DIED] = True
            reporter = node.config.pluginmanager.getplugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"llmchaos: worker {node.gateway.id} died; its watchdog removes its stack")


def pytest_report_header(config: pytest.Config) -> str:
    backend = options.backend_of(config) or "the runtime's own"
    seed = f"{options.spelled(config, 'seed')}={config.stash[SEED]}"
    return f"llmchaos: {seed}, runtime {options.runtime_of(config)}, backend {backend}"


def say_where(config: pytest.Config, campaign: Campaign) -> None:
    """Where the trials will run, and why there: before anything is looked for or fetched, which may take its time."""
    reporter, settings = config.pluginmanager.getplugin("terminalreporter"), campaign.settings
    if reporter is not None and config.get_verbosity() >= 0 and not hasattr(config, "workerinput"):
        where = f"runtime {settings.runtime} ({settings.why_runtime}), backend {settings.backend}"
        reporter.write_line(f"llmchaos: {where}, run {settings.run}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One trial for each fault and repeat; a single one needs no id."""
    experiment = experiment_of(metafunc.definition)
    if experiment is None or "trial" not in metafunc.fixturenames:
        return
    repeats = options.repeat_of(metafunc.config)
    cases = [(fault, repeat) for fault in experiment.faults for repeat in range(repeats)]
    if len(cases) > 1:
        ids = [f"{fault}" + (f" #{repeat + 1}" if repeats > 1 else "") for fault, repeat in cases]
        metafunc.parametrize("trial", cases, indirect=True, ids=ids)


def experiment_of(node: Any) -> Experiment | None:
    """The experiment of the closest mark. Raises UsageError for a mark that was not made by `experiment(...)`."""
    mark = node.get_closest_marker("llmchaos")
    if mark is None:
        return None
    found = mark.kwargs.get("experiment")
    if found is None:
        raise pytest.UsageError(
            f"{node.nodeid}: pytest.mark.llmchaos takes an experiment; write `pytestmark = pytest_llmchaos.experiment(load=..., fault=...)`"
        )
    return found  # type: ignore[no-any-return] # a mark's arguments are untyped


def asks_for(item: pytest.Function, name: str) -> bool:
    """Whether an item uses this plugin's fixture of that name, and not one that a test suite defines for itself."""
    info = getattr(item, "_fixtureinfo", None)
    found: list[Any] = list(info.name2fixturedefs.get(name, ())) if info is not None else []
    return bool(found) and found[-1].func.__module__ == __name__


def plan_of(item: pytest.Function, campaign: Campaign) -> TrialPlan | None:
    """The trial that an item will ask for; None for an item that asks for none."""
    experiment = experiment_of(item)
    if not asks_for(item, "trial"):
        return None
    if experiment is None:
        raise pytest.UsageError(
            f"{item.nodeid} asks for `trial` but has no experiment: add `pytestmark = pytest_llmchaos.experiment(load=..., fault=...)`"
        )
    from pytest_llmchaos.plan.experiment import hypothesis_of  # noqa: PLC0415 - only where scenarios are
    from pytest_llmchaos.plan.schedule import plan_trial  # noqa: PLC0415 - as above

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
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan all trials, and find what is wrong before anything starts."""
    wanted = asking(session)
    if not wanted:
        return
    campaign = campaign_of(session.config)
    try:
        take_plans(campaign, wanted, session.config)
        if not only_plans(session.config) and not session.config.option.collectonly:
            say_where(session.config, campaign)
            campaign.preflight()
    except LlmchaosError as error:
        if hasattr(session.config, "workerinput"):
            campaign.refused = error
        else:
            raise pytest.UsageError(str(error)) from None


def asking(session: pytest.Session) -> list[pytest.Function]:
    """The collected items that will use the stack."""
    return [i for i in session.items if isinstance(i, pytest.Function) and (asks_for(i, "trial") or asks_for(i, "lab"))]


def take_plans(campaign: Campaign, items: list[pytest.Function], config: pytest.Config) -> None:
    plans = []
    for item in items:
        plan = plan_of(item, campaign)
        if plan is not None:
            item.stash[PLAN] = plan
            plans.append(plan)
    replay = options.given(config, "replay")
    recorded = None
    if replay:
        from pytest_llmchaos.session.replay import read_replay  # noqa: PLC0415 - only for replays

        recorded = read_replay(Path(replay))[1]
    campaign.take(plans, recorded)


def only_plans(config: pytest.Config) -> bool:
    return bool(options.given(config, "plan")) or options.leashed(config)


def campaign_of(config: pytest.Config) -> Campaign:
    """The session's campaign, made at the first call."""
    if CAMPAIGN not in config.stash:
        from pytest_llmchaos.session.campaign import Campaign  # noqa: PLC0415 - only where scenarios are
        from pytest_llmchaos.session.settings import Settings, choose_runtime, default_backend, new_run_name  # noqa: PLC0415

        seed = config.stash[SEED]
        reports = Path(options.text_of(config, "report", "reports"))
        run = config.stash[RUN] or new_run_name(seed)
        reports = reports if reports.is_absolute() else config.rootpath / reports
        own = options.own_subject_of(config)
        runtime, why = choose_runtime(options.runtime_of(config), own=own is not None)
        settings = Settings(
            run=run,
            seed=seed,
            runtime=runtime,
            backend="own" if own else options.backend_of(config) or default_backend(runtime),
            own=own,
            reports=reports,
            repeat=options.repeat_of(config),
            worker=os.environ.get("PYTEST_XDIST_WORKER", ""),
            why_runtime=why,
            replay_line=repeat_line(config, seed),
        )
        config.stash[CAMPAIGN] = Campaign(settings, lambda: progress_of(config))
        if options.leashed(config):
            config.stash[CAMPAIGN].refused = NotReady(options.LEASHED)
    return config.stash[CAMPAIGN]


def repeat_line(config: pytest.Config, seed: int) -> str:
    """The command that performs the same schedule again, ready for a shell."""
    ours = {f"--llmchaos-seed={seed}", f"{options.spelled(config, 'seed')}={seed}"}
    kept = [a for a in map(str, config.invocation_params.args) if a not in ours]
    return shlex.join(["pytest", *kept, f"{options.spelled(config, 'seed')}={seed}"])


def progress_of(config: pytest.Config) -> Any:
    """Live progress through pytest's own terminal, past its capture; silent with -q and in xdist workers."""
    from pytest_llmchaos.session.progress import Progress  # noqa: PLC0415 - only where scenarios are

    reporter = config.pluginmanager.getplugin("terminalreporter")
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
                give_back_line(reporter, config.invocation_params.dir)
            reporter.flush()

    return Progress(write, tty=reporter.isatty)


def give_back_line(reporter: Any, folder: Path) -> None:
    """An updating line stood where pytest had written which file it is in: it gets that back, and goes on behind it."""
    current = reporter.currentfspath
    if isinstance(current, Path):
        reporter.rewrite(f"{current.relative_to(folder) if current.is_relative_to(folder) else current} ")
    else:  # -v: the whole id is written anew, once the line is known to be gone
        reporter.currentfspath = None


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The running stack: `lab.load(...)`, `lab.inject(...)`, `lab.hold_steady(...)`, `lab.prometheus`, `lab.service(...)`."""
    campaign = campaign_of(pytestconfig)
    if campaign.refused is not None:
        raise campaign.refused
    return campaign.run.lab()


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """One performance of the file's experiment, performed once and judged by every claim that asks for it."""
    performed = campaign_of(request.config).performed(request.node.stash[PLAN])
    request.node.stash[TRIAL_NAME] = performed.name
    if performed.result is not None:
        from pytest_llmchaos import report  # noqa: PLC0415 - only where a trial was performed

        request.node.user_properties.extend(report.junit_properties(performed.result))
    if isinstance(performed.error, Unsupported):
        pytest.skip(str(performed.error))
    return performed.require()


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With --chaos-plan, or on the leash where a test asks for the stack, print the plan instead of running anything."""
    if not only_plans(session.config) or hasattr(session.config, "workerinput"):
        return None
    if not options.given(session.config, "plan") and not asking(session):
        return None
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    campaign = campaign_of(session.config)
    for trial in campaign.schedule():
        plan, entry = trial.plan, trial.entry
        acts = ", ".join(map(str, plan.injections)) or "no fault"
        reporter.write_line(
            f"{plan.scenario}: {acts}; {entry.load}; {entry.arrivals} arrivals {entry.arrivals_sha256[:12]}"
            + (f" (skipped: needs {', '.join(lacking)})" if (lacking := campaign.lacking(plan)) else "")
        )
    seed = f"{options.spelled(session.config, 'seed')}={campaign.settings.seed}"
    reporter.write_line(f"{len(campaign.schedule())} trials planned with {seed}; nothing was touched")
    if options.leashed(session.config) and not options.given(session.config, "plan"):
        pytest.exit(options.LEASHED, returncode=pytest.ExitCode.NO_TESTS_COLLECTED)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    raised = call.excinfo.value if call.excinfo else None
    stop_after(raised, item.session)
    if isinstance(raised, ProvesNothing | NotReady | HealFailed):
        report.longrepr = f"{type(raised).__name__}: {raised}"
        if report.when == "call":
            # pytest, JUnit files and HTML pages call an error what went wrong before a test could judge, and this did.
            report.when = "setup"
    note_claim(item, report, raised)
    return report


def stop_after(raised: BaseException | None, session: pytest.Session) -> None:
    """After a failed heal or lost evidence nothing more may run, whichever fixture, test or block it came from."""
    for error in behind(raised):
        if isinstance(error, HealFailed):
            session.shouldfail = f"heal_failed: {error}"
            return
        if isinstance(error, EvidenceLost):
            session.shouldfail = "evidence lost: nothing more is done that cannot be written down"


def behind(raised: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that it came of: on its way out of a test, another may have taken its place, or a group holds it."""
    waiting, seen = [raised], set[int]()
    while waiting:
        error = waiting.pop(0)
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__cause__, error.__context__]
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions


def note_claim(item: pytest.Item, report: pytest.TestReport, raised: BaseException | None) -> None:
    """Write the claim's outcome to the journal, once: at its call, or where its trial proved nothing."""
    campaign = item.config.stash.get(CAMPAIGN, None)
    if campaign is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
        return
    outcome = "error" if report.when == "setup" else report.outcome
    if ("llmchaos_verdict", "held") in item.user_properties and outcome in CLAIM_MAKES:
        at = item.user_properties.index(("llmchaos_verdict", "held"))
        item.user_properties[at] = ("llmchaos_verdict", CLAIM_MAKES[outcome])
    message = (
        None if report.passed else (str(raised).split("\n\n")[0] if raised is not None else report.longreprtext[-500:])
    )
    campaign.note_claim(item.stash.get(TRIAL_NAME, None), item.nodeid, outcome, message)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    campaign = session.config.stash.get(CAMPAIGN, None)
    problems = [] if campaign is None else campaign.close(int(exitstatus))
    if session.config.stash.get(WORKER_DIED, False):
        problems += swept()
    if problems:
        session.config.stash[UNCLEAN] = problems
        session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR


def swept() -> list[str]:
    """Remove what workers left that crashed. Returns what did not go well."""
    from pytest_llmchaos.cleanup.sweep import sweep_dead_runs  # noqa: PLC0415 - only where a worker died

    try:
        sweep_dead_runs(lambda _: None)
    except (LlmchaosError, OSError) as error:
        return [f"what a crashed worker left is not removed: {error}; run `llmchaos heal`"]
    return []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what did not go well, build the report from the evidence on disk, and say in a line per trial what was found."""
    for problem in config.stash.get(UNCLEAN, []):
        terminalreporter.write_line(f"llmchaos: {problem}", red=True)
    directory = run_directory(config)
    if directory is None or not directory.exists() or hasattr(config, "workerinput"):
        return
    from pytest_llmchaos import report  # noqa: PLC0415 - only where a run left evidence

    try:
        page = report.build(directory)
    except OSError as error:
        again = f"`llmchaos report {directory}` builds it later"
        terminalreporter.write_line(
            f"llmchaos: the report cannot be written: {error.strerror or error}; {again}", red=True
        )
        return
    terminalreporter.section("reliability")
    for line in report.summary_lines(report.read_run(directory / "run.json")):
        terminalreporter.write_line(line)
    shown = page if not page.is_relative_to(Path.cwd()) else page.relative_to(Path.cwd())
    terminalreporter.write_line(f"report: {shown}")


def run_directory(config: pytest.Config) -> Path | None:
    campaign = config.stash.get(CAMPAIGN, None)
    if campaign is not None:
        return campaign.settings.directory
    if config.stash.get(RUN, ""):
        return config.rootpath / options.text_of(config, "report", "reports") / config.stash[RUN]
    return None
