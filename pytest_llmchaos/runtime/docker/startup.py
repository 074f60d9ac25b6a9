"""Images, start and readiness of a Compose project."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact, secrets_of
from pytest_llmchaos.runtime.docker import docker_cli

if TYPE_CHECKING:
    from docker.models.containers import Container

    Show = Callable[[str, float | None], None]

# Pulls and builds have a deadline of their own: a large image takes many minutes.
FETCH_DEADLINE_S = 3600.0
LOOK_S = 0.15
LEAST_SHOWN_S = 1.0  # a start that ends sooner shows no progress
_LOG_LINES = 12
_SHOWN = 300
_TIME_KEY = "llmchaos_startup_s"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A call of Compose for the project."""

    words: Sequence[str]
    env: Mapping[str, str]
    folder: Path


def fetch_images(command: Command, show: Show) -> None:
    """Build and pull what the project lacks, before the start's deadline begins.

    Args:
        command: Compose's command.
        show: Takes a line of progress and the seconds left.

    Raises:
        NotReady: An image cannot be pulled or built. Has the last lines of the reason.
    """
    said = docker_cli.run([*command.words, "config", "--format", "json"], env=command.env, folder=command.folder)
    services = json.loads(said)["services"]
    built = [name for name, about in services.items() if _is_to_build(about)]
    pulled = {name: str(about["image"]) for name, about in services.items() if _is_to_pull(about)}
    for name in built:
        _fetch([*command.words, "build", name], command, f"building {name}", show)
    for image in dict.fromkeys(pulled.values()):
        name = next(service for service, of in pulled.items() if of == image)
        _fetch([*command.words, "pull", name], command, f"pulling {image} for {name}", show)


def _is_to_build(about: Mapping[str, object]) -> bool:
    if about.get("build") is None:
        return False
    return about.get("pull_policy") == "build" or "image" not in about or not _is_here(str(about["image"]))


def _is_to_pull(about: Mapping[str, object]) -> bool:
    policy = about.get("pull_policy")
    if "image" not in about or about.get("build") is not None or policy in ("never", "build"):
        return False
    return policy == "always" or not _is_here(str(about["image"]))


def _is_here(image: str) -> bool:
    try:
        docker_cli.run(["docker", "image", "inspect", "--format", "{{.Id}}", image])
    except NotReady:
        return False
    return True


def _fetch(words: Sequence[str], command: Command, doing: str, show: Show) -> None:
    with Running([*words, "--progress", "plain"] if "build" in words else words, command) as running:
        deadline = time.monotonic() + FETCH_DEADLINE_S
        while running.goes_on():
            show(f"{doing}: {running.last_line()}" if running.last_line() else doing, None)
            if time.monotonic() > deadline:
                raise NotReady(f"{doing} did not end within {FETCH_DEADLINE_S:g} s: {running.end()}")
            time.sleep(LOOK_S)
        if running.status != 0:
            raise NotReady(f"{doing} failed: {running.end()}")


class Running:
    """A command of Compose at work. Leaving the block ends it."""

    def __init__(self, words: Sequence[str], command: Command) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            list(words),
            cwd=command.folder,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()  # Compose then stops what it does
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._file.close()

    @property
    def status(self) -> int | None:
        """Exit status. None while it runs."""
        return self._process.returncode

    def goes_on(self) -> bool:
        """True until the command has ended."""
        return self._process.poll() is None

    def lines(self) -> list[str]:
        """Lines that it wrote so far."""
        self._file.seek(0)
        text = redact(self._file.read().decode(errors="replace"))
        return [line.strip() for line in text.splitlines() if line.strip()]

    def last_line(self) -> str:
        """Its newest line, shortened."""
        return "".join(self.lines()[-1:])[:60]

    def end(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self.lines()[-_LOG_LINES:])[-1500:]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One container during the start.

    Attributes:
        name: Service, with the container's number if there are several.
        why: Why it is not up yet. "" if it is.
        is_over: True if waiting cannot help.
        container: The container.
        secrets: Values that its log may hold and that are not shown.
    """

    name: str
    why: str
    is_over: bool
    container: Container
    secrets: frozenset[str] = frozenset()


def standings(found: Mapping[str, Sequence[Container]], roles: Collection[str]) -> Iterator[Standing]:
    """Yield the standing of each container.

    Args:
        found: Containers by service.
        roles: Services that have to run. Others may end with status 0.
    """
    secrets = secrets_in(chain.from_iterable(found.values()))
    for service, containers in sorted(found.items()):
        for container in containers:
            number = container.labels.get("com.docker.compose.container-number", "1")
            name = service if len(containers) == 1 else f"{service}#{number}"
            why, is_over = _why_not_up(container, is_role=service in roles)
            yield Standing(name=name, why=redact(why, secrets), is_over=is_over, container=container, secrets=secrets)


def secrets_in(containers: Iterable[Container]) -> frozenset[str]:
    """Secret values of all containers: each may log another's."""
    variables = (one.attrs["Config"].get("Env") or [] for one in containers)
    pairs = (entry.partition("=") for one in variables for entry in one)
    return frozenset().union(*(secrets_of({name: value}) for name, _, value in pairs))


