"""Checks of a stack that runs already, before anything touches it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import declared_protocols, docker_cli, notices
from pytest_llmchaos.runtime.docker.events import NUMBER, number_of
from pytest_llmchaos.runtime.docker.members import SERVICE, Members
from pytest_llmchaos.runtime.docker.near_names import near
from pytest_llmchaos.subject.own_stack import services_by_key

if TYPE_CHECKING:
    from docker.models.containers import Container

    from pytest_llmchaos.runtime.docker.place import Place
    from pytest_llmchaos.subject.lab import Subject

ALLOW = "llmchaos.allow"
# Every container of a run has this label. None of them is hit as a container of others.
OWNER = "llmchaos.owner"
# Name for containers that belong to no Compose project.
NO_PROJECT = "containers"


@dataclass(frozen=True, kw_only=True)
class Binding:
    """A container's port, and the address and port that are fixed for it."""

    inside: int
    host: str
    port: int


def examine(subject: Subject) -> Subject:
    """Return the subject with its project's name and what its containers show.

    Raises:
        NotReady: Compose cannot read the files, and the user named no project.
    """
    project = subject.project or _project_of(subject.compose_files)
    members = Members(project=project, selectors=dict(subject.selectors))
    found = _settings_of(members)
    return replace(
        subject,
        project=project,
        notices=notices.of(subject, {name: one.about for name, one in found.items()}),
        unreadable=declared_protocols.unreadable({name: one.declared for name, one in found.items()}),
    )


class _Policy(msgspec.Struct, rename="pascal"):
    name: str = ""


class _HostConfig(msgspec.Struct, rename="pascal"):
    restart_policy: _Policy


class _HealthCheck(msgspec.Struct, rename="pascal"):
    test: list[str] | None = None


class _Config(msgspec.Struct, rename="pascal"):
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: _HealthCheck | None = None
    exposed_ports: dict[str, object] | None = None


class _Mount(msgspec.Struct, rename="pascal"):
    source: str = ""


class _Container(msgspec.Struct, rename="pascal"):
    """Output of `docker container inspect`."""

    name: str
    config: _Config
    host_config: _HostConfig
    mounts: list[_Mount] | None = None

    @property
    def declared(self) -> declared_protocols.Declared:
        exposed = (text.partition("/") for text in self.config.exposed_ports or {})
        check = self.config.healthcheck
        return declared_protocols.Declared(
            ports={int(port): "" for port, _, protocol in exposed if protocol == "tcp"},
            command=declared_protocols.words_of(self.config.entrypoint, self.config.cmd),
            health_check=declared_protocols.words_of(check.test if check is not None else None),
        )

    @property
    def about(self) -> notices.About:
        return notices.About(
            restart=self.host_config.restart_policy.name,
            variables=dict(entry.split("=", 1) for entry in self.config.env or [] if "=" in entry),
            mounts=tuple(mount.source for mount in self.mounts or []),
        )


def _settings_of(members: Members) -> dict[str, _Container]:
    """A container of each service that has one."""
    found: dict[str, _Container] = {}
    for filters in members.filters():
        words = [word for kind, values in filters.items() for one in values for word in ("--filter", f"{kind}={one}")]
        ids = docker_cli.run(["docker", "ps", "--all", "--quiet", "--no-trunc", *words]).split()
        for container in _inspect(ids):
            name = members.service_of(container.name.removeprefix("/"), container.config.labels or {})
            if name is not None:
                found[name] = container
    return found


def _inspect(ids: Sequence[str]) -> list[_Container]:
    """Containers by their ids. Empty if one was removed meanwhile."""
    if not ids:
        return []
    try:
        output = docker_cli.run(["docker", "container", "inspect", *ids])
    except NotReady as error:
        if "No such container" in str(error):
            return []
        raise
    return msgspec.json.decode(output, type=list[_Container])


def _project_of(files: Sequence[Path]) -> str:
    """The project that `docker compose` would use: its variables, `.env`, `name:`."""
    if not files:
        return NO_PROJECT
    words = [word for file in files for word in ("-f", str(file))]
    # Without variables filled in, Compose prints a name with variables wrongly.
    command = ["docker", "compose", *words, "config", "--format", "json"]
    try:
        name: str = json.loads(docker_cli.run(command))["name"]
    except NotReady as error:
        raise NotReady(
            f"{error}; set what the stack was started with, or name its project with llmchaos_project "
            "(`docker compose ls` lists the projects that run)"
        ) from None
    return name


