"""Commands of runs and stacks: cleanup, checks and reports."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from pytest_llmchaos import report
from pytest_llmchaos.cleanup import sweep
from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady
from pytest_llmchaos.evidence import ledger
from pytest_llmchaos.host import extras, state_dirs
from pytest_llmchaos.host.ports import Ports, loopback
from pytest_llmchaos.prometheus import binary
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.programs import WEIGHTS_LOCK
from pytest_llmchaos.session import ini_check
from pytest_llmchaos.subject.backends import BACKENDS
from pytest_llmchaos.subject.lab import setup_command, stack_dir

LEDGER = Path("reports/ledger.jsonl")
LEAST_FREE_GB = 2.0
_DESCRIPTION = """\
Tools around chaos experiments for LLM inference services. The experiments
themselves are pytest tests: run pytest.

first steps:
  llmchaos init demo --runtime local --backend sim  write a project that runs
  cd demo
  pytest --chaos-plan                               print the planned trials
  pytest                                            perform them

your own stack:
  llmchaos init chaos --compose compose.yaml        write a project for it
  llmchaos doctor                                   check this machine

your metrics:
  llmchaos metrics http://localhost:8000            what a model server exports

after a crash:
  llmchaos heal                                     remove what dead runs left
"""
_EPILOG = """\
`llmchaos COMMAND --help` explains a command. `pytest --help` lists the options
and ini keys of experiments, under `llmchaos`.

Exit status of every command: 0 for success, 1 for a problem that the output
names, 2 for a wrong command or option.
"""
_SETUP = """\
Install what the lab's containers need: build or pull its images. On Debian, as
root, it also installs Docker Engine if it is missing. `--chaos-runtime local`
needs no set-up.

Exit status: 0 if all is there, else 1.
"""
_HEAL = """\
Revert the faults and remove the stacks that dead runs left, in Docker and as
local processes. Live runs are not changed.

A run is dead if its process is gone. A run that this machine cannot check is
left alone, and the output names the commands that remove it by hand.

Exit status: 0 if no orphan is left, 1 if one is left or Docker did not respond.
"""
_DOCTOR = """\
Check Docker, Compose, the lab's images, the local runtime's programs, the keys
of the ini file, ports, disk and orphans of dead runs. Each check prints a line:

  ok    the check passed
  note  not a failure, with what to do
  bad   the check failed, with what to do

