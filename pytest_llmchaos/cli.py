"""`llmchaos`: heal by hand, check this machine, rebuild a report, generate rules and dashboards. It starts no experiment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_llmchaos import report
from pytest_llmchaos.cleanup import sweep
from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady
from pytest_llmchaos.evidence import ledger
from pytest_llmchaos.host import state_dirs
from pytest_llmchaos.prometheus import binary
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.programs import WEIGHTS_LOCK
from pytest_llmchaos.subject.lab import setup_command, stack_dir

LEDGER = Path("reports/ledger.jsonl")


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["generate"]:
        from pytest_llmchaos import generate  # noqa: PLC0415 - it has options of its own, and costs imports of its own

        return generate.main(given[1:])
    parser = argparse.ArgumentParser(prog="llmchaos", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    heal = commands.add_parser(
        "heal",
        help="undo and remove what dead runs left; live runs are not touched",
        description="Undo and remove what dead runs left, in Docker and among local processes; live runs are not touched. "
        "Exit status 1: something is left over that was not removed, or Docker could not be looked at.",
    )
    heal.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")
    commands.add_parser(
        "doctor",
        help="check Docker, Compose, images, the local runtime and what dead runs left, and print what to do",
        description="Check Docker, Compose, images, what the local runtime needs and what dead runs left: a line for each, "
        "with what to do. "
        "Exit status 1: a check failed.",
    )
    report = commands.add_parser(
        "report",
        help="build report.html again from a run's journal and samples",
        description="Build report.html, run.json and summary.md again from a run's journal and samples.",
    )
    report.add_argument("directory", type=Path, help="the run's folder, such as reports/latest")
    commands.add_parser(
        "generate", help="rules and dashboards from an OpenSLO file; `llmchaos generate --help` says more"
    )
    budget = commands.add_parser(
        "budget",
        help="what each experiment would cost of the month's error budget",
        description="A table of what each experiment would cost of the month's error budget, from the ledger of all runs.",
    )
    budget.add_argument("--ledger", type=Path, default=None, help=f"file to read (default: {LEDGER})")
    budget.add_argument("--slo", help="only this service level")
    arguments = parser.parse_args(given)
    try:
        return _run(arguments)
    except LlmchaosError as error:
        sys.stderr.write(f"llmchaos: {error}\n")
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "heal":
        return heal(dry_run=arguments.dry_run)
    if arguments.command == "doctor":
        return doctor()
    if arguments.command == "report":
        return rebuild(arguments.directory)
    return budget(arguments.ledger, arguments.slo)


def heal(*, dry_run: bool) -> int:
    """Remove the stacks of dead runs, in whichever runtime.

    Returns:
        0 where nothing of a dead run is left, 1 where something is (with `dry_run`: would have to be removed), or where
        there is a Docker that could not be looked at. What is left alone on doubt is named and changes nothing.
    """
    docker = sweep.in_docker()
    if docker.unseen:
        _say(f"Docker was not looked at: {docker.unseen}")
    elsewhere = " outside Docker" if docker.unseen else ""
    if dry_run:
        found = sweep.orphans(docker)
        left = len(found)
        for project, why in found.items():
            _say(f"would remove {project}: {why}")
        _say(f"{left} left over{elsewhere}; nothing was touched")
    else:
        swept = sweep.sweep_dead_runs(_say, docker, deadline_s=sweep.HEAL_DEADLINE_S, by_hand=True)
        left = len(swept.failed)
        for problem in swept.failed:
            _say(f"not removed {problem}")
        nothing = f"nothing was left over{elsewhere}"
        _say(
            f"removed {len(swept.removed)}, {left} stay"
            if left
            else f"removed {len(swept.removed)}"
            if swept.removed
            else nothing
        )
    for project, why in sweep.unverifiable_runs(docker).items():
        _say(f"left alone {project}: {why}")
    return 1 if left or (docker.unseen and docker_cli.is_wanted()) else 0


def doctor() -> int:
    """Each check on a line; the exit status is 1 if any failed."""
    bad = 0
    try:
        docker_cli.require_engine()
        version = docker_cli.run(["docker", "version", "--format", "{{.Server.Version}}"]).strip()
        compose = docker_cli.run(["docker", "compose", "version", "--short"]).strip()
        _say(f"ok    Docker Engine {version} at {docker_cli.docker_host()}, Compose {compose}")
    except NotReady as error:
        bad += 1
        _say(f"bad   {error}")
    else:
        images = docker_cli.run(["docker", "image", "ls", "--format", "{{.Repository}}"]).split()
        built = sorted({name for name in images if name.startswith("llmchaos/")})
        there = ", ".join(built) or f"none; `{setup_command()}` builds them"
        _say(f"{'ok   ' if built else 'note '} images built here: {there}")
    for line in _of_local():
        _say(line)
    docker = sweep.in_docker()
    left, alone = sweep.orphans(docker), sweep.unverifiable_runs(docker)
    bad += bool(left)
    if left:
        _say(f"bad   left over by dead runs: {', '.join(left)}; `llmchaos heal` removes them")
    if alone:
        _say(f"note  perhaps left over: {', '.join(alone)}; `llmchaos heal` says how to remove them by hand")
    if docker.unseen:
        bad += docker_cli.is_wanted()
        _say(
            f"note  whether something is left over in Docker is not known: {docker.unseen}; once it answers, run this again"
        )
    elif not left and not alone:
        _say("ok    nothing is left over")
    _say(f"ok    locks and ports are kept in {state_dirs.state_dir()}")
    return 1 if bad else 0


def _of_local() -> list[str]:
    """Whether the local runtime can run here, and with which backends. It is never a failed check: Docker does without."""
    lock = stack_dir() / WEIGHTS_LOCK
    lacks = {backend: prerequisites.lacking(backend, lock) for backend in ("sim", "llamacpp", "ollama")}
    if lacks["sim"]:
        said = "; ".join(lacks["sim"])
        return [f"note  {said}" if said.startswith("the local runtime") else f"note  the local runtime lacks {said}"]
    programs = ", ".join(f"{one} is {binary.find(one)}" for one in ("prometheus", "prometheus-pushgateway"))
    able = ", ".join(backend for backend, problems in lacks.items() if not problems)
    rest = [f"note  local runtime with {one}: {'; '.join(problems)}" for one, problems in lacks.items() if problems]
    return [f"ok    local runtime with {able}; {programs}", *rest]


def rebuild(directory: Path) -> int:
    """Build the report of a run again; how many journal lines could not be read goes to stderr. Raises NotReady."""
    if not list(directory.glob("journal*.jsonl")):
        raise NotReady(f"{directory} has no journal: give the folder of a run, such as reports/latest")
    try:
        page = report.build(directory.resolve())
        lost = report.read_run(page.with_name("run.json")).unreadable_lines
    except OSError as error:
        where = error.filename2 or error.filename or directory
        raise NotReady(
            f"the report in {directory} cannot be built: {where}: {error.strerror or error}; mend that, then run this again"
        ) from error
    if lost:
        lines = "1 journal line" if lost == 1 else f"{lost} journal lines"
        sys.stderr.write(f"llmchaos: {lines} could not be read; {page} lists them\n")
    _say(str(page))
    return 0


def budget(path: Path | None, slo: str | None) -> int:
    """Print the ledger's table; unreadable lines go to stderr. A missing ledger is an error only if `--ledger` names it."""
    if path is None and not LEDGER.exists():
        _say(f"no trial in the ledger yet: there is no file {LEDGER} here; give another one with --ledger")
        return 0
    found = ledger.read(path or LEDGER)
    if found.unreadable:
        lines = "1 line was" if len(found.unreadable) == 1 else f"{len(found.unreadable)} lines were"
        sys.stderr.write(f"llmchaos: {lines} left out of the table: {found.unreadable[0]}\n")
    names = sorted({one.slo for one in found.entries})
    if slo is not None and names and slo not in names:
        raise BadScenario(f"--slo must be one of the service levels of the ledger, {', '.join(names)}, got {slo!r}")
    _say(ledger.table(found.entries, slo))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
