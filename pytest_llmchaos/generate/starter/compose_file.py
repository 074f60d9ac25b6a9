"""A user's compose files as a graph of services."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.generate.starter.servers import Server, server_of
from pytest_llmchaos.runtime.docker import docker_cli, reach
from pytest_llmchaos.runtime.docker.user_files import EVERY, FILES, UserFiles

# A name that no real project has, so that names of the files are seen as fixed.
EXAMINED = "llmchaos-examined"
_LARGEST_FILE = 200_000
_URL_PORT = re.compile(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]):(\d+)(/[\w./-]*)?")


class Port(msgspec.Struct):
    """One entry of `ports`."""

    target: int
    published: str = ""
    protocol: str = "tcp"


class Mount(msgspec.Struct):
    """One entry of `volumes`."""

    type: str
    source: str = ""
    target: str = ""


class Condition(msgspec.Struct):
    """One entry of `depends_on`."""

    condition: str = ""


class Source(msgspec.Struct):
    """One entry of `configs` or `secrets` of a service."""

    source: str = ""


class Hook(msgspec.Struct):
    """One entry of `post_start`."""

    command: list[str] | str = ""


class HealthCheck(msgspec.Struct):
    """A service's `healthcheck`."""

    test: list[str] | str = ""


class Build(msgspec.Struct):
    """A service's `build`."""

    context: str = ""
    dockerfile: str = ""


class Written(msgspec.Struct):
    """The keys of a service from which its part is guessed."""

    image: str = ""
    build: Build | None = None
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    environment: dict[str, str | None] = {}
    ports: list[Port] = []
    expose: list[str] = []
    depends_on: dict[str, Condition] = {}
    profiles: list[str] = []
    volumes: list[Mount] = []
    healthcheck: HealthCheck | None = None
    labels: dict[str, str] = {}
    restart: str = ""
    configs: list[Source] = []
    secrets: list[Source] = []
    post_start: list[Hook] = []


class _Config(msgspec.Struct):
    content: str = ""
    file: str = ""


class _File(msgspec.Struct):
    services: dict[str, Written] = {}
    configs: dict[str, _Config] = {}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service with what its image and its mounted files add.

    Attributes:
        name: its name in the compose file.
        written: its keys there.
        server: the program that it starts, if that is known.
        command: its whole command line.
        command_in_file: its command before Compose fills in variables.
        variables: environment of the image and of the compose file.
        exposed: ports of `expose` and of the image.
        texts: environment, command lines and mounted files, which may name services.
        scrapes: port and path by service, of a mounted Prometheus configuration.
        has_rules: a mounted Prometheus configuration names rule files.
    """

    name: str
    written: Written
    server: Server
    command: str
    command_in_file: str
    variables: Mapping[str, str]
    exposed: tuple[int, ...]
    texts: tuple[str, ...]
    scrapes: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    has_rules: bool = False

    @property
    def published(self) -> tuple[int, ...]:
        """Container's ports that the compose file publishes."""
        return tuple(dict.fromkeys(one.target for one in self.written.ports if one.protocol == "tcp"))

    @property
    def health(self) -> tuple[int, str] | None:
        """Port and path that its own health check reads."""
        test = self.written.healthcheck.test if self.written.healthcheck else ""
        found = _URL_PORT.search(test if isinstance(test, str) else " ".join(test))
        return (int(found[1]), found[2] or "/") if found else None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All services of the compose files, those of profiles that are off included.

    Attributes:
        files: the compose files.
        services: every service by name.
        active_profiles: profiles that the environment and `.env` activate.
        ways_out: what reaches beyond the project.
        variables: those of the files that have no default value there.
        remarks: why these are the files.
    """

    files: tuple[Path, ...]
    services: Mapping[str, Service]
    active_profiles: tuple[str, ...]
    ways_out: tuple[reach.Reach, ...]
    variables: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def references(self, name: str) -> dict[str, int | None]:
        """Return services that one names, each with the port if it is named too."""
        one = self.services[name]
        found: dict[str, int | None] = {}
        for other in self.services:
            if other == name:
                continue
            for text in one.texts:
                match = re.search(rf"(?<![\w.-]){re.escape(other)}(?::(\d+))?(?![\w-]|\.\w)", text)
                if match and ("//" in text or match[1]):
                    found[other] = found.get(other) or (int(match[1]) if match[1] else None)
            if other in one.written.depends_on:
                found.setdefault(other, None)
        return found


# Compose's default names, see "Merge Compose files" in Docker's documentation.
_DEFAULT_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


def _as_started(files: tuple[Path, ...], named: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return files with what `docker compose up` would lay over them, and remarks.

    COMPOSE_FILE switches Compose's own override off. The files that were given count.
    """
    if named:
        same = set(named) == set(files)
        words = ", ".join(f"`--compose {os.path.relpath(one, files[0].parent)}`" for one in named)
        remark = f"{FILES} names other files for `docker compose up`: to test these, run `llmchaos init` with {words}"
        return files, () if same else (remark,)
    if len(files) != 1 or files[0].name not in _DEFAULT_NAMES:
        return files, ()
    beside = [files[0].with_name(name) for name in _OVERRIDE_NAMES]
    override = next((one for one in beside if one.is_file()), None)
    if override is None:
        return files, ()
    remark = f"{override.name} is in llmchaos_compose, because `docker compose up` lays it over {files[0].name}"
    return (*files, override), (remark,)


