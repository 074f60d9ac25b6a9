"""A compose project that somebody else started: faults hit what its owner allowed, and it is left running as it was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import HealFailed, NotReady, Unsupported
from pytest_llmchaos.evidence import journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import docker_cli, notes, restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.undo import UNDO_DEADLINE_S, revert_until_done
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    from docker.models.containers import Container

ALLOW = "llmchaos.allow"


class AttachedRuntime(ComposeRuntime):
    """The same abilities on containers that carry `llmchaos.allow=true`; others are looked at and never acted on."""

    name = "attached"

    def __repr__(self) -> str:
        return f"<attached to compose project {self.project}>"

    def _is_mine(self, container: Container) -> bool:  # noqa: ARG002 - to be looked at is no harm; `_act` asks for the label
        return True

    def prepare(self) -> None:
        """Raises NotReady, naming everything that is missing: a running stack, labels on the targets, published ports."""
        docker_cli.require_engine()
        self._client = self._new_client()
        found = self._containers()
        if not found:
            files = " ".join(f"-f {file}" for file in self.subject.compose_files)
            raise NotReady(
                f"no container of project {self.project!r} runs: start it (`docker compose {files} up -d --wait`)"
            )
        problems = []
        for service in self.subject.targets:
            if service in found and found[service].labels.get(ALLOW) != "true":
                problems.append(
                    f"target {service!r} lacks the label {ALLOW}=true: add it to the service, and start it again"
                )
            # What another run of this project has stopped is back when `up` looks: a dead one is healed first, a living one waited for.
            if service not in found or not notes.has_note_for(self.project):
                problems += _not_running(service, found.get(service))
        for service, _, _ in self.subject.ports:
            port = _host_port(found.get(service))
            if port is None:
                problems.append(f"service {service!r} publishes no fixed port on this machine")
            else:
                self.compose.port_of[service] = port
        if problems:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def up(self, *, remediator: bool = True) -> None:  # noqa: ARG002 - it is as its owner left it
        """Take part: listen to events and remember how everything was found, once no trial of this machine is on."""
        if self._client is None:
            self.prepare()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._reader = EventReader(docker_cli.daemon(), self.project)
        self._reader.start()
        # A sibling's trial may be on: what it takes away must not be taken for what the owner gave.
        with measurement_lock.measuring():
            self._require_running()
            self._remember()

    def _require_running(self) -> None:
        """What was found to run before may have been stopped since."""
        found = self._containers()
        problems = [
            problem for service in self.subject.targets for problem in _not_running(service, found.get(service))
        ]
        if problems:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def take_over(self, found: dict[str, restrictions.AsFound], daemon: docker_cli.Daemon) -> None:
        """In place of a dead run: only to undo, with what that run had remembered, at the daemon that it had spoken to.

        Raises HealFailed if that one does not answer: another would have no container, and that would look like undone.
        """
        self._daemon, self._found = daemon, found
        try:
            self._client = self._new_client()
        except NotReady as error:
            raise HealFailed(f"{error}; it has project {self.project}") from None

    def _ensure_running(self, undo: Undo) -> None:
        """In place of a dead run, a stop that the daemon may still be carrying out is waited for: it would come after the undo."""
        grace_s = undo.args.get("grace_s")
        if self._daemon and isinstance(grace_s, int | float):
            deadline = time.monotonic() + grace_s
            while self.state(undo.service).running and time.monotonic() < deadline:
                time.sleep(0.1)
        super()._ensure_running(undo)

    def down(self) -> None:
        """Leave. The stack stays."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def start_remediator(self) -> None:
        if self.subject.remediator:
            why = f"{self.subject.remediator} does not run, and a stack that is not ours is not changed"
            raise Unsupported(f"{why}: start it yourself, or remove llmchaos_remediator")

    def stop_remediator(self) -> None:
        if self.subject.remediator and self.state(self.subject.remediator).running:
            why = "remediator=False would stop a service of a stack that is not ours"
            raise Unsupported(f"{why}: stop it yourself for this trial")

    def _act(self, service: str, act: Callable[[Container], object]) -> None:
        container = self._container(service)
        if container is None or container.labels.get(ALLOW) != "true":
            raise NotReady(f"service {service!r} has no container with the label {ALLOW}=true: nothing was touched")
        super()._act(service, act)


def _not_running(service: str, container: Container | None) -> list[str]:
    """What keeps a target from being one: its owner has stopped it, and it is not ours to start."""
    if container is None:
        return [f"target {service!r} has no container"]
    if container.status == "paused":
        return [f"target {service!r} is paused: unpause it (`docker compose unpause {service}`)"]
    if container.status != "running":
        return [f"target {service!r} does not run ({container.status}): start it (`docker compose start {service}`)"]
    return []


def _host_port(container: Container | None) -> int | None:
    """The port that the compose file fixes. One that the engine draws would change with every start, under the clients' feet."""
    bound = container.attrs["HostConfig"].get("PortBindings") if container is not None else {}
    for bindings in (bound or {}).values():
        for binding in bindings or []:
            if int(binding.get("HostPort") or 0):
                return int(binding["HostPort"])
    return None


def heal(manifest: RunManifest, *, deadline_s: float = UNDO_DEADLINE_S, by_state: bool = True) -> None:
    """Undo every fault that a dead attached run left open, and forget the run.

    Where the run's journal is gone, its open faults are not known. All its targets ran when it began, so with
    `by_state` they are put back into that state as far as it was kept. The note stays, as it does where the journal
    does not say how to undo a fault: the rest is the user's to put right.

    Args:
        deadline_s: for all undos together, each of which is tried at least once.
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
        return  # the watchdog or another `llmchaos heal` was faster, and took the files away that were read here
    if failed:
        raise HealFailed(
            f"{'; '.join(failed)}: put that right by hand, unless that stack is gone for good; then {notes.how_to_discard(manifest)}"
        )
    notes.forget(manifest)


def _undo_all(
    manifest: RunManifest, undos: Sequence[Undo], found: dict[str, restrictions.AsFound] | None, deadline_s: float
) -> list[str]:
    """Try every undo. Returns why each of the others did not work."""
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
            failed.append(f"{undo.op} {undo.service}: what {undo.service} had before is not known any more")
            continue
        try:
            revert_until_done(runtime, undo, max(0.0, deadline - time.monotonic()))
        except HealFailed as error:
            failed.append(str(error))
    runtime.down()
    return failed


def _back_as_found(manifest: RunManifest, found: dict[str, restrictions.AsFound]) -> tuple[Undo, ...]:
    """Undos that put every target back into the state in which the run had found it: running, and with what was kept."""
    return tuple(
        Undo(op=op, service=service)
        for service in manifest.targets
        for op in ("ensure_running", *(restrictions.RELEASES if service in found else ()))
    )


def _unknown_faults(manifest: RunManifest) -> str:
    return (
        f"the journal {manifest.journal} of run {manifest.run} is gone, so which faults it left open in project "
        f"{manifest.project} is not known"
    )


def _bare(targets: tuple[str, ...]) -> Subject:
    """As much of a subject as an undo needs."""
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
