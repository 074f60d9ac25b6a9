"""The docker client and compose as commands: find the engine, run one command with a deadline, list what there is. No pytest, no SDK."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmchaos.errors import NotReady

SETUP = "run `make setup` (Debian as root), or install Docker Engine with Compose v2"


def docker_host() -> str:
    """The engine's address: DOCKER_HOST, else the current docker context, else the usual socket.

    The client resolves contexts and the SDK does not, so it is resolved once and given to both.
    """
    return os.environ.get("DOCKER_HOST") or _host_of_context()


@functools.cache  # a process for each command of ours would double their cost
def _host_of_context() -> str:
    if shutil.which("docker") is None:
        return "unix:///var/run/docker.sock"
    done = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return done.stdout.strip() or "unix:///var/run/docker.sock"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": docker_host(), **(extra or {})}


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> str:
    """Standard output of one docker command.

    Raises NotReady with the command, its exit status and the end of what it printed.
    """
    try:
        done = subprocess.run(
            list(command),
            env=dict(env) if env else environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise NotReady(f"the docker client is not on PATH: {SETUP}") from None
    except subprocess.TimeoutExpired:
        raise NotReady(
            f"`{' '.join(command)}` did not end within {timeout_s:g} s: is the Docker daemon overloaded?"
        ) from None
    if done.returncode != 0:
        raise NotReady(
            f"`{' '.join(command)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}"
        )
    return done.stdout


def require_engine() -> None:
    """Nothing, if a Docker daemon answers this user and Compose v2 is there.

    Raises NotReady saying which of the two is missing, or that permission is.
    """
    host = docker_host()
    if shutil.which("docker") is None:
        raise NotReady(f"the docker client is not on PATH: {SETUP}, or use --chaos-runtime=local")
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    if done.returncode != 0:
        if "permission denied" in done.stderr.lower():
            raise NotReady(
                f"no permission to use the Docker daemon at {host}: add yourself to its group "
                "(`sudo usermod -aG docker $USER`, then log in again), or use --chaos-runtime=local"
            )
        raise NotReady(f"no Docker daemon answers at {host}: start it or {SETUP}, or use --chaos-runtime=local")
    version = subprocess.run(
        ["docker", "compose", "version", "--short"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    if version.returncode != 0 or not version.stdout.strip().lstrip("v").startswith(("2", "3", "4", "5")):
        raise NotReady(f"Compose v2 is missing (`docker compose version` failed): {SETUP}")


def listed(kind: str, *filters: str) -> list[dict[str, Any]]:
    """What `docker <kind> ls` shows for these filters, as parsed JSON lines."""
    command = ["docker", kind, "ls", "--format", "{{json .}}"]
    if kind == "container":
        command.append("--all")
    for one in filters:
        command += ["--filter", one]
    return [json.loads(line) for line in run(command).splitlines() if line.strip()]