def read(files: Sequence[Path]) -> Stack:
    """Read compose files as Compose does, without changing anything.

    Raises:
        BadScenario: a file is missing, or Compose printed an unexpected format.
        NotReady: Compose is missing or refuses the files.
    """
    for file in files:
        if not file.is_file():
            raise BadScenario(f"--compose must name a compose file, got {str(file)!r}, which does not exist")
    given = tuple(file.resolve() for file in files)
    asked = UserFiles(given)
    absolute, remarks = _as_started(given, asked.default_files())
    user = UserFiles(absolute)
    text = user.config(EXAMINED, EVERY)
    config = reach.read_config(text)
    try:
        # Compose prints each dollar sign of a value twice.
        found = msgspec.json.decode(text.replace("$$", "$"), type=_File, strict=False)
    except msgspec.DecodeError as error:
        raise BadScenario(
            f"`docker compose config` printed a format that this version cannot read: {error}; upgrade pytest-llmchaos"
        ) from None
    names = tuple(found.services)
    in_files = _commands_in(absolute)
    contents = {name: one.content or _text_of(Path(one.file)) for name, one in found.configs.items()}
    return Stack(
        files=absolute,
        services={
            name: _service(name, written, names, contents, in_files.get(name, ""))
            for name, written in found.services.items()
        },
        active_profiles=asked.default_profiles(),
        ways_out=tuple(reach.reaches(config, EXAMINED, absolute[0].parent)),
        variables=user.variables(),
        remarks=remarks,
    )


def _commands_in(files: Sequence[Path]) -> dict[str, str]:
    """Commands of the services of files, as they are written there."""
    found: dict[str, str] = {}
    for file in files:
        try:
            services = yaml.safe_load(_text_of(file))["services"]
            found |= {name: _words(one.get("command") or one.get("entrypoint")) for name, one in services.items()}
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, RecursionError):
            continue  # tags of Compose or a file of includes: a guess less
    return found


def _words(command: object) -> str:
    return " ".join(map(str, command)) if isinstance(command, list) else str(command or "")


