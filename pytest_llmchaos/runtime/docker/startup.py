"""Images, start and readiness of a Compose project."""

from __future__ import annotations

import os
import re
import signal
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
from pytest_llmchaos.runtime.docker.events import NUMBER

if TYPE_CHECKING:
    from docker.models.containers import Container

    Show = Callable[[str, float | None], None]

# Pulls and builds have a deadline of their own: a large image takes many minutes.
FETCH_DEADLINE_S = 3600.0
LOOK_S = 0.15
LEAST_SHOWN_S = 1.0  # a start that ends sooner shows no progress
# The end of a long output that is read: a build writes megabytes.
_TAIL_BYTES = 64_000
_LAYER = re.compile(r"(?P<layer>[0-9a-f]{12}) (?P<state>[A-Z][a-z]+(?: [a-z]+)?)")
_LOG_LINES = 12
# Docker's words about a network of which there can be only one.
_TAKEN = ("Pool overlaps", "networks have same bridge name")
_SHOWN = 300
TIME_KEY = "llmchaos_startup_s"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A call of Compose for the project."""

    words: Sequence[str]
    env: Mapping[str, str]
    folder: Path


def fetch_images(command: Command, services: Mapping[str, Mapping[str, object]], show: Show) -> None:
    """Build and pull what the project lacks, before the start's deadline begins.

    Args:
        command: Compose's command.
        services: All services that start, as `docker compose config` prints them.
        show: Takes a line of progress and the seconds left.

    Raises:
        NotReady: An image cannot be pulled or built. Has the last lines of the reason.
    """
    pulled = {name: str(about["image"]) for name, about in services.items() if _is_to_pull(about)}
    for image in dict.fromkeys(pulled.values()):
        name = next(service for service, of in pulled.items() if of == image)
        try:
            _fetch(command, "pull", name, f"pulling {image} for {name}", show)
        except _Failed:
            # Compose builds what it cannot pull.
            if any(of == image and services[one].get("build") is None for one, of in pulled.items()):
                raise
    for name, about in services.items():
        if _is_to_build(about):
            _fetch(command, "build", name, f"building {name}", show)


class _Failed(NotReady):
    """A pull or build that ended with an error."""


def _is_to_build(about: Mapping[str, object]) -> bool:
    if about.get("build") is None:
        return False
    return about.get("pull_policy") == "build" or "image" not in about or not docker_cli.has_image(str(about["image"]))


def _is_to_pull(about: Mapping[str, object]) -> bool:
    policy = about.get("pull_policy")
    if "image" not in about or policy in ("never", "build"):
        return False
    return policy == "always" or not docker_cli.has_image(str(about["image"]))


def _fetch(command: Command, verb: str, service: str, doing: str, show: Show) -> None:
    with Running([*command.words, "--progress", "plain", verb, service], command) as running:
        deadline = time.monotonic() + FETCH_DEADLINE_S
        while running.goes_on():
            done = running.progress()
            show(f"{doing}: {done}" if done else doing, None)
            if time.monotonic() > deadline:
                raise NotReady(f"{doing} did not end within {FETCH_DEADLINE_S:g} s: {running.end()}")
            time.sleep(LOOK_S)
        if running.status != 0:
            raise _Failed(f"{doing} failed: {running.end()}")


class Running:
    """A command of Compose at work. Leaving the block ends it with its children."""

    def __init__(self, words: Sequence[str], command: Command) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            list(words),
            cwd=command.folder,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the docker client has Compose as a child
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)  # Compose then stops what it does
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
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
        """Lines that it wrote last."""
        self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, self._file.tell() - _TAIL_BYTES))
        text = redact(self._file.read().decode(errors="replace"))
        return [line.strip() for line in text.splitlines() if line.strip()]

    def progress(self) -> str:
        """Layers of a pull, else the newest line, shortened."""
        lines = self.lines()
        layers = {found["layer"]: found["state"] for line in lines if (found := _LAYER.match(line))}
        if layers:
            done = sum(state in ("Pull complete", "Already exists") for state in layers.values())
            return f"{done} of {len(layers)} layers"
        return "".join(lines[-1:])[:60]

    def end(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self.lines()[-_LOG_LINES:])[-1500:]


def remedy_of(said: str) -> str:
    """Return advice about a failed start, empty if Docker's words are enough."""
    if any(words in said for words in _TAKEN):
        return (
            "\nAnother network of this machine has this address range or bridge, such as that of your own stack: stop that one "
            "(`docker compose down`), or drop `ipam` and `driver_opts` from the network in a second file of llmchaos_compose"
        )
    return ""


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
    for name, container in named(found):
        why, is_over = _why_not_up(container, is_role=name.partition("#")[0] in roles)
        yield Standing(name=name, why=redact(why, secrets), is_over=is_over, container=container, secrets=secrets)


