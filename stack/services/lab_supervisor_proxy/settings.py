"""Settings of the proxy in front of supervisord."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab_common.settings import Section, parsed, text, whole
from lab_common.targets import project_name, repaired_services, scaled_services


def _socket(given: str = "") -> Path:
    if not given:
        raise ValueError("the path of supervisord's socket")
    return Path(given)


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Address, compose project, and the services that may be acted on."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 2375, 0, 65535)
    metrics_port: int = whole("LAB_METRICS_PORT", 8404, 0, 65535)
    project: str = project_name()
    repairs: tuple[str, ...] = repaired_services()
    scaled: tuple[str, ...] = scaled_services()
    socket: Path = parsed("LAB_SUPERVISOR_SOCKET", _socket, _socket)
