"""Namespaces that a container shares with others, so that a fault on it would hit them, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pytest_llmchaos.errors import NotReady

if TYPE_CHECKING:
    from docker.models.containers import Container

Namespace = Literal["network", "pid"]
_MODES: dict[Namespace, str] = {"network": "NetworkMode", "pid": "PidMode"}


def require_own(victim: Container, namespace: Namespace) -> None:
    """Raises NotReady if the victim has joined the host's namespace, or another container's."""
    mode = _mode(victim, namespace)
    if mode == "host" or mode.startswith("container:"):
        whose = "of the host" if mode == "host" else f"of container {mode.removeprefix('container:')[:12]}"
        raise NotReady(
            f"{victim.name} has no {namespace} namespace of its own, it uses the one {whose}, which the fault would hit: "
            "nothing was touched; choose another target or another fault"
        )


def require_unshared(victim: Container, running: Iterable[Container], *namespaces: Namespace) -> None:
    """Raises NotReady, naming them, if other containers have joined one of these namespaces of the victim.

    They die with the first process of a pid namespace, and have no network any more once its owner has ended.
    """
    others = [one for one in running if one.id != victim.id]
    for namespace in namespaces:
        joined = sorted(str(one.name) for one in others if _joins(one, victim, namespace))
        if joined:
            raise NotReady(
                f"{', '.join(joined)} shares the {namespace} namespace of {victim.name}, and the fault would hit it, too: "
                "nothing was touched; end it, give it a namespace of its own, or choose another target"
            )


def _joins(one: Container, victim: Container, namespace: Namespace) -> bool:
    """Docker keeps the container's id, some versions its name or the beginning of its id as it was given."""
    kind, _, whose = _mode(one, namespace).partition(":")
    return kind == "container" and bool(whose) and (whose == victim.name or str(victim.id).startswith(whose))


def _mode(container: Container, namespace: Namespace) -> str:
    return str(container.attrs["HostConfig"].get(_MODES[namespace]) or "")
