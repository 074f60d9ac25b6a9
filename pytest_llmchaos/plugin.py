"""The pytest plugin: options, the mark and the fixtures `trial`, `arms` and `lab`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmchaos import options
from pytest_llmchaos.errors import LlmchaosError
from pytest_llmchaos.plan.known import unknown_test

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pytest_llmchaos.chaos_session.hooks import ChaosSession
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.trial.arms import Arms
    from pytest_llmchaos.trial.trial import Trial

SESSION = "llmchaos-session"
MARK = "llmchaos"
SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register ini keys. The options follow, when all plugins have theirs.

    A plugin that a conftest.py names is loaded after that moment.
    """
    options.add_keys(parser)
    if any(name.endswith("conftest.py") for name, _ in pluginmanager.list_name_plugin()):
        add_options(parser, pluginmanager)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Register the options and read the command line again, before a conftest.py is."""
    add_options(parser, early_config.pluginmanager)
    # Without this, the words after our options would be taken for paths.
    known = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
    known.confcutdir = early_config.known_args_namespace.confcutdir
    early_config.known_args_namespace = known


def add_options(parser: pytest.Parser, plugins: pytest.PytestPluginManager) -> None:
    plugins.register(options.add(parser), options.SPELLING)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "llmchaos(experiment): a chaos experiment, created by pytest_llmchaos.experiment(...)."
    )
    config.addinivalue_line(
        "markers",
        "llmchaos_wire(*services): services that the test hits with faults of the fault agent, through `lab.inject`.",
    )
    try:
        config.stash[SEED] = resolve_seed(config)
    except LlmchaosError as error:
        raise pytest.UsageError(str(error)) from None
    if getattr(config.option, "dist", "no") != "no":
        register_xdist(config)


def register_xdist(config: pytest.Config) -> None:
    """Register the hooks for xdist. A session that only plans runs without workers."""
    if options.only_plans(config):
        config.option.dist, config.option.tx, config.option.numprocesses = "no", [], None
        return
    from pytest_llmchaos.xdist import WithXdist  # noqa: PLC0415 - only with workers

    config.pluginmanager.register(WithXdist(config, config.stash[SEED]), "llmchaos-xdist")


def resolve_seed(config: pytest.Config) -> int:
    """Return the run's seed, in an xdist worker the controller's.

    Raises BadScenario for wrong options.
    """
    options.check(config)
    from_controller = getattr(config, "workerinput", {})
    if "llmchaos_seed" in from_controller:
        return int(from_controller["llmchaos_seed"])
    replay = options.given(config, "replay")
    if not replay:
        return options.seed_of(config)
    from pytest_llmchaos.session.replay import read_replay  # noqa: PLC0415 - only for replays

    return options.replayed_seed(config, read_replay(Path(replay)).seed)


def pytest_report_header(config: pytest.Config) -> str:
    backend = options.backend_of(config) or "the runtime's default"
    seed = f"{options.spelling(config, 'seed')}={config.stash[SEED]}"
    return f"llmchaos: {seed}, runtime {options.runtime_of(config)}, backend {backend}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `trial` by fault, repeat and arm, `arms` by fault and repeat."""
    if metafunc.definition.get_closest_marker(MARK) is not None:
        try:
            parametrize(metafunc)
        except pytest.UsageError as error:
            raise pytest.Collector.CollectError(str(error)) from None


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test the cases of its experiment. A single case gets no id."""
    from pytest_llmchaos.experiment_mark import cases_of  # noqa: PLC0415 - only with scenarios

    fixture = fixture_of(metafunc)
    cases = cases_of(metafunc.definition, fixture, options.repeat_of(metafunc.config))
    if fixture in metafunc.fixturenames and len(cases) > 1:
        metafunc.parametrize(fixture, list(cases.values()), indirect=True, ids=list(cases))


def fixture_of(metafunc: pytest.Metafunc) -> str:
    """Return `arms` for a test that uses it, else `trial`.

    Raises:
        UsageError: It uses both.
    """
    if not uses(metafunc.definition, "arms"):
        return "trial"
    if "trial" in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} uses `trial` and `arms`: use `arms` alone, arms[NAME] is one arm's trial"
        )
    return "arms"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Report an experiment that no test uses, and an unknown test, as an error."""
    report = yield
    if report.passed and type(collector) in {pytest.Module, pytest.Class}:  # not doctests
        why = never_performed(collector, report.result) or wrongly_listed(collector, report.result)
        if why is not None:
            report.outcome, report.longrepr = "failed", why
    return report


