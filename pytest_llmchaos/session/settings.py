"""Settings of a run, and the runtime that they select."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.subject.lab import Subject, lab_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pytest_llmchaos.model import Runtime


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run, from command line and ini file.

    Attributes:
        run: the run's name.
        seed: the seed of every random choice.
        runtime: "compose" or "local".
        backend: "ollama", "llamacpp", "sim" or "own".
        reports: the folder that keeps all runs.
        repeat: how often each trial is performed.
        worker: name of the pytest-xdist worker, or "".
        replay_line: the command that repeats this run.
        why_runtime: why this runtime was selected.
        own: the user's own stack, or None for the lab.
        agents: the lab has an agent and its desk of tools.
        scales: the lab has an autoscaler.
    """

    run: str
    seed: int
    runtime: str
    backend: str
    reports: Path
    repeat: int
    worker: str
    replay_line: str
    why_runtime: str = "as configured"
    own: Subject | None = None
    agents: bool = False
    scales: bool = False

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return self.reports / self.run

    @property
    def stack_directory(self) -> Path:
        """The folder of this process' stack. Each worker of a run has its own."""
        return self.directory / self.worker if self.worker else self.directory

    @property
    def subject(self) -> Subject:
        """The stack to test."""
        return self.own or lab_subject(self.backend, agents=self.agents, scales=self.scales)


def choose_runtime(wanted: str, *, own: bool = False) -> tuple[str, str]:
    """Return (runtime, reason) for `--chaos-runtime`.

    A user's own stack runs as processes only if that was configured.
    """
    if own and wanted != "local":
        return "compose", "llmchaos_compose is set"
    if wanted != "auto":
        return wanted, "as configured"
    try:
        docker_cli.daemon()
    except NotReady:
        if docker_cli.is_named():  # the preflight then ends the session with the reason
            return "compose", "the environment names a Docker daemon"
    try:
        docker_cli.require_engine()
    except NotReady as error:
        return "local", str(error).partition(": ")[0]
    return "compose", "Docker responds"


def default_backend(runtime: str) -> str:
    """The backend of a runtime by default, whose real model the set-up installs."""
    return "llamacpp" if runtime == "local" else "ollama"


def make_runtime(
    settings: Settings,
    subject: Subject,
    *,
    project: str,
    owner_id: str,
    wire: Collection[str] = (),
    say: Callable[[str, float | None], None] = lambda *_: None,
) -> Runtime:
    """Create the runtime of the settings, without starting it.

    `wire` are the services that wire faults may hit. Only the local runtime needs them
    before the start.
    """
    about = {"project": project, "run": settings.run, "owner": owner_id}
    directory = settings.stack_directory
    if subject.attach:
        return AttachedRuntime(subject, **about, directory=directory, say=say)
    if settings.runtime == "compose":
        return ComposeRuntime(subject, **about, directory=directory, say=say)
    return LocalRuntime(subject, **about, directory=directory, wire=wire)


def abilities_of(settings: Settings) -> frozenset[str]:
    """Abilities of the runtime of the settings, without starting it."""
    return make_runtime(settings, settings.subject, project="plan", owner_id="").abilities
