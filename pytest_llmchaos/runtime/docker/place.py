"""The machine of a Docker daemon, as this process reaches it."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.ports import Ports, accepts_connections, bracketed, http_url, is_own_address, loopback
from pytest_llmchaos.runtime.docker import docker_cli

KEY = "llmchaos_published_on"
MOUNTS = Path("/proc/self/mountinfo")
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, and used only if the user wrote it
_ID = re.compile(r"/([0-9a-f]{64})/")
# No image has this name, so that Docker checks a mount and creates nothing.
_NO_IMAGE = "llmchaos/none:none"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Addresses of a daemon's machine, and whether its files are this process's.

    Attributes:
        publish: address of that machine on which a stack publishes its ports. "" if the
            user must choose one.
        reach: host at which this process reaches ports that are published on it.
        elsewhere: why ports are not on this process's loopback. "" if they are.
        shares_files: True if a path means the same file there and here.
    """

    publish: str = field(default_factory=loopback)
    reach: str = field(default_factory=loopback)
    elsewhere: str = ""
    shares_files: bool = True

    def entry(self, port: int, inside: int) -> str:
        """An entry of a service's `ports` in a compose file."""
        return f"{bracketed(self.publish)}:{port}:{inside}"

    def url(self, port: int) -> str:
        """Base address of a port that is published on `publish`."""
        return http_url(self.reach, port)

    def ports(self) -> Ports:
        """Ports to reserve on that machine, checked by connections from here."""
        if not self.elsewhere:
            return Ports()
        return Ports(is_free=lambda port: not accepts_connections(self.reach, port), at_random=True)

    def host_of(self, bound_to: str) -> str | None:
        """Return the host at which a port bound to this address is reached.

        Args:
            bound_to: The address that a published port is bound to. "" is every one.

        Returns:
            A host, or None if this process does not reach that address.
        """
        if bound_to in ("", *_EVERY_ADDRESS):
            if self.elsewhere:
                return self.reach
            if bound_to == "::" and is_own_address("::1"):
                return "::1"
            host = loopback()
            return None if bound_to == "0.0.0.0" and ":" in host else host  # noqa: S104 - as above
        if _is_loopback(bound_to):
            return None if self.elsewhere else bound_to
        return bound_to


def of_daemon(daemon: docker_cli.Daemon, published_on: str = "", *, publishes: bool = True) -> Place:
    """Return the place of a daemon.

    Args:
        daemon: The daemon.
        published_on: Value of the ini key `llmchaos_published_on`. It has no effect for
            a daemon whose loopback is this process's.
        publishes: False for a stack that runs already.

    Raises:
        NotReady: The daemon runs elsewhere, and the key is needed or wrong.
    """
    place = _found(daemon)
    if not place.elsewhere or not publishes:
        return place
    if published_on in _EVERY_ADDRESS:
        return Place(publish=published_on, reach=place.reach, elsewhere=place.elsewhere, shares_files=False)
    if published_on:
        address = _address_of(published_on)
        return Place(publish=address, reach=address, elsewhere=place.elsewhere, shares_files=False)
    if place.publish:
        return place
    raise NotReady(
        f"{place.elsewhere}, so ports published on its loopback cannot be reached from here: allow one other address of "
        f'it with {KEY} = "{place.reach}" in the ini file (or every address with "0.0.0.0"), or use a daemon of '
        "this machine"
    )


def _found(daemon: docker_cli.Daemon) -> Place:
    parts = urlsplit(daemon.host)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        if _is_loopback(parts.hostname) or is_own_address(parts.hostname):
            return Place(shares_files=False)
        why = f"the Docker daemon at {daemon.host} is on another machine"
        return Place(publish="", reach=parts.hostname, elsewhere=why, shares_files=False)
    for name in own_container_ids():
        if (container := _inspect(name)) is not None:
            return _of_container(name, container)
    return Place()


def _of_container(name: str, container: _Container) -> Place:
    """The place of a daemon that runs the container of this process."""
    if container.host_config.network_mode == "host":
        return Place(shares_files=False)
    if container.host_config.network_mode.startswith("container:"):
        other = container.host_config.network_mode.removeprefix("container:")
        if (owner := _inspect(other)) is not None:
            return _of_container(name, owner)
    networks = container.network_settings.networks.values()
    gateways = [gateway for one in networks if (gateway := one.gateway or one.gateway_of_ipv6)]
    why = f"this process runs in container {name[:12]}, and the Docker daemon on the machine around it"
    if not gateways:
        raise NotReady(
            f"{why}, but the container has no network with a gateway to that machine: "
            "start it with `--network bridge` or `--network host`"
        )
    # The bridge's own address: containers of this machine reach it, and the network
    # outside does not.
    return Place(publish=gateways[0], reach=gateways[0], elsewhere=why, shares_files=False)


def own_container_ids() -> Iterator[str]:
    """Ids that the container of this process may have. None outside of one.

    Docker mounts files of the container's own folder into it. That folder has the id.
    """
    found = set()
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for words in (line.split() for line in lines):
        if len(words) > 4 and words[4] in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"):
            found.update(_ID.findall(words[3]))
    yield from sorted(found)
    if not found and re.fullmatch(r"[0-9a-f]{12}", name := socket.gethostname()):
        yield name


class _HostConfig(msgspec.Struct, rename="pascal"):
    network_mode: str = ""


class _Network(msgspec.Struct, rename="pascal"):
    gateway: str = ""
    gateway_of_ipv6: str = msgspec.field(default="", name="IPv6Gateway")


class _NetworkSettings(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Network] = {}


class _Container(msgspec.Struct, rename="pascal"):
    """Output of `docker container inspect`."""

    host_config: _HostConfig
    network_settings: _NetworkSettings


def _inspect(name: str) -> _Container | None:
    """A container of the daemon, or None if it lacks this name."""
    try:
        output = docker_cli.run(["docker", "container", "inspect", name])
        (container,) = msgspec.json.decode(output, type=tuple[_Container])
    except (NotReady, msgspec.MsgspecError):
        return None
    return container


def require_files(place: Place, paths: Iterable[str]) -> None:
    """Raise NotReady for paths to mount that the daemon's machine lacks.

    Docker would create an empty folder in place of each.
    """
    missing = [] if place.shares_files else [path for path in sorted(set(paths)) if not _is_there(path)]
    if missing:
        raise NotReady(
            f"{place.elsewhere or 'the Docker daemon sees other files than this process'}, and the compose file mounts what "
            f"is not there: {', '.join(missing)}; mount each at the same path there, build it into an image, or use "
            "`content:` of a top-level `configs:` entry, which is copied"
        )


def _is_there(path: str) -> bool:
    """Docker checks a mount before it looks for the image, so this creates nothing."""
    source = path.replace('"', '""')  # the client reads the value as a line of CSV
    mount = f'type=bind,"source={source}",target=/llmchaos,readonly'
    command = ["docker", "create", "--pull", "never", "--mount", mount, _NO_IMAGE]
    done = subprocess.run(
        command,
        env=docker_cli.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=docker_cli.ANSWER_DEADLINE_S,
        check=False,
    )
    return "source path does not exist" not in done.stderr


def _address_of(name: str) -> str:
    """An IP address of a host name."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise NotReady(
            f"{KEY} must be an address of the Docker daemon's machine or a name of it, got {name!r}: {error}"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
