"""The abilities `partition`, `limit_cpu` and `limit_memory` in Docker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.model import Proof, Undo, UndoOp
from pytest_llmchaos.runtime.docker import docker_cli, sharing
from pytest_llmchaos.runtime.docker.kernel_view import MIB, PERIOD_US, cut_connections, shows
from pytest_llmchaos.runtime.docker.replicas import Replicas

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

RELEASES = {"ensure_connected": "partition", "ensure_cpu": "limit_cpu", "ensure_memory": "limit_memory"}
# Docker's event for each restriction: (type, action).
_EVENTS = {
    "partition": ("network", "disconnect"),
    "limit_cpu": ("container", "update"),
    "limit_memory": ("container", "update"),
}


class Endpoint(TypedDict):
    """A container's settings in one network."""

    aliases: list[str]
    ipv4: str | None
    ipv6: NotRequired[str | None]  # files of older versions lack this and `mac`
    mac: NotRequired[str | None]


@dataclass(frozen=True, kw_only=True)
class AsFound:
    """A container's settings before any restriction.

    0 means unlimited. A `cpu_period_us` of 0 means Docker's default.
    """

    networks: dict[str, Endpoint]
    cpus_nano: int
    cpu_quota_us: int
    memory_bytes: int
    swap_bytes: int
    cpu_period_us: int = 0

    @property
    def cpu(self) -> tuple[int, int, int]:
        """Values that define the CPU share, for comparison.

        A period that was set once never returns to 0, so 0 counts as the default.
        """
        return self.cpus_nano, self.cpu_quota_us, self.cpu_period_us or PERIOD_US


def as_found(container: Container) -> AsFound:
    host = container.attrs["HostConfig"]
    short = str(container.id)[:12]
    networks: dict[str, Endpoint] = {
        name: {
            "aliases": [alias for alias in (about.get("Aliases") or []) if alias != short],
            "ipv4": (about.get("IPAMConfig") or {}).get("IPv4Address"),
            "ipv6": (about.get("IPAMConfig") or {}).get("IPv6Address"),
            "mac": _chosen_mac(about),
        }
        for name, about in (container.attrs["NetworkSettings"]["Networks"] or {}).items()
    }
    return AsFound(
        networks=networks,
        cpus_nano=int(host.get("NanoCpus") or 0),
        cpu_quota_us=max(0, int(host.get("CpuQuota") or 0)),
        memory_bytes=int(host.get("Memory") or 0),
        swap_bytes=int(host.get("MemorySwap") or 0),
        cpu_period_us=int(host.get("CpuPeriod") or 0),
    )


def _chosen_mac(endpoint: Mapping[str, str | None]) -> str | None:
    """The MAC address of an endpoint, unless Docker derived it from its IPv4 address.

    A derived address is not restored. The endpoint may get another IPv4 address, and a
    replica with the former one would get the same MAC address.
    """
    mac, ipv4 = endpoint.get("MacAddress") or None, str(endpoint.get("IPAddress") or "")
    made = "02:42:" + ":".join(f"{int(part):02x}" for part in ipv4.split(".")) if ipv4 else None
    return None if mac == made else mac


def keep(path: Path, found: Mapping[str, AsFound]) -> None:
    """Write the settings to disk before the first fault, for other processes.

    Args:
        path: The file.
        found: Settings by container: `web`, or `web#2` if there are several.
    """
    with path.open("w") as file:
        json.dump({service: asdict(one) for service, one in found.items()}, file)
        file.flush()
        os.fsync(file.fileno())


def read_as_found(path: Path) -> dict[str, AsFound]:
    return {service: AsFound(**one) for service, one in json.loads(path.read_text()).items()}


