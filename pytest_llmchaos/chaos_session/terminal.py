"""A session's lines in pytest's terminal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos import report
from pytest_llmchaos.errors import LlmchaosError
from pytest_llmchaos.session.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def write_problems(terminal: pytest.TerminalReporter, problems: Sequence[str]) -> None:
    """Print a red line for each problem."""
    for problem in problems:
        terminal.write_line(f"llmchaos: {problem}", red=True)


def write_summary(terminal: pytest.TerminalReporter, directory: Path) -> None:
    """Build the report from the run's folder, and print a line for each trial."""
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
    """Progress lines in pytest's terminal, none with `-q` and in xdist workers."""
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
                reporter.rewrite(fitted(text, shutil.get_terminal_size().columns - 1), erase=True)
            if not text:
                restore_line(reporter, config.invocation_params.dir)
            reporter.flush()

    return Progress(write, tty=bool(reporter.isatty))


def fitted(text: str, columns: int) -> str:
    """Drop the last values of a line that would wrap, and could not be overwritten."""
    while len(text) > columns and ", " in text:
        text = text.rpartition(", ")[0]
    return text[:columns]


def restore_line(reporter: pytest.TerminalReporter, folder: Path) -> None:
    """Print again the file name that the updating line has overwritten."""
    current = reporter.currentfspath
    if isinstance(current, Path):
        reporter.rewrite(f"{current.relative_to(folder) if current.is_relative_to(folder) else current} ")
    else:  # -v: pytest prints the whole id again
        reporter.currentfspath = None
