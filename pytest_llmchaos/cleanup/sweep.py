"""Find and remove what dead runs left. A stack belongs to a dead run if its owner's pid, start time, boot and pid namespace say so."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import attached as attach
from pytest_llmchaos.runtime.docker import docker_cli, removal
from pytest_llmchaos.runtime.local import cleanup


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
        for kind in ("container", "network", "volume"):
            for row in docker_cli.list_rows(kind, "label=llmchaos.owner"):
                labels = dict(part.split("=", 1) for part in str(row.get("Labels", "")).split(",") if "=" in part)
                project, who = labels.get("com.docker.compose.project", ""), labels.get("llmchaos.owner", "")
                if project.startswith("llmchaos-"):
                    found[identity.liveness(who, same_kernel=here)][project] = who
    except NotReady as error:
        return InDocker(unseen=str(error))
    return InDocker(dead=dict(sorted(found["dead"].items())), doubtful=dict(sorted(found["unknown"].items())))


def orphans(docker: InDocker) -> dict[str, str]:
    """What dead runs left in any runtime: project and reason."""
    local = {run.project: run.why for run in cleanup.dead_runs()}
    attached = {f"open faults of {run.project}": _why(run.owner) for run in attach.dead_runs()}
    return {**attached, **{project: _why(who) for project, who in docker.dead.items()}, **local}


def unverifiable_runs(docker: InDocker) -> dict[str, str]:
    """What may belong to a run that lives where it cannot be seen from here: project, why, and how to remove it by hand."""
    alone = {project: _doubt(who, by_hand(who)) for project, who in docker.doubtful.items()}
    for manifest in attach.doubtful_runs():
        how = f"undo its faults, then rm {shlex.quote(manifest.noted)}"
        alone[f"open faults of {manifest.project}"] = _doubt(manifest.owner, how)
    alone |= {run.project: _doubt(run.owner, run.how) for run in cleanup.doubtful_runs()}
    return alone


def by_hand(who: str) -> str:
    """Commands that remove all of one owner."""
    label = shlex.quote(f"label=llmchaos.owner={who}")
    return (
        f"docker rm -fv $(docker ps -aq --filter {label}); docker network rm $(docker network ls -q --filter {label}); "
        f"docker volume rm $(docker volume ls -q --filter {label})"
    )


def sweep_dead_runs(note: Callable[[str], None], docker: InDocker | None = None) -> list[str]:
    """Remove the stacks of dead runs and the faults they left in others', never a live sibling's. Returns what it removed.

    Raises HealFailed after every run was tried, with what cannot be removed.
    """
    removed: list[str] = []
    failed: list[str] = []

    def remove(what: str, why: str, act: Callable[[], object]) -> None:
        note(f"removing {what}: {why}")
        try:
            act()
        except (HealFailed, NotReady, OSError) as error:
            failed.append(f"{what}: {error}")
        else:
            removed.append(what)

    for project, who in (docker or in_docker()).dead.items():
        remove(project, _why(who), partial(removal.remove_dead, project, who))
    for manifest in attach.dead_runs():
        remove(f"open faults of {manifest.project}", _why(manifest.owner), partial(attach.heal, manifest))
    for run in cleanup.dead_runs():
        remove(run.project, run.why, partial(cleanup.remove_run, run.project, run.directory))
    if failed:
        raise HealFailed("; ".join(failed))
    return removed


def _why(who: str) -> str:
    return f"its owner {who} is gone"


def _doubt(who: str, how: str) -> str:
    return (
        f"its owner {who} may live: in another pid namespace, on another machine, or hidden from this user; "
        f"if it does not: {how}"
    )
