"""One run of one worker: its folder, journal, stack and watchdog, opened when the first trial asks and closed for sure."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.cleanup import watchdog
from pytest_llmchaos.cleanup.sweep import sweep_dead_runs
from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady
from pytest_llmchaos.evidence.journal import SCHEMA, Journal, open_intents
from pytest_llmchaos.faults import foreign_names
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.subject import own_stack
from pytest_llmchaos.subject.lab import Subject, lab_subject, setup_command

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.session.progress import Progress

# The primitive faults that a report's coverage table speaks of, before those that other packages bring.
CATALOGUE = (
    "kill",
    "crash",
    "restart",
    "pause",
    "partition",
    "limit_cpu",
    "limit_memory",
    "overload",
    "hang",
    "gpu_saturation",
    "gpu_exhaustion",
    "xid",
    "cpu_fallback",
    "thermal_throttling",
    "corrupted_output",
    "slow_load",
    "crash_on_boot",
    "memory_leak",
)


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


def new_run_name(seed: int) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{seed}-{os.getpid() % 10000:04d}"


def choose_runtime(wanted: str, *, own: bool = False) -> tuple[str, str]:
    """(runtime, why) for `--chaos-runtime`. A user's own stack is a compose file, so there is nothing to choose."""
    if own:
        if wanted == "local":
            raise BadScenario("llmchaos_compose needs Docker Compose, got --chaos-runtime=local: leave the option away")
        return "compose", "llmchaos_compose is set"
    if wanted != "auto":
        return wanted, "asked for"
    try:
        docker_cli.require_engine()
    except NotReady as error:
        return "local", str(error).partition(": ")[0]
    return "compose", "a Docker daemon answers"


def default_backend(runtime: str) -> str:
    """The real model that a runtime serves without being asked: what its set-up brings."""
    return "llamacpp" if runtime == "local" else "ollama"


