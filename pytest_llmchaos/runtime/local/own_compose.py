"""A user's compose file, as far as its services can run as processes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.runtime.judge_files import PROMETHEUS_PORT, PUSHGATEWAY_PORT
from pytest_llmchaos.runtime.local.compose_reader import (
    Addresses,
    Health,
    Probe,
    Program,
    Translator,
    merge_services,
    places_of,
    probe_of,
)
from pytest_llmchaos.runtime.local.compose_variables import substitute
from pytest_llmchaos.subject.lab import Endpoint, Subject
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY, reached, services_by_key

_PORT = re.compile(r"LLMCHAOS_PORT_(?P<port>[0-9]{1,5})")
_EVERY_ADDRESS = re.compile(r"(?<![\w.])0\.0\.0\.0(?![\w.])")
# Keys of a service that name programs or settings outside the keys that are read.
_UNREAD = ("extends", "env_file", "secrets", "configs", "scale")
_READ = ("command", "entrypoint", "environment", "volumes", "tmpfs", "cpu_shares")


def port_variable(port: int) -> str:
    """Name of the variable with the port at which a service has to listen."""
    return f"LLMCHAOS_PORT_{port}"


class OwnCompose:
    """The services of a user's compose files.

    Attributes:
        services: each service as the files have it, without those of a profile.
    """

    def __init__(self, files: Sequence[Path], environ: Mapping[str, str]) -> None:
        found = merge_services(files)
        self.services = {name: service for name, service in found.items() if not service.get("profiles")}
        self._folder = files[0].parent
        self._environ = environ
        self._wheres = ", ".join(map(str, files))

    def ports(self, service: str) -> tuple[int, ...]:
        """Ports that the service takes from `LLMCHAOS_PORT_...`, ascending."""
        return tuple(sorted({int(found["port"]) for found in _PORT.finditer(str(self._read(service)))}))

    def probe(self, service: str) -> Probe | None:
        """Return the health check, None if it makes no HTTP request."""
        return probe_of({"healthcheck": self._expand(self.services[service].get("healthcheck") or {}, {})})

    def examine(self, subject: Subject) -> Subject:
        """Return the subject with its ports. Raises BadScenario with all problems."""
        problems = [*self.missing(subject)]
        for name in self.services:
            problems += self._problems_of(name)
        scrapes = tuple(
            replace(one, port=self._port(one, "llmchaos_metrics", problems))
            for one in subject.scrapes
            if one.service in self.services
        )
        inside: dict[str, int] = {}
        for one, key in reached(subject):
            if one.service in self.services and one.service not in inside:
                inside[one.service] = self._port(one, key, problems)
        if problems:
            raise BadScenario(f"{self._wheres}: " + "; ".join(dict.fromkeys(problems)))
        inside |= {JUDGE: PROMETHEUS_PORT, PUSHGATEWAY: PUSHGATEWAY_PORT}
        ports = tuple((name, "", port) for name, port in inside.items())
        return replace(subject, ports=ports, scrapes=scrapes)

    def missing(self, subject: Subject) -> list[str]:
        """List services of the ini keys that the compose file lacks."""
        return [
            f"{key} names {name!r}, which the compose file lacks; it has {', '.join(sorted(self.services))}"
            for name, key in services_by_key(subject).items()
            if name not in self.services
        ]

    def _problems_of(self, name: str) -> Iterable[str]:
        service = self.services[name]
        if name in (JUDGE, PUSHGATEWAY):
            yield f"service {name!r} has the name of a service that the run adds: rename it"
        for key in _UNREAD:
            if service.get(key):
                yield f"service {name!r} has `{key}`, which the local runtime does not read: remove it, or use compose"
        if (service.get("deploy") or {}).get("replicas", 1) != 1:
            yield f"service {name!r} has `deploy.replicas`, and the local runtime starts one process: name each replica"
        try:
            if not self._command(self._expand(self._read(name), {})):
                yield (
                    f"service {name!r} has no command, and the local runtime starts programs of this machine and no image: "
                    "add `command`, such as [python3, -m, my_server]"
                )
            probe = self.probe(name)
        except (BadScenario, ValueError) as error:
            yield str(error)
            return
        if probe is not None and probe.port not in self.ports(name):
            yield self._unused(name, probe.port, "its health check")
        for other, port in self._named(name):
            if port not in self.ports(other):
                yield self._unused(other, port, f"service {name!r}")

    def _named(self, name: str) -> Iterable[tuple[str, int]]:
        """Each `service:port` in a service's settings."""
        words = {key: value for key, value in self._read(name).items() if key != "volumes"}
        return {(found[1], int(found[2])) for found in places_of(self.services).finditer(str(words))}

    def _unused(self, service: str, port: int, by: str) -> str:
        return (
            f"{by} names port {port} of {service!r}, whose command and environment do not contain it as a variable: a run "
            f"chooses its ports, so write ${{{port_variable(port)}:-{port}}} there"
        )

    def _port(self, endpoint: Endpoint, key: str, problems: list[str]) -> int:
        offered = self.ports(endpoint.service)
        if endpoint.port is not None:
            if endpoint.port not in offered:
                problems.append(self._unused(endpoint.service, endpoint.port, key))
            return endpoint.port
        if len(offered) != 1:
            seen = ", ".join(map(str, offered)) or "none"
            problems.append(
                f"{key} must name the port of {endpoint.service!r}, such as {endpoint.service}:{(*offered, 8080)[0]}; "
                f"its variables LLMCHAOS_PORT_... name {seen}"
            )
            return 0
        return offered[0]

    def _read(self, service: str) -> dict[str, Any]:
        found = self.services[service]
        return {key: found[key] for key in _READ if found.get(key)}

    def program(self, name: str, work: Path, addresses: Addresses) -> Program:
        """Return a service as a program with the addresses of this run."""
        ports = {port_variable(port): str(addresses.own_port(name, port)) for port in self.ports(name)}
        service = self._expand(self._read(name), ports)
        service |= {"command": self._command(service), "environment": _pairs(service.get("environment"))}
        service["entrypoint"] = None
        program = self._translator(work, addresses).program(name, service)
        probe = self.probe(name)
        if probe is None:
            return program
        return replace(program, health=Health(url=f"http://{addresses.own(name, probe.port)}{probe.path}", warm=False))

    def _translator(self, work: Path, addresses: Addresses) -> _OwnTranslator:
        return _OwnTranslator(stack=self._folder, work=work, addresses=addresses, services=tuple(self.services))

    def settings(self, name: str, variables: Mapping[str, str], work: Path, addresses: Addresses) -> dict[str, str]:
        """Return variables of a service with the addresses of this run."""
        service = self._expand(self._read(name), {})
        return self._translator(work, addresses).settings(name, service, variables)

    @staticmethod
    def _command(service: Mapping[str, Any]) -> list[str]:
        return [*_words(service.get("entrypoint")), *_words(service.get("command"))]

    def _expand(self, value: Any, ports: Mapping[str, str]) -> Any:
        """Substitute variables as Compose does. Raises BadScenario for one not set."""
        return substitute(value, {**self._environ, **ports}, self._wheres)


