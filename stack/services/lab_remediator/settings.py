"""Environment of the remediator as checked values. Reads no file and opens no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ADDRESS = re.compile(r"[a-z0-9][a-z0-9_.-]*:[0-9]{1,5}")


class SettingsError(ValueError):
    """A variable of the environment is missing or not usable."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the remediator listens, whom it asks, and what it may repair."""

    host: str
    port: int
    project: str
    repairs: tuple[str, ...]
    prometheus_url: str
    docker_url: str
    health_path: str
    addresses: Mapping[str, str]  # host:port of a probe -> host:port to ask instead
    rules_file: Path
    audit_file: Path
    hold_file: Path
    poll_s: float
    dry_run: bool


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`; raises SettingsError with the variable, what was expected and what was seen."""
    project = environment.get("LAB_PROJECT", "")
    if not _PROJECT.fullmatch(project):
        raise SettingsError(f"LAB_PROJECT: expected the name of a compose project, got {project!r}")
    repairs = tuple(name.strip() for name in environment.get("LAB_REPAIRS", "").split(",") if name.strip())
    if not repairs or len(set(repairs)) < len(repairs) or not all(_SERVICE.fullmatch(name) for name in repairs):
        raise SettingsError(
            "LAB_REPAIRS: expected different services separated by commas (api,model-1,model-2), "
            f"got {environment.get('LAB_REPAIRS', '')!r}"
        )
    audit_file = Path(environment.get("LAB_AUDIT_FILE", "/audit/audit.jsonl"))
    return Settings(
        host=environment.get("LAB_HOST", "127.0.0.1"),
        port=int(_number(environment, "LAB_PORT", 8001, 0, 65535)),
        project=project,
        repairs=repairs,
        prometheus_url=_url(environment, "LAB_PROMETHEUS_URL", "http://prometheus:9090"),
        docker_url=_url(environment, "LAB_DOCKER_URL", "http://docker-proxy:2375"),
        addresses=_addresses(environment.get("LAB_ADDRESSES", "")),
        health_path=_path(environment, "LAB_HEALTH_PATH", "/health"),
        rules_file=Path(environment.get("LAB_RULES_FILE", "/etc/remediator/remediation.yaml")),
        audit_file=audit_file,
        hold_file=Path(environment.get("LAB_HOLD_FILE", str(audit_file.parent / "hold"))),
        poll_s=_number(environment, "LAB_POLL_S", 0.25, 0.05, 10),
        dry_run=_flag(environment, "LAB_DRY_RUN"),
    )


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environment.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise SettingsError(f"{name}: expected a number from {least:g} to {most:g}, got {text!r}")
    return value


def _url(environment: Mapping[str, str], name: str, default: str) -> str:
    text = environment.get(name, default).rstrip("/")
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise SettingsError(f"{name}: expected http://HOST:PORT, got {text!r}")
    return text


def _path(environment: Mapping[str, str], name: str, default: str) -> str:
    text = environment.get(name, default)
    if not re.fullmatch(r"/[A-Za-z0-9/._-]*", text):
        raise SettingsError(f"{name}: expected the path of the replicas' health check (/health), got {text!r}")
    return text


def _addresses(text: str) -> Mapping[str, str]:
    """Where services have no names of their own: api:8000=127.0.0.1:21001,..."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    for name, _, address in pairs:
        if not _ADDRESS.fullmatch(name) or not _ADDRESS.fullmatch(address):
            raise SettingsError(f"LAB_ADDRESSES: expected SERVICE:PORT=HOST:PORT,..., got {text!r}")
    return {name: address for name, _, address in pairs}


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "0")
    if text not in ("", "0", "1"):
        raise SettingsError(f"{name}: expected 0 or 1, got {text!r}")
    return text == "1"
