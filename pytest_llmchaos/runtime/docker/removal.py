"""Remove what one run made in the engine, and nothing else: everything must carry the project's and the owner's label."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli

# A request that the engine was busy with when its client died may still bring forth a container this much later.
STRAGGLER_S = 0.3


def remove_owned(project: str, owner: str) -> int:
    """Remove containers, networks and volumes of one run; returns how many there were. Content with what is already gone.

    Whatever does not wait for another is asked for at the same time: most of a removal is the engine's own work.
    """
    filters = ["--filter", f"label=com.docker.compose.project={project}", "--filter", f"label=llmchaos.owner={owner}"]
    listings = (["docker", "ps", "--all"], ["docker", "network", "ls"], ["docker", "volume", "ls"])
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda listing: docker_cli.run([*listing, "--quiet", *filters]).split(), listings)
        containers, networks, volumes = found
        if containers:
            _remove(["docker", "rm", "--force", "--volumes", *containers])
        # These can go once no container holds them. The client would remove one network after the other.
        removals = [["docker", "network", "rm", one] for one in networks]
        if volumes:
            removals.append(["docker", "volume", "rm", "--force", *volumes])
        for _ in pool.map(_remove, removals):
            pass
    return len(containers) + len(networks) + len(volumes)


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
