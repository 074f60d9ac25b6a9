"""Translation of compose files into local programs.

Same services, commands and settings, on loopback ports and in folders of this run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.host.ports import bracketed, loopback
from pytest_llmchaos.runtime.local.compose_variables import substitute

_PORT_VARIABLES = re.compile(r"LAB_([A-Z]+_)?PORT")
_HEALTH_URL = re.compile(r"http://(?:127\.0\.0\.1|localhost):(?P<port>\d+)(?P<path>/[\w/.-]*)")


@dataclass(frozen=True, kw_only=True)
class Health:
    """A service's health check. `warm`: the model must first answer a request."""

    url: str
    warm: bool


@dataclass(frozen=True, kw_only=True)
class Program:
    """One service as a process. `command` is empty if only the image defines it."""

    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: Health | None
    background: bool  # compose gives it fewer CPU shares than the rest
    folders: Mapping[str, str] = field(default_factory=dict)  # path in the container -> path here


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A health check as the compose file has it. `port` is the container's."""

    port: int
    path: str
    warm: bool


def probe_of(service: Mapping[str, Any]) -> Probe | None:
    """Return the service's health check, or None if it makes no HTTP request."""
    words = [str(word) for word in (service.get("healthcheck") or {}).get("test") or ()]
    if len(words) >= 4 and words[1].endswith("probe.sh"):
        return Probe(port=int(words[2]), path=words[3], warm=len(words) > 4)
    found = _HEALTH_URL.search(" ".join(words))
    return None if found is None else Probe(port=int(found["port"]), path=found["path"], warm=False)


class Addresses:
    """Loopback address of each service port. Reserves a port on first use.

    Callers of the `wired` places reach a fault agent. The service itself listens on
    another port, for the agent and the health check.
    """

    def __init__(
        self,
        reserve: Callable[[], int],
        given: Mapping[tuple[str, int], int],
        wired: Collection[tuple[str, int]] = (),
    ) -> None:
        self._reserve = reserve
        self._ports = dict(given)
        self._wired = frozenset(wired)
        self._own: dict[tuple[str, int], int] = {}

    def port(self, service: str, port: int) -> int:
        if (service, port) not in self._ports:
            self._ports[service, port] = self._reserve()
        return self._ports[service, port]

    def of(self, service: str, port: int) -> str:
        return f"{bracketed(loopback())}:{self.port(service, port)}"

    def own_port(self, service: str, port: int) -> int:
        """Port at which the service itself listens."""
        place = service, port
        if place not in self._wired:
            return self.port(*place)
        if place not in self._own:
            self._own[place] = self._reserve()
        return self._own[place]

    def own(self, service: str, port: int) -> str:
        return f"{bracketed(loopback())}:{self.own_port(service, port)}"

    def known(self) -> dict[str, str]:
        """`service:port` -> address, for every port used so far."""
        return {f"{service}:{port}": self.of(service, port) for service, port in sorted(self._ports)}

    def translate(self, text: str, services: Sequence[str]) -> str:
        """Replace every `service:port` of these services with its loopback address."""
        return places_of(services).sub(lambda found: self.of(found[1], int(found[2])), text)


def places_of(services: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of each `service:port` of these services in a text."""
    names = "|".join(re.escape(name) for name in sorted(services, key=len, reverse=True))
    return re.compile(rf"(?<![\w.-])({names}):(\d{{2,5}})(?!\d)")


def read_services(files: Sequence[Path], variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Merge the `services` of compose files in order and substitute variables."""
    found: dict[str, dict[str, Any]] = substitute(merge_services(files), variables, ", ".join(map(str, files)))
    return found


def merge_services(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Merge the `services` of compose files in order."""
    merged: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            document = yaml.safe_load(file.read_text())
            json.dumps(document, default=str, skipkeys=True)  # refuses an alias inside its own anchor
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise BadScenario(f"{file} is not a readable compose file: {error}") from None
        services = document.get("services") or {} if isinstance(document, dict) else None
        if not isinstance(services, dict) or not all(isinstance(one, dict) for one in services.values()):
            raise BadScenario(f"{file} must be a mapping with `services`, each of them a mapping, got {document!r:.80}")
        for name, service in services.items():
            merged[name] = _merge(merged.get(name, {}), service)
    return merged


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge as Compose does: mappings merge, volumes append, other values replace.

    Covers what the lab's files use.
    """
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        elif key in {"volumes", "tmpfs"} and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


class Translator:
    """Translates compose services into programs. Relative paths start at `stack`."""

    def __init__(self, *, stack: Path, work: Path, addresses: Addresses, services: Sequence[str]) -> None:
        self._stack, self._work, self._addresses, self._services = stack, work, addresses, services

    def program(self, name: str, service: Mapping[str, Any]) -> Program:
        folders = self._folders(name, service)
        environment = self.settings(name, service, service.get("environment") or {})
        command = service.get("command") or ()
        if isinstance(command, str):
            raise BadScenario(f"service {name!r}: `command` must be a list, got {command!r}")
        return Program(
            service=name,
            command=tuple(self._text(str(word), folders) for word in command),
            environment=environment,
            health=self._health(name, probe_of(service)),
            background=int(service.get("cpu_shares", 1024)) < 1024,
            folders=folders,
        )

    def settings(self, name: str, service: Mapping[str, Any], variables: Mapping[str, object]) -> dict[str, str]:
        """Translate environment variables of a service."""
        folders = self._folders(name, service)
        return {key: self._setting(name, key, str(value), folders) for key, value in variables.items()}

    def _folders(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        """Path in the container -> path here.

        Bind mounts keep their place. Volumes and tmpfs go into the run's folder.
        """
        found: dict[str, str] = {}
        for volume in service.get("volumes") or ():
            source, _, target = str(volume).partition(":")
            target = target.partition(":")[0]
            if source.startswith("."):
                found[target] = str((self._stack / source).resolve())
            elif not source.startswith("/"):
                found[target] = str(self._work / "volumes" / source)
        for line in service.get("tmpfs") or ():
            found[str(line).partition(":")[0]] = str(self._work / "tmp" / name)
        return found

    def _setting(self, service: str, key: str, value: str, folders: Mapping[str, str]) -> str:
        if value == "0.0.0.0":  # noqa: S104 - the address that is replaced
            return loopback()
        if _PORT_VARIABLES.fullmatch(key) and value.isdigit():
            return str(self._addresses.own_port(service, int(value)))
        return self._text(value, folders)

    def _text(self, text: str, folders: Mapping[str, str]) -> str:
        if folders:  # in one pass: a replacement may contain another container path
            inside = "|".join(re.escape(path) for path in sorted(folders, key=len, reverse=True))
            text = re.sub(rf"(?<![\w./-])({inside})(?=[/:]|$)", lambda found: folders[found[1]], text)
        return self._addresses.translate(text, self._services)

    def _health(self, name: str, probe: Probe | None) -> Health | None:
        if probe is None:
            return None
        return Health(url=f"http://{self._addresses.own(name, probe.port)}{probe.path}", warm=probe.warm)
