"""Checks of a user's compose file before anything starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, reach
from pytest_llmchaos.slo.openslo import slos_of
from pytest_llmchaos.subject.lab import Subject
from pytest_llmchaos.subject.own_stack import services_by_key

EXAMINED = "llmchaos-examined"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")


def examine(subject: Subject) -> Subject:
    """Return the subject with its project name or port variables filled in.

    Raises:
        BadScenario: lists every problem in the compose file.
        InvalidSlo: the SLO file is invalid.
    """
    slos_of(subject.slo_file)
    docker_cli.require_engine()
    if subject.attach:
        return attach_preflight.examine(subject)
    files = [word for file in subject.compose_files for word in ("-f", str(file))]
    command = ["docker", "compose", *files, "config", "--no-interpolate", "--format", "json"]
    config = json.loads(docker_cli.run(command))
    services: dict[str, Any] = config["services"]
    problems = [
        f"{key} names {name!r}, which the compose file lacks; it has {', '.join(sorted(services))}"
        for name, key in services_by_key(subject).items()
        if name not in services
    ]
    ports = []
    for name, about in sorted(services.items()):
        if "container_name" in about:
            problems.append(
                f"service {name!r} sets container_name {about['container_name']!r}, so two runs would collide: remove it"
            )
        for port in about.get("ports") or []:
            host, variable, inside = _parse_port(port)
            if host and not variable:
                problems.append(
                    f"service {name!r} publishes the fixed port {host}, so two runs would collide: "
                    f'write "127.0.0.1:${{{_variable_for(name)}:-{host}}}:{inside}"'
                )
            elif variable:
                ports.append((name, variable, int(inside) if inside.isdigit() else 0))
    problems += _out_of_project(subject, {variable for _, variable, _ in ports})
    for name, _, _ in subject.ports:
        if name in services and name not in {one for one, _, _ in ports} and not _has_published_port(services[name]):
            problems.append(
                f"service {name!r} publishes no port, but is reached from outside the stack: "
                f'add ports: ["127.0.0.1:${{{_variable_for(name)}:-0}}:CONTAINER_PORT"]'
            )
    _complain(subject, problems)
    wanted = [next(port for port in ports if port[0] == name) for name, _, _ in subject.ports]
    # The last port of a service becomes its address.
    return replace(subject, ports=(*(port for port in ports if port not in wanted), *wanted))


def _out_of_project(subject: Subject, port_variables: set[str]) -> list[str]:
    """Things shared with other stacks, checked under a placeholder project name."""
    files = [word for file in subject.compose_files for word in ("-f", str(file))]
    profile = ["--profile", "remediator"] if subject.remediator else []
    command = ["docker", "compose", "-p", EXAMINED, *files, *profile, "config", "--format", "json"]
    env = docker_cli.environment({variable: os.environ.get(variable, "1") for variable in port_variables})
    return reach.problems(reach.read_config(docker_cli.run(command, env=env)), subject, EXAMINED)


def _complain(subject: Subject, problems: Sequence[str]) -> None:
    if problems:
        raise BadScenario(f"{subject.compose_files[0]}: " + "; ".join(problems))


def _parse_port(port: Any) -> tuple[str, str, str]:
    """(host port, its variable, container port) of one entry.

    The host port is "" if nothing is published.
    """
    if isinstance(port, dict):
        host, inside = str(port.get("published") or ""), str(port["target"])
    else:
        # A variable's default may contain a colon: hide variables before splitting.
        held = _VARIABLE.findall(str(port)), re.split(r":", _VARIABLE.sub("$", str(port)).partition("/")[0])
        parts = held[1]
        inside, host = parts[-1], parts[-2] if len(parts) > 1 else ""
        if host == "$":
            return "$", held[0][-2 if inside == "$" else -1], inside
    match = _VARIABLE.search(host)
    return host, match[1] if match else "", inside


def _has_published_port(service: dict[str, Any]) -> bool:
    return any(_parse_port(port)[0] for port in service.get("ports") or [])


def _variable_for(service: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", service.upper()) + "_PORT"
