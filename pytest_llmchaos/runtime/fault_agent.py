"""The ability `proxy`: faults through the fault agent in the way of a service."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, cast

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.runtime.leased_faults import ListedFault, read_fault, read_faults

if TYPE_CHECKING:
    from pytest_llmchaos.model import LeasedFaults, LeasedFaultState, Undo, UndoOp


class AgentFaults(TypedDict):
    """The agent's list of its faults."""

    at_unix_s: float
    faults: list[ListedFault]


class AgentProtocols(TypedDict):
    """Protocols of the service's ports: `HTTP/1`, `HTTP/2`, `TLS`, or "" if unknown."""

    protocols: dict[str, str]


class AgentAnswer(TypedDict, total=False):
    """One line of the agent's control socket.

    `ok` is all faults after `list`, the ports after `protocols`, and one fault's state
    after other calls.
    """

    ok: ListedFault | AgentFaults | AgentProtocols
    error: str


class AgentAbility:
    """Mixin for runtimes, which supply the way to the agents and to their controls.

    Attributes:
        longest_wait_s: Seconds for which one call may wait for an answer.
    """

    longest_wait_s = 2.0

    def _ask_agent(self, service: str, asked: Mapping[str, object]) -> AgentAnswer | None:
        """Send one line to the agent of a service and return its answer as it came.

        None if the service has no agent, or does not exist. Raises NotReady if the
        agent does not answer within its deadline.
        """
        raise NotImplementedError

    def wire_arm(self, services: Sequence[str]) -> None:
        raise NotImplementedError

    def wire_disarm(self) -> None:
        raise NotImplementedError

    def wire_open(self, service: str) -> str | None:
        raise NotImplementedError

    @property
    def agent_abilities(self) -> frozenset[str]:
        """Return `proxy` if this runtime can put agents in the way. By default none."""
        return frozenset()

    @property
    def agent_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"wire_end": self.undo_wire} if "proxy" in self.agent_abilities else {}

    def wire_start(self, service: str, kind: str, *, lease_s: float, seed: int, **options: object) -> str:
        """Start a fault for at most `lease_s` seconds and return its id."""
        fault = {"kind": kind, "lease_s": lease_s, "seed": seed, **options}
        started = self._answer(service, {"do": "start", "fault": fault})
        if started is None:
            raise NotReady(f"{service} has no fault agent in its way: call wire_arm() before the load starts")
        return cast("ListedFault", started)["id"]

    def _ports_of(self, service: str) -> Sequence[int]:
        """Ports of a service that its agent is in the way of."""
        raise NotImplementedError

    def wire_protocols(self, service: str) -> Mapping[int, str]:
        """Return the protocol of each port, by what the service answers the agent."""
        answer = self._answer(service, {"do": "protocols", "ports": list(self._ports_of(service))})
        if answer is None:
            return {}
        return {int(port): protocol for port, protocol in cast("AgentProtocols", answer)["protocols"].items()}

    def wire_faults(self, service: str) -> LeasedFaults | None:
        """List the agent's faults. Without an agent the list is empty.

        None if the agent does not answer.
        """
        try:
            return read_faults(self._listed(service), time.time())
        except NotReady:
            return None

    def wire_end(self, service: str, id_: str) -> None:
        """End one fault. Does nothing if it has ended."""
        self._answer(service, {"do": "end", "id": id_})

    def wire_wait(self, service: str, id_: str, deadline_s: float) -> LeasedFaultState | None:
        """Wait until a fault has hit its first request, and return its state.

        At the deadline the state shows no hit. None without an agent.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            left_s = min(self.longest_wait_s, deadline - time.monotonic())
            answer = self._answer(service, {"do": "wait", "id": id_, "deadline_s": max(0.01, left_s)})
            if answer is None:
                return None
            state = read_fault(cast("ListedFault", answer), time.time())
            if state.hit_unix_s is not None or not state.active or time.monotonic() > deadline:
                return state

    def undo_wire(self, undo: Undo) -> None:
        """End all active faults of one kind.

        Does nothing if the service or its agent is gone. Raises HealFailed while the
        agent does not answer, and for an undo without a kind.
        """
        kind = undo.args.get("kind")
        if not isinstance(kind, str):
            raise HealFailed(
                f"{undo.op} {undo.service} must name a kind of fault, got {dict(undo.args)!r:.80}: revert it by hand"
            )
        try:
            for fault in self._listed(undo.service):
                if fault["kind"] == kind and fault["state"] == "active":
                    self.wire_end(undo.service, fault["id"])
        except NotReady as error:
            raise HealFailed(f"cannot end {kind} on {undo.service}: {error}; run `llmchaos heal`") from None

    def _listed(self, service: str) -> list[ListedFault]:
        listed = self._answer(service, {"do": "list"})
        return [] if listed is None else cast("AgentFaults", listed)["faults"]

    def _answer(self, service: str, asked: Mapping[str, object]) -> ListedFault | AgentFaults | AgentProtocols | None:
        """Return the part `ok` of the agent's answer, or None without an agent.

        Raises NotReady if the agent does not answer, or refuses.
        """
        answer = self._ask_agent(service, asked)
        if answer is None:
            return None
        if "ok" not in answer:
            why = answer.get("error", f"got {answer!r:.80}")
            raise NotReady(f"the fault agent of {service} refused `{asked['do']}`: {why}")
        return answer["ok"]
