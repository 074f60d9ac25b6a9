"""A compose project that its owner started and keeps running."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import HealFailed, NotReady, Unsupported
from pytest_llmchaos.evidence import journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.host.ports import http_url
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import docker_cli, notes, restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.docker.place import of_daemon
from pytest_llmchaos.runtime.undo import UNDO_DEADLINE_S, revert_until_done
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    from docker.models.containers import Container

ALLOW = "llmchaos.allow"


class AttachedRuntime(ComposeRuntime):
    """The same abilities, on containers labelled `llmchaos.allow=true` only.

    Others are observed. The stack is left running as it was found.
    """

    name = "attached"

    def __init__(self, subject: Subject, *, project: str, run: str, owner: str, directory: Path) -> None:
        super().__init__(subject, project=project, run=run, owner=owner, directory=directory)
        self._host_of: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<attached to compose project {self.project}>"

    def url(self, service: str) -> str:
        return http_url(self._host_of[service], self.compose.port_of[service])

    def _is_mine(self, container: Container) -> bool:  # noqa: ARG002 - observing is harmless, and `_act` checks the label
        return True

    def prepare(self) -> None:
        """Check the running stack, labels on its targets and published ports.

        Raises:
            NotReady: names everything that is missing.
        """
        docker_cli.require_engine()
        self._client = self._new_client()
        found = self._containers()
        if not found:
            files = " ".join(f"-f {file}" for file in self.subject.compose_files)
            raise NotReady(
                f"project {self.project!r} has no container: start it (`docker compose {files} up -d --wait`)"
            )
        problems = []
        for service in self.subject.targets:
            if service in found and found[service].labels.get(ALLOW) != "true":
                problems.append(
                    f"target {service!r} lacks the label {ALLOW}=true: add it to the service and start it again"
                )
            # A target that another run of this project stopped runs again in `up`:
            # a dead run is reverted first, and a live one is waited for.
            if service not in found or not notes.has_note_for(self.project):
                problems += _not_running(service, found.get(service))
        place = of_daemon(docker_cli.daemon(), publishes=False)
        for service, _, _ in self.subject.ports:
            bindings = _fixed_bindings(found.get(service))
            reached = [(host, port) for at, port in bindings if (host := place.host_of(at)) is not None]
            if reached:
                self.compose.port_of[service] = reached[0][1]
                self._host_of[service] = reached[0][0]
            elif bindings:
                problems.append(
                    f"service {service!r} publishes its port on {bindings[0][0]} alone, but {place.elsewhere}: publish it on "
                    f"an address that is reached at {place.reach}"
                )
            else:
                problems.append(f"service {service!r} publishes no fixed port on this machine: add one to its `ports:`")
        if problems:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def up(self, *, remediator: bool = True) -> None:  # noqa: ARG002 - the owner decides whether it runs
        """Attach: read events and record every target's state while no trial runs."""
        if self._client is None:
            self.prepare()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._reader = EventReader(docker_cli.daemon(), self.project)
        self._reader.start()
        # A trial of another run may have restricted a target.
        with measurement_lock.measuring():
            self._require_running()
            self._remember()

    def _require_running(self) -> None:
        """Check again: a target may have stopped since `prepare`."""
        found = self._containers()
        problems = [
            problem for service in self.subject.targets for problem in _not_running(service, found.get(service))
        ]
        if problems:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def take_over(self, found: dict[str, restrictions.AsFound], daemon: docker_cli.Daemon) -> None:
        """Revert in place of a dead run, with its recorded state and Docker daemon.

        Raises HealFailed if that daemon does not answer. Another daemon lacks the
        containers, which would look like a completed revert.
        """
        self._daemon, self._found = daemon, found
        try:
            self._client = self._new_client()
        except NotReady as error:
            raise HealFailed(f"{error}; project {self.project} runs there") from None

    def _ensure_running(self, undo: Undo) -> None:
        """Start a service that a dead run stopped.

        Docker may still be carrying out the stop, which would come after the revert.
        """
        grace_s = undo.args.get("grace_s")
        if self._daemon and isinstance(grace_s, int | float):
            deadline = time.monotonic() + grace_s
            while self.state(undo.service).running and time.monotonic() < deadline:
                time.sleep(0.1)
        super()._ensure_running(undo)

    def down(self) -> None:
        """Detach. The stack keeps running."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def start_remediator(self) -> None:
        if self.subject.remediator:
            why = f"{self.subject.remediator} does not run, and llmchaos does not start services of an attached stack"
            raise Unsupported(f"{why}: start it yourself, or remove llmchaos_remediator")

    def stop_remediator(self) -> None:
        if self.subject.remediator and self.state(self.subject.remediator).running:
            why = "remediator=False would stop a service of an attached stack, which llmchaos does not do"
            raise Unsupported(f"{why}: stop it yourself for this trial")

    def _act(self, service: str, act: Callable[[Container], object]) -> None:
        container = self._container(service)
        if container is None or container.labels.get(ALLOW) != "true":
            raise NotReady(
                f"service {service!r} has no container with the label {ALLOW}=true: nothing was touched; add the label and recreate it"
            )
        super()._act(service, act)


def _not_running(service: str, container: Container | None) -> list[str]:
    """Reasons why a target cannot be used. Starting it is up to its owner."""
    if container is None:
        return [f"target {service!r} has no container: start it (`docker compose up -d {service}`)"]
    if container.status == "paused":
        return [f"target {service!r} is paused: unpause it (`docker compose unpause {service}`)"]
    if container.status != "running":
        return [f"target {service!r} does not run ({container.status}): start it (`docker compose start {service}`)"]
    return []


def _fixed_bindings(container: Container | None) -> list[tuple[str, int]]:
    """Address and port of each port that the compose file fixes.

    A port that Docker chooses changes with every start, while clients use it.
    """
    bound = container.attrs["HostConfig"].get("PortBindings") if container is not None else {}
    every = (binding for bindings in (bound or {}).values() for binding in bindings or [])
    found = [(str(binding.get("HostIp") or ""), int(binding.get("HostPort") or 0)) for binding in every]
    return [(address, port) for address, port in found if port]


def heal(manifest: RunManifest, *, deadline_s: float = UNDO_DEADLINE_S, by_state: bool = True) -> None:
    """Revert every fault that a dead attached run left open, then forget the run.

    Without the run's journal its open faults are unknown. Then `by_state` restores what
    is known: every target ran when the run began, with the recorded limits and
    networks. The note stays in that case, and if the journal lacks the undo of a fault.

    Args:
        manifest: the dead run.
        deadline_s: seconds for all undos together. Each is tried at least once.
        by_state: False for a session, which must not repeat that at every start.

    Raises:
        HealFailed: after every undo was tried.
    """
    path = notes.journal_of(manifest)
    found = notes.as_found_of(manifest)
    if path is None:
        undos, failed = _back_as_found(manifest, found or {}) if by_state else (), [_unknown_faults(manifest)]
    else:
        pending = journal.open_intents(path)
        undos, failed = pending.undos, list(pending.unreadable)
    if undos:
        failed = [*_undo_all(manifest, undos, found, deadline_s), *failed]
    if failed and not notes.is_kept(manifest):
        return  # the watchdog or another `llmchaos heal` was faster and removed the files
    if failed:
        raise HealFailed(
            f"{'; '.join(failed)}: fix that by hand, unless the stack is gone for good; then {notes.how_to_discard(manifest)}"
        )
    notes.forget(manifest)


def _undo_all(
    manifest: RunManifest, undos: Sequence[Undo], found: dict[str, restrictions.AsFound] | None, deadline_s: float
) -> list[str]:
    """Try every undo. Return the reasons of those that failed."""
    runtime = AttachedRuntime(
        _bare(manifest.targets),
        project=manifest.project,
        run=manifest.run,
        owner=manifest.owner,
        directory=Path(manifest.directory),
    )
    try:
        runtime.take_over(found or {}, notes.daemon_of(manifest))
    except HealFailed as error:
        return [str(error)]
    deadline, failed = time.monotonic() + deadline_s, []
    for undo in undos:
        if undo.op in restrictions.RELEASES and undo.service not in (found or {}):
            failed.append(f"{undo.op} {undo.service}: the original settings of {undo.service} are no longer known")
            continue
        try:
            revert_until_done(runtime, undo, max(0.0, deadline - time.monotonic()))
        except HealFailed as error:
            failed.append(str(error))
    runtime.down()
    return failed


def _back_as_found(manifest: RunManifest, found: dict[str, restrictions.AsFound]) -> tuple[Undo, ...]:
    """Undos that restore every target's state at the start of the run."""
    return tuple(
        Undo(op=op, service=service)
        for service in manifest.targets
        for op in ("ensure_running", *(restrictions.RELEASES if service in found else ()))
    )


def _unknown_faults(manifest: RunManifest) -> str:
    return (
        f"the journal {manifest.journal} of run {manifest.run} is gone, so its open faults in project "
        f"{manifest.project} are unknown"
    )


def _bare(targets: tuple[str, ...]) -> Subject:
    """The part of a subject that an undo needs."""
    return Subject(
        compose_files=(),
        targets=targets,
        ports=(),
        api="",
        prometheus="",
        pushgateway=None,
        remediator=None,
        model="",
        check=None,
        slo_file=Path(),
        bootstrap=None,
        capacity_tokens_per_s=1.0,
        own=True,
        attach=True,
    )
