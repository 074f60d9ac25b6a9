"""The daemon's socket and its group, as a container needs them."""

from __future__ import annotations

import os
from pathlib import Path

from offline.shell import SetupError, run

USUAL_SOCKET = "/var/run/docker.sock"
ROOTS_GROUP = 0


def socket_variables() -> dict[str, str]:
    """Compose variables that give the socket to the docker-proxy alone."""
    daemon = run(["docker", "info", "--format", "{{.OperatingSystem}} {{.SecurityOptions}}"], deadline_s=20)
    return variables_for(daemon, endpoint())


def variables_for(daemon: str, address: str) -> dict[str, str]:
    """Variables for one daemon.

    Args:
        daemon: its operating system and security options.
        address: where the Docker client reaches it.
    """
    if "Docker Desktop" in daemon:  # the path is the virtual machine's, not ours, and root's there
        return {"LLMCHAOS_DOCKER_SOCKET": USUAL_SOCKET, "LLMCHAOS_DOCKER_GID": str(ROOTS_GROUP)}
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        raise SetupError(
            f"expected a daemon on this machine, reached through a unix socket; it is at {address!r}: "
            "the lab publishes its ports on the daemon's loopback, so run it there"
        )
    if "rootless" in daemon:  # our own group is root's in the daemon's user namespace
        return {"LLMCHAOS_DOCKER_SOCKET": path, "LLMCHAOS_DOCKER_GID": str(ROOTS_GROUP)}
    try:
        group = Path(path).stat().st_gid
    except OSError as failed:
        raise SetupError(f"expected the daemon's socket at {path}, saw: {failed.strerror}") from failed
    return {"LLMCHAOS_DOCKER_SOCKET": path, "LLMCHAOS_DOCKER_GID": str(group)}


def endpoint() -> str:
    """DOCKER_HOST, or the address of the Docker client's current context."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    return run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], deadline_s=20).strip()
