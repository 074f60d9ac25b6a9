"""The run's folder: supervisord's and Prometheus' settings, logs."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.json_log import JsonLog, parse
from pytest_llmchaos.runtime.local.compose_reader import Addresses
from pytest_llmchaos.runtime.local.control import SOCKET

EVENTS = "events.jsonl"
CONFIG = "supervisord.conf"
_BACKGROUND_NICENESS = 10
# An agent that ends within a second waits for its next start, each time 1 s longer.
_AGENT_STEADY_S, _AGENT_RETRIES = 1, 100


@dataclass(frozen=True, kw_only=True)
class Process:
    """supervisord's settings of one service.

    `environment` is added to supervisord's own. Only fault agents have `restarts`.
    """

    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    background: bool = False
    restarts: bool = False

    def section(self, work: Path) -> str:
        command = ["nice", "-n", str(_BACKGROUND_NICENESS), *self.command] if self.background else self.command
        settings = ",".join(f"{name}={_quote(name, value)}" for name, value in sorted(self.environment.items()))
        return "\n".join(
            [
                f"[program:{self.service}]",
                f"command = {_escape(shlex.join(command))}",
                f"environment = {settings}",
                f"directory = {_escape(str(work))}",
                "autostart = false",
                f"autorestart = {str(self.restarts).lower()}",  # only the remediator repairs services
                f"startsecs = {_AGENT_STEADY_S if self.restarts else 0}",
                f"startretries = {_AGENT_RETRIES if self.restarts else 0}",
                "redirect_stderr = true",
                f"stdout_logfile = {_escape(str(work / 'logs' / f'{self.service}.txt'))}",
                "stdout_logfile_maxbytes = 20MB",
                "stdout_logfile_backups = 1",
                "",
            ]
        )


def _escape(text: str) -> str:
    """Escape a value. supervisord expands `%(name)s` and cuts at ` ;` and ` #`."""
    if any(odd in text for odd in ("\n", " ;", " #")):
        raise NotReady(f"supervisord's settings cannot hold {text!r}: use a value without line breaks, ` ;` and ` #`")
    return text.replace("%", "%%")


def _quote(name: str, value: str) -> str:
    if '"' in value or "\\" in value or "\n" in value:
        raise NotReady(
            f"supervisord's settings cannot hold {name}={value!r}: use a value without quotes, backslashes, line breaks"
        )
    return f'"{_escape(value)}"'


def write_supervisord(work: Path, processes: Sequence[Process]) -> None:
    """Write supervisord's settings.

    The socket is named through supervisord's working folder, because the kernel accepts
    no socket path above 107 bytes.
    """
    (work / "logs").mkdir(parents=True, exist_ok=True)
    (work / EVENTS).touch()
    head = f"""\
[supervisord]
nodaemon = true
silent = true
logfile = {_escape(str(work / "logs" / "supervisord.txt"))}
pidfile = {_escape(str(work / "supervisord.pid"))}
childlogdir = {_escape(str(work / "logs"))}
loglevel = info

[unix_http_server]
file = /proc/self/cwd/{SOCKET}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:llmchaos]
supervisor.rpcinterface_factory = pytest_llmchaos.runtime.local.supervisor_plugin:make
events_file = {_escape(str(work / EVENTS))}

"""
    (work / CONFIG).write_text(head + "\n".join(process.section(work) for process in processes))


def python_path(first: Path) -> str:
    """PYTHONPATH for a process of the run: `first`, then this process's PYTHONPATH."""
    return os.pathsep.join(part for part in (str(first), os.environ.get("PYTHONPATH", "")) if part)


def supervisord_command() -> list[str]:
    return [sys.executable, "-m", "supervisor.supervisord", "--configuration", CONFIG]


def write_prometheus(work: Path, stack: Path, backend: str, addresses: Addresses, services: Sequence[str]) -> Path:
    """Write the lab's prometheus.yml with this run's addresses and paths.

    Rules are read from the stack's folder.
    """
    folder = work / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    is_scaled = "autoscaler" in services
    given = {"model": f"{backend}-scaled" if is_scaled else backend, "scale": "scale-on" if is_scaled else "scale-off"}
    given |= {name: name for name in ("agent", "desk") if name in services}
    for name, file in given.items():
        targets = (stack / "prometheus" / "targets" / f"{file}.yml").read_text()
        (folder / f"{name}.yml").write_text(addresses.translate(targets, services))
    text = (stack / "prometheus" / "prometheus.yml").read_text()
    text = text.replace("localhost:9090", "prometheus:9090")
    text = text.replace("/etc/prometheus/rules", str(stack / "prometheus" / "rules"))
    text = text.replace("/etc/prometheus/targets/", f"{folder}/")
    (folder / "prometheus.yml").write_text(addresses.translate(text, services))
    return folder / "prometheus.yml"


def read_log(path: Path) -> JsonLog:
    """Parse a log that is still being written. Empty if the file is missing."""
    with contextlib.suppress(FileNotFoundError):
        return parse(path.read_bytes())
    return JsonLog()
