"""Find and remove what dead runs left. A stack belongs to a dead run if its owner's pid, start time, boot and pid namespace say so."""

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

PROJECT = "com.docker.compose.project"  # the label that Compose gives to all that it makes
SWEEP_DEADLINE_S = 10.0
HEAL_DEADLINE_S = 30.0
SIDE_BY_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class InDocker:
    """Compose projects, with their owner, of runs that do not live or cannot be seen. `unseen` is why nobody could look."""

    dead: dict[str, str] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)
    unseen: str = ""


def in_docker() -> InDocker:
    if not docker_cli.is_wanted():
        return InDocker(unseen="there is no docker client on PATH, and DOCKER_HOST is not set")
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
    """Project and owner of each thing in Docker that a run has made."""
    labels_of = [
        dict(part.split("=", 1) for part in str(row.get("Labels", "")).split(",") if "=" in part)
        for kind in ("container", "network", "volume")
        for row in docker_cli.list_rows(kind, "label=llmchaos.owner")
    ]
    # By the name that Compose gave: an image that its owner gave another one stays.
    labels_of += [
        labels
        for names, labels in docker_cli.list_images("label=llmchaos.owner", "reference=llmchaos-*")
        if any(name.startswith(labels.get(PROJECT, "")) for name in names)
    ]
    for labels in labels_of:
        if labels.get(PROJECT, "").startswith("llmchaos-"):
            yield labels[PROJECT], labels.get("llmchaos.owner", "")


def orphans(docker: InDocker) -> dict[str, str]:
    """What dead runs left in any runtime: project and reason."""
    local = {run.project: run.why for run in cleanup.dead_runs()}
    open_faults = {f"open faults of {run.project}": _why(run.owner) for run in notes.dead_runs()}
    return {**open_faults, **{project: _why(who) for project, who in docker.dead.items()}, **local}


def unverifiable_runs(docker: InDocker) -> dict[str, str]:
    """What may belong to a run that lives where it cannot be seen from here: project, why, and how to remove it by hand."""
    alone = {project: _doubt(who, by_hand(who)) for project, who in docker.doubtful.items()}
    for path, why in notes.unreadable().items():
        how = f"undo by hand what it left in the stack that it had attached to, then rm {shlex.quote(path)}"
        alone[f"the note {path} of an attached run"] = f"{why}; which faults are open, and where, is not known: {how}"
    for manifest in notes.doubtful_runs():
        how = f"undo its faults, then {notes.how_to_discard(manifest)}"
        alone[f"open faults of {manifest.project}"] = _doubt(manifest.owner, how)
    alone |= {run.project: _doubt(run.owner, run.how) for run in cleanup.doubtful_runs()}
    return alone


def by_hand(who: str) -> str:
    """Commands that remove all of one owner."""
    label = shlex.quote(f"label=llmchaos.owner={who}")
    return (
        f"docker rm -fv $(docker ps -aq --filter {label}); docker network rm $(docker network ls -q --filter {label}); "
        f"docker volume rm $(docker volume ls -q --filter {label}); "
        f"docker image rm $(docker image ls -q --filter {label} --filter reference='llmchaos-*')"
    )


class Swept(NamedTuple):
    """What a sweep removed, and why the rest stays: a line for each."""

    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class _Orphan(NamedTuple):
    what: str
    why: str
    remove: Callable[[], object]


def sweep_dead_runs(
    note: Callable[[str], None], docker: InDocker | None, *, deadline_s: float = SWEEP_DEADLINE_S, by_hand: bool = False
) -> Swept:
    """Remove the stacks of dead runs and the faults they left in others', never a live sibling's.

    All at the same time, so that one that cannot be removed keeps no other from it.

    Args:
        docker: None to leave Docker alone, for a session that does not use it.
        deadline_s: for each of them.
        by_hand: a person asked for it, so stacks are also put back by their state where their journal is gone.
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
    """Why it stays, in one line; "" if it is gone."""
    try:
        orphan.remove()
    except (LlmchaosError, OSError) as error:
        return " ".join(f"{orphan.what}: {error}".split())
    return ""


def _why(who: str) -> str:
    return f"its owner {who} is gone"


def _doubt(who: str, how: str) -> str:
    return (
        f"its owner {who} may live: in another pid namespace, on another machine, or hidden from this user; "
        f"if it does not: {how}"
    )
