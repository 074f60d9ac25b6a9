"""`llmchaos init`: a project to start from."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_llmchaos.errors import BadScenario, LlmchaosError
from pytest_llmchaos.generate.starter import lab_project, own_project
from pytest_llmchaos.generate.starter.writing import Project, write_new
from pytest_llmchaos.subject.backends import BACKENDS

_DESCRIPTION = """\
Write a project that runs as it is: scenarios, pyproject.toml, a CI workflow and
a README. It tests the lab that this package contains, or with --compose your
own stack: then it guesses from the compose file which service plays which part,
and writes each guess with its reason.

Existing files are never changed. If DIR has one of the files, nothing is
written.

Exit status: 0 if the project was written, 1 if it was not, 2 for a wrong option.
"""
_EXAMPLES = """\
examples:
  llmchaos init demo                                 the lab in containers, if Docker responds
  llmchaos init demo --runtime local                 the lab as processes, with a real small model
  llmchaos init demo --runtime local --backend sim   the lab as processes, with a simulated model
  llmchaos init demo --scenario agents               the lab with an agent and its tools
  llmchaos init chaos --compose compose.yaml         your own stack
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 is success. 1 means that nothing was written.
    """
    given = _parser().parse_args(args)
    try:
        if given.compose:
            _refuse_options_of_the_lab(given)
            project = own_project.project(given.folder, given.compose)
        else:
            project = lab_project.project(
                given.folder, runtime=given.runtime, backend=given.backend, scenarios=tuple(given.scenario)
            )
        write_new(given.folder, project.files)
    except LlmchaosError as error:
        sys.stderr.write(f"llmchaos init: {error}\n")
        return 1
    sys.stdout.write(_summary(given.folder, project))
    return 0


def _refuse_options_of_the_lab(given: argparse.Namespace) -> None:
    wrong = [name for name in ("runtime", "backend", "scenario") if getattr(given, name)]
    if wrong:
        raise BadScenario(f"--{wrong[0]} is for the lab, and --compose names your own stack: give only one of them")


def _summary(folder: Path, project: Project) -> str:
    lines = [f"wrote {folder / name}" for name in project.files]
    lines += ["", *(f"note: {note}" for note in project.notes), "next:"]
    steps = [(f"cd {shlex.quote(str(folder))}", ""), *project.steps]
    width = max(len(command) for command, _ in steps)
    lines += [f"  {command:{width}}  {about}".rstrip() for command, about in steps]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos init",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the project's folder, created if missing")
    parser.add_argument(
        "--compose",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="your compose files, to test their stack instead of the lab. They stay as they are",
    )
    parser.add_argument(
        "--runtime",
        choices=("compose", "local"),
        help="containers, or processes on this machine (default: containers if Docker responds)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="inference engine of the lab (default: ollama with compose, llamacpp with local, sim if all scenarios need it)",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help=(
            "a shipped scenario to copy, such as kill_model or lost_answer, a folder of them (agents, patterns), or all; may be "
            "given more than once (default: kill_api)"
        ),
    )
    return parser
