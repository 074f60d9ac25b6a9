"""Removal of what one run created in Docker, matched by labels."""

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

# Docker may still create a container this long after its client died.
STRAGGLER_S = 0.3
REMOVAL_DEADLINE_S = 30.0
MIN_COMMAND_S = 2.0  # else a command started just before the deadline could not finish
_TAGGED = "{{.Repository}}:{{.Tag}}"
# Docker's errors for things that are gone or being removed.
_NO_FAILURE = ("No such", "not found", "already in progress")


def remove_owned(project: str, owner: str, *, deadline_s: float = REMOVAL_DEADLINE_S) -> int:
    """Remove containers, networks, volumes and built images of one run.

    Independent removals run in parallel, because most of the time is Docker's own work.
    Things that are already gone are ignored.

    Args:
        project: Compose project.
        owner: owner label.
        deadline_s: seconds for everything, other commands' running removals included.

    Returns:
        Their count.

    Raises:
        NotReady: Docker refuses a removal, or has not finished it by the deadline. Has
            the names.
    """
    deadline = time.monotonic() + deadline_s
    most = 0
    while True:
        found, ends = _remove_round(project, owner, deadline)
        most = max(most, len(found))
        if ends:
            return most
        _require_time(project, found, deadline, deadline_s)
        time.sleep(STRAGGLER_S)


def remove_dead(project: str, owner: str, *, deadline_s: float = REMOVAL_DEADLINE_S) -> None:
    """Remove what a dead run left, after killing its compose commands.

    Such a command could create more containers.
    """
    end_compose(project)
    deadline = time.monotonic() + deadline_s
    while True:
        found, _ = _remove_round(project, owner, deadline)
        if not found:
            return
        _require_time(project, found, deadline, deadline_s)
        time.sleep(STRAGGLER_S)


def _remove_round(project: str, owner: str, deadline: float) -> tuple[list[str], bool]:
    """Start all removals. Return the names, and True if Docker has finished all."""
    filters = ["--filter", f"label=com.docker.compose.project={project}", "--filter", f"label=llmchaos.owner={owner}"]
    listings = (
        ["docker", "ps", "--all", "--format", "{{.ID}} {{.Names}}"],
        ["docker", "network", "ls", "--format", "{{.ID}} {{.Name}}"],
        ["docker", "volume", "ls", "--format", "{{.Name}} {{.Name}}"],
        # By Compose's name: an image that its user renamed stays.
        ["docker", "image", "ls", "--filter", f"reference={project}*", "--format", f"{_TAGGED} {_TAGGED}"],
    )

    def run(command: list[str]) -> str:
        return docker_cli.run(command, timeout_s=max(MIN_COMMAND_S, deadline - time.monotonic()))

    def remove(command: list[str]) -> bool:
        try:
            run(command)
        except NotReady as error:
            complaints = str(error).partition(" ended with ")[2].splitlines()
            if not complaints or not all(any(word in line for word in _NO_FAILURE) for line in complaints):
                raise
            return not any("already in progress" in line for line in complaints)
        return True

    with ThreadPoolExecutor() as pool:
        outputs = pool.map(run, [[*listing, *filters] for listing in listings])
        containers, networks, volumes, images = (
            dict(line.split(maxsplit=1) for line in output.splitlines() if line.strip()) for output in outputs
        )
        ended = remove(["docker", "rm", "--force", "--volumes", *containers]) if containers else True
        # Possible once no container uses them. One `network rm` would go one by one.
        removals = [["docker", "network", "rm", one] for one in networks] if ended else []
        if volumes and ended:
            removals.append(["docker", "volume", "rm", "--force", *volumes])
        if images and ended:
            removals.append(["docker", "image", "rm", *images])
        ended = all([ended, *pool.map(remove, removals)])
    named = {"container": containers, "network": networks, "volume": volumes, "image": images}
    return [f"{kind} {name}" for kind, found in named.items() for name in found.values()], ended


def _require_time(project: str, left: list[str], deadline: float, deadline_s: float) -> None:
    if time.monotonic() > deadline:
        raise NotReady(
            f"the Docker daemon did not finish the removal of {', '.join(left)} of {project} within {deadline_s:g} s: "
            "`docker rm -f` them by hand, and restart the Docker daemon if that hangs too"
        )


def end_compose(project: str) -> None:
    """Kill the compose commands of one project, matched by exact arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"compose" in words and (b"-p", project.encode()) in itertools.pairwise(words):
                os.kill(int(process.name), signal.SIGKILL)