Exit status: 0 if no check failed, else 1.
"""
_REPORT = """\
Build report.html, run.json and summary.md again from a run's journal and
samples, for example after a run that was killed. Prints the report's path.
"""
_BUDGET = """\
Print the share of a month's error budget that each experiment would use, from
the ledger of all runs.
"""


def main(argv: Sequence[str]) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except LlmchaosError as error:
        sys.stderr.write(f"llmchaos: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"pytest-llmchaos {metadata.version('pytest-llmchaos')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"examples:\n{textwrap.indent(examples, '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    commands.add_parser("init", help="write a project to start from")
    setup = command(
        "setup",
        "build or pull the images of the lab",
        _SETUP,
        "llmchaos setup                         images of the default backend\n"
        "llmchaos setup --backend sim           without a model\n"
        "llmchaos setup --backend sim --agents  with those of the agents",
    )
    setup.add_argument("--agents", action="store_true", help="the image of the lab's agents and their tools, too")
    setup.add_argument(
        "--backend", action="append", choices=BACKENDS, help="may be given more than once (default: ollama)"
    )
    heal = command(
        "heal",
        "revert faults and remove stacks that dead runs left",
        _HEAL,
        "llmchaos heal --dry-run   list the orphans\nllmchaos heal             remove them",
    )
    heal.add_argument("--dry-run", action="store_true", help="list what would be removed, without removing it")
    command("doctor", "check this machine and print what to do", _DOCTOR, "llmchaos doctor")
    report = command("report", "build a run's report again", _REPORT, "llmchaos report reports/latest")
    report.add_argument("directory", type=Path, help="the run's folder, such as reports/latest")
    commands.add_parser("generate", help="write Prometheus rules and dashboards from an OpenSLO file")
    commands.add_parser("slo", help="check SLO files, or convert those of Sloth and Pyrra")
    commands.add_parser("metrics", help="show which metrics a model server has, and which ones your files lack")
    commands.add_parser("autoscale", help="compare policies that scale a fleet of replicas, with faults")
    budget = command(
        "budget",
        "print each experiment's share of the month's error budget",
        _BUDGET,
        "llmchaos budget                     all objectives\nllmchaos budget --slo availability  only this one",
    )
    budget.add_argument("--ledger", type=Path, default=None, help=f"file to read (default: {LEDGER})")
    budget.add_argument("--slo", help="name of the only objective to print (default: all)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "setup":
        return setup(arguments.backend or BACKENDS[:1], agents=arguments.agents)
    if arguments.command == "heal":
        return heal(dry_run=arguments.dry_run)
    if arguments.command == "doctor":
        return doctor()
    if arguments.command == "report":
        return rebuild(arguments.directory)
    return budget(arguments.ledger, arguments.slo)


def setup(backends: Sequence[str], *, agents: bool) -> int:
    """Build or pull the lab's images.

    Args:
        backends: inference engines of which images are needed.
        agents: the image of the lab's agents is needed, too.

    Returns:
        The exit status of the set-up program that comes with the lab.
    """
    chosen = [word for backend in backends for word in ("--backend", backend)] + ["--agents"] * agents
    return subprocess.call([sys.executable, str(stack_dir() / "bootstrap.py"), "all", *chosen])


def heal(*, dry_run: bool) -> int:
    """Remove the orphans of dead runs in every runtime.

    Args:
        dry_run: list them without removing them.

    Returns:
        Exit status. 1 if an orphan is left, or if an installed Docker does not respond.
        Runs that cannot be verified are printed and do not change the status.
    """
    docker = sweep.in_docker()
    if docker.unseen:
        _print(f"Docker was not checked: {docker.unseen}")
    elsewhere = " outside Docker" if docker.unseen else ""
    if dry_run:
        found = sweep.orphans(docker)
        left = len(found)
        for project, why in found.items():
            _print(f"would remove {project}: {why}")
        _print(f"{left} orphan{'s' * (left != 1)} found{elsewhere}; nothing was removed")
    else:
        swept = sweep.sweep_dead_runs(_print, docker, deadline_s=sweep.HEAL_DEADLINE_S, by_hand=True)
        left = len(swept.failed)
        for problem in swept.failed:
            _print(f"not removed {problem}")
        nothing = f"no orphans found{elsewhere}"
        _print(
            f"removed {len(swept.removed)}, failed to remove {left}"
            if left
            else f"removed {len(swept.removed)}"
            if swept.removed
            else nothing
        )
    for project, why in sweep.unverifiable_runs(docker).items():
        _print(f"left alone {project}: {why}")
    return 1 if left or (docker.unseen and docker_cli.is_wanted()) else 0


def doctor() -> int:
    """Print a line for each check. Returns 1 if a check failed, else 0."""
    bad = 0
    try:
        docker_cli.require_engine()
        version = docker_cli.run(["docker", "version", "--format", "{{.Server.Version}}"]).strip()
        compose = docker_cli.run(["docker", "compose", "version", "--short"]).strip()
        _print(f"ok    Docker Engine {version} at {docker_cli.docker_host()}, Compose {compose}")
    except NotReady as error:
        bad += 1
        _print(f"bad   {error}")
    else:
        images = docker_cli.run(["docker", "image", "ls", "--format", "{{.Repository}}"]).split()
        built = sorted({name for name in images if name.startswith("llmchaos/")})
        there = ", ".join(built) or f"none; `{setup_command()}` builds them"
        _print(f"{'ok   ' if built else 'note '} images built here: {there}")
    for line in _of_local():
        _print(line)
    if extras.missing(["grafana_foundation_sdk"]):
        _print(f"note  `llmchaos generate` writes no dashboards here: {extras.install_command('generate')}")
    for line in _of_project():
        bad += line.startswith("bad")
        _print(line)
    docker = sweep.in_docker()
    left, alone = sweep.orphans(docker), sweep.unverifiable_runs(docker)
    bad += bool(left)
    if left:
        _print(f"bad   orphans of dead runs: {', '.join(left)}; `llmchaos heal` removes them")
    if alone:
        _print(f"note  possible orphans: {', '.join(alone)}; `llmchaos heal` prints how to remove them by hand")
    if docker.unseen:
        bad += docker_cli.is_wanted()
        _print(f"note  Docker was not checked for orphans: {docker.unseen}; run this again once Docker responds")
    elif not left and not alone:
        _print("ok    no orphans of dead runs")
    _print(f"ok    locks and port reservations are in {state_dirs.state_dir()}")
    return 1 if bad else 0


def _of_project() -> Iterator[str]:
    """Lines on the ini file, free ports and free disk."""
    ini = ini_check.find(Path.cwd())
    if ini is None:
        yield "ok    no ini file here has a key of this plugin, so runs test the lab"
    else:
        wrong = ini_check.problem(ini)
        yield f"bad   {ini}: {wrong}" if wrong else f"ok    the keys of {ini}"
    try:
        with contextlib.closing(Ports()) as ports:
            ports.reserve()
        yield f"ok    ports on {loopback()} are free"
    except NotReady as error:
        yield f"bad   {error}"
    for folder in dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()))):
        free_gb = shutil.disk_usage(folder).free / 1e9
        enough = free_gb >= LEAST_FREE_GB
        more = "" if enough else f": a run writes samples, logs and a stack's data, so free {LEAST_FREE_GB:g} GB"
        yield f"{'ok   ' if enough else 'note '} {free_gb:.1f} GB are free in {folder}{more}"


def _of_local() -> list[str]:
    """Lines on the local runtime and the backends that it can run here.

    Never a failed check, because Docker is enough.
    """
    lock = stack_dir() / WEIGHTS_LOCK
    lacks = {backend: prerequisites.lacking(backend, lock) for backend in ("sim", "llamacpp", "ollama")}
    if lacks["sim"]:
        problem = "; ".join(lacks["sim"])
        named = problem.startswith("the local runtime")
        return [f"note  {problem}" if named else f"note  the local runtime lacks {problem}"]
    programs = ", ".join(f"{one} is {binary.find(one)}" for one in ("prometheus", "prometheus-pushgateway"))
    able = ", ".join(backend for backend, problems in lacks.items() if not problems)
    rest = [f"note  local runtime with {one}: {'; '.join(problems)}" for one, problems in lacks.items() if problems]
    return [f"ok    local runtime with {able}; {programs}", *rest]


def rebuild(directory: Path) -> int:
    """Build a run's report again, and print its path.

    The number of unreadable journal lines goes to stderr.

    Args:
        directory: the run's folder.

    Raises:
        NotReady: the folder lacks a journal, or a file cannot be read or written.
    """
    if not list(directory.glob("journal*.jsonl")):
        raise NotReady(f"{directory} has no journal; give the folder of a run, such as reports/latest")
    try:
        page = report.build(directory.resolve())
        lost = report.read_run(page.with_name("run.json")).unreadable_lines
    except OSError as error:
        where = error.filename2 or error.filename or directory
        raise NotReady(
            f"the report in {directory} cannot be built: {where}: {error.strerror or error}; fix that, then run this again"
        ) from error
    if lost:
        lines = "1 journal line" if lost == 1 else f"{lost} journal lines"
        sys.stderr.write(f"llmchaos: {lines} could not be read; {page} lists them\n")
    _print(str(page))
    return 0


def budget(path: Path | None, slo: str | None) -> int:
    """Print the ledger's table, and unreadable lines to stderr.

    Args:
        path: the ledger. None reads `reports/ledger.jsonl`, which may be missing.
        slo: the only objective to print. None prints all.

    Raises:
        BadScenario: the ledger has no objective of that name.
    """
    if path is None and slo is None and not LEDGER.exists():
        _print(f"no trial in the ledger yet: there is no file {LEDGER} here; give another one with --ledger")
        return 0
    found = ledger.read(path or LEDGER)
    if found.unreadable:
        lines = "1 line was" if len(found.unreadable) == 1 else f"{len(found.unreadable)} lines were"
        sys.stderr.write(f"llmchaos: {lines} left out of the table: {found.unreadable[0]}\n")
    names = sorted({one.slo for one in found.entries})
    if slo is not None and slo not in names:
        known = (
            f"one of the ledger's objectives, {', '.join(names)}"
            if names
            else "an objective, and the ledger is still empty"
        )
        raise BadScenario(f"--slo must be {known}, got {slo!r}")
    _print(ledger.table(found.entries, slo))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
