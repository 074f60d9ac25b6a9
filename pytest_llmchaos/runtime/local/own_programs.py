"""A user's own stack and its judge as processes on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.judge_files import PROMETHEUS_PORT, PUSHGATEWAY_PORT, prometheus_file, rule_file
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.compose_reader import Addresses, Health, Program
from pytest_llmchaos.runtime.local.own_compose import OwnCompose
from pytest_llmchaos.runtime.local.programs import (
    agent_process,
    make_folders,
    prometheus_command,
    pushgateway_command,
    require_judge,
)
from pytest_llmchaos.runtime.local.supervisord_config import Process
from pytest_llmchaos.subject.lab import Subject, stack_dir
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY

_JUDGE_PORTS = {JUDGE: PROMETHEUS_PORT, PUSHGATEWAY: PUSHGATEWAY_PORT}


class OwnPrograms:
    """The services of a user's compose file, and the judge's, as processes."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._compose = OwnCompose(subject.compose_files, os.environ)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._compose.services, *_JUDGE_PORTS)

    def require(self) -> None:
        """Find every program, and fetch the judge's. Raises NotReady."""
        prerequisites.require_packages("own")
        require_judge()

    def translate(self, work: Path, addresses: Addresses) -> dict[str, Program]:
        """Return each service's program. Raises NotReady for one that is not here."""
        found = {name: self._compose.program(name, work, addresses) for name in self._compose.services}
        found = {name: replace(one, command=_found_here(one)) for name, one in found.items()}
        for name, port in _JUDGE_PORTS.items():
            health = Health(url=f"http://{addresses.own(name, port)}/-/ready", warm=False)
            found[name] = Program(service=name, command=(), environment={}, health=health, background=False)
        return found

    def settings(self, name: str, variables: Mapping[str, str], work: Path, addresses: Addresses) -> dict[str, str]:
        """Translate variables of a service. Nothing in them is expanded."""
        return self._compose.settings(name, variables, work, addresses)

    def processes(self, programs: Mapping[str, Program], work: Path, addresses: Addresses) -> list[Process]:
        """Build the processes for supervisord. Creates their settings and folders."""
        found = [self._process(program, work, addresses) for program in programs.values()]
        make_folders(programs.values(), work)
        return found

    def wired(self, services: Iterable[str]) -> dict[str, int]:
        """Port of each service for its fault agent, in the compose file's numbers.

        Raises BadScenario for a service whose port is unknown.
        """
        found: dict[str, int] = {}
        for name in services:
            probe = self._compose.probe(name) if name in self._compose.services else None
            ports = self._compose.ports(name) if name in self._compose.services else ()
            if probe is None and len(ports) != 1:
                raise BadScenario(
                    f"no fault agent can stand in the way of {name!r}: it must be a service whose health check requests a "
                    f"port, or with one port, services are {', '.join(self._compose.services)}; choose another target, or "
                    "add a health check"
                )
            found[name] = ports[0] if probe is None else probe.port
        return found

    def agents(self, wired: Mapping[str, int], addresses: Addresses) -> list[Process]:
        """Build the fault agents' processes for supervisord."""
        return [agent_process(name, port, addresses, stack_dir()) for name, port in wired.items()]

    def _process(self, program: Program, work: Path, addresses: Addresses) -> Process:
        name, scratch = program.service, work / "tmp" / program.service
        scratch.mkdir(parents=True, exist_ok=True)
        command = program.command
        if name == JUDGE:
            command = self._prometheus(work, addresses)
        elif name == PUSHGATEWAY:
            command = pushgateway_command(addresses.own(name, PUSHGATEWAY_PORT))
        settings = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch), "HOME": str(scratch), **program.environment}
        return Process(service=name, command=command, environment=settings, background=program.background)

    def _prometheus(self, work: Path, addresses: Addresses) -> tuple[str, ...]:
        folder = work / "prometheus"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yml").write_text(rule_file(self._subject))
        scrapes = self._subject.scrapes
        jobs = [
            {
                "job_name": service,
                "metrics_path": next(one.path for one in scrapes if one.service == service) or "/metrics",
                "static_configs": [
                    {
                        "targets": [addresses.of(service, one.port or 0) for one in scrapes if one.service == service],
                        "labels": {"service": service},
                    }
                ],
            }
            for service in dict.fromkeys(one.service for one in scrapes)
        ]
        pushgateway = addresses.of(PUSHGATEWAY, PUSHGATEWAY_PORT)
        text = prometheus_file(jobs, pushgateway=pushgateway, rules=str(folder / "rules.yml"))
        config = folder / "prometheus.yml"
        config.write_text(text)
        return prometheus_command(config, addresses.own(JUDGE, PROMETHEUS_PORT))


def _found_here(program: Program) -> tuple[str, ...]:
    """The command with the path of its program. Raises NotReady if it is missing."""
    name, *rest = program.command
    path = shutil.which(name, path=program.environment.get("PATH"))
    if path is None:
        raise NotReady(
            f"service {program.service!r} runs {name!r}, which is not a program on PATH: install it, or add its folder to PATH"
        )
    return (str(Path(path).absolute()), *rest)
