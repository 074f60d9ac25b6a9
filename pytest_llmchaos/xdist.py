"""Hooks for pytest-xdist: one seed and run name, one worker per scenario file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from pytest_llmchaos import options
from pytest_llmchaos.host.identity import new_run_name

PROBLEMS = "llmchaos_problems"  # key of the worker's output with its problems

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class WithXdist:
    """The hooks of the process that starts the workers."""

    def __init__(self, config: pytest.Config, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.run = ""
        self._workers: list[WorkerController] = []
        self._problems: list[str] = []

    def pytest_configure_node(self, node: WorkerController) -> None:
        self.run = self.run or new_run_name(self.seed)
        node.workerinput["llmchaos_seed"] = self.seed
        node.workerinput["llmchaos_run"] = self.run
        # Other distributions spread the claims of one file over several workers.
        node.workerinput["llmchaos_whole_files"] = self.config.getvalue("dist") in {"load", "loadfile"}
        self._workers.append(node)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        """Our scheduler for the default `--dist load`, else None."""
        return ScenarioScheduling(config, log) if config.getvalue("dist") == "load" else None

    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """Report a crashed worker.

        Its watchdog removes its stack. The end of the session removes what is left.
        """
        if error:
            reporter = self.config.pluginmanager.getplugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"llmchaos: worker {node.gateway.id} died; its watchdog removes its stack")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        outputs = {node.gateway.id: getattr(node, "workeroutput", None) for node in self._workers}
        self._problems = [
            f"worker {name}: {problem}"
            for name, output in outputs.items()
            for problem in (output or {}).get(PROBLEMS, ())
        ]
        if None in outputs.values() and self._has_run:
            self._problems += swept()
        if self._problems:
            session.exitstatus = exitstatus or pytest.ExitCode.INTERNAL_ERROR

    @property
    def _directory(self) -> Path:
        return options.reports_of(self.config) / self.run

    @property
    def _has_run(self) -> bool:
        """True if a worker has opened a run. Before that it starts nothing."""
        return bool(self.run) and self._directory.exists()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._problems or self._has_run:
            from pytest_llmchaos.chaos_session.terminal import write_problems, write_summary  # noqa: PLC0415 - only after a run

            write_problems(terminalreporter, self._problems)
            write_summary(terminalreporter, self._directory)


class ScenarioScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist's scheduler classes are untyped
    """One scope per scenario file. Every other test is a scope, as with `--dist load`.

    xdist's loadgroup mark does not work with pytest 9.2 (pytest-xdist#1386). So a file
    that contains "pytest_llmchaos" is taken for a scenario.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._scenario_files: dict[str, bool] = {}

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file not in self._scenario_files:
            self._scenario_files[file] = is_scenario(self.config.rootpath / file)
        return file if self._scenario_files[file] else nodeid


def is_scenario(path: Path) -> bool:
    """True if a file mentions this plugin."""
    try:
        return "pytest_llmchaos" in path.read_text(errors="replace")
    except OSError:
        return False


def swept() -> list[str]:
    """Remove the orphans of crashed workers. Returns the problems."""
    from pytest_llmchaos.cleanup import sweep  # noqa: PLC0415 - only after a crash

    failed = sweep.sweep_dead_runs(lambda _: None, sweep.in_docker()).failed
    return [f"an orphan of a crashed worker was not removed: {problem}; run `llmchaos heal`" for problem in failed]
