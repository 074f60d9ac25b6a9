"""A second Docker daemon that tests may restart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_DEADLINE_S = 30.0
# With `--bridge none`, and at a second start with `--default-address-pool`, dockerd
# deletes any docker0. Without its own bridge it would share docker0.
BRIDGE, ADDRESS = f"lcd-{os.getpid()}"[:15], "10.212.0.1/24"


class Daemon:
    """dockerd with its own data, sockets, networks and containerd."""

    def __init__(self, folder: Path, *options: str, namespace: str = "") -> None:
        self._folder = folder
        # `ip netns exec` would hide the control groups.
        self._inside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self._folder}/docker.sock"

    def start(self) -> None:
        folder = self._folder
        command = [
            *self._inside,
            "dockerd",
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
            "--host",
            self.host,
        ]
        command += ["--pidfile", f"{folder}/pid", "--bridge", BRIDGE, "--iptables=false", "--ip6tables=false"]
        command += ["--shutdown-timeout", "1", *self._options]
        with (folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + READY_DEADLINE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"dockerd did not start: {(folder / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        asked = ["docker", "-H", self.host, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def load(self, *images: str) -> None:
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "-H", self.host, "load", "--quiet"], stdin=save.stdout, check=True, capture_output=True
            )

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None
        if number == signal.SIGKILL:  # else its containerd survives, and the next one waits for it forever
            pid_file = self._folder / "exec" / "containerd" / "containerd.pid"
            os.kill(int(pid_file.read_text()), number)
            pid_file.unlink()


@contextlib.contextmanager
def second_daemon(folder: Path, *options: str, namespace: str = "") -> Iterator[Daemon]:
    """Start a second daemon, or skip with the reason why it cannot start.

    With a network namespace its ports are not those of this machine.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("ip") is None:
        pytest.skip("needs root, and dockerd and ip on PATH")
    daemon, others = Daemon(folder, *options, namespace=namespace), bridges()
    ip = ["ip", "-n", namespace] if namespace else ["ip"]
    try:
        for command in (["link", "add", BRIDGE, "type", "bridge"], ["addr", "add", ADDRESS, "dev", BRIDGE]):
            subprocess.run([*ip, *command], check=True, capture_output=True)
        daemon.start()
        yield daemon
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError, AssertionError):
            if not daemon.answers():
                daemon.start()
            everything = ["docker", "-H", daemon.host, "ps", "--all", "--quiet"]
            found = subprocess.run(everything, capture_output=True, text=True, check=True).stdout.split()
            if found:
                subprocess.run(["docker", "-H", daemon.host, "rm", "--force", *found], capture_output=True, check=True)
            subprocess.run(
                ["docker", "-H", daemon.host, "network", "prune", "--force"], capture_output=True, check=True
            )
        daemon.end()
        subprocess.run([*ip, "link", "delete", BRIDGE], check=False, capture_output=True)
        _unmounted(folder)
        shutil.rmtree(folder, ignore_errors=True)
        assert "docker0" in bridges() or "docker0" not in others, "the second daemon deleted the first one's bridge"


@contextlib.contextmanager
def other_machine(here: str, there: str) -> Iterator[str]:
    """A network namespace with the address `there`, linked to this one's `here`."""
    name, end = f"lcn-{os.getpid()}", f"lcv-{os.getpid()}"[:15]
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("needs root, and ip and nsenter on PATH")
    try:
        for command in (
            ["netns", "add", name],
            ["link", "add", end, "type", "veth", "peer", "name", "uplink", "netns", name],
            ["addr", "add", f"{here}/30", "dev", end],
            ["link", "set", end, "up"],
            ["-n", name, "addr", "add", f"{there}/30", "dev", "uplink"],
            ["-n", name, "link", "set", "uplink", "up"],
            ["-n", name, "link", "set", "lo", "up"],
        ):
            subprocess.run(["ip", *command], check=True, capture_output=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", end], check=False, capture_output=True)


def bridges() -> set[str]:
    """Network bridges of this machine."""
    return {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}


def _unmounted(folder: Path) -> None:
    """Unmount what a killed daemon left mounted."""
    with open("/proc/self/mounts") as mounts:  # noqa: PTH123 - a kernel table
        ours = [line.split()[1] for line in mounts if line.split()[1].startswith(str(folder))]
    for mount in reversed(ours):
        subprocess.run(["umount", "--lazy", mount], check=False)
