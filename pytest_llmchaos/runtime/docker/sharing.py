"""Namespaces that a container shares, which a fault would hit too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pytest_llmchaos.errors import NotReady

if TYPE_CHECKING:
    from docker.models.containers import Container

# Label of fault agents, which join the network namespace of a container.
AGENT = "llmchaos.agent"
Namespace = Literal["network", "pid"]
_MODES: dict[Namespace, str] = {"network": "NetworkMode", "pid": "PidMode"}


def require_own(victim: Container, namespace: Namespace) -> None:
    """Raise NotReady if the victim uses the host's or another container's namespace."""
    mode = _mode(victim, namespace)
    if mode == "host" or mode.startswith("container:"):
        whose = "of the host" if mode == "host" else f"of container {mode.removeprefix('container:')[:12]}"
        raise NotReady(
            f"{victim.name} lacks a {namespace} namespace of its own and uses the one {whose}, which the fault would hit: "
            "nothing was touched; choose another target or another fault"
        )


def require_unshared(victim: Container, running: Iterable[Container], *namespaces: Namespace) -> None:
    """Raise NotReady if other containers use one of these namespaces of the victim.

    They die with the first process of a pid namespace, and lose their network when its
    owner ends. Fault agents do not count.
    """
    others = [one for one in running if one.id != victim.id and AGENT not in one.labels]
    for namespace in namespaces:
        joined = sorted(str(one.name) for one in others if _joins(one, victim, namespace))
        if joined:
            raise NotReady(
                f"{', '.join(joined)} shares the {namespace} namespace of {victim.name}, so the fault would hit it too: "
                "nothing was touched; stop it, give it its own namespace, or choose another target"
            )


def _joins(one: Container, victim: Container, namespace: Namespace) -> bool:
    """True if `one` uses the victim's namespace.

    Docker keeps the container's id. Some versions keep its name or a prefix of its id.
    """
    kind, _, whose = _mode(one, namespace).partition(":")
    return kind == "container" and bool(whose) and (whose == victim.name or str(victim.id).startswith(whose))


def _mode(container: Container, namespace: Namespace) -> str:
    return str(container.attrs["HostConfig"].get(_MODES[namespace]) or "")