class Restrictable:
    """Mixin for container runtimes. `_act` and `_container` restrict the victims."""

    _daemon: docker_cli.Daemon | None  # None: the daemon of this environment
    _found: dict[str, AsFound]
    _act: Callable[[str, Callable[[Container], object]], None]
    _container: Callable[[str], Container | None]
    _replicas: Replicas

    @property
    def _sdk(self) -> DockerClient:
        raise NotImplementedError

    def _require_unshared(self, victim: Container, *namespaces: sharing.Namespace) -> None:
        sharing.require_unshared(victim, self._sdk.containers.list(ignore_removed=True), *namespaces)

    def partition(self, service: str) -> None:
        """Disconnect the container from all its networks and cut its connections.

        Pooled connections of its peers would otherwise survive.
        """

        def act(container: Container) -> None:
            sharing.require_own(container, "network")
            self._require_unshared(container, "network")
            for name in as_found(container).networks:
                self._sdk.networks.get(name).disconnect(container)
            cut_connections(container)

        self._as_remembered(service)
        self._act(service, act)

    def limit_cpu(self, service: str, cores: float) -> None:
        found = self._as_remembered(service)
        self._act(service, lambda c: _set_cpu(c, found, round(cores * 1e9), self._daemon))

    def limit_memory(self, service: str, mebibytes: int) -> None:
        size = mebibytes * MIB

        def act(container: Container) -> None:
            self._require_unshared(container, "network", "pid")  # the limit may end its first process
            container.update(mem_limit=size, memswap_limit=size)

        self._as_remembered(service)
        self._act(service, act)

    def _as_remembered(self, service: str) -> AsFound:
        """Return the original settings. Without them nothing may be restricted."""
        found = self._found_of(service)
        if found is None:
            raise NotReady(
                f"service {service!r} had no container when the run began, so its original settings are unknown: "
                "nothing was touched; start it, then start the run again"
            )
        return found

    def _found_of(self, service: str) -> AsFound | None:
        return self._found.get(self._replicas.name(service) or service)

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None:
        """Proof from Docker's event and the kernel. None until both agree."""
        container = self._container(service)
        if container is None:
            return None
        at_unix_s = self._engine_event(kind, str(container.id), since_unix_s)
        seen = shows(kind, container, amount)
        if at_unix_s is None or seen is None:
            return None
        action = " ".join(_EVENTS[kind])
        replica = self._replicas.name(service)
        witness = f"Docker event {action}{f' replica={replica}' if replica else ''}; {seen}"
        return Proof(step="injected", witness=witness, at_unix_s=at_unix_s)

    def released(self, kind: str, service: str) -> Proof | None:
        """Proof that the container runs with its original settings. None until then."""
        container = self._container(service)
        if (
            container is None
            or not container.attrs["State"]["Running"]
            or not self._is_released(kind, container, service)
        ):
            return None
        return Proof(step="healed", witness=f"Docker: {kind} of {service} is as found", at_unix_s=time.time())

    @property
    def restriction_undo_ops(self) -> Mapping[str, UndoOp]:
        return dict.fromkeys(RELEASES, self._give_back)

    def _give_back(self, undo: Undo) -> None:
        self.release(RELEASES[undo.op], undo.service)

    def release(self, kind: str, service: str) -> None:
        """Restore the original settings. Does nothing if they are in place."""
        container = self._container(service)
        found = self._found_of(service)
        if container is None or found is None or self._is_released(kind, container, service):
            return
        if kind == "partition":
            self._act(service, lambda c: self._connect(c, found))
        elif kind == "limit_cpu":
            self._act(service, lambda c: _give_back_cpu(c, found, self._daemon))
        else:
            # Docker cannot remove a memory limit. The machine's total is equivalent.
            size = found.memory_bytes or self._machine_bytes()
            swap = found.swap_bytes if found.memory_bytes else size
            self._act(service, lambda c: c.update(mem_limit=size, memswap_limit=swap))

    def _is_released(self, kind: str, container: Container, service: str) -> bool:
        found, now = self._found_of(service), as_found(container)
        if found is None:
            return False
        if kind == "partition":
            return set(found.networks) <= set(now.networks)
        if kind == "limit_cpu":
            return found.cpu == now.cpu
        if found.memory_bytes:
            return found.memory_bytes == now.memory_bytes
        return now.memory_bytes == 0 or now.memory_bytes >= self._machine_bytes()

    def _connect(self, container: Container, found: AsFound) -> None:
        missing = set(found.networks) - set(as_found(container).networks)
        for name in sorted(missing):
            about = found.networks[name]
            self._sdk.networks.get(name).connect(
                container,
                aliases=about["aliases"],
                ipv4_address=about["ipv4"],
                ipv6_address=about.get("ipv6"),
                # Docker API < 1.44 ignores `mac_address` and restores it by itself.
                mac_address=about.get("mac"),
            )

    def _machine_bytes(self) -> int:
        return int(self._sdk.info()["MemTotal"])

    def _engine_event(self, kind: str, container_id: str, since_unix_s: float) -> float | None:
        category, action = _EVENTS[kind]
        raw_events = self._sdk.events(
            # Docker accepts fractions of seconds, which the SDK's types lack.
            since=cast("int", f"{since_unix_s:.9f}"),
            until=cast("int", f"{time.time():.9f}"),
            filters={"type": category, "event": action},
            decode=True,
        )
        for raw in raw_events:
            actor = raw["Actor"]
            if container_id in {actor["ID"], actor["Attributes"].get("container")}:
                return float(raw["timeNano"]) / 1e9
        return None


def _set_cpu(container: Container, found: AsFound, nano: int, daemon: docker_cli.Daemon | None) -> None:
    """Limit the CPU with the mechanism that the container was created with.

    Docker refuses to mix `--cpus` and quotas.
    """
    if found.cpus_nano:
        env = docker_cli.environment(of=daemon)
        docker_cli.run(["docker", "update", "--cpus", f"{nano / 1e9:.9f}", str(container.id)], env=env)
    else:
        container.update(cpu_period=PERIOD_US, cpu_quota=nano * PERIOD_US // 10**9)


def _give_back_cpu(container: Container, found: AsFound, daemon: docker_cli.Daemon | None) -> None:
    if found.cpus_nano:
        _set_cpu(container, found, found.cpus_nano, daemon)
    else:
        container.update(cpu_period=found.cpu_period_us or PERIOD_US, cpu_quota=found.cpu_quota_us or -1)
