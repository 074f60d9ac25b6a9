"""The docker client and compose as commands: find the engine, run one command with a deadline, list what there is. No pytest, no SDK."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.subject.lab import setup_command

SETUP = f"run `{setup_command()}` (Debian as root), or install Docker Engine with Compose v2"
ANSWER_DEADLINE_S = 15.0


def docker_host() -> str:
    """The engine's address: DOCKER_HOST, else the current docker context, else the usual socket.

    The client resolves contexts and the SDK does not, so it is resolved once and given to both.
    """
    return os.environ.get("DOCKER_HOST") or _host_of_context()


def is_wanted() -> bool:
    """Whether there is a Docker to ask at all: a client, or the address of a daemon."""
    return shutil.which("docker") is not None or bool(os.environ.get("DOCKER_HOST"))


def on_this_kernel() -> bool:
    """Whether the daemon runs on this machine, as far as its address tells."""
    return docker_host().startswith("unix://")


@functools.cache  # a process for each command of ours would double their cost
def _host_of_context() -> str:
    if shutil.which("docker") is None:
        return "unix:///var/run/docker.sock"
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotReady(f"`{' '.join(command)}` did not end within 10 s: set DOCKER_HOST") from None
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
            stdin=subprocess.DEVNULL,
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
        said = redact((done.stderr or done.stdout).strip())[-2000:]
        raise NotReady(f"`{redact(' '.join(command))}` ended with {done.returncode}: {said}")
    return done.stdout


def require_engine() -> None:
    """Nothing, if a Docker daemon answers this user and Compose v2 is there.

    Raises NotReady saying which of the two is missing, or that permission is.
    """
    host = docker_host()
    if shutil.which("docker") is None:
        raise NotReady(f"the docker client is not on PATH: {SETUP}, or use --chaos-runtime=local")
    done = _answer("version", "--format", "{{.Server.Version}}")
    if done.returncode != 0:
        if "permission denied" in done.stderr.lower():
            raise NotReady(
                f"no permission to use the Docker daemon at {host}: add yourself to its group "
                "(`sudo usermod -aG docker $USER`, then log in again), or use --chaos-runtime=local"
            )
        raise NotReady(f"no Docker daemon answers at {host}: start it or {SETUP}, or use --chaos-runtime=local")
    version = _answer("compose", "version", "--short")
    if version.returncode != 0 or not version.stdout.strip().lstrip("v").startswith(("2", "3", "4", "5")):
        raise NotReady(f"Compose v2 is missing (`docker compose version` failed): {SETUP}")


def _answer(*words: str) -> subprocess.CompletedProcess[str]:
    """What a question to the daemon brings, whatever its exit status. Raises NotReady if it hangs."""
    try:
        return subprocess.run(
            ["docker", *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotReady(
            f"the Docker daemon at {docker_host()} gave no answer within {ANSWER_DEADLINE_S:g} s: restart it, "
            "or use --chaos-runtime=local"
        ) from None


def list_rows(kind: str, *filters: str) -> list[dict[str, object]]:
    """What `docker <kind> ls` shows for these filters, as parsed JSON lines."""
    command = ["docker", kind, "ls", "--format", "{{json .}}"]
    if kind == "container":
        command.append("--all")
    for one in filters:
        command += ["--filter", one]
    return [json.loads(line) for line in run(command).splitlines() if line.strip()]
