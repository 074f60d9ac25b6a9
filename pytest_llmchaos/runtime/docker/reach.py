"""Parts of a compose file that reach beyond its own project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject.lab import Subject

# Capabilities that reach beyond the container's namespaces, see capabilities(7).
BEYOND_CAPABILITIES = frozenset(
    {"ALL", "AUDIT_CONTROL", "BPF", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "PERFMON", "SYS_ADMIN", "SYS_BOOT"}
    | {"SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYSLOG"}
)
DOCKER_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
_OWN_DRIVERS = {"networks": ("", "bridge", "none"), "volumes": ("", "local")}


class Mount(msgspec.Struct):
    """One entry of a service's `volumes`."""

    type: str
    source: str = ""
    read_only: bool = False


class Hook(msgspec.Struct):
    """One entry of `post_start` or `pre_stop`."""

    privileged: bool = False


class Device(msgspec.Struct):
    """One entry of `devices`, as written by Compose 2.24 and later."""

    source: str


class Port(msgspec.Struct):
    """One entry of a service's `ports`."""

    target: int
    published: str = ""
    protocol: str = "tcp"
    app_protocol: str = ""


class HealthCheck(msgspec.Struct):
    """A service's `healthcheck`."""

    test: list[str] | None = None


class Deploy(msgspec.Struct):
    """The parts of `deploy` that apply outside a swarm."""

    replicas: int | None = None
    restart_policy: dict[str, object] | None = None


class Service(msgspec.Struct):
    """Keys of a service that can reach beyond its project, or that a run replaces."""

    image: str = ""
    build: dict[str, object] | None = None
    provider: dict[str, object] | None = None
    container_name: str = ""
    profiles: list[str] = []
    ports: list[Port] = []
    expose: list[str] = []
    scale: int | None = None
    deploy: Deploy | None = None
    restart: str = ""
    environment: dict[str, object] = {}
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    healthcheck: HealthCheck | None = None

    network_mode: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    userns_mode: str = ""
    cgroup_parent: str = ""
    privileged: bool = False
    use_api_socket: bool = False
    cap_add: list[str] = []
    devices: list[Device | str] = []
    device_cgroup_rules: list[str] = []
    volumes: list[Mount] = []
    volumes_from: list[str] = []
    external_links: list[str] = []
    networks: dict[str, object] | None = None
    post_start: list[Hook] = []
    pre_stop: list[Hook] = []


class Resource(msgspec.Struct):
    """A network or a volume."""

    name: str = ""
    external: bool = False
    internal: bool = False
    driver: str = ""
    driver_opts: dict[str, str] = {}


class Content(msgspec.Struct):
    """A config or a secret. Compose mounts its file, if it has one."""

    file: str = ""


class Config(msgspec.Struct):
    """The relevant parts of `docker compose config --format json`."""

    services: dict[str, Service] = {}
    networks: dict[str, Resource | None] = {}
    volumes: dict[str, Resource | None] = {}
    configs: dict[str, Content | None] = {}
    secrets: dict[str, Content | None] = {}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """One way out of the project. `key` is the `llmchaos_allow` entry to permit it."""

    key: str
    what: str
    remedy: str


def read_config(text: str) -> Config:
    """Parse the config. Raises BadScenario for an unexpected shape.

    A config that cannot be read cannot be assumed harmless.
    """
    try:
        return msgspec.json.decode(text, type=Config, strict=False)
    except msgspec.DecodeError as error:
        raise BadScenario(
            f"`docker compose config` printed a format that this version cannot check: {error}; "
            "upgrade pytest-llmchaos or use an older Compose"
        ) from None


def mounted_files(config: Config) -> set[str]:
    """Paths that Docker has to find on its own machine."""
    contents = (*config.configs.values(), *config.secrets.values())
    mounts = (mount for service in config.services.values() for mount in service.volumes)
    return {mount.source for mount in mounts if mount.type == "bind"} | {
        one.file for one in contents if one is not None and one.file
    }


def network_owner(config: Config, service: str) -> str:
    """Return the service whose network a service uses, most often itself."""
    seen = {service}
    while (mode := config.services[service].network_mode).startswith("service:"):
        service = mode.removeprefix("service:")
        if service in seen or service not in config.services:
            break
        seen.add(service)
    return service


def is_in_host_network(config: Config, service: str) -> bool:
    """True if the service has the network of its machine."""
    return config.services[network_owner(config, service)].network_mode == "host"


def replicas(service: Service) -> int:
    """Return how many containers a service has."""
    if service.scale is not None:
        return service.scale
    return 1 if service.deploy is None or service.deploy.replicas is None else service.deploy.replicas


def problems(config: Config, subject: Subject, project: str) -> list[str]:
    """List ways out that `llmchaos_allow` does not permit, and its unused entries."""
    found = list(reaches(config, project, subject.compose_files[0].parent))
    refused = [f'{one.what}: {one.remedy}, or permit it with "{one.key}" in llmchaos_allow' for one in found]
    keys = {one.key for one in found}
    told = [text for one, text in zip(found, refused, strict=True) if one.key not in subject.allow]
    for entry in subject.allow:
        if entry not in keys:
            there = f"it needs {', '.join(sorted(keys))}" if keys else "it needs no entry"
            told.append(f"llmchaos_allow permits {entry!r}, which the compose file does not need ({there}): remove it")
    return told


