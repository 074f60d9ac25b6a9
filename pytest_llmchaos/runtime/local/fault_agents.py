"""Fault agents, each between one service and its callers from the stack's start."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.host.ports import accepts_connections, loopback
from pytest_llmchaos.model import EventGap
from pytest_llmchaos.runtime.fault_agent import AgentAbility
from pytest_llmchaos.runtime.json_log import at_of

if TYPE_CHECKING:
    from pytest_llmchaos.runtime.fault_agent import AgentAnswer
    from pytest_llmchaos.runtime.local.compose_reader import Addresses
    from pytest_llmchaos.runtime.local.control import Control
    from pytest_llmchaos.runtime.local.daemon import Daemon

# Seconds in which an agent must answer, also after it was started again.
ANSWER_DEADLINE_S = 10.0
_CALL_DEADLINE_S = 5.0
_LONGEST_ANSWER = 1 << 20  # bytes
_PREFIX = "fault-agent-"


def agent_name(service: str) -> str:
    """Name of the process in the way of a service."""
    return f"{_PREFIX}{service}"


def socket_name(service: str) -> str:
    """Name of an agent's control socket in the run's folder."""
    return f"{_PREFIX}{service}.sock"


def ask(folder: Path, name: str, asked: Mapping[str, object]) -> AgentAnswer:
    """Send one line to a control socket and return its answer.

    The socket is reached through its open folder, because the kernel accepts no socket
    path above 107 bytes. Raises OSError or ValueError without an answer.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CALL_DEADLINE_S)
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
            connection.sendall(json.dumps(asked).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = lines.readline(_LONGEST_ANSWER)
    finally:
        os.close(descriptor)
    read: object = json.loads(answer)
    if not isinstance(read, dict):
        raise ValueError(f"expected an object, got {answer[:80]!r}")
    return cast("AgentAnswer", read)


def death_gaps(lines: Sequence[Mapping[str, object]], services: Collection[str], until_unix_s: float) -> list[EventGap]:
    """Return the time from each death of an agent until supervisord started it again.

    Requests broke off then for a reason outside the system.

    Args:
        lines: supervisord's events, oldest first.
        services: services with an agent.
        until_unix_s: end of the last gap if its agent was not started again.
    """
    names = {agent_name(service): service for service in services}
    dead: dict[str, Mapping[str, object]] = {}
    gaps: list[tuple[Mapping[str, object], float]] = []
    for line in lines:
        name = str(line["service"])
        if name in names and line["action"] == "die":
            dead[name] = line
        elif name in dead and line["action"] == "start":
            gaps.append((dead.pop(name), at_of(line)))
    gaps += [(line, until_unix_s) for line in dead.values()]
    return [
        EventGap(
            from_unix_s=at_of(line),
            to_unix_s=to_unix_s,
            why=f"the fault agent of {names[str(line['service'])]} ended, which broke off the requests in its way",
        )
        for line, to_unix_s in gaps
    ]


class WireFaults(AgentAbility):
    """Mixin for the agents' part in the local runtime.

    An agent needs a second port for its service, so it enters the way at the start or
    never. supervisord starts a dead agent again, without its faults.
    """

    _work: Path
    _control: Control
    _daemon: Daemon
    _wired: Mapping[str, int]

    @property
    def agent_abilities(self) -> frozenset[str]:
        return frozenset({"proxy"})

    def _reserve_addresses(self) -> Addresses:
        raise NotImplementedError

    def _served_port(self, service: str) -> int:
        """Port of a service's health check, in the compose file's numbers."""
        raise NotImplementedError

    def _log_end(self, service: str) -> str:
        raise NotImplementedError

    def _ask_agent(self, service: str, asked: Mapping[str, object]) -> AgentAnswer | None:
        if service not in self._wired or not self._daemon.pid:
            return None
        try:
            return ask(self._work, socket_name(service), asked)
        except (OSError, ValueError) as error:
            raise NotReady(
                f"the fault agent of {service} did not answer `{asked['do']}`: {type(error).__name__}: {error}; "
                f"see {agent_name(service)}.txt in the report's folder logs/"
            ) from None

    def wire_arm(self, services: Sequence[str]) -> None:
        """Check that an agent stands in the way of each service, and answers.

        Raises:
            NotReady: one does not. Has the way to put it there.
        """
        missing = [service for service in services if service not in self._wired]
        if missing:
            raise NotReady(
                f"no fault agent stands in the way of {', '.join(missing)}, and in the local runtime it can only enter when the "
                f"stack starts: add `@pytest.mark.llmchaos_wire({', '.join(map(repr, missing))})` to the test"
            )
        self._require_agents(services)

    def wire_disarm(self) -> None:
        """Check that no fault is in force. The agents stay until the stack ends.

        Raises:
            NotReady: an agent does not answer.
            HealFailed: a fault is in force.
        """
        if not self._daemon.pid:
            return
        self._require_agents(tuple(self._wired))
        left = [
            f"{fault['kind']} on {service} ({fault['left_s']:.0f} s of its lease left)"
            for service in self._wired
            for fault in self._listed(service)
            if fault["state"] == "active"
        ]
        if left:
            raise HealFailed(
                f"{', '.join(left)} is still in force, though the load is over and its faults were reverted: end the session, "
                "or wait for the end of the lease"
            )

    def _ports_of(self, service: str) -> Sequence[int]:
        return [self._served_port(service)]

    def wire_protocols(self, service: str) -> Mapping[int, str]:
        """Return the protocol of the only port, by its number in the compose file."""
        found = super().wire_protocols(service).values()
        return dict(zip(self._ports_of(service), found, strict=False))

    def wire_open(self, service: str) -> str | None:
        port = self._reserve_addresses().port(service, self._served_port(service))
        if not accepts_connections(loopback(), port):
            return None
        return f"{self._reserve_addresses().of(service, self._served_port(service))} accepts a connection from outside"

    def _require_agents(self, services: Sequence[str], deadline_s: float = ANSWER_DEADLINE_S) -> None:
        """Wait until these agents answer. Raises NotReady with the end of a log."""
        deadline = time.monotonic() + deadline_s
        for service in services:
            while True:
                try:
                    self._listed(service)
                    break
                except NotReady as error:
                    if time.monotonic() > deadline:
                        raise NotReady(
                            f"{error}. It must answer within {deadline_s:g} s, and its log ends:\n{self._log_end(agent_name(service))}"
                        ) from None
                time.sleep(0.02)
