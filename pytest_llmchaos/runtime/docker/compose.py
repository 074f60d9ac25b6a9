"""The subject as its own Docker Compose project."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario, NotReady, Unsupported
from pytest_llmchaos.evidence.redaction import redact, redact_bytes
from pytest_llmchaos.model import Environment, EventGap, RuntimeEvent, ServiceState, Undo, UndoOp
from pytest_llmchaos.runtime.configuring import ConfigureAbility
from pytest_llmchaos.runtime.docker import docker_cli, freezing, removal, restrictions, sdk, startup
from pytest_llmchaos.runtime.docker.agent_post import Post
from pytest_llmchaos.runtime.docker.compose_start import ComposeStart
from pytest_llmchaos.runtime.docker.events import EventReader, unix
from pytest_llmchaos.runtime.docker.fault_agents import DockerAgents
from pytest_llmchaos.runtime.docker.kernel_view import process_here
from pytest_llmchaos.runtime.docker.members import Filters, Members
from pytest_llmchaos.runtime.docker.place import Place
from pytest_llmchaos.runtime.docker.project import ComposeProject
from pytest_llmchaos.runtime.docker.replicas import Replicas
from pytest_llmchaos.runtime.json_log import parse, with_torn
from pytest_llmchaos.runtime.overload import OverloadAbility
from pytest_llmchaos.runtime.simulated_engine import BOOT_FILE, EngineAbility, EngineAnswer
from pytest_llmchaos.runtime.undo import UndoRegistry
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container, ExecResult


# States of a container whose first process has not ended.
_LIVE = ("running", "paused", "restarting")


class ComposeRuntime(
    UndoRegistry, restrictions.Restrictable, EngineAbility, DockerAgents, OverloadAbility, ConfigureAbility
):
    """Compose project `llmchaos-<pid>-<worker>` with this run's labels throughout."""

    name = "compose"
    services_run_as = "containers"

    def __init__(
        self,
        subject: Subject,
        *,
        project: str,
        run: str,
        owner: str,
        directory: Path,
        say: startup.Show = lambda *_: None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
            raise BadScenario(f"a compose project name must consist of a-z, 0-9, '_' and '-', got {project!r}")
        self.subject = subject
        self.project = project
        self._labels = {"llmchaos.run": run, "llmchaos.owner": owner}
        self._members = Members(project=project, selectors=dict(subject.selectors))
        self._directory = directory
        self.compose = ComposeProject(subject, name=project, labels=self._labels, directory=directory)
        self._say = say
        self._client: DockerClient | None = None
        self._daemon: docker_cli.Daemon | None = None
        self._reader: EventReader | None = None
        self._found: dict[str, restrictions.AsFound] = {}
        self._replicas = Replicas()
        self._posts: dict[str, Post] = {}
        self._forget_environment()

    def __repr__(self) -> str:
        return f"<compose project {self.project}>"

    @property
    def abilities(self) -> frozenset[str]:
        always = {
            "kill",
            "stop",
            "start",
            "restart",
            "pause",
            "unpause",
            "events",
            "limit_cpu",
            "limit_memory",
            "oom_kill",
            "partition",
            "configure",
        }
        provable = {"overload"} if self.subject.requests_query is not None else set()
        as_root = {"crash"} if os.geteuid() == 0 else set()
        return frozenset(always | provable | as_root) | self.engine_abilities | self.agent_abilities

    @property
    def dashboards(self) -> str | None:
        """Grafana's address. None if its image is not available."""
        return self.url("grafana") if "grafana" in self.compose.port_of else None

    def targets(self) -> tuple[str, ...]:
        return self.subject.targets

    def images(self) -> dict[str, str]:
        """Names and ids of the images in use, for the fingerprint."""
        found = self._containers()
        return {
            service: f"{c.attrs['Config']['Image']} {c.attrs['Image'][:19]}" for service, c in sorted(found.items())
        }

    def prepare(self) -> None:
        """Check everything that can fail before a start.

        Raises:
            NotReady: Docker does not answer or refuses permission, an image is missing,
                or a port is in use.
        """
        self.compose.prepare()

    def up(self, *, remediator: bool = True) -> None:
        """Start everything and wait until the health checks pass.

        Raises:
            NotReady: with Compose's output and the services' last logs.
        """
        if not self.compose.port_of:
            self.prepare()
        self._forget_environment()
        self.compose.write_override()
        self._client = self._new_client()
        self._reader = EventReader(docker_cli.daemon(), self._members)
        self._reader.start()
        start = ComposeStart(self.subject, self.compose, self._by_service, self._say)
        try:
            start.run()
        except NotReady:
            self.down()
            raise
        self._create_resting()
        start.require_reachable()
        self._remember()
        if not remediator:
            self.stop_remediator()

    def _create_resting(self) -> None:
        """Create what the autoscaler needs, without a start."""
        if self.subject.resting:
            command = [*self.compose.command(), "create", "--no-recreate", *self.subject.resting]
            docker_cli.run(command, env=self.compose.environment(), timeout_s=60, folder=self.compose.folder)

    def _remember(self) -> None:
        """Record every target's settings, so that any process can restore them."""
        by_name = dict(startup.named(self._by_service()))
        self._found = {}
        self._note_as_found(by_name, self.subject.targets)
        self._replicas.count(by_name)
        self._containers()  # fixes which container stands for each service before the first fault

    def _note_as_found(self, by_name: Mapping[str, Container], services: Sequence[str]) -> None:
        chosen = {name: one for name, one in by_name.items() if name.partition("#")[0] in services}
        self._found |= {name: restrictions.as_found(container) for name, container in chosen.items()}
        restrictions.keep(self._directory / "as_found.json", self._found)

    @property
    def _sdk(self) -> DockerClient:
        if self._client is None:
            raise NotReady(f"{self!r} is not up: call up() first")
        return self._client

    def _new_client(self) -> DockerClient:
        return sdk.connect(self._daemon or docker_cli.daemon())

    def down(self) -> None:
        """Remove the project. Logs are copied first."""
        self._stand_down()
        if self._client is not None:
            with contextlib.suppress(NotReady, OSError):
                self.keep_logs()
                self._keep_agent_logs()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        removal.remove_owned(self.project, self._labels["llmchaos.owner"])
        self._forget_posts()
        if self._client is not None:
            self._client.close()
            self._client = None
        self.compose.close()

    def logs(self, *, tail: int = 200) -> str:
        with contextlib.suppress(NotReady):
            command = [*self.compose.command(), "logs", "--no-color", "--timestamps", "--tail", str(tail)]
            said = docker_cli.run(command, env=self.compose.environment(), timeout_s=20, folder=self.compose.folder)
            return redact(said, startup.secrets_in(self._containers().values()))
        return ""

    def keep_logs(self) -> None:
        self._keep_logs(self._by_service())

    def _keep_logs(self, found: Mapping[str, Sequence[Container]], suffix: str = "") -> None:
        folder = self._logs
        folder.mkdir(parents=True, exist_ok=True)
        secrets = startup.secrets_in(chain.from_iterable(found.values()))
        for name, container in startup.named(found):
            with contextlib.suppress(sdk.errors.APIError):  # removed since, or its logging driver cannot be read
                said = container.logs(timestamps=True, tail=2000)
                (folder / f"{name}{suffix}.txt").write_bytes(redact_bytes(said, secrets))

    def url(self, service: str) -> str:
        return self.compose.place.url(self.compose.port_of[service])

    def _containers(self) -> dict[str, Container]:
        chosen = {
            service: self._replicas.choose(service, containers) for service, containers in self._by_service().items()
        }
        return {service: container for service, container in chosen.items() if container is not None}

    def _container(self, service: str) -> Container | None:
        """The service's container with this run's labels. No other may be touched."""
        return self._replicas.choose(service, self._all_of(service))

    def _all_of(self, service: str, client: DockerClient | None = None) -> list[Container]:
        return self._find(self._members.filter_of(service), client).get(service, [])

    @property
    def _place(self) -> Place:
        return self.compose.place

    @property
    def _logs(self) -> Path:
        return self._directory / "logs"

    def aim(self, service: str, draw: Random, number: int | None = None) -> int | None:
        return self._replicas.aim(service, self._all_of(service), draw, number)

    def undo(self, undo: Undo) -> None:
        self._replicas.aim_back(undo)
        super().undo(undo)

    def _by_service(self) -> dict[str, list[Container]]:
        """Containers of all services that may be observed."""
        found: dict[str, dict[str, Container]] = {}
        for wanted in self._members.filters():
            for service, containers in self._find(wanted).items():
                found.setdefault(service, {}).update({str(one.id): one for one in containers})
        return {service: list(containers.values()) for service, containers in found.items()}

    def _find(self, filters: Filters, client: DockerClient | None = None) -> dict[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for container in (client or self._sdk).containers.list(all=True, filters={**filters}, ignore_removed=True):
            service = self._members.service_of(str(container.name), container.labels)
            if service is not None and self._is_mine(container):
                found.setdefault(service, []).append(container)
        return found

    def _is_mine(self, container: Container) -> bool:
        return all(container.labels.get(key) == value for key, value in self._labels.items())

    def state(self, service: str) -> ServiceState:
        container = self._container(service)
        if container is None:
            return ServiceState(service=service, running=False)
        return _state(service, container)

    def states(self) -> Mapping[str, ServiceState]:
        return {service: _state(service, c) for service, c in self._containers().items()}

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        heard = self._reader.between(since_unix_s, until_unix_s) if self._reader else ()
        return [self._replicas.event(one) for one in heard]

    def event_gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        return self._reader.gaps(since_unix_s, until_unix_s) if self._reader else ()

    def clock_offset_s(self) -> float | None:
        before = time.time()
        told = unix(str(self._sdk.info()["SystemTime"]))
        return told - (before + time.time()) / 2

    def audit(self) -> Sequence[Mapping[str, object]] | None:
        """Lines of the remediator's audit log, even after it stopped, or None."""
        container = self._container(self.subject.remediator) if self.subject.remediator else None
        if container is None:
            return None
        try:
            chunks, _ = container.get_archive(self.subject.audit_file)
        except sdk.errors.NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            return with_torn(parse(member.read() if member else b""))

    def start_remediator(self) -> None:
        if self.subject.remediator:
            self._compose_up(["--detach", "--wait", "--no-recreate", self.subject.remediator], timeout_s=60)

    def _compose_up(self, words: Sequence[str], *, timeout_s: float) -> None:
        command = [*self.compose.command(), "up", *words]
        docker_cli.run(command, env=self.compose.environment(), timeout_s=timeout_s, folder=self.compose.folder)

    def stop_remediator(self) -> None:
        container = self._container(self.subject.remediator) if self.subject.remediator else None
        if container is not None and container.status == "running":
            with contextlib.suppress(sdk.errors.NotFound):  # removed since, which also stops it
                container.stop(timeout=1)

    # Abilities: each is a Docker call on a container that carries this run's labels.

    def kill(self, service: str) -> None:
        self._end(service, lambda c: c.kill(signal="SIGKILL"))

    def stop(self, service: str, grace_s: int) -> None:
        """Stop as `docker stop` does. An interrupt kills it, so no undo comes first."""
        try:
            self._end(service, lambda c: c.stop(timeout=grace_s))
        except (KeyboardInterrupt, SystemExit):
            self.kill(service)
            raise

    def start(self, service: str) -> None:
        self._act(service, lambda c: c.start())

    def restart(self, service: str) -> None:
        self._end(service, lambda c: c.restart(timeout=0))

    def _require_restartable(self, services: Sequence[str]) -> None:
        for service in services:
            containers = self._all_of(service)
            if not containers:
                raise NotReady(
                    f"service {service!r} has no container with this run's labels: nothing was touched; start the run again"
                )
            for container in containers:
                self._require_unshared(container, "network", "pid")

    def _runs(self, service: str) -> bool:
        return any(one.status in _LIVE for one in self._all_of(service))

    def _restart_with(self, environment: Environment, running: Sequence[str], resting: Sequence[str]) -> None:
        """Create the containers of these services again, as Compose does.

        Fault agents enter the new network namespaces by themselves.
        """
        services = [*running, *resting]
        self._keep_logs({service: self._all_of(service) for service in services}, suffix=f".until-{time.time():.0f}")
        self.compose.write_environment(environment)
        deadline = time.monotonic() + self.subject.startup_s
        again = ["--force-recreate", "--no-deps", "--no-build", "--pull", "never"]
        for how, names in (("--detach", running), ("--no-start", resting)):
            if names:
                self._compose_up([how, *again, *names], timeout_s=self.subject.startup_s)
        startup.wait_until_up(
            lambda: {name: self._all_of(name) for name in running},
            roles=running,
            expected=running,
            deadline=deadline,
            too_late=lambda why: f"{', '.join(running)} did not become healthy with other variables: {why}",
            show=self._say,
        )
        self._await_agents(running)
        by_name = dict(startup.named({name: self._all_of(name) for name in services}))
        self._note_as_found(by_name, [name for name in services if name in self.subject.targets])

    def pause(self, service: str) -> None:
        self._act(service, freezing.pause)

    def unpause(self, service: str) -> None:
        self._act(service, lambda c: c.unpause())

    def crash(self, service: str) -> None:
        """Kill the first process by its pid on the host, so Docker sees it die."""
        if "crash" not in self.abilities:
            raise Unsupported("crash needs root on Docker's machine: run as root, or use faults.kill")

        def act(container: Container) -> None:
            container.reload()
            if int(container.attrs["State"]["Pid"]) <= 1:
                raise NotReady(f"cannot crash {service}: it has no running process; nothing was touched; see its log")
            pid = process_here(container)
            if pid is None:
                raise NotReady(
                    f"cannot crash {service}: Docker's pid for it is another process here, so the Docker daemon "
                    "runs on another machine or in another pid namespace; use faults.kill; nothing was touched"
                )
            os.kill(pid, signal.SIGKILL)

        self._end(service, act)

    def _ask_engine(self, service: str, verb: str, argument: str = "") -> EngineAnswer:
        """Call the admin port inside the container: it is on no network."""
        words = [word for word in ("python3", "-m", "lab_engine.fault", verb, argument) if word]
        done: list[ExecResult] = []
        self._act(service, lambda c: done.append(c.exec_run(words, demux=True)))
        out, error = (
            piece.decode(errors="replace").strip() if isinstance(piece, bytes) else "" for piece in done[0].output
        )
        if done[0].exit_code != 0:
            raise NotReady(f"the engine of {service} failed `{verb}` (exit status {done[0].exit_code}): {error or out}")
        answer: EngineAnswer = json.loads(out)
        return answer

    def _forget_boot_faults(self, service: str) -> None:
        def act(container: Container) -> None:
            folder = dict(one.split("=", 1) for one in container.attrs["Config"]["Env"]).get("LAB_STATE_DIR")
            if folder:
                container.put_archive(folder, _archive(BOOT_FILE, b"[]"))

        self._act(service, act)

    def _end(self, service: str, act: Callable[[Container], object]) -> None:
        """End a container's first process, and with it the container's namespaces."""

        def checked(container: Container) -> None:
            self._require_unshared(container, "network", "pid")
            act(container)

        self._act(service, checked)

    def _act(self, service: str, act: Callable[[Container], object]) -> None:
        container = self._container(service)
        if container is None:
            raise NotReady(
                f"service {service!r} has no container with this run's labels: nothing was touched; check the name of the service"
            )
        try:
            act(container)
        except sdk.errors.APIError as error:
            raise NotReady(f"Docker refused: {error.explanation or error}") from None

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        return {
            **super().undo_ops,
            **self.restriction_undo_ops,
            **self.engine_undo_ops,
            **self.agent_undo_ops,
            **self.overload_undo_ops,
        }

    def wait_healthy(self, services: Sequence[str], deadline_s: float) -> None:
        """Wait until all containers of these services run and pass their health checks.

        Raises:
            NotReady: one does not within `deadline_s` seconds, or was removed since the
                start. Names it.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            found = {name: containers for name, containers in self._by_service().items() if name in services}
            sick = {one.name: one.why for one in startup.late(found, services)}
            for name in services:
                count, least = len(found.get(name, ())), self._replicas.least(name)
                if count < least:
                    sick[name] = f"has {count} of {least} containers"
            if not sick:
                return
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{', '.join(sick)} did not become healthy within {deadline_s:g} s: "
                    f"{'; '.join(f'{name} {why}' for name, why in sick.items())}; "
                    f"see `docker compose -p {self.project} logs {next(iter(sick)).partition('#')[0]}`"
                )
            time.sleep(0.1)


def _archive(name: str, content: bytes) -> bytes:
    """A tar with one file that any user of the container may write."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(content), 0o666
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(about, io.BytesIO(content))
    return packed.getvalue()


def _state(service: str, container: Container) -> ServiceState:
    state = container.attrs["State"]
    health = (state.get("Health") or {}).get("Status")
    return ServiceState(
        service=service,
        running=bool(state["Running"]) and not state.get("Restarting", False),
        paused=bool(state["Paused"]),
        healthy=None if health in {None, "", "none"} else health == "healthy",
        exit_code=None if state["Running"] else int(state["ExitCode"]),
        started_unix_s=unix(state["StartedAt"]),
        restarts=int(container.attrs.get("RestartCount", 0)),
        identity=str(container.id),
        health_every_s=None if health in {None, "", "none"} else _health_every_s(container),
    )


def _health_every_s(container: Container) -> float:
    check = container.attrs["Config"].get("Healthcheck") or {}
    return int(check.get("Interval") or 0) / 1e9 or 30.0  # Docker's default interval