def named(found: Mapping[str, Sequence[Container]]) -> Iterator[tuple[str, Container]]:
    """Yield each container with its service, or `web#2` if there are several."""
    for service, containers in sorted(found.items()):
        for container in containers:
            number = container.labels.get(NUMBER, "1")
            yield service if len(containers) == 1 else f"{service}#{number}", container


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
    too_late: Callable[[str], str],
    show: Show,
) -> None:
    """Wait until every container runs and passes its health check, or has done its job.

    Args:
        look: Returns the containers by service.
        roles: Services that have to run.
        expected: Services that have at least one container.
        deadline: Latest time, on the monotonic clock.
        too_late: Returns the message at the deadline about what is not up.
        show: Takes a line of progress and the seconds left.

    Raises:
        NotReady: A container ended, or is not up at the deadline. Names it, with its
            health check and the end of its log. Docker may answer late until then.
    """
    begin = time.monotonic()
    while True:
        try:
            found = look()
        except OSError as error:  # Docker is busy and answers late
            if time.monotonic() > deadline:
                raise NotReady(too_late(f"Docker does not report its containers: {error}")) from None
            time.sleep(LOOK_S)
            continue
        missing = sorted(set(expected) - set(found))
        not_up = late(found, roles)
        require_none_over(not_up)
        if not not_up and not missing:
            return
        if time.monotonic() > deadline:
            raise NotReady(too_late(described(not_up) or f"{', '.join(missing)} has no container"))
        if time.monotonic() - begin > LEAST_SHOWN_S:
            show(waiting_for(not_up, missing), deadline - time.monotonic())
        time.sleep(LOOK_S)


def late(found: Mapping[str, Sequence[Container]], roles: Collection[str] = ()) -> list[Standing]:
    """Return the containers that are not up, see `standings`."""
    return [one for one in standings(found, roles) if one.why]


def require_none_over(late: Sequence[Standing]) -> None:
    """Raise NotReady if waiting for one of these containers cannot help."""
    over = [one for one in late if one.is_over]
    if over:
        raise NotReady(f"the stack did not start: {described(over)}")


def waiting_for(late: Sequence[Standing], missing: Sequence[str] = ()) -> str:
    """One line of progress."""
    shown = [f"{one.name} {one.why}" for one in late] + [f"{name} has no container" for name in missing]
    return f"waiting: {'; '.join(' '.join(line.split())[:90] for line in shown[:3])}" if shown else "starting"


def described(late: Sequence[Standing]) -> str:
    """Each container, why it is not up, and the end of its log."""
    return "; ".join(f"{one.name} {one.why}{_log_of(one)}" for one in late)


def _log_of(one: Standing) -> str:
    try:
        raw = one.container.logs(tail=_LOG_LINES)
    except OSError as error:  # a logging driver that cannot be read, removed since, or Docker is busy
        return f", and its log cannot be read: {getattr(error, 'explanation', None) or error}"
    said = redact(raw.decode(errors="replace"), one.secrets).strip()
    return f", its log ends with:\n{said[-1500:]}\n" if said else ", and its log is empty"
