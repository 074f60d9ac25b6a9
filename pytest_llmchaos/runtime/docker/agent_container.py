"""One container of the fault agent: its start, its control and its end."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact_bytes
from pytest_llmchaos.runtime.docker import docker_cli, sdk
from pytest_llmchaos.runtime.docker.members import PROJECT
from pytest_llmchaos.runtime.docker.sharing import AGENT

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.types import LogConfig

    from pytest_llmchaos.runtime.fault_agent import AgentAnswer

# Labels: the container whose connections the agent takes.
VICTIM = "llmchaos.agent.container"
_FOLDER = "/run/llmchaos"
_PROXY_USER = "65534:65534"
_ENDS_WITHIN_S = 5
_ANSWER_DEADLINE_S = 8.0  # more than the console itself waits for the agent
_CONSOLE = ["python3", "-m", "fault_agent.console"]
# Lines of an agent that are kept, as many as of other services.
_KEPT_LINES = 2000
_LOG = {"type": "json-file", "config": {"max-size": "5m", "max-file": "2"}}
_BROOM = ["python3", "-m", "fault_agent.parent", "removed"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Properties of all agents of a run.

    Attributes:
        image: The image.
        project: Compose project, by which a run's containers are removed.
        labels: Labels of the run.
        logs: Folder that keeps their logs.
    """

    image: str
    project: str
    labels: Mapping[str, str]
    logs: Path

    def create(
        self, client: DockerClient, victim: Container, target: str, command: list[str] | None = None
    ) -> Container:
        """Create an agent in the victim's network namespace.

        Its first process redirects ports and may change users, and nothing else.
        """
        name = f"{self.project}-agent-{target.replace('#', '-')}"
        return client.containers.create(
            self.image,
            command=command,
            name=name if command is None else f"{name}-removal",
            labels={**self.labels, PROJECT: self.project, AGENT: target, VICTIM: str(victim.id)},
            environment={"LAB_TARGET": target, "LAB_CONTROL": f"{_FOLDER}/control", "LAB_PORTS": ""},
            network_mode=f"container:{victim.id}",
            user="0:0",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "SETUID", "SETGID"],
            security_opt=["no-new-privileges:true"],
            tmpfs={_FOLDER: "size=1m,mode=0700,uid=65534,gid=65534"},
            mem_limit="256m",
            memswap_limit="256m",
            pids_limit=64,
            log_config=cast("LogConfig", _LOG),
        )


def ask(agent: Container, asked: Mapping[str, object]) -> AgentAnswer:
    """Send one line to an agent's control socket, which is on no network.

    Raises:
        NotReady: The agent does not answer.
    """
    try:
        done = agent.exec_run([*_CONSOLE, json.dumps(asked)], user=_PROXY_USER, demux=True)
    except sdk.errors.APIError as error:
        raise NotReady(f"the fault agent {agent.name} does not run: {error.explanation or error}") from None
    out, complaint = (
        piece.decode(errors="replace").strip() if isinstance(piece, bytes) else "" for piece in done.output
    )
    try:
        answer: AgentAnswer = json.loads(out)
    except ValueError:
        raise NotReady(
            f"the fault agent {agent.name} did not answer (exit status {done.exit_code}): {complaint or out:.300}"
        ) from None
    return answer


