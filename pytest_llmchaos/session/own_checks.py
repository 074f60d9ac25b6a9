"""Checks of a user's own stack before a run, with all problems at once."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady
from pytest_llmchaos.generate.rules import rules
from pytest_llmchaos.loadgen.first_request import check_requests
from pytest_llmchaos.prometheus.metrics_wants import wants_of_files
from pytest_llmchaos.runtime.docker import preflight
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime, Looked
from pytest_llmchaos.runtime.docker.near_names import near
from pytest_llmchaos.runtime.local.own_compose import OwnCompose
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.slo.openslo import slos_of
from pytest_llmchaos.subject.headers import PROMETHEUS_KEY, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pytest_llmchaos.subject.lab import Subject

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Problems:
    """Errors of checks that do not depend on each other."""

    def __init__(self) -> None:
        self.errors: list[LlmchaosError] = []

    def of(self, check: Callable[Given, Result], *args: Given.args, **named: Given.kwargs) -> Result | None:
        """Return a check's result, or keep its error and return None.

        An error with the message of an earlier one is the same problem.
        """
        try:
            return check(*args, **named)
        except LlmchaosError as error:
            if str(error) not in map(str, self.errors):
                self.errors.append(error)
            return None

    def require_none(self) -> None:
        """Raise the only error, or one with the messages of all, a line each."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            kind = BadScenario if all(isinstance(one, BadScenario) for one in self.errors) else NotReady
            raise kind("\n".join(str(one) for one in self.errors))


def examine(subject: Subject, problems: Problems, wire: Collection[str] = (), *, local: bool = False) -> Subject | None:
    """Return the subject with what a run reads about its stack.

    Nothing is touched.

    Args:
        subject: the user's stack.
        problems: takes each problem.
        wire: services that need a fault agent.
        local: True if it runs as processes.

    Returns:
        None if the compose file or the running project has problems.
    """
    problems.of(resolve, subject.prometheus_headers, os.environ, PROMETHEUS_KEY)
    problems.of(check_requests, subject.requests)
    subject = problems.of(_with_rules, subject) or subject
    problems.of(_require_servers, subject)
    problems.of(wants_of_files, subject.query_files)
    if local:
        return problems.of(_examine_local, subject)
    examined = problems.of(preflight.examine, subject)
    if wire:
        problems.of(preflight.require_agent_image)
    return examined


def foresee(
    settings: Settings, wire: Collection[str] = (), require: Callable[[Subject], None] = lambda _: None
) -> list[str]:
    """Return lines on what the start of a run would find now. Nothing is touched.

    Args:
        settings: the run's settings.
        wire: services that need a fault agent.
        require: raises BadScenario if the session's faults cannot hit the stack.
    """
    problems, lines = Problems(), list[str]()
    subject = examine(settings.subject, problems, wire, local=settings.runtime == "local")
    if subject is not None:
        lines += [f"note: {line}" for line in subject.notices]
        problems.of(require, subject)
        if subject.attach:
            lines += problems.of(_targets, settings, subject, problems) or ()
    return lines + [f"not ready: {line}" for error in problems.errors for line in str(error).splitlines()]


def misspelt_targets(settings: Settings) -> list[str]:
    """List entries of `llmchaos_targets` that the stack lacks, if it can be read.

    A scenario that names the service itself is right then.
    """
    subject, problems = settings.subject, Problems()
    lines: Sequence[str]
    if settings.runtime == "local":
        compose = problems.of(OwnCompose, subject.compose_files, os.environ)
        lines = compose.missing(subject) if compose else ()
    elif subject.attach:
        known = problems.of(preflight.examine, subject)
        found = problems.of(_look, settings, known) if known else None
        lines = found.problems if found else ()
    else:
        lines = problems.of(preflight.missing, subject) or ()
    return [line for line in lines if line.startswith("llmchaos_targets ")]


def _targets(settings: Settings, subject: Subject, problems: Problems) -> list[str]:
    """Return a line for each target of an attached stack."""
    found = _look(settings, subject)
    problems.errors += [NotReady(one) for one in found.problems]
    return [
        f"target {target}: may not be hit, because it {'; it '.join(reasons)}"
        if reasons
        else f"target {target}: may be hit"
        for target, reasons in found.targets.items()
    ]


def _look(settings: Settings, subject: Subject) -> Looked:
    runtime = AttachedRuntime(
        subject, project=subject.project, run=settings.run, owner="", directory=settings.stack_directory
    )
    try:
        return runtime.look()
    finally:
        runtime.down()


def _examine_local(subject: Subject) -> Subject:
    return OwnCompose(subject.compose_files, os.environ).examine(subject)


def _require_servers(subject: Subject) -> None:
    """Raise BadScenario unless each server that the user names has a metrics page."""
    pages = [one.name for one in servers().values() if one.kind != "provider"] if subject.servers else []
    for service, name in subject.servers:
        if name not in pages:
            raise BadScenario(
                f"llmchaos_servers names {name!r} for {service}, and no model server with a metrics page has that name; "
                f"{near(name, pages)}they are {', '.join(pages)}"
            )


def _with_rules(subject: Subject) -> Subject:
    """Give the judge that a run brings the rules of the objectives."""
    slos = slos_of(subject.slo_file)
    return dataclasses.replace(subject, rules=rules(slos, subject.slo_file.name)) if subject.brings_judge else subject
