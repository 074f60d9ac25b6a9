"""A running Docker Engine with Compose v2 and buildx."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from offline import debian
from offline.shell import SetupError, run, say, succeeds

DAEMON_LOG = Path("/var/log/dockerd-llmchaos.log")
DAEMON_DEADLINE_S = 60.0
PLUGIN_FOLDER = Path("/usr/local/lib/docker/cli-plugins")
PLUGINS = {"compose": "docker-compose", "buildx": "docker-buildx"}  # sub-command: Debian's package and file name
BY_HAND = "https://docs.docker.com/engine/install/"


def ensure_engine() -> None:
    """Install and start what is missing. A daemon that answers is not touched.

    Raises:
        SetupError: installing is not ours to do. The message lists everything missing.
    """
    missing = missing_parts()
    if not missing:
        return
    if not debian.is_debian_root():
        raise SetupError(advice(missing))
    if "client" in missing or ("daemon" in missing and shutil.which("dockerd") is None):
        debian.install(["docker.io", "iptables"])
        if shutil.which("docker") is None:  # since Debian 13 docker.io only recommends the package of the client
            debian.install(["docker-cli"])
    if "daemon" in missing and not daemon_answers():  # installing the package starts it on some machines
        start_daemon()
    plugins = [name for name in PLUGINS if not has_plugin(name)]
    if plugins:
        install_plugins(plugins)
    left = missing_parts()
    if left:
        raise SetupError(f"installed what Debian has, still missing: {', '.join(left)}. {advice(left)}")


def missing_parts() -> list[str]:
    if shutil.which("docker") is None:
        return ["client", "daemon", *PLUGINS]
    missing = [] if daemon_answers() else ["daemon"]
    return missing + [name for name in PLUGINS if not has_plugin(name)]


def daemon_answers() -> bool:
    return succeeds(["docker", "version", "--format", "{{.Server.Version}}"])


def has_plugin(name: str) -> bool:
    return succeeds(["docker", name, "version"])


def advice(missing: list[str]) -> str:
    """One message for a machine on which the set-up installs nothing."""
    ways = {
        "client": f"the docker client (install Docker Engine or Docker Desktop: {BY_HAND})",
        "daemon": "a Docker daemon that answers (start it: `sudo systemctl start docker`, or open Docker Desktop; "
        "no permission? `sudo usermod -aG docker $USER`, then log in again)",
        "compose": "Compose v2 (`sudo apt-get install docker-compose-plugin`, or Docker Desktop)",
        "buildx": "buildx (`sudo apt-get install docker-buildx-plugin`, or Docker Desktop)",
    }
    listed = "; ".join(ways[name] for name in missing)
    return f"expected Docker Engine with Compose v2 and buildx, missing: {listed}. Nothing was installed."


def start_daemon() -> None:
    """Start dockerd and wait for its socket.

    dockerd gets a session of its own, so it outlives this program.
    """
    if os.environ.get("DOCKER_HOST"):
        raise SetupError(
            f"expected the daemon of DOCKER_HOST={os.environ['DOCKER_HOST']} to answer, it does not: "
            "start it, or unset DOCKER_HOST"
        )
    if under_systemd():  # systemd keeps the daemon: two would conflict
        say("starting docker.service")
        run(["systemctl", "start", "docker"], deadline_s=DAEMON_DEADLINE_S)
        return
    say(f"starting dockerd, which goes on running after this; its log is {DAEMON_LOG}")
    with DAEMON_LOG.open("ab") as log:
        daemon = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + DAEMON_DEADLINE_S
    while not daemon_answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            tail = DAEMON_LOG.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise SetupError(f"expected dockerd to answer within {DAEMON_DEADLINE_S:g} s, it did not:\n{tail}")
        time.sleep(0.2)


def under_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def install_plugins(names: list[str]) -> None:
    """Install the two plugins from a newer Debian suite.

    They need only libc, so the newer builds run on the stable release.
    """
    with tempfile.TemporaryDirectory(prefix="llmchaos-plugins-") as scratch:
        debian.unpack_newer([PLUGINS[name] for name in names], Path(scratch))
        PLUGIN_FOLDER.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = Path(scratch) / "usr/libexec/docker/cli-plugins" / PLUGINS[name]
            arriving = PLUGIN_FOLDER / f".{PLUGINS[name]}.arriving"
            shutil.copy(source, arriving)
            arriving.replace(PLUGIN_FOLDER / PLUGINS[name])  # atomic: Docker never runs half a file
            say(f"installed {PLUGIN_FOLDER / PLUGINS[name]}, for all users of this machine")


def server_arch() -> str:
    """Architecture of the daemon, and so of the images to build."""
    return run(["docker", "version", "--format", "{{.Server.Arch}}"], deadline_s=20).strip()