def shared_names(config: Config, project: str) -> dict[str, dict[str, str]]:
    """Networks and volumes of other projects: kind -> key -> name in Docker."""
    return {
        kind: {
            key: about.name
            for key, about in found.items()
            if about is not None and (about.external or not _is_named_after(project, about.name))
        }
        for kind, found in (("networks", config.networks), ("volumes", config.volumes))
    }


def _is_named_after(project: str, name: str) -> bool:
    return name == "" or name.startswith((f"{project}_", f"{project}-"))


def reaches(config: Config, project: str, folder: Path) -> Iterator[Reach]:
    """Every way out of the project. Bind mounts are shown relative to `folder`."""
    for key, about in sorted(config.networks.items()):
        users = _names(s for s, one in config.services.items() if key in (one.networks or {}))
        yield from _of_resource("network", key, about or Resource(), project, users)
    for key, about in sorted(config.volumes.items()):
        users = _names(s for s, one in config.services.items() if any(_is_volume(m, key) for m in one.volumes))
        yield from _of_resource("volume", key, about or Resource(), project, users)
    for name, service in sorted(config.services.items()):
        yield from _of_service(name, service, folder)


def _is_volume(mount: Mount, key: str) -> bool:
    return mount.type == "volume" and mount.source == key


def _names(services: Iterator[str]) -> str:
    found = sorted(services)
    return f" of service {', '.join(found)}" if found else ""


def _of_resource(kind: str, key: str, about: Resource, project: str, users: str) -> Iterator[Reach]:
    touched = "faults would reach" if kind == "network" else "a run would write into"
    head, allow = f"{kind} {key!r}{users}", f"{kind}:{key}"
    if about.external:
        what = f"{head} is external ({about.name}): {touched} what others use"
        yield Reach(key=allow, what=what, remedy="give the tests a compose file in which it is not external")
    elif not _is_named_after(project, about.name):
        what = f"{head} has the fixed name {about.name!r}: {touched} what other stacks of this file use"
        yield Reach(key=allow, what=what, remedy="remove its `name:`, so that each run has its own")
    elif about.driver not in _OWN_DRIVERS[f"{kind}s"] or (kind == "volume" and about.driver_opts.get("device")):
        where = about.driver_opts.get("device") or f"driver {about.driver}"
        what = f"{head} is kept outside the project ({where}): {touched} what others use"
        yield Reach(key=allow, what=what, remedy=f"use a {kind} of Docker's own driver without options")


def _of_service(name: str, service: Service, folder: Path) -> Iterator[Reach]:
    for key in ("network_mode", "pid", "ipc", "uts", "cgroup", "userns_mode"):
        mode: str = getattr(service, key)
        if mode == "host" or mode.startswith("container:"):
            yield _reach(name, key, f"{key}: {mode}")
    simple = {
        "cgroup_parent": service.cgroup_parent,
        "privileged": "true" if service.privileged or any(h.privileged for h in _hooks(service)) else "",
        "use_api_socket": "true" if service.use_api_socket else "",
        "cap_add": ", ".join(cap for cap in service.cap_add if _bare(cap) in BEYOND_CAPABILITIES),
        "devices": ", ".join(one if isinstance(one, str) else one.source for one in service.devices),
        "device_cgroup_rules": ", ".join(service.device_cgroup_rules),
        "volumes_from": ", ".join(one for one in service.volumes_from if one.startswith("container:")),
        "external_links": ", ".join(service.external_links),
        # Compose starts what the provider manages, and leaves it at the end.
        "provider": str(service.provider.get("type", "")) if service.provider else "",
    }
    for key, value in simple.items():
        if value:
            yield _reach(name, key, f"{key}: {value}")
    for mount in service.volumes:
        if mount.type == "bind":
            yield from _of_bind(name, mount, folder)
        elif mount.type not in ("volume", "tmpfs", "image"):
            yield _reach(name, "volumes", f"a mount of type {mount.type}")


def _hooks(service: Service) -> list[Hook]:
    return [*service.post_start, *service.pre_stop]


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _reach(name: str, key: str, written: str) -> Reach:
    what = f"service {name!r} sets {written}, which reaches beyond its own containers"
    return Reach(key=f"{key}:{name}", what=what, remedy="remove it")


def _of_bind(name: str, mount: Mount, folder: Path) -> Iterator[Reach]:
    source = Path(mount.source)
    shown = f"./{source.relative_to(folder)}" if source.is_relative_to(folder) else mount.source
    if any(Path(socket).is_relative_to(one) for socket in DOCKER_SOCKETS for one in (source, _resolved(source))):
        what = f"service {name!r} mounts {mount.source}, which gives it full control of this machine"
        yield Reach(key=f"bind:{shown}", what=what, remedy="remove the mount")
    elif source.is_socket():
        what = f"service {name!r} mounts the socket {shown}, through which it controls another program"
        yield Reach(key=f"bind:{shown}", what=what, remedy="remove the mount")
    elif not mount.read_only:
        what = f"service {name!r} can write to {shown} on this machine"
        yield Reach(key=f"bind:{shown}", what=what, remedy="mount it with `:ro`, or use a volume")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except OSError:
        return path
