"""Settings of a run, and the runtime that they name."""

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
    from pytest_llmchaos.model import Runtime


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line and the ini file decided for this run."""

    run: str
    seed: int
    runtime: str
    backend: str
    reports: Path
    repeat: int
    worker: str
    replay_line: str
    why_runtime: str = "asked for"
    own: Subject | None = None  # a user's own stack, in place of the lab

    @property
    def directory(self) -> Path:
        return self.reports / self.run

    @property
    def stack_directory(self) -> Path:
        """What belongs to this process' own stack: labels, states as found, logs. Workers of one run have one stack each."""
        return self.directory / self.worker if self.worker else self.directory

    @property
    def subject(self) -> Subject:
        return self.own or lab_subject(self.backend)


def choose_runtime(wanted: str, *, own: bool = False) -> tuple[str, str]:
    """(runtime, why) for `--chaos-runtime`. A user's own stack is a compose file, so there is nothing to choose."""
    if own:
        return "compose", "llmchaos_compose is set"
    if wanted != "auto":
        return wanted, "asked for"
    try:
        docker_cli.daemon()
    except NotReady:
        if docker_cli.is_named():  # what was asked for cannot be had: the preflight ends the session with that error
            return "compose", "the environment names a Docker daemon"
    try:
        docker_cli.require_engine()
    except NotReady as error:
        return "local", str(error).partition(": ")[0]
    return "compose", "a Docker daemon answers"


def default_backend(runtime: str) -> str:
    """The real model that a runtime serves without being asked: what its set-up brings."""
    return "llamacpp" if runtime == "local" else "ollama"


def make_runtime(settings: Settings, subject: Subject, *, project: str, owner_id: str) -> Runtime:
    """The runtime that the settings name, not yet started."""
    about = {"project": project, "run": settings.run, "owner": owner_id}
    directory = settings.stack_directory
    if subject.attach:
        return AttachedRuntime(subject, **about, directory=directory)
    if settings.runtime == "compose":
        return ComposeRuntime(subject, **about, directory=directory)
    return LocalRuntime(subject, **about, directory=directory)


def abilities_of(settings: Settings) -> frozenset[str]:
    """What faults may need of the runtime that the settings name. Nothing is started or asked."""
    return make_runtime(settings, settings.subject, project="plan", owner_id="").abilities
