"""Settings of the remediator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab_common.settings import Section, flag, number, parsed, text, whole
from lab_common.targets import project_name, repaired_services

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*:[0-9]{1,5}")
_ADDRESS = re.compile(rf"{_NAME.pattern}|\[[0-9a-f:.]+\]:[0-9]{{1,5}}")


def _url(given: str) -> str:
    parts = urlsplit(given)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("http://HOST:PORT")
    return given.rstrip("/")


def _addresses(given: str) -> Mapping[str, str]:
    """Addresses of services without names of their own: api:8000=127.0.0.1:21001,..."""
    pairs = [pair.partition("=") for pair in given.split(",") if pair]
    if not all(_NAME.fullmatch(name) and _ADDRESS.fullmatch(address) for name, _, address in pairs):
        raise ValueError("SERVICE:PORT=HOST:PORT,...")
    return {name: address for name, _, address in pairs}


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Addresses of the remediator and its sources, and the services to repair."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8001, 0, 65535)
    project: str = project_name()
    repairs: tuple[str, ...] = repaired_services()
    prometheus_url: str = parsed("LAB_PROMETHEUS_URL", _url, lambda: "http://prometheus:9090")
    docker_url: str = parsed("LAB_DOCKER_URL", _url, lambda: "http://docker-proxy:2375")
    autoscaler_url: str = parsed("LAB_AUTOSCALER_URL", _url, lambda: "")  # empty: no replica has another owner
    health_path: str = text(
        "LAB_HEALTH_PATH",
        "/health",
        pattern="/[A-Za-z0-9/._-]*",
        expected="the path of the replicas' health check (/health)",
    )
    canary: str = text("LAB_CANARY", "")  # the right answer to the canaries of the rules file. Empty: no canary
    addresses: Mapping[str, str] = parsed(
        "LAB_ADDRESSES", _addresses, dict
    )  # address of a probe -> address to use instead
    rules_file: Path = parsed("LAB_RULES_FILE", Path, lambda: Path("/etc/remediator/remediation.yaml"))
    audit_file: Path = parsed("LAB_AUDIT_FILE", Path, lambda: Path("/audit/audit.jsonl"))
    chosen_hold_file: Path | None = parsed("LAB_HOLD_FILE", Path, lambda: None)
    poll_s: float = number("LAB_POLL_S", 0.25, 0.05, 10)
    dry_run: bool = flag("LAB_DRY_RUN")

    @property
    def hold_file(self) -> Path:
        """Next to the audit log by default."""
        return self.chosen_hold_file or self.audit_file.parent / "hold"
