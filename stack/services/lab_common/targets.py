"""Settings that limit repairs and scaling, of remediator, autoscaler and proxy."""

from __future__ import annotations

import re

from lab_common.settings import parsed, text

_SERVICE = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def project_name() -> str:
    return text("LAB_PROJECT", pattern=r"[a-z0-9][a-z0-9_-]*", expected="the name of a compose project")


def repaired_services() -> tuple[str, ...]:
    return parsed("LAB_REPAIRS", _services, lambda: _services(""))


def scaled_services(*, required: bool = False) -> tuple[str, ...]:
    """Services that may be stopped to save replicas. None if it is not set."""
    return parsed("LAB_SCALED", _services, lambda: _services("") if required else ())


def _services(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names or len(set(names)) < len(names) or not all(_SERVICE.fullmatch(name) for name in names):
        raise ValueError("different services separated by commas (api,model-1,model-2)")
    return names
