"""The judge of a stack that runs already: a Compose project of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli, judge, reach, removal, startup
from pytest_llmchaos.runtime.docker.place import Place
from pytest_llmchaos.runtime.judge_files import PROMETHEUS_PORT, PUSHGATEWAY_PORT
from pytest_llmchaos.subject.lab import Subject
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY

if TYPE_CHECKING:
    from docker.models.containers import Container

UP_DEADLINE_S = 120.0  # without pulls
_NAMELESS = "bridge"
_INSIDE = {JUDGE: PROMETHEUS_PORT, PUSHGATEWAY: PUSHGATEWAY_PORT}


def project_name() -> str:
    """Return the name of the judge's project of this process."""
    return f"{identity.project_name(os.getpid())}-judge"


class JudgeProject:
    """Prometheus and pushgateway in the networks of a stack that runs already.

    Attributes:
        name: Name of the Compose project.
        port_of: Published ports by service, while it is up.
    """

    def __init__(self, *, labels: Mapping[str, str], owner: str, directory: Path, place: Place) -> None:
        self.name = project_name()
        self.port_of: dict[str, int] = {}
        self._labels = dict(labels)
        self._owner = owner
        self._file = directory / "judge.compose.yaml"
        self._place = place
        self._ports = place.ports()

    def url(self, service: str) -> str:
        """Return the address of one of the two services."""
        return self._place.url(self.port_of[service])

    def up(self, config: reach.Config, subject: Subject, show: startup.Show = lambda *_: None) -> None:
        """Start both and wait until they are ready.

        Args:
            config: The running stack, from `as_config`.
            subject: The user's stack with its scrapes and rules.
            show: Takes a line of progress and the seconds left.

        Raises:
            NotReady: Docker refuses, or they are not ready in time.
        """
        self.port_of = {service: self._ports.reserve() for service in _INSIDE}
        published = {name: self._place.entry(port, _INSIDE[name]) for name, port in self.port_of.items()}
        networks = {name: {"external": True, "name": name} for name in config.networks}
        services = judge.services(config, subject, self._labels, published)
        text = {
            "services": services,
            "configs": judge.configs(config, subject),
            "networks": {**networks, judge.NETWORK: {"labels": self._labels}},
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(text, indent=1))
        words = ["docker", "compose", "-p", self.name, "-f", str(self._file)]
        command = startup.Command(words=words, env=docker_cli.environment(), folder=self._file.parent)
        startup.fetch_images(command, services, show)
        docker_cli.run([*words, "up", "--detach", "--wait", "--quiet-pull"], timeout_s=UP_DEADLINE_S)

    def down(self) -> None:
        """Remove both. Raises NotReady if Docker refuses."""
        if self.port_of:
            removal.remove_owned(self.name, self._owner)
            self.port_of = {}
        self._ports.close()


def as_config(found: Mapping[str, Sequence[Container]], scraped: Collection[str]) -> reach.Config:
    """Describe running containers as a compose file, as far as a judge needs it.

    Args:
        found: Containers by service.
        scraped: The services to describe, and those whose network they use.
    """
    of_id = {container.id: service for service, containers in found.items() for container in containers}
    services: dict[str, reach.Service] = {}
    networks: set[str] = set()
    left = [service for service in scraped if service in found]
    while left:
        service = left.pop()
        containers = found[service]
        about = containers[0].attrs
        # On Docker's default network no name leads to a container.
        joined = sorted({*(about["NetworkSettings"]["Networks"] or {})} - {_NAMELESS})
        mode = str(about["HostConfig"]["NetworkMode"])
        kind, _, other = mode.partition(":")
        if kind == "container":
            if other in of_id:
                mode = f"service:{of_id[other]}"
                left += [of_id[other]] if of_id[other] not in services else []
        elif mode not in ("host", "none"):
            mode = "" if joined else _NAMELESS
        networks.update(joined if not mode else ())
        services[service] = reach.Service(
            network_mode=mode,
            networks=dict.fromkeys(joined) if not mode else None,
            expose=sorted(about["Config"].get("ExposedPorts") or {}),
            scale=len(containers),
        )
    return reach.Config(services=services, networks={name: reach.Resource(name=name) for name in sorted(networks)})
