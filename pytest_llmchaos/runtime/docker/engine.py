"""Abilities that a daemon lacks, by its own description."""

from __future__ import annotations

import msgspec


class _Component(msgspec.Struct, rename="pascal"):
    name: str = ""
    version: str = ""


class _Server(msgspec.Struct, rename="pascal"):
    components: list[_Component] | None = None


class _Info(msgspec.Struct, rename="pascal"):
    security_options: list[str] | None = None
    cgroup_driver: str = ""


def podman_version(server: str) -> str:
    """Return the version of Podman, or "" for another engine.

    Args:
        server: Output of `docker version --format '{{json .Server}}'`.
    """
    try:
        components = msgspec.json.decode(server, type=_Server).components or []
    except msgspec.MsgspecError:
        return ""
    return next((one.version for one in components if one.name == "Podman Engine"), "")


def lacks_control_groups(info: str) -> bool:
    """True for a rootless daemon that can neither pause nor limit a container.

    Args:
        info: Output of `docker info --format '{{json .}}'`.
    """
    try:
        found = msgspec.json.decode(info, type=_Info)
    except msgspec.MsgspecError:
        return False
    return found.cgroup_driver == "none" and "name=rootless" in (found.security_options or [])
