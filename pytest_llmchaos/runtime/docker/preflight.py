"""Checks of a user's compose file before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.docker import (
    agent_image,
    attach_preflight,
    declared_protocols,
    docker_cli,
    judge,
    notices,
    offered_ports,
    reach,
)
from pytest_llmchaos.runtime.docker.near_names import near
from pytest_llmchaos.runtime.docker.user_files import EVERY, UserFiles
from pytest_llmchaos.runtime.judge_files import PROMETHEUS_PORT, PUSHGATEWAY_PORT
from pytest_llmchaos.subject.lab import Subject
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY, reached, services_by_key

# The first Compose with `!override` and `!reset` in the form that a run writes.
LEAST_COMPOSE = (2, 24, 4)
EXAMINED = "llmchaos-examined"


def examine(subject: Subject) -> Subject:
    """Return the subject with what its compose file shows filled in.

    Raises:
        BadScenario: lists every problem in the compose file.
        NotReady: Docker does not answer, or its Compose is too old.
    """
    docker_cli.require_engine()
    if subject.attach:
        return attach_preflight.examine(subject)
    _require_compose(docker_cli.run(["docker", "compose", "version", "--short"]))
    files = UserFiles(subject.compose_files)
    subject = replace(subject, profiles=_profiles(files, subject))
    config = reach.read_config(files.config(EXAMINED, subject.profiles))
    problems = [*_missing(files, subject, config), *_other_problems(config, subject)]
    known = {name for name in services_by_key(subject) if name in config.services}
    scrapes, unscraped = judge.resolved(config, subject.scrapes)
    problems += unscraped
    ports = _published(config, subject, known, problems)
    problems += reach.problems(config, subject, EXAMINED)
    if problems:
        raise BadScenario(f"{subject.compose_files[0]}: " + "; ".join(dict.fromkeys(problems)))
    lines = notices.of(subject, notices.in_file(config))
    unreadable = declared_protocols.unreadable(declared_protocols.in_file(config))
    return replace(subject, ports=ports, scrapes=scrapes, notices=lines, unreadable=unreadable)


def require_agent_image() -> None:
    """Check that Docker has the image of the fault agent.

    Raises:
        NotReady: Docker does not answer, or lacks the image.
    """
    docker_cli.require_engine()
    agent_image.agent_image()


def _require_compose(version: str) -> None:
    """Check that Compose has the tags of the override.

    Raises NotReady with its version.
    """
    numbers = tuple(int(word) for word in re.findall(r"[0-9]+", version)[:3])
    if numbers < LEAST_COMPOSE:
        raise NotReady(
            f"Docker Compose must be {'.'.join(map(str, LEAST_COMPOSE))} or newer to start a stack without editing its "
            f"file, got {version.strip()}: upgrade the Compose plugin"
        )


def _profiles(files: UserFiles, subject: Subject) -> tuple[str, ...]:
    """The active profiles, or none if only Compose's own rules count.

    To name a service activates its profile, as on the command line of Compose.
    """
    wanted = list(subject.profiles)
    if subject.remediator:
        remediator = reach.read_config(files.config(EXAMINED, EVERY)).services.get(subject.remediator)
        wanted += remediator.profiles if remediator else []
    return tuple(dict.fromkeys((*files.default_profiles(), *wanted))) if wanted else ()


def missing(subject: Subject) -> list[str]:
    """List services of the ini keys that the compose file lacks.

    Raises NotReady if Compose cannot read it.
    """
    files = UserFiles(subject.compose_files)
    subject = replace(subject, profiles=_profiles(files, subject))
    return _missing(files, subject, reach.read_config(files.config(EXAMINED, subject.profiles)))


def _missing(files: UserFiles, subject: Subject, config: reach.Config) -> list[str]:
    missing = {name: key for name, key in services_by_key(subject).items() if name not in config.services}
    if not missing:
        return []
    every = reach.read_config(files.config(EXAMINED, EVERY)).services
    return [
        f"{key} names {name!r}, whose profile {every[name].profiles[0]!r} is off: add llmchaos_profiles = "
        f'["{every[name].profiles[0]}"], or set COMPOSE_PROFILES'
        if name in every and every[name].profiles
        else f"{key} names {name!r}, which the compose file lacks; {near(name, every)}it has {', '.join(sorted(every))}"
        for name, key in missing.items()
    ]


def _other_problems(config: reach.Config, subject: Subject) -> list[str]:
    problems = [
        f"service {name!r} has the name of a service that the run adds: rename it"
        for name in (JUDGE, PUSHGATEWAY)
        if name in config.services
    ]
    problems += [
        f"{key} names {name!r}, of which the compose file starts no container: expected at least 1, got `scale: 0` or "
        "`deploy.replicas: 0`; name another service, or add a compose file that starts one"
        for name, key in services_by_key(subject).items()
        if name in config.services and reach.replicas(config.services[name]) == 0
    ]
    for endpoint, key in reached(subject):
        if endpoint.service not in config.services:
            continue
        service = config.services[reach.network_owner(config, endpoint.service)]
        if (count := reach.replicas(service)) > 1:
            problems.append(
                f"{key} names {endpoint.service!r}, which has {count} containers, and one port leads to one of them: "
                "name the service that balances between them"
            )
        networks = [about for name in service.networks or {} if (about := config.networks.get(name)) is not None]
        if networks and all(about.internal for about in networks):
            problems.append(
                f"{key} names {endpoint.service!r}, whose networks are all internal, so Docker publishes no port of it: "
                "name a service that is reachable from outside"
            )
    return problems


def _published(
    config: reach.Config, subject: Subject, known: set[str], problems: list[str]
) -> tuple[tuple[str, str, int], ...]:
    """Ports to reach from this machine: of the roles, and what others publish first."""
    inside: dict[str, int] = {}
    for one, key in reached(subject):
        if one.service in known:
            inside.setdefault(one.service, _port(config, one.service, one.port, key, problems))
    for name, service in config.services.items():
        tcp = [port.target for port in service.ports if port.protocol == "tcp"]
        if name not in inside and tcp and reach.replicas(service) == 1:
            inside[name] = tcp[0]
    inside |= {JUDGE: PROMETHEUS_PORT, PUSHGATEWAY: PUSHGATEWAY_PORT}
    return tuple((name, "", port) for name, port in inside.items())


def _port(config: reach.Config, service: str, wanted: int | None, key: str, problems: list[str]) -> int:
    """The container's port, or 0 after a problem."""
    try:
        return offered_ports.port_of(config, service, wanted, key)
    except BadScenario as error:
        problems.append(str(error))
        return 0