def _service(name: str, written: Written, names: Sequence[str], contents: Mapping[str, str], in_file: str) -> Service:
    image = _image(written)
    own = [*(written.entrypoint or ()), *(written.command or ())]
    command = " ".join(own or [*image.entrypoint, *image.cmd])
    hooks = [_words(one.command) for one in written.post_start]
    texts = (
        command,
        *hooks,
        *(f"{key}={value}" for key, value in written.environment.items()),
        *_file_texts(written),
        *(contents.get(one.source, "") for one in written.configs),
    )
    scrapes, has_rules = _prometheus(texts, names)
    exposed = [port for text in written.expose for port in _ports_in(str(text))] or [*image.ports]
    return Service(
        name=name,
        written=written,
        server=server_of(written.image, command),
        command=command,
        command_in_file=in_file,
        variables={**image.environment, **{key: value or "" for key, value in written.environment.items()}},
        exposed=tuple(exposed),
        texts=texts,
        scrapes=scrapes,
        has_rules=has_rules,
    )


@dataclass(frozen=True, kw_only=True)
class _Image:
    ports: tuple[int, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class _ImageConfig(msgspec.Struct, rename="pascal"):
    exposed_ports: dict[str, object] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None


def _image(written: Written) -> _Image:
    """Return what the image declares: from Docker, or from the Dockerfile."""
    if not written.image:
        return _dockerfile(written.build)
    try:
        text = docker_cli.run(["docker", "image", "inspect", "--format", "{{json .Config}}", written.image])
        found = msgspec.json.decode(text, type=_ImageConfig)
    except (NotReady, msgspec.DecodeError):
        return _dockerfile(written.build)  # the image is not here, or Docker does not answer
    ports = sorted(port for text in found.exposed_ports or {} for port in _ports_in(text))
    return _Image(
        ports=tuple(ports),
        entrypoint=tuple(found.entrypoint or ()),
        cmd=tuple(found.cmd or ()),
        environment=dict(one.split("=", 1) for one in found.env or () if "=" in one),
    )


def _dockerfile(build: Build | None) -> _Image:
    if build is None:
        return _Image()
    text = _text_of(Path(build.context, build.dockerfile or "Dockerfile"))
    ports = [
        port for line in re.findall(r"(?mi)^EXPOSE\s+(.+)$", text) for word in line.split() for port in _ports_in(word)
    ]
    commands = re.findall(r"(?mi)^(?:ENTRYPOINT|CMD)\s+(.+)$", text)
    return _Image(
        ports=tuple(ports),
        cmd=tuple(" ".join(re.sub(r'[\[\]",]', " ", line).split()) for line in commands),
        environment=dict(re.findall(r'(?mi)^(?:ENV\s+|\s+)(\w+)=["\']?([^\s"\']*)', text)),
    )


def _ports_in(text: str) -> tuple[int, ...]:
    """Ports of `7`, `7/tcp` or `3000-3005`. None of UDP."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/tcp)?", text)
    return tuple(range(int(match[1]), int(match[2] or match[1]) + 1)) if match else ()


def _file_texts(written: Written) -> Iterator[str]:
    """Texts of the mounted files, which are often settings that name services."""
    for mount in written.volumes:
        path = Path(mount.source)
        if mount.type == "bind" and path.is_file():
            yield _text_of(path)
        elif mount.type == "bind" and path.suffix == "" and path.is_dir():
            for one in sorted(path.glob("*.y*ml"))[:10] + sorted(path.glob("*.conf"))[:10]:
                yield _text_of(one)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return source.read(_LARGEST_FILE).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _prometheus(texts: Sequence[str], names: Sequence[str]) -> tuple[dict[str, tuple[int, str]], bool]:
    """Services that a Prometheus configuration scrapes, and whether it names rules."""
    found: dict[str, tuple[int, str]] = {}
    has_rules = False
    for text in texts:
        if "scrape_configs" not in text:
            continue
        try:
            document = yaml.safe_load(text)
            has_rules = has_rules or bool(document.get("rule_files"))
            for job in document["scrape_configs"]:
                path = str(job.get("metrics_path") or "/metrics")
                for static in job.get("static_configs") or ():
                    for target in static["targets"]:
                        host, _, port = str(target).partition(":")
                        if host in names:
                            found[host] = (int(port or 80), path)
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            continue  # not a configuration that can be read: a guess less
    return found, has_rules