def never_performed(
    collected: pytest.Item | pytest.Collector, children: Sequence[pytest.Item | pytest.Collector]
) -> str | None:
    """Return why an experiment of a file, class or test is never performed, or None.

    The tests of a class are not collected yet, so a class may use the trial.
    """
    users = [child for child in children if "trial" in getattr(child, "fixturenames", ()) or uses(child, "arms")]
    alone = [
        child for child in children if isinstance(child, pytest.Function) and has_own(child) and child not in users
    ]
    if has_own(collected) and not users and not any(isinstance(child, pytest.Class) for child in children):
        found = collected
    elif alone:
        found = alone[0]
    else:
        return None
    return (
        f"{found.nodeid} has an experiment that is never performed, because no test uses its `trial`: "
        "name `trial` among the arguments of a `test_...` function (or `arms`, to compare arms), or drop the experiment"
    )


def wrongly_listed(
    collected: pytest.Item | pytest.Collector, children: Sequence[pytest.Item | pytest.Collector]
) -> str | None:
    """Return why a known refutation is about no claim of a file or class, or None."""
    config = collected.config
    if getattr(config.option, "lf", False) or not options.known_of(config):  # --lf leaves tests away
        return None
    tests: dict[str, bool | None] = {child.nodeid: None for child in children if isinstance(child, pytest.Class)}
    for child in children:
        if isinstance(child, pytest.Function):
            tests[options.id_without_repeat(child)] = any(uses(child, name) for name in ("trial", "arms", "lab"))
    return unknown_test(options.known_of(config), collected.nodeid, tests, options.known_file_of(config))


def has_own(node: pytest.Item | pytest.Collector) -> bool:
    """True if a node itself has an experiment, not only its parents."""
    return any(mark.name == MARK for mark in node.own_markers)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan the trials if an item uses a fixture of ours, or with `--chaos-plan`."""
    items = [item for item in session.items if isinstance(item, pytest.Function)]
    trials = [item for item in items if uses(item, "trial") or uses(item, "arms")]
    with_lab = [item for item in items if uses(item, "lab")]
    if trials or with_lab:
        broken = session.testsfailed and not session.config.option.continue_on_collection_errors
        chaos_session(session.config).plan(trials, with_lab, may_run=not broken)
    elif options.given(session.config, "plan") and not hasattr(session.config, "workerinput"):
        try:
            options.check_keys(session.config)
        except LlmchaosError as error:
            raise pytest.UsageError(str(error)) from None
        chaos_session(session.config)


def uses(item: pytest.Item | pytest.Collector, name: str) -> bool:
    """True if an item uses this plugin's fixture, not another of that name."""
    info = getattr(item, "_fixtureinfo", None)
    found = [] if info is None else list(info.name2fixturedefs.get(name, ()))
    return bool(found) and found[-1].func.__module__ == __name__


def chaos_session(config: pytest.Config) -> ChaosSession:
    """Return the session's experiments, registered as a plugin at the first call."""
    found: ChaosSession | None = config.pluginmanager.getplugin(SESSION)
    if found is None:
        from pytest_llmchaos.chaos_session.hooks import ChaosSession  # noqa: PLC0415 - imports everything heavy

        found = ChaosSession(config, config.stash[SEED])
        config.pluginmanager.register(found, SESSION)
    return found


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The running stack, started by the first test that uses it.

    Methods: `lab.load`, `lab.inject`, `lab.hold`, `lab.hold_steady`, `lab.service`.
    """
    return chaos_session(pytestconfig).lab()


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """The result of the file's experiment, performed once for all of its tests."""
    return chaos_session(request.config).trial(request.node)


@pytest.fixture
def arms(request: pytest.FixtureRequest) -> Arms:
    """The trials of all arms of the file's experiment, and the effects between them.

    Each is performed once for all tests of the file.
    """
    return chaos_session(request.config).arms(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judge a test's report, before the wrappers of a conftest.py see it."""
    report = yield
    found: ChaosSession | None = item.config.pluginmanager.getplugin(SESSION)
    if found is not None:
        found.claims.note(item, report, call.excinfo.value if call.excinfo else None)
    return report