class Console:
    """A command in an agent's container that passes questions on, one at a time.

    It stays, because the start of a command takes a tenth of a second, and faults at a
    message must not be that late.
    """

    def __init__(self, daemon: docker_cli.Daemon | None) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, agent: Container, asked: Mapping[str, object]) -> AgentAnswer:
        """Send one line and return the answer. Starts the command if it does not run.

        Raises:
            NotReady: The agent does not answer.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = self._open(agent)
            try:
                said = self._pass_on(self._process, json.dumps(asked))
                answer: AgentAnswer = json.loads(said)
            except (OSError, ValueError) as error:
                why = self._why() or error
                raise NotReady(f"the fault agent {agent.name} did not answer `{asked.get('do')}`: {why}") from None
            return answer

    def _open(self, agent: Container) -> subprocess.Popen[str]:
        command = ["docker", "exec", "--interactive", "--user", _PROXY_USER, str(agent.id), *_CONSOLE]
        return subprocess.Popen(
            command,
            env=docker_cli.environment(of=self._daemon),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest
        )

    @staticmethod
    def _pass_on(process: subprocess.Popen[str], line: str) -> str:
        if process.stdin is None or process.stdout is None:
            raise OSError("it has no pipes")
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _ANSWER_DEADLINE_S)
        if not ready:
            raise OSError(f"no answer within {_ANSWER_DEADLINE_S:g} s")
        said = process.stdout.readline()
        if not said:
            raise OSError("the command ended")
        return said

    def _why(self) -> str:
        """End the command, and return the end of its complaint."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        _, complaint = process.communicate()
        return complaint.strip()[-300:]

    def close(self) -> None:
        """End the command."""
        self._why()


def end(client: DockerClient, kind: Kind, agent: Container) -> None:
    """End an agent, check that its redirect is gone, and remove it.

    Raises:
        NotReady: Neither the agent nor the kernel confirms that.
    """
    try:
        agent.kill(signal="SIGTERM")
    except sdk.errors.NotFound:
        return
    except sdk.errors.APIError:  # it has ended
        pass
    status, said = _end_of(agent, kind.logs)
    if status != 0 or '"removed"' not in said:
        _sweep(client, kind, agent)
    remove(agent)


def _end_of(agent: Container, logs: Path) -> tuple[int, str]:
    """Exit status, and the end of the log. Kills an agent that does not end."""
    try:
        status = int(agent.wait(timeout=_ENDS_WITHIN_S)["StatusCode"])
    except (OSError, sdk.errors.APIError):  # OSError: it did not end in time
        keep_log(agent, logs)
        remove(agent)
        return -1, ""
    keep_log(agent, logs)
    return status, log_of(agent)


def _sweep(client: DockerClient, kind: Kind, agent: Container) -> None:
    """Remove the redirect of an agent that died, if the kernel has not."""
    victim = running(client, str(agent.labels.get(VICTIM)))
    if victim is None:
        return  # its network namespace ended with it
    broom = kind.create(client, victim, str(agent.labels.get(AGENT)), _BROOM)
    try:
        broom.start()
        status, said = _end_of(broom, kind.logs)
    finally:
        remove(broom)
    if status != 0:
        raise NotReady(
            f"the redirect of the fault agent at {victim.name} may still be there (status {status}): {said[-300:]}; "
            f"remove it with `docker restart {victim.name}`"
        )


def running(client: DockerClient, id_: str) -> Container | None:
    """Return the container if it runs."""
    try:
        found = client.containers.get(id_)
    except sdk.errors.NotFound:
        return None
    return found if found.attrs["State"]["Running"] else None


def log_of(agent: Container) -> str:
    """The end of an agent's log, "" if Docker cannot read it."""
    try:
        return agent.logs(tail=5).decode(errors="replace").strip()
    except sdk.errors.APIError:
        return ""


def keep_log(agent: Container, folder: Path) -> None:
    """Append an agent's log to the file of its target.

    Each load has agents of its own, and so has each start of a container.

    Args:
        agent: The agent, before it is removed.
        folder: Folder of the run's logs. It is created in a folder that exists.
    """
    with contextlib.suppress(OSError, sdk.errors.APIError):  # removed since, or a disk is full
        if not (said := agent.logs(tail=_KEPT_LINES)):
            return
        folder.mkdir(exist_ok=True)
        with (folder / f"fault-agent-{agent.labels.get(AGENT)}.txt").open("ab") as file:
            file.write(redact_bytes(said))


def remove(agent: Container) -> None:
    """Remove a container at once."""
    with contextlib.suppress(sdk.errors.APIError):  # removed, or being removed
        agent.remove(force=True, v=True)