def _why_not_up(container: Container, *, is_role: bool) -> tuple[str, bool]:
    state = container.attrs["State"]
    status = str(state["Status"])
    restarts = int(container.attrs.get("RestartCount", 0))
    if status == "exited":
        code = int(state["ExitCode"])
        if code == 0 and not is_role:
            return "", False
        policy = str(container.attrs["HostConfig"]["RestartPolicy"]["Name"] or "no")
        again = f" after {restarts} restarts" if restarts else ""
        return f"ended with status {code}{again}", policy == "no" or (policy == "on-failure" and code == 0)
    if status == "restarting":
        return f"restarts for the {restarts}. time, after status {state['ExitCode']}", False
    if status != "running":
        return f"is {status}", status in ("dead", "removing")
    health = state.get("Health") or {}
    if health.get("Status") in (None, "", "none", "healthy"):
        return "", False
    tried = [str(one.get("Output") or f"status {one.get('ExitCode')}").strip() for one in health.get("Log") or []]
    last = f": {tried[-1][-_SHOWN:]}" if tried else ""
    return f"is {health['Status']} by its health check{last}", False


def wait_until_up(
    look: Callable[[], Mapping[str, Sequence[Container]]],
    *,
    roles: Collection[str],
    expected: Collection[str],
    deadline: float,
    startup_s: float,
    show: Show,
) -> None:
    """Wait until every container runs and passes its health check, or has done its job.

    Args:
        look: Returns the containers by service.
        roles: Services that have to run.
        expected: Services that have at least one container.
        deadline: Latest time, on the monotonic clock.
        startup_s: Seconds that the start may take, for the message.
        show: Takes a line of progress and the seconds left.

    Raises:
        NotReady: A container ended, or is not up at the deadline. Names it, with its
            health check and the end of its log.
    """
    begin = time.monotonic()
    while True:
        found = look()
        missing = sorted(set(expected) - set(found))
        all_of_them = list(standings(found, roles))
        late = [one for one in all_of_them if one.why]
        over = [one for one in late if one.is_over]
        if over:
            raise NotReady(f"the stack did not start: {told(over)}")
        if not late and not missing:
            return
        if time.monotonic() > deadline:
            raise NotReady(too_late(late, startup_s, missing))
        if time.monotonic() - begin > LEAST_SHOWN_S:
            show(waiting_for(late, missing), deadline - time.monotonic())
        time.sleep(LOOK_S)


def waiting_for(late: Sequence[Standing], missing: Sequence[str] = ()) -> str:
    """One line of progress."""
    shown = [f"{one.name} {one.why}" for one in late] + [f"{name} has no container" for name in missing]
    return f"waiting: {'; '.join(' '.join(line.split())[:90] for line in shown[:3])}" if shown else "starting"


def too_late(late: Sequence[Standing], startup_s: float, missing: Sequence[str] = ()) -> str:
    """The message at the deadline."""
    words = told(late) if late else f"{', '.join(missing)} has no container" if missing else "Compose still creates it"
    return (
        f"the stack is not up after {startup_s:g} s: {words}\n"
        f"Give it longer with {_TIME_KEY} in the ini file, such as {_TIME_KEY} = {5 * startup_s:g}"
    )


def told(late: Sequence[Standing]) -> str:
    """Each container, why it is not up, and the end of its log."""
    return "; ".join(f"{one.name} {one.why}{_log_of(one)}" for one in late)


def _log_of(one: Standing) -> str:
    said = redact(one.container.logs(tail=_LOG_LINES).decode(errors="replace"), one.secrets).strip()
    return f", its log ends with:\n{said[-1500:]}\n" if said else ", and its log is empty"
