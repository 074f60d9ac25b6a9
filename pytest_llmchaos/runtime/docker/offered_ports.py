"""Ports that the services of a compose file offer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.docker import docker_cli, reach

_MOST_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Ports of one service, in order, and where they come from."""

    ports: tuple[int, ...]
    source: str


def port_of(config: reach.Config, service: str, wanted: int | None, key: str) -> int:
    """Return the container's port at which a service is reached.

    It is the wanted one, else the only one that the service publishes, exposes or that
    its image exposes.

    Args:
        config: The compose file.
        service: Name of the service.
        wanted: The port that the user named, or None.
        key: The ini key that names the service, for the message.

    Raises:
        BadScenario: The service offers no port or several. Lists them.
    """
    if wanted is not None:
        return wanted
    offer = _offer(config.services[service])
    if len(offer.ports) == 1:
        return offer.ports[0]
    if not offer.ports:
        raise BadScenario(
            f"{key} names {service!r}, which neither publishes nor exposes a port: write it, such as "
            f'{key} = "{service}:8080"'
        )
    shown = ", ".join(map(str, offer.ports[:_MOST_SHOWN])) + (", ..." if len(offer.ports) > _MOST_SHOWN else "")
    raise BadScenario(
        f"{key} names {service!r}, which {offer.source} {len(offer.ports)} ports ({shown}): write the one to use, such as "
        f'{key} = "{service}:{offer.ports[0]}"'
    )


def _offer(service: reach.Service) -> Offer:
    published = tuple(dict.fromkeys(port.target for port in service.ports if port.protocol == "tcp"))
    if published:
        return Offer(ports=published, source="publishes")
    exposed = tuple(dict.fromkeys(port for text in service.expose for port in _ports_in(text)))
    if exposed:
        return Offer(ports=exposed, source="exposes")
    return Offer(ports=_image_ports(service.image), source="exposes by its image")


def _ports_in(text: str) -> tuple[int, ...]:
    """Ports of `7`, `7/tcp` or `3000-3005`. None of UDP or SCTP."""
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:/tcp)?", text)
    return tuple(range(int(match[1]), int(match[2] or match[1]) + 1)) if match else ()


def _image_ports(image: str) -> tuple[int, ...]:
    """Ports that an image exposes. None if it is not here yet."""
    if not image:
        return ()
    try:
        output = docker_cli.run(["docker", "image", "inspect", "--format", "{{json .Config.ExposedPorts}}", image])
        exposed: Mapping[str, object] = json.loads(output) or {}
    except (NotReady, ValueError):
        return ()
    return tuple(sorted(port for text in exposed for port in _ports_in(text)))
