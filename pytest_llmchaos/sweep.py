"""Find and remove what dead runs left. A stack belongs to a dead run if its owner's pid, start time and boot id say so."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from pytest_llmchaos import owner
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime import attach, docker_cli, local_cleanup, removal


def dead_projects() -> dict[str, str]:
    """Compose projects of dead runs, with their owner. Empty where no Docker daemon answers."""
    if shutil.which("docker") is None:
        return {}
    dead: dict[str, str] = {}
    try:
        for kind in ("container", "network", "volume"):
            for row in docker_cli.listed(kind, "label=llmchaos.owner"):
                labels = dict(part.split("=", 1) for part in str(row.get("Labels", "")).split(",") if "=" in part)
                project, who = labels.get("com.docker.compose.project", ""), labels.get("llmchaos.owner", "")
                if project.startswith("llmchaos-") and not owner.alive(who):
                    dead[project] = who
    except NotReady:
        return {}
    return dict(sorted(dead.items()))


def left_over() -> dict[str, str]:
    """What dead runs left in any runtime: project and reason."""
    local = {str(recipe["project"]): str(recipe["why"]) for recipe in local_cleanup.dead_runs()}
    attached = {f"open faults of {r['project']}": _why(r["owner"]) for r in attach.dead_runs()}
    return {**attached, **{project: _why(who) for project, who in dead_projects().items()}, **local}


def sweep_dead_runs(note: Callable[[str], None]) -> list[str]:
    """Remove the stacks of dead runs and the faults they left in others', never a live sibling's. Returns what it removed."""
    removed = []
    for project, who in dead_projects().items():
        note(f"removing {project}: {_why(who)}")
        removal.remove_dead(project, who)
        removed.append(project)
    for recipe in attach.dead_runs():
        note(f"removing open faults of {recipe['project']}: {_why(recipe['owner'])}")
        attach.heal(recipe)
        removed.append(f"open faults of {recipe['project']}")
    for recipe in local_cleanup.dead_runs():
        note(f"removing {recipe['project']}: {recipe['why']}")
        local_cleanup.remove_run(recipe)
        removed.append(str(recipe["project"]))
    return removed


def _why(who: str) -> str:
    return f"its owner {who} is gone"
