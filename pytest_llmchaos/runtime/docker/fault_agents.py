"""Fault agents as containers in the network namespaces of services."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.ports import bracketed
from pytest_llmchaos.runtime.docker import agent_container, agent_image, docker_cli, sdk, sharing
from pytest_llmchaos.runtime.docker.agent_post import Post
from pytest_llmchaos.runtime.docker.events import NUMBER, number_of
from pytest_llmchaos.runtime.docker.startup import named
from pytest_llmchaos.runtime.fault_agent import AgentAbility, AgentAnswer

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from pytest_llmchaos.runtime.docker.place import Place

ARMED_WITHIN_S = 20.0
_CONNECT_S = 1.0
# A proxy of Docker accepts connections to a published port, and then closes those that
# the container refuses.
_STAYS_OPEN_S = 0.1
_TRY = (
    "import socket,sys;s=socket.create_connection((sys.argv[1],int(sys.argv[2])),2);s.settimeout(0.1)\n"
    "try: sys.exit(s.recv(1)==b'')\n"
    "except TimeoutError: pass"
)


class DockerAgents(AgentAbility):
    """Mixin for container runtimes: one agent at each container of a service."""

    project: str
    _labels: dict[str, str]
    _posts: dict[str, Post]
    _daemon: docker_cli.Daemon | None
    _container: Callable[[str], Container | None]
    _new_client: Callable[[], DockerClient]

    def _all_of(self, service: str, client: DockerClient | None = None) -> list[Container]:
        raise NotImplementedError

    @property
    def _sdk(self) -> DockerClient:
        raise NotImplementedError

    @property
    def _agents_project(self) -> str:
        """Compose project of the agents, by which they are removed."""
        return self.project

    @property
    def _place(self) -> Place:
        raise NotImplementedError

    @property
    def _logs(self) -> Path:
        """Folder of the run's logs."""
        raise NotImplementedError

    @property
    def agent_abilities(self) -> frozenset[str]:
        return frozenset({"proxy"})

    def _require_allowed(self, service: str, containers: Sequence[Container]) -> None:
        """Raise NotReady if no agent may enter the way of these containers."""

    def wire_arm(self, services: Sequence[str]) -> None:
        """Start an agent at each container of the services that lacks one.

        Everything is checked before the first one starts.
        """
        found = {service: self._all_of(service) for service in dict.fromkeys(services)}
        new = {
            target: container
            for service, containers in found.items()
            for target, container in named({service: containers})
            if target not in self._posts
        }
        running = self._sdk.containers.list(ignore_removed=True) if new else []
        for service, containers in found.items():
            self._require_armable(service, containers, running)
        if not new:
            return
        kind = self._kind(agent_image.agent_image())
        for target, container in new.items():
            number = number_of(container.labels.get(NUMBER, ""))
            find = functools.partial(self._armable, target.partition("#")[0], number)
            self._posts[target] = Post(target, kind, self._new_client, find, self._daemon)
            self._posts[target].start()
        deadline = time.monotonic() + ARMED_WITHIN_S
        try:
            for target in new:
                self._posts[target].wait(max(0.0, deadline - time.monotonic()))
        except NotReady:
            self.wire_disarm()
            raise

    def _await_agents(self, services: Sequence[str]) -> None:
        """Wait until agents are back in the way of services that were restarted."""
        for service in services:
            for target, container in named({service: self._all_of(service)}):
                if (post := self._posts.get(target)) is not None:
                    post.wait_at(str(container.attrs["State"]["StartedAt"]), ARMED_WITHIN_S)

    def _kind(self, image: str) -> agent_container.Kind:
        return agent_container.Kind(
            image=image, project=self._agents_project, labels=dict(self._labels), logs=self._logs
        )

    def _require_armable(self, service: str, containers: Sequence[Container], running: Sequence[Container]) -> None:
        if not containers:
            raise NotReady(f"service {service!r} has no container, so no fault agent can enter its way: start it")
        self._require_allowed(service, containers)
        for container in containers:
            if container.status != "running":
                raise NotReady(
                    f"{container.name} is {container.status}, so no fault agent can enter its way: start it first"
                )
            sharing.require_own(container, "network")
            if container.attrs["HostConfig"].get("NetworkMode") == "none":
                raise NotReady(
                    f"{container.name} has no network, so there is no connection to break: choose another target"
                )
            sharing.require_unshared(container, running, "network")
            others = [one for one in running if self._is_anothers_agent(one, container)]
            if others:
                raise NotReady(
                    f"the fault agent {others[0].name} of another run is in the way of {container.name}: wait for the end "
                    "of that run, or remove what a dead one left with `llmchaos heal`"
                )

    def _is_anothers_agent(self, one: Container, victim: Container) -> bool:
        is_agent = one.labels.get(agent_container.VICTIM) == victim.id
        return is_agent and any(one.labels.get(key) != value for key, value in self._labels.items())

    def _armable(self, service: str, number: int, client: DockerClient) -> Container | None:
        """Return a service's container with this number if it runs."""
        for container in self._all_of(service, client):
            if container.status == "running" and number_of(container.labels.get(NUMBER, "")) == number:
                self._require_allowed(service, [container])
                return container
        return None

    def wire_disarm(self) -> None:
        """End all agents of this run.

        Raises:
            NotReady: The kernel may still redirect a service's ports. Has the names.
        """
        self._stand_down()
        failed = []
        for agent in self._agents():
            try:
                agent_container.end(self._sdk, self._kind(str(agent.attrs["Config"]["Image"])), agent)
            except NotReady as error:
                failed.append(str(error))
        self._forget_posts()
        if failed:
            raise NotReady("; ".join(failed))

    def _keep_agent_logs(self) -> None:
        """Keep the logs of agents that are in the way now."""
        for agent in self._agents():
            agent_container.keep_log(agent, self._logs)

    def _stand_down(self) -> None:
        """Start no further agents, because all containers will be removed."""
        for post in self._posts.values():
            post.stand_down()

    def _forget_posts(self) -> None:
        """Wait for their threads, after all containers were removed."""
        for post in self._posts.values():
            post.join()
        self._posts.clear()

    def _agents(self, victim: Container | None = None) -> list[Container]:
        """This run's agents, even of a dead process. All, or those at one container."""
        labels = [sharing.AGENT, *(f"{key}={value}" for key, value in self._labels.items())]
        if victim is not None:
            labels.append(f"{agent_container.VICTIM}={victim.id}")
        return self._sdk.containers.list(all=True, filters={"label": labels}, ignore_removed=True)

    def _ask_agent(self, service: str, asked: Mapping[str, object]) -> AgentAnswer | None:
        container = self._container(service)
        post = self._posts.get(self._target(service, container))
        if post is not None:
            return post.ask(asked)
        if container is None:
            return None
        agents = [agent for agent in self._agents(container) if agent.status == "running"]
        return agent_container.ask(agents[0], asked) if agents else None

    def _ports_of(self, service: str) -> Sequence[int]:
        post = self._posts.get(self._target(service, self._container(service)))
        return post.ports if post is not None else ()

    def _target(self, service: str, container: Container | None) -> str:
        """Key of the post at the container on which faults act now."""
        number = number_of(container.labels.get(NUMBER, "")) if container is not None else 1
        scaled = f"{service}#{number}"
        return scaled if scaled in self._posts else service

    def wire_open(self, service: str) -> str | None:
        container = self._container(service)
        if container is None or container.status != "running":
            return None
        post = self._posts.get(self._target(service, container))
        ports = post.ports if post is not None and post.ports else _exposed(container)
        addresses = _addresses(container)
        for address in addresses:
            for port in ports:
                if _stays_open(address, port):
                    return f"{bracketed(address)}:{port} accepts a connection from outside"
        for host, port in _published(container, self._place):
            if _stays_open(host, port):
                return f"{bracketed(host)}:{port} accepts a connection from outside"
        return self._open_to_others(container, ports)

    def _open_to_others(self, container: Container, ports: Sequence[int]) -> str | None:
        """The same for another container, if containers cannot be reached from here."""
        if not self._place.elsewhere and self._place.shares_files:
            return None  # they can
        for network, about in (container.attrs["NetworkSettings"]["Networks"] or {}).items():
            for port in ports:
                try:
                    self._sdk.containers.run(
                        agent_image.agent_image(),
                        ["python3", "-c", _TRY, str(about.get("IPAddress")), str(port)],
                        network=network,
                        user="65534:65534",
                        labels={**self._labels, "com.docker.compose.project": self._agents_project},
                        remove=True,
                    )
                except sdk.errors.DockerException:
                    continue
                return f"{about.get('IPAddress')}:{port} accepts a connection from another container of {network}"
        return None


def _addresses(container: Container) -> list[str]:
    networks = (container.attrs["NetworkSettings"]["Networks"] or {}).values()
    return [str(about["IPAddress"]) for about in networks if about.get("IPAddress")]


def _exposed(container: Container) -> list[int]:
    """TCP ports that the image or the compose file names."""
    named_ports = (key.partition("/") for key in container.attrs["NetworkSettings"].get("Ports") or {})
    return [int(port) for port, _, protocol in named_ports if protocol == "tcp"]


def _published(container: Container, place: Place) -> Iterator[tuple[str, int]]:
    """Hosts and ports at which this process reaches published ports."""
    for key, bindings in (container.attrs["NetworkSettings"].get("Ports") or {}).items():
        for binding in (bindings or []) if key.endswith("/tcp") else []:
            host = place.host_of(str(binding.get("HostIp") or ""))
            if host is not None:
                yield host, int(binding["HostPort"])


def _stays_open(host: str, port: int) -> bool:
    """True if a connection is accepted, and not ended at once."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S) as connection:
            connection.settimeout(_STAYS_OPEN_S)
            return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
