"""The place of a fault agent at one container, held while the container lives."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import agent_container, docker_cli
from pytest_llmchaos.runtime.docker.agent_memory import Memory

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from pytest_llmchaos.runtime.fault_agent import AgentAnswer

LOOK_S = 0.2
# While the container runs, its agent may be away for so long. After that its faults
# have ended early.
LOST_S = 5.0
_ARMED_AGAIN_S = 5.0
_POLL_S = 0.05
# Verbs whose answer takes its time.
_SLOW = frozenset({"wait", "protocols"})


class Post:
    """A thread that keeps an agent at one container of a service.

    A restart gives the container a new network namespace. The thread then starts
    another agent there, with the faults that are in force.

    Attributes:
        target: Name of the service, with the container's number if there are several.
        ports: Ports that are redirected.
    """

    def __init__(
        self,
        target: str,
        kind: agent_container.Kind,
        connect: Callable[[], DockerClient],
        find: Callable[[DockerClient], Container | None],
        daemon: docker_cli.Daemon | None,
    ) -> None:
        self.target = target
        self.ports: tuple[int, ...] = ()
        self._kind, self._connect, self._find = kind, connect, find
        self._memory = Memory()
        self._console, self._waiting = agent_container.Console(daemon), agent_container.Console(daemon)
        self._agent: Container | None = None
        self._armed = threading.Event()
        self._leaving = threading.Event()
        self._lock = threading.RLock()
        self._error = ""
        self._is_down = False
        self._started = self._armed_at = ""  # starts of the container: the last seen, and the agent's
        self._away_s: float | None = None  # monotonic time since which no agent is there
        self._thread = threading.Thread(target=self._stand, name=f"llmchaos-agent-{target}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, within_s: float) -> None:
        """Wait until the agent is in the way. Raises NotReady if it is late."""
        if not self._armed.wait(within_s):
            why = self._error or "it did not report that it is ready"
            raise NotReady(f"the fault agent did not enter the way of {self.target} within {within_s:g} s: {why}")

    def wait_at(self, started: str, within_s: float) -> None:
        """Wait until an agent is at the start of the container that has this time.

        It has the service's ports then, if those open in time. Raises NotReady if it is
        late.
        """
        deadline = time.monotonic() + within_s
        while not (self._armed.is_set() and self._armed_at == started):
            if time.monotonic() > deadline:
                why = self._error or "it did not report that it is ready"
                raise NotReady(
                    f"after a restart of {self.target} no fault agent entered its way within {within_s:g} s: {why}; see its log"
                )
            time.sleep(_POLL_S)
        # It may stand there before the service listens, which need not ever.
        while not self.ports and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def ask(self, asked: Mapping[str, object]) -> AgentAnswer:
        """Return the agent's answer, from memory while the container is down.

        Raises:
            NotReady: The agent does not answer, or a fault cannot work here.
        """
        if not self._is_down:
            self._armed.wait(_ARMED_AGAIN_S)
        with self._lock:
            if self._agent is None or not self._armed.is_set():
                if self._was_lost():
                    self._memory.end_all()
                answer = self._memory.without_agent(asked)
                if answer is None:
                    raise NotReady(f"{self.target} has no fault agent now: it is down or starts; {self._error}")
                return answer
            if asked.get("do") == "start":
                self._require_ports()
            if asked.get("do") not in _SLOW:
                return self._memory.ask(self._send, asked)
            agent = self._agent
        # Other threads end faults meanwhile.
        return self._memory.ask(lambda sent: self._waiting.ask(agent, sent), asked)

    def _require_ports(self) -> None:
        if not self.ports:
            raise NotReady(
                f"{self.target} listens on no TCP port that other containers reach, so no connection can be broken: "
                "wait until it listens, or choose another target"
            )

    def _send(self, asked: Mapping[str, object]) -> AgentAnswer:
        if self._agent is None:
            raise NotReady(f"{self.target} has no fault agent now: wait until its container runs again")
        return self._console.ask(self._agent, asked)

    def _was_lost(self) -> bool:
        """True if the agent stays away from a container that runs."""
        if self._away_s is None or self._is_down or self._started != self._armed_at:
            return False
        return time.monotonic() - self._away_s > LOST_S

    def _leave(self) -> None:
        self._armed.clear()
        if self._away_s is None and self._armed_at:
            self._away_s = time.monotonic()

    def stand_down(self) -> None:
        """Start no further agent."""
        self._leaving.set()
        with self._lock:
            self._armed.clear()

    def join(self) -> None:
        """Wait for the thread, after its agent has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout=5)
        self._close_consoles()

    def _close_consoles(self) -> None:
        for one in (self._console, self._waiting):
            one.close()

    def _stand(self) -> None:
        client = self._connect()
        while not self._leaving.is_set():
            try:
                agent = self._enter(client)
                if agent is not None:
                    self._follow(client, agent)
            except Exception as error:  # noqa: BLE001 - Docker may restart, or the container ends during the start
                self._error = str(getattr(error, "explanation", None) or error)
            self._clear()
            self._leaving.wait(LOOK_S)
        client.close()

    def _enter(self, client: DockerClient) -> Container | None:
        """Start an agent. None while the container does not run."""
        victim = self._find(client)
        self._is_down = victim is None
        if victim is None:
            return None
        self._started = str(victim.attrs["State"]["StartedAt"])
        with self._lock:
            if self._leaving.is_set():
                return None
            agent = self._kind.create(client, victim, self.target)
            self._agent = agent
        agent.start()
        return agent

    def _follow(self, client: DockerClient, agent: Container) -> None:
        """Read the agent's log until the agent ends."""
        for line in _lines(agent):
            event = line.get("event")
            if event in ("armed", "ports"):
                ports = line.get("ports")
                self.ports = tuple(map(int, ports)) if isinstance(ports, list) else ()
            if event == "armed":
                self._report_for_duty()
            elif event in ("proxy_ended", "proxy_silent", "proxy_hangs"):
                self._leave()
                self._close_consoles()
            elif event == "failed":
                self._error = str(line.get("why"))
        if not self._leaving.is_set() and agent_container.running(client, str(agent.id)) is None:
            self._error = self._error or f"the agent ended: {agent_container.log_of(agent)[-300:]}"

    def _report_for_duty(self) -> None:
        with self._lock:
            if self._was_lost():
                self._memory.end_all()
            self._away_s, self._armed_at = None, self._started
            refused = self._memory.put_back(self._send)
            self._error = f"after its restart the agent refused {'; '.join(refused)}" if refused else ""
            if not self._leaving.is_set():
                self._armed.set()

    def _clear(self) -> None:
        """Forget an agent that ended. At the end of the run its container stays."""
        with self._lock:
            self._leave()
            self._close_consoles()
            if self._agent is not None and not self._leaving.is_set():
                agent_container.keep_log(self._agent, self._kind.logs)
                agent_container.remove(self._agent)
                self._agent = None


def _lines(agent: Container) -> Iterator[dict[str, object]]:
    """Yield lines of the log until the agent ends."""
    rest = b""
    for piece in agent.logs(stream=True, follow=True):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found