def not_there(subject: Subject, found: Mapping[str, Sequence[Container]]) -> list[str]:
    """List services of the ini keys that have no container."""
    selectors = dict(subject.selectors)
    return [
        f"{key} names {selectors[name]!r}, which no container has: start one, or see `docker ps --all`"
        if name in selectors
        else f"{key} names {name!r}, which has no container: {near(name, found)}start it (`docker compose up -d {name}`), "
        f"or name one of {', '.join(sorted(found))}"
        for name, key in services_by_key(subject).items()
        if name and name not in found and name != subject.remediator  # it need not run
    ]


def ambiguous(subject: Subject, found: Mapping[str, Sequence[Container]]) -> list[str]:
    """List labels of several containers that are no replicas of one service."""
    problems = []
    for name, selector in subject.selectors:
        containers = found.get(name, ())
        if len({number_of(container.labels.get(NUMBER, "")) for container in containers}) < len(containers):
            several = ", ".join(sorted(str(container.name) for container in containers))
            problems.append(f"{selector!r} is on several containers ({several}): name each as container:NAME")
    return problems


def not_allowed(containers: Sequence[Container]) -> list[str]:
    """List reasons why faults may not hit a service. Every container counts.

    A reason follows the service's name, as those of `not_running` do.
    """
    problems = []
    without = [container for container in containers if container.labels.get(ALLOW) != "true"]
    if without:
        in_compose = without[0].labels.get(SERVICE)
        add = (
            f'add `labels: {{{ALLOW}: "true"}}` to it in the compose file, then `docker compose up -d {in_compose}`'
            if in_compose
            else f"start it anew with `--label {ALLOW}=true`"
        )
        problems.append(f"lacks the label {ALLOW}=true: {add}")
    if any(OWNER in container.labels for container in containers):
        problems.append("belongs to a run of llmchaos: name services of your own stack")
    return problems


def may_be_hit(container: Container) -> bool:
    """True if its owner allows it and it is no container of a run."""
    return container.labels.get(ALLOW) == "true" and OWNER not in container.labels


def not_running(containers: Sequence[Container]) -> list[str]:
    """List reasons why a target cannot be used. Starting it is up to its owner."""
    problems = []
    for container in containers:
        if container.status == "paused":
            problems.append(f"is paused: unpause it (`docker unpause {container.name}`)")
        elif container.status != "running":
            start = f"start it (`docker start {container.name}`)"
            problems.append(f"does not run ({container.status}): {start}")
    return problems


def address_of(service: str, wanted: int, key: str, containers: Sequence[Container], place: Place) -> tuple[str, int]:
    """Return host and port at which a service is reached from here.

    Args:
        service: Its name.
        wanted: Its container's port, or 0 for the only one that it publishes.
        key: The ini key that names the service.
        containers: Its containers.
        place: Where the Docker daemon publishes ports.

    Raises:
        NotReady: No fixed port leads there from here, or several do.
    """
    every = [binding for container in containers for binding in _fixed_bindings(container)]
    inside = sorted({binding.inside for binding in every})
    if wanted and wanted not in inside:
        has = f"publishes {', '.join(map(str, inside))}" if inside else "publishes no fixed port"
        raise NotReady(
            f"{key} names port {wanted} of {service!r}, which {has}: add it to the service's `ports:` with a fixed port"
        )
    if not every:
        raise NotReady(f"service {service!r} publishes no fixed port on this machine: add one to its `ports:`")
    if not wanted and len(inside) > 1:
        raise NotReady(
            f"{key} names {service!r}, which publishes {len(inside)} ports ({', '.join(map(str, inside))}): write the one to "
            f'use, such as {key} = "{service}:{inside[-1]}"'
        )
    bindings = [binding for binding in every if binding.inside == (wanted or inside[0])]
    for binding in bindings:
        if (host := place.host_of(binding.host)) is not None:
            return host, binding.port
    raise NotReady(
        f"service {service!r} publishes its port on {bindings[0].host} alone, but "
        f"{place.elsewhere or 'this machine has no such loopback address'}: publish it on an "
        f"address that is reached at {place.reach}"
    )


def _fixed_bindings(container: Container) -> list[Binding]:
    """Return the TCP ports that the compose file fixes.

    A port that Docker chooses changes with every start, while clients use it.
    """
    bound = container.attrs["HostConfig"].get("PortBindings") or {}
    return [
        Binding(inside=int(inside), host=str(about.get("HostIp") or ""), port=int(about["HostPort"]))
        for (inside, _, protocol), bindings in ((key.partition("/"), value) for key, value in bound.items())
        for about in bindings or []
        if protocol in ("", "tcp") and int(about.get("HostPort") or 0)
    ]