class Run:
    """The open run of this process. `lab()` starts the stack at its first call; `close()` removes it and dismisses the watchdog."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.progress = progress
        self.subject: Subject = settings.subject
        self._lab: Lab | None = None
        self._runtime: Any = None
        self._watchdog: watchdog.Watchdog | None = None
        self._journal: Journal | None = None
        self._old_sigterm: Any = None
        self._noted: dict[str, Any] = {}
        self.failed_start: BaseException | None = None

    @property
    def opened(self) -> bool:
        return self._journal is not None

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            name = f"journal-{self.settings.worker}.jsonl" if self.settings.worker else "journal.jsonl"
            try:
                self._journal = Journal(self.settings.directory / name)
            except OSError as error:
                raise NotReady(
                    f"cannot write the run's evidence to {self.settings.directory}: {error.strerror}; "
                    "give a folder that can be written to with --chaos-report"
                ) from None
        return self._journal

    def announce(self, schedule: Sequence[dict[str, Any]]) -> None:
        """Write down what will be done, before anything starts."""
        self.journal.write(
            "run",
            schema=SCHEMA,
            run=self.settings.run,
            seed=self.settings.seed,
            replay=self.settings.replay_line,
            runtime=self.settings.runtime,
            backend=self.settings.backend,
            environment={**environment(), "services run as": getattr(self._runtime, "fidelity", "containers")},
            schedule=list(schedule),
            catalogue={"faults": [*CATALOGUE, *foreign_names()], "targets": list(self.subject.targets)},
        )

    def preflight(self) -> None:
        """Find out what is missing before anything starts. Raises NotReady or BadScenario."""
        project = identity.project_name(os.getpid(), self.settings.worker)
        if self.subject.own:
            self.subject = own_stack.examined(self.subject)
            project = self.subject.project or project
        runtime = make_runtime(self.settings, self.subject, project=project, owner_id=identity.owner_label())
        runtime.prepare()
        self._runtime = runtime

    def unclaimed(self) -> list[str]:
        """The records of `lab.load` since the last call: the test that made them speaks for them."""
        if self._lab is None:
            return []
        names, self._lab.unclaimed = self._lab.unclaimed, []
        return names

    def lab(self) -> Lab:
        """The running stack. Raises NotReady, once and again, if it cannot be started."""
        if self.failed_start is not None:
            raise NotReady(f"the stack could not be started: {self.failed_start}") from None
        if self._lab is None:
            try:
                self._lab = self._start()
            except BaseException as error:
                ended = NotReady(f"{type(error).__name__}: {error}") if isinstance(error, OSError) else error
                self.failed_start = ended
                self._stop_stack()
                if ended is error:
                    raise
                raise ended from error
        return self._lab

    def _start(self) -> Lab:
        from pytest_llmchaos.lab.lab import Lab  # noqa: PLC0415 - everything heavy hangs below it

        if self._runtime is None:
            self.preflight()
        settings, project = self.settings, self._runtime.project
        sweep_dead_runs(self.progress.note)
        recipe = {
            "runtime": settings.runtime,
            "project": project,
            "owner": identity.owner_label(),
            "owned": not self.subject.attach,
            "journal": str(self.journal.path),
            "directory": str(settings.stack_directory),
        }
        if self.subject.attach:
            from pytest_llmchaos.runtime.docker import attached  # noqa: PLC0415 - only the runtime in use

            self._noted = {**recipe, "run": settings.run, "targets": list(self.subject.targets)}
            attached.note(self._noted)
            recipe = self._noted
        self.journal.write("stack", **recipe)
        self._watchdog = watchdog.start(recipe, settings.stack_directory / "watchdog.log")
        self._old_sigterm = signal.signal(signal.SIGTERM, _interrupt)
        begin = time.monotonic()
        doing = (
            "taking part, once no other trial of this machine is on, in"
            if self.subject.attach
            else f"starting the stack ({settings.runtime}, {settings.backend}) as"
        )
        self.progress.note(f"{doing} {project}")
        self._runtime.up(remediator=True)
        up_s = time.monotonic() - begin
        self.journal.write("stack_up", took_s=round(up_s, 3), images=self._runtime.images())
        self.progress.note(
            f"stack is up after {up_s:.1f} s; Prometheus at {self._runtime.url(self.subject.prometheus)}"
        )
        if not self.subject.own:
            self.progress.note(dashboards_line(getattr(self._runtime, "dashboards", None)))
        lab = Lab(
            runtime=self._runtime,
            subject=self.subject,
            journal=self.journal,
            directory=settings.directory,
            seed=settings.seed,
            say=self.progress,
        )
        if self.subject.own:
            url = self._runtime.url(self.subject.prometheus)
            own_stack.require_metrics(url, lab.slos, pushed=self.subject.pushgateway is not None)
        return lab

    def _stop_stack(self) -> list[str]:
        """Remove the stack, or leave that of others. Returns what is still broken in one that stays: its watchdog heals it."""
        broken = self._open_faults() if self.subject.attach else []
        if self._runtime is not None:
            self._runtime.down()
            self._runtime = None
        if self._watchdog is not None:
            (self._watchdog.leave if broken else self._watchdog.dismiss)()
            self._watchdog = None
        if self._noted and not broken:
            from pytest_llmchaos.runtime.docker import attached  # noqa: PLC0415 - only the runtime in use

            attached.forget(self._noted)
            self._noted = {}
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)
            self._old_sigterm = None
        return broken

    def _open_faults(self) -> list[str]:
        """The services in which a fault is not undone, as far as the journal knows."""
        if self._journal is None:
            return []
        return sorted({str(undo["service"]) for undo in open_intents(self._journal.path)})

    def close(self, exit_status: int) -> list[str]:
        """Remove the stack, and say what did not go well. If that fails the watchdog is left on, and tries on its own.

        So it is where faults are open in a stack that stays.
        """
        if self._journal is None:
            return []
        problems = []
        begin = time.monotonic()
        try:
            broken = self._stop_stack()
            if broken:
                problems.append(
                    f"faults in {', '.join(broken)} are not undone, and the stack is left running: the watchdog goes on with them; "
                    "see `llmchaos doctor`, and heal by hand with `llmchaos heal`"
                )
            self._journal.note("stack_down", took_s=round(time.monotonic() - begin, 3))
        except (LlmchaosError, OSError) as error:
            problems.append(
                f"the stack is not removed yet, its watchdog goes on with it: {error}; see `llmchaos doctor`"
            )
        self._lab = None
        self._journal.note("run_end", exit_status=exit_status)
        if self._journal.lost is not None:
            problems.append(f"the journal is not whole: {self._journal.lost}")
        self._journal.close()
        self._journal = None
        return problems


def _interrupt(_number: int, _frame: Any) -> None:
    """SIGTERM (a cancelled CI job) ends the session as Ctrl-C does, so that fixtures and faults are undone."""
    raise KeyboardInterrupt("SIGTERM")


def dashboards_line(url: str | None) -> str:
    """Where the dashboards are, or how to get them."""
    if url is not None:
        return f"dashboards at {url}"
    return (
        f"dashboards are not served: no Grafana here; where its image can be pulled, `{setup_command()}` brings it "
        "(docs/dashboards has a picture of each)"
    )


def make_runtime(settings: Settings, subject: Subject, *, project: str, owner_id: str) -> Any:
    """The runtime that the settings name, not yet started."""
    about = {"project": project, "run": settings.run, "owner": owner_id}
    directory = settings.stack_directory
    if subject.attach:
        from pytest_llmchaos.runtime.docker.attached import AttachedRuntime  # noqa: PLC0415 - only the runtime in use

        return AttachedRuntime(subject, **about, directory=directory)
    if settings.runtime == "compose":
        from pytest_llmchaos.runtime.docker.compose import ComposeRuntime  # noqa: PLC0415 - only the runtime in use

        return ComposeRuntime(subject, **about, directory=directory)
    from pytest_llmchaos.runtime.local.runtime import LocalRuntime  # noqa: PLC0415 - as above

    return LocalRuntime(subject, **about, directory=directory)


def abilities_of(settings: Settings) -> frozenset[str]:
    """What faults may need of the runtime that the settings name. Nothing is started or asked."""
    from pytest_llmchaos.lab.overload import OWN_ABILITIES  # noqa: PLC0415 - only for plans

    can: frozenset[str] = make_runtime(settings, settings.subject, project="plan", owner_id="").abilities
    return can | OWN_ABILITIES


def environment() -> dict[str, Any]:
    """The fingerprint of this machine: versions, kernel, cores, commit."""
    packages = (
        "pytest-llmchaos",
        "pytest",
        "pytest-xdist",
        "locust",
        "docker",
        "testcontainers",
        "prometheus-api-client",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
        "docker": _docker_version(),
    }


def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=5, check=False
        )
        return done.stdout.strip() or None
    return None


def _docker_version() -> str | None:
    with contextlib.suppress(NotReady):
        return docker_cli.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=10).strip()
    return None
