"""Start of a Compose project, with progress and the cause of a failure."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.ports import accepts_connections
from pytest_llmchaos.runtime.docker import docker_cli, startup
from pytest_llmchaos.runtime.docker.project import ComposeProject
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    from docker.models.containers import Container
    from testcontainers.compose import DockerCompose

REACH_DEADLINE_S = 5.0


class ComposeStart:
    """One start.

    `by_service` returns the containers so far. `say` takes a line of progress and the
    seconds left.
    """

    def __init__(
        self,
        subject: Subject,
        compose: ComposeProject,
        by_service: Callable[[], Mapping[str, Sequence[Container]]],
        say: startup.Show,
    ) -> None:
        self._subject, self._compose, self._by_service, self._say = subject, compose, by_service, say

    def run(self) -> None:
        """Fetch images, create the containers, and wait until they are up.

        Raises:
            NotReady: with Compose's output and the services' last logs.
        """
        compose = self._compose
        command = startup.Command(words=compose.command(), env=compose.environment(), folder=compose.folder)
        if self._subject.own:
            startup.fetch_images(command, self._compose.services, self._say)
        deadline = time.monotonic() + self._subject.startup_s
        resting = self._subject.resting
        started = [name for name in compose.services if name not in resting] if resting else None
        _testcontainers(self, command, deadline, started).start()
        startup.wait_until_up(
            self._by_service,
            roles=self._roles,
            expected=self._subject.targets,
            deadline=deadline,
            too_late=self._too_late,
            show=self._say,
        )

    @property
    def _roles(self) -> set[str]:
        """Services that have to run. Any other may do its job and end."""
        found = {self._subject.api, self._subject.prometheus, *self._subject.targets, *self._subject.replicas}
        found |= {one for one in (self._subject.pushgateway, self._subject.remediator) if one}
        return found | {one.service for one in self._subject.scrapes}

    def _too_late(self, what: str) -> str:
        """The message at the start's deadline."""
        startup_s = self._subject.startup_s
        more = (
            f"Give it longer with {startup.TIME_KEY} in the ini file, such as {startup.TIME_KEY} = {5 * startup_s:g}"
            if self._subject.own
            else "The machine may be overloaded: see `llmchaos doctor`"
        )
        return f"the stack is not up after {startup_s:g} s: {what}\n{more}"

    def watch(self, running: startup.Running, deadline: float) -> None:
        """Wait for `docker compose up`. It may wait itself, for what others depend on.

        Raises NotReady with its last lines and what is not up, at once for a container
        that has failed for good.
        """
        look_at = time.monotonic() + startup.LEAST_SHOWN_S
        with running:
            while running.goes_on():
                now = time.monotonic()
                if now > look_at:
                    late = self._late()
                    startup.require_none_over(late)
                    self._say(startup.waiting_for(late), deadline - now)
                    look_at = time.monotonic() + startup.LEAST_SHOWN_S
                if now > deadline:
                    raise NotReady(
                        self._too_late(startup.described(self._late()) or "Compose still creates its containers")
                    )
                time.sleep(startup.LOOK_S)
            if running.status != 0:
                said = running.end()
                not_up = startup.described(self._late())
                raise NotReady(f"the stack did not start: {said}{startup.remedy_of(said)}\n{not_up}")

    def _late(self) -> list[startup.Standing]:
        """Containers that are not up. Empty if Docker is too busy to report them."""
        with contextlib.suppress(OSError):  # a container that is being started cannot be inspected meanwhile
            return startup.late(self._by_service())
        return []

    def require_reachable(self) -> None:
        """Check that ports of the daemon are ports of this process.

        A socket may lead to a daemon of another machine or network namespace.
        """
        service = self._subject.prometheus
        host, port = self._compose.place.reach, self._compose.port_of[service]
        deadline = time.monotonic() + REACH_DEADLINE_S
        while not accepts_connections(host, port):
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the stack is up, but {service} accepts no connection at {self._compose.place.url(port)}, where Docker published it: "
                    f"the daemon at {docker_cli.docker_host()} publishes ports in another machine or network namespace; run "
                    "pytest there, or set DOCKER_HOST to the daemon's tcp:// address"
                )
            time.sleep(0.1)


def _testcontainers(
    start: ComposeStart, command: startup.Command, deadline: float, services: list[str] | None
) -> DockerCompose:
    """Adapt testcontainers' DockerCompose: project name, environment, time limits."""
    from testcontainers.compose import DockerCompose  # noqa: PLC0415 - 0.2 s, paid only by runs with experiments

    class Project(DockerCompose):
        @property
        def compose_command_property(self) -> list[str]:
            return list(command.words)

        def _run_command(self, cmd: str | list[str], context: str | None = None) -> subprocess.CompletedProcess[bytes]:  # noqa: ARG002 - the command has its folder
            words = [cmd] if isinstance(cmd, str) else cmd
            start.watch(startup.Running([*words, "--quiet-pull"], command), deadline)
            return subprocess.CompletedProcess(words, 0)

    return Project(context=str(command.folder), wait=False, services=services)
