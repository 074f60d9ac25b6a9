"""Fingerprint of the machine and the installed versions."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli


def environment() -> dict[str, object]:
    """Return this machine's versions, kernel, cores and commit."""
    packages = (
        "pytest-llmchaos",
        "pytest",
        "pytest-xdist",
        "locust",
        "docker",
        "testcontainers",
        "prometheus-api-client",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
        "docker": _docker_version(),
    }


def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=5, check=False
        )
        return done.stdout.strip() or None
    return None


def _docker_version() -> str | None:
    with contextlib.suppress(NotReady):
        return docker_cli.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=10).strip()
    return None
