"""Remove what one run made in the engine, and nothing else: everything must carry the project's and the owner's label."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime import docker_cli

# A request that the engine was busy with when its client died may still bring forth a container this much later.
STRAGGLER_S = 0.3


def remove_owned(project: str, owner: str) -> int:
    """Remove containers, networks and volumes of one run; returns how many there were. Content with what is already gone."""
    filters = ["--filter", f"label=com.docker.compose.project={project}", "--filter", f"label=llmchaos.owner={owner}"]
    count = 0
    for listing, removal in (
        (["docker", "ps", "--all", "--quiet"], ["docker", "rm", "--force", "--volumes"]),
        (["docker", "network", "ls", "--quiet"], ["docker", "network", "rm"]),
        (["docker", "volume", "ls", "--quiet"], ["docker", "volume", "rm", "--force"]),
    ):
        found = docker_cli.run([*listing, *filters]).split()
        count += len(found)
        if found:
            _remove([*removal, *found])
    return count


def remove_dead(project: str, owner: str) -> None:
    """The same for a run whose process is dead: its compose command, if it still works, must not make more behind us."""
    end_compose(project)
    while remove_owned(project, owner):
        time.sleep(STRAGGLER_S)


def end_compose(project: str) -> None:
    """End the compose commands of one project, told by their exact arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"compose" in words and (b"-p", project.encode()) in itertools.pairwise(words):
                os.kill(int(process.name), signal.SIGKILL)


def _remove(command: list[str]) -> None:
    try:
        docker_cli.run(command)
    except NotReady as error:
        if not any(gone in str(error) for gone in ("No such", "already in progress", "not found")):
            raise