class _OwnTranslator(Translator):
    """Translates a user's service, whose ports are variables."""

    def _setting(self, service: str, key: str, value: str, folders: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._text(value, folders)

    def _text(self, text: str, folders: Mapping[str, str]) -> str:
        return _EVERY_ADDRESS.sub(loopback(), super()._text(text, folders))

    def _folders(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        """Path in the container -> path here. Bind mounts keep their place."""
        found: dict[str, str] = {}
        for volume in service.get("volumes") or ():
            source, target = _mount(volume)
            if source.startswith((".", "/", "~")):
                found[target] = str((self._stack / Path(source).expanduser()).resolve())
            else:
                found[target] = str(
                    self._work / "volumes" / (source or f"{name}-{target.strip('/').replace('/', '-')}")
                )
        for line in _words(service.get("tmpfs")):
            found[line.partition(":")[0]] = str(self._work / "tmp" / name)
        return found


def _mount(volume: object) -> tuple[str, str]:
    """Source and target of a volume. The source of an anonymous one is empty."""
    if isinstance(volume, dict):
        return str(volume.get("source") or ""), str(volume["target"])
    parts = str(volume).split(":")
    return (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])


def _words(value: object) -> list[str]:
    """A command as a list, as Compose splits it."""
    if isinstance(value, str):
        return shlex.split(value)
    return [str(one) for one in value] if isinstance(value, list) else []


def _pairs(value: object) -> dict[str, str]:
    """The environment as a mapping. Entries without a value are left out."""
    if isinstance(value, list):
        return dict(str(one).split("=", 1) for one in value if "=" in str(one))
    if not isinstance(value, dict):
        return {}
    return {str(key): _scalar(one) for key, one in value.items() if one is not None}


def _scalar(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True)).split("\n")[0] if isinstance(value, bool) else str(value)
