"""Detection and removal of what dead runs left.

A stack belongs to a dead run if pid, start time, boot and pid namespace of its owner
prove that the owner is dead.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pytest_llmchaos.errors import LlmchaosError, NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import attached, docker_cli, notes, removal
from pytest_llmchaos.runtime.local import cleanup

PROJECT = "com.docker.compose.project"  # Compose's label on all that it creates
SWEEP_DEADLINE_S = 10.0
HEAL_DEADLINE_S = 30.0
SIDE_BY_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class InDocker:
    """Compose projects of dead runs and of runs that may live, each with its owner.

    `unseen` is the reason why Docker could not be queried, else "".
    """

    dead: dict[str, str] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)
    unseen: str = ""


def in_docker() -> InDocker:
    if not docker_cli.is_wanted():
        return InDocker(unseen="the docker client is not on PATH and DOCKER_HOST is not set")
    found: dict[identity.Liveness, dict[str, str]] = {"alive": {}, "dead": {}, "unknown": {}}
    try:
        here = docker_cli.on_this_kernel()
        for project, who in _owned():
            found[identity.liveness(who, same_kernel=here)][project] = who
    except NotReady as error:
        return InDocker(unseen=str(error))
    seen = found["alive"].keys() | found["unknown"].keys()
    dead = {project: who for project, who in sorted(found["dead"].items()) if project not in seen}
    return InDocker(dead=dead, doubtful=dict(sorted(found["unknown"].items())))


def _owned() -> Iterator[tuple[str, str]]:
    """Project and owner of each Docker object that a run created."""
    labels_of = [
        dict(part.split("=", 1) for part in str(row.get("Labels", "")).split(",") if "=" in part)
        for kind in ("container", "network", "volume")
        for row in docker_cli.list_rows(kind, "label=llmchaos.owner")
    ]
    # By the name that Compose gave. An image that its user renamed stays.
    labels_of += [
        labels
        for names, labels in docker_cli.list_images("label=llmchaos.owner", "reference=llmchaos-*")
        if any(name.startswith(labels.get(PROJECT, "")) for name in names)
    ]
    for labels in labels_of:
        if labels.get(PROJECT, "").startswith("llmchaos-"):
            yield labels[PROJECT], labels.get("llmchaos.owner", "")


def orphans(docker: InDocker) -> dict[str, str]:
    """Everything that dead runs left in any runtime: project and reason."""
    local = {run.project: run.why for run in cleanup.dead_runs()}
    open_faults = {f"open faults of {run.project}": _why(run.owner) for run in notes.dead_runs()}
    return {**open_faults, **{project: _why(who) for project, who in docker.dead.items()}, **local}


def unverifiable_runs(docker: InDocker) -> dict[str, str]:
    """Things of runs that may still live: project, reason, and how to remove them."""
    alone = {project: _doubt(who, by_hand(who)) for project, who in docker.doubtful.items()}
    for path, why in notes.unreadable().items():
        how = f"revert by hand what it left in the stack that it had attached to, then rm {shlex.quote(path)}"
        alone[f"the note {path} of an attached run"] = f"{why}; its open faults and their stack are unknown: {how}"
    for manifest in notes.doubtful_runs():
        how = f"revert its faults by hand, then {notes.how_to_discard(manifest)}"
        alone[f"open faults of {manifest.project}"] = _doubt(manifest.owner, how)
    alone |= {run.project: _doubt(run.owner, run.how) for run in cleanup.doubtful_runs()}
    return alone


def by_hand(who: str) -> str:
    """Shell commands that remove every Docker object of one owner."""
    label = shlex.quote(f"label=llmchaos.owner={who}")
    return (
        f"docker rm -fv $(docker ps -aq --filter {label}); docker network rm $(docker network ls -q --filter {label}); "
        f"docker volume rm $(docker volume ls -q --filter {label}); "
        f"docker image rm $(docker image ls -q --filter {label} --filter reference='llmchaos-*')"
    )


class Swept(NamedTuple):
    """Removed things, and one line for each thing that could not be removed."""

    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class _Orphan(NamedTuple):
    what: str
    why: str
    remove: Callable[[], object]


def sweep_dead_runs(
    note: Callable[[str], None], docker: InDocker | None, *, deadline_s: float = SWEEP_DEADLINE_S, by_hand: bool = False
) -> Swept:
    """Remove the stacks of dead runs and revert the faults they left in other stacks.

    Runs in parallel, so one failure does not delay the rest. Live runs are not touched.

    Args:
        note: called with one line before each removal.
        docker: Docker's dead runs, or None if this session does not use Docker.
        deadline_s: seconds for each removal.
        by_hand: True for `llmchaos heal`. Then targets whose journal is gone are also
            restored to the state in which their run found them.
    """
    found = [
        _Orphan(run.project, run.why, partial(cleanup.remove_run, run.project, run.directory))
        for run in cleanup.dead_runs()
    ]
    if docker is not None:
        found += [
            _Orphan(project, _why(who), partial(removal.remove_dead, project, who, deadline_s=deadline_s))
            for project, who in docker.dead.items()
        ]
        found += [
            _Orphan(
                f"open faults of {manifest.project}",
                _why(manifest.owner),
                partial(attached.heal, manifest, deadline_s=deadline_s, by_state=by_hand),
            )
            for manifest in notes.dead_runs()
        ]
    for one in found:
        note(f"removing {one.what}: {one.why}")
    with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
        problems = list(pool.map(_problem_of, found))
    return Swept(
        removed=tuple(one.what for one, problem in zip(found, problems, strict=True) if not problem),
        failed=tuple(problem for problem in problems if problem),
    )


def _problem_of(orphan: _Orphan) -> str:
    """Return the reason why the orphan stays, in one line. "" if it was removed."""
    try:
        orphan.remove()
    except (LlmchaosError, OSError) as error:
        return " ".join(f"{orphan.what}: {error}".split())
    return ""


def _why(who: str) -> str:
    return f"its owner {who} is gone"


def _doubt(who: str, how: str) -> str:
    return (
        f"its owner {who} may still live: in another pid namespace, on another machine, or hidden from this user; "
        f"if it is dead: {how}"
    )
