"""The image of the fault agent."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.subject.lab import stack_dir

VARIABLE = "LLMCHAOS_FAULT_AGENT_IMAGE"
_LOOK_DEADLINE_S = 60.0


def agent_image() -> str:
    """Return the image that the environment names, else the one that the set-up built.

    No registry has it. A tag is the digest of the agent's files, so that an agent of
    another version of llmchaos is never used.

    Raises:
        NotReady: The Docker daemon lacks it. Has the command that builds it.
    """
    if given := os.environ.get(VARIABLE, ""):
        if docker_cli.has_image(given):
            return given
        raise NotReady(f"{VARIABLE} names the image {given}, which Docker lacks: unset the variable, or pull the image")
    command = [sys.executable, str(stack_dir() / "bootstrap.py"), "agent"]
    done = subprocess.run(
        [*command, "--show"],
        env=docker_cli.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LOOK_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        why = "" if "lacks" in done.stderr else f" ({done.stderr.strip()[-300:]})"
        raise NotReady(
            f"the image of the fault agent is missing{why}: run `{shlex.join(command)}`, which takes a minute once"
        )
    return done.stdout.strip()
