"""A compose project that its owner started and keeps running."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import HealFailed, NotReady, Unsupported
from pytest_llmchaos.evidence import journal
from pytest_llmchaos.evidence.run_manifest import RunManifest
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.host.ports import http_url
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import attach_preflight, docker_cli, judge, notes, reach, restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.docker.judge_project import JudgeProject, as_config, project_name
from pytest_llmchaos.runtime.docker.place import of_daemon
from pytest_llmchaos.runtime.docker.replicas import key_of, undo_of
from pytest_llmchaos.runtime.undo import UNDO_DEADLINE_S, revert_until_done
from pytest_llmchaos.subject.lab import Subject
from pytest_llmchaos.subject.own_stack import services_by_key

if TYPE_CHECKING:
    from docker.models.containers import Container


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Reasons against a run on a stack as it is now.

    Attributes:
        targets: by target, why no fault may hit it. A reason follows its name.
        problems: all others.
    """

    targets: Mapping[str, Sequence[str]]
    problems: Sequence[str]


class AttachedRuntime(ComposeRuntime):
    """The same abilities, on containers labelled `llmchaos.allow=true` only.

    Others are observed. The stack is left running as it was found.
    """

    name = "attached"

    _judge: JudgeProject | None = None
    _host_of: dict[str, str]

    def __repr__(self) -> str:
        return f"<attached to compose project {self.project}>"

    def url(self, service: str) -> str:
        if self._judge is not None and service in self._judge.port_of:
            return self._judge.url(service)
        return http_url(self._host_of[service], self.compose.port_of[service])

    @property
    def abilities(self) -> frozenset[str]:
        """Those of a stack of our own, without what recreates its containers."""
        return super().abilities - {"configure"}

    @property
    def _agents_project(self) -> str:
        return project_name()

    def _require_allowed(self, service: str, containers: Sequence[Container]) -> None:
        if problems := attach_preflight.not_allowed(containers):
            raise NotReady(
                f"service {service!r} {'; '.join(problems)}; no fault agent entered its way: label it, or choose another target"
            )

    def _is_mine(self, container: Container) -> bool:  # noqa: ARG002 - observing is harmless, and `_act` checks the label
        return True

    def prepare(self) -> None:
        """Check the running stack, labels on its targets and published ports.

        Raises:
            NotReady: names everything that is missing.
        """
        looked = self.look()
        targets = [f"target {name!r} {reason}" for name, reasons in looked.targets.items() for reason in reasons]
        if problems := [*looked.problems, *targets]:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def look(self) -> Looked:
        """Read the stack's containers and addresses, without touching anything.

        Raises:
            NotReady: Docker does not answer, or the project has no container.
        """
        docker_cli.require_engine()
        self._host_of = {}
        self._client = self._new_client()
        found = self._by_service()
        if not found and not self.subject.selectors:
            raise NotReady(self._no_project())
        problems = attach_preflight.not_there(self.subject, found) + attach_preflight.ambiguous(self.subject, found)
        self.compose.place = place = of_daemon(
            docker_cli.daemon(), self.subject.published_on, publishes=self.subject.brings_judge
        )
        keys = services_by_key(self.subject)
        for service, _, inside in (port for port in self.subject.ports if port[0] in found):
            try:
                host, port = attach_preflight.address_of(service, inside, keys[service], found[service], place)
            except NotReady as error:
                problems.append(str(error))
            else:
                self._host_of[service], self.compose.port_of[service] = host, port
        if self.subject.brings_judge:
            self._judge = JudgeProject(
                labels=self._labels, owner=self._labels["llmchaos.owner"], directory=self._directory, place=place
            )
            scrapes, wrong = judge.resolved(self._config(found), self.subject.scrapes)
            self.subject = replace(self.subject, scrapes=scrapes)
            problems += wrong
        return Looked(
            targets={name: self._reasons(found[name]) for name in self.subject.targets if name in found},
            problems=problems,
        )

    def _reasons(self, containers: Sequence[Container]) -> list[str]:
        """Reasons why a target cannot be hit.

        A target that another run of this project stopped runs again in `up`: a dead run
        is reverted first, and a live one is waited for.
        """
        is_noted = notes.has_note_for(self.project)
        return attach_preflight.not_allowed(containers) + ([] if is_noted else attach_preflight.not_running(containers))

    def _config(self, found: Mapping[str, Sequence[Container]]) -> reach.Config:
        return as_config(found, {one.service for one in self.subject.scrapes})

    def _no_project(self) -> str:
        """Message about a project without containers, with those of the same folder."""
        if not self.subject.compose_files:
            return f"project {self.project!r} has no container: start it, or see `docker compose ls`"
        folder = self.subject.compose_files[0].parent
        label = f"com.docker.compose.project.working_dir={folder}"
        others = self._sdk.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        names = sorted({str(one.labels.get("com.docker.compose.project")) for one in others})
        files = " ".join(f"-f {file}" for file in self.subject.compose_files)
        start = f"start it (`docker compose {files} up -d --wait`)"
        if not names:
            return f"project {self.project!r} has no container: {start}"
        return (
            f"project {self.project!r} has no container, but {', '.join(names)} was started from {folder}: add "
            f'llmchaos_project = "{names[0]}", or {start}'
        )

    def up(self, *, remediator: bool = True) -> None:  # noqa: ARG002 - the owner decides whether it runs
        """Attach: read events and record every target's state while no trial runs."""
        if self._client is None:
            self.prepare()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._reader = EventReader(docker_cli.daemon(), self._members)
        self._reader.start()
        if self._judge is not None:
            self._judge.up(self._config(self._by_service()), self.subject, self._say)
        # A trial of another run may have restricted a target.
        with measurement_lock.measuring():
            self._require_running()
            self._remember()

    def _require_running(self) -> None:
        """Check again: a target may have stopped since `prepare`."""
        found = self._by_service()
        problems = attach_preflight.not_there(self.subject, found)
        for service in (target for target in self.subject.targets if target in found):
            problems += [f"target {service!r} {reason}" for reason in attach_preflight.not_running(found[service])]
        if problems:
            raise NotReady(f"project {self.project}: " + "; ".join(problems) + "; nothing was touched")

    def take_over(self, found: dict[str, restrictions.AsFound], daemon: docker_cli.Daemon) -> None:
        """Revert in place of a dead run, with its recorded state and Docker daemon.

        Raises HealFailed if that daemon does not answer. Another daemon lacks the
        containers, which would look like a completed revert.
        """
        self._daemon, self._found = daemon, found
        self._replicas.count(found)
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
        """Detach. The stack keeps running. The run's judge and agents are removed."""
        try:
            if self._posts:
                self.wire_disarm()
        finally:
            self._detach()

    def _detach(self) -> None:
        if self._judge is not None:
            self._judge.down()
            self._judge = None
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

    def overload(self, service: str, times: float, max_tokens: int) -> None:
        flood = self._lent(service)
        self._act(service, lambda _: flood.start(service, times, max_tokens))  # only with the label

    def _act(self, service: str, act: Callable[[Container], object]) -> None:
        container = self._container(service)
        if container is None or not attach_preflight.may_be_hit(container):
            raise NotReady(
                f"service {service!r} has no container with the label {attach_preflight.ALLOW}=true: nothing was touched; "
                "add the label and recreate it"
            )
        super()._act(service, act)


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
        replace(_bare(manifest.targets), selectors=tuple(manifest.selectors.items())),
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
        victim = key_of(undo)
        if undo.op in restrictions.RELEASES and victim not in (found or {}):
            failed.append(f"{undo.op} {victim}: the original settings of {victim} are no longer known")
            continue
        try:
            revert_until_done(runtime, undo, max(0.0, deadline - time.monotonic()))
        except HealFailed as error:
            failed.append(str(error))
    try:
        runtime.wire_disarm()
    except (NotReady, OSError) as error:
        failed.append(str(error))
    runtime.down()
    return failed


def _back_as_found(manifest: RunManifest, found: dict[str, restrictions.AsFound]) -> tuple[Undo, ...]:
    """Undos that restore every target's state at the start of the run."""
    unknown = set(manifest.targets) - {name.partition("#")[0] for name in found}
    return tuple(
        undo_of(op, name)
        for name in (*found, *sorted(unknown))
        for op in ("ensure_running", *(restrictions.RELEASES if name in found else ()))
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
