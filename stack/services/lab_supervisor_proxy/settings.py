"""Environment of the proxy as checked values. Opens nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class SettingsError(ValueError):
    """Every variable that is missing or wrong, one a line."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where it listens, which project it speaks for, and which services may be acted on."""

    host: str
    port: int
    metrics_port: int
    project: str
    repairs: tuple[str, ...]
    socket: Path


def read_settings(environment: Mapping[str, str]) -> Settings:
    problems: list[str] = []

    def port(name: str, default: int) -> int:
        text = environment.get(name) or str(default)
        if text.isascii() and text.isdigit() and int(text) <= 65535:
            return int(text)
        problems.append(f"{name}: expected a port from 0 to 65535, got {text!r}")
        return default

    project = environment.get("LAB_PROJECT", "")
    if not _PROJECT.fullmatch(project):
        problems.append(
            f"LAB_PROJECT: expected the name of the project whose services may be repaired, got {project!r}"
        )
    repairs = tuple(name.strip() for name in environment.get("LAB_REPAIRS", "").split(",") if name.strip())
    if not repairs or not all(_SERVICE.fullmatch(name) for name in repairs):
        problems.append(
            f"LAB_REPAIRS: expected services separated by commas (api,model-1,model-2), got {environment.get('LAB_REPAIRS', '')!r}"
        )
    socket = environment.get("LAB_SUPERVISOR_SOCKET", "")
    if not socket:
        problems.append("LAB_SUPERVISOR_SOCKET: expected the path of supervisord's socket, it is not set")
    settings = Settings(
        host=environment.get("LAB_HOST") or "127.0.0.1",
        port=port("LAB_PORT", 2375),
        metrics_port=port("LAB_METRICS_PORT", 8404),
        project=project,
        repairs=repairs,
        socket=Path(socket),
    )
    if problems:
        raise SettingsError("\n".join(problems))
    return settings
