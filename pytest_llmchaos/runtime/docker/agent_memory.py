"""Faults of one agent, for the time when another process takes its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from pytest_llmchaos.runtime.fault_agent import AgentAnswer, AgentFaults
from pytest_llmchaos.runtime.leased_faults import ListedFault

# Sends one line to the agent's control socket and returns the answer.
Send = Callable[[Mapping[str, object]], AgentAnswer]
# A message that is held belongs to one moment of one agent.
_OF_ONE_AGENT = frozenset({"hold"})
# A lease that is shorter is over before a fault is back.
_SHORTEST_S = 0.05


@dataclass(kw_only=True)
class _Kept:
    """One fault.

    Attributes:
        fault: Its kind and options.
        ends_s: End of its lease, on the monotonic clock.
        inner: Its id in the agent of now.
        state: The agent's last description of it.
        before: Its counters in former agents.
    """

    fault: Mapping[str, object]
    ends_s: float
    inner: str
    state: ListedFault
    before: dict[str, float] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends_s - time.monotonic()) if self.state["state"] == "active" else 0.0


class Memory:
    """Passes questions on to an agent, and puts its faults into the next one.

    A fault keeps its id and its counts.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def ask(self, send: Send, asked: Mapping[str, object]) -> AgentAnswer:
        """Return the agent's answer, with the ids of the first agent."""
        if asked.get("do") == "start":
            return self._start(send, asked)
        kept = self._kept.get(str(asked.get("id")))
        if asked.get("do") in ("end", "wait") and kept is not None:
            if kept.state["state"] != "active":
                return {"ok": kept.state}
            return self._end(send, kept) if asked["do"] == "end" else self._wait(send, kept, asked)
        answer = send(asked)
        if asked.get("do") == "list" and "ok" in answer:
            return self._listed(cast("AgentFaults", answer["ok"]))
        return answer

    def without_agent(self, asked: Mapping[str, object]) -> AgentAnswer | None:
        """Return the answer while no agent is there. None if it needs one."""
        kept = self._kept.get(str(asked.get("id")))
        if kept is not None and asked.get("do") in ("end", "wait"):
            return _ended(kept) if asked["do"] == "end" else {"ok": kept.state}
        return self._listed({"at_unix_s": time.time(), "faults": []}) if asked.get("do") == "list" else None

    def end_all(self) -> None:
        """Take all faults for ended: for too long no agent performed them."""
        for kept in self._kept.values():
            if kept.left_s:
                _ended(kept)

    def put_back(self, send: Send) -> list[str]:
        """Start faults whose lease goes on in a new agent. Return what it refused."""
        refused = []
        for kept in self._kept.values():
            left_s = kept.left_s
            if left_s < _SHORTEST_S:
                continue
            if kept.state["kind"] in _OF_ONE_AGENT:
                _ended(kept)
                continue
            kept.before = dict(kept.state["counters"])
            answer = send({"do": "start", "fault": {**kept.fault, "lease_s": left_s}})
            if "ok" in answer:
                state = cast("ListedFault", answer["ok"])
                kept.inner = state["id"]
                self._take(kept, state)
            else:
                _ended(kept)
                refused.append(f"{kept.state['kind']}: {answer.get('error', '')}")
        return refused

    def _start(self, send: Send, asked: Mapping[str, object]) -> AgentAnswer:
        answer = send(asked)
        if "ok" not in answer:
            return answer
        state = cast("ListedFault", answer["ok"])
        # Each agent counts its ids from the beginning.
        id_ = state["id"] if state["id"] not in self._kept else f"{state['id']}-{len(self._kept) + 1}"
        fault = cast("Mapping[str, object]", asked["fault"])
        ends_s = time.monotonic() + float(state["lease_s"])
        self._kept[id_] = _Kept(fault=fault, ends_s=ends_s, inner=state["id"], state={**state, "id": id_})
        return {"ok": self._kept[id_].state}

    def _end(self, send: Send, kept: _Kept) -> AgentAnswer:
        answer = send({"do": "end", "id": kept.inner})
        if "ok" in answer:
            return {"ok": self._take(kept, cast("ListedFault", answer["ok"]))}
        # An agent that has just taken the place of another lacks the fault.
        listed = send({"do": "list"})
        is_there = "ok" not in listed or any(
            one["id"] == kept.inner for one in cast("AgentFaults", listed["ok"])["faults"]
        )
        return answer if is_there else _ended(kept)

    def _wait(self, send: Send, kept: _Kept, asked: Mapping[str, object]) -> AgentAnswer:
        answer = send({**asked, "id": kept.inner})
        return {"ok": self._take(kept, cast("ListedFault", answer["ok"]))} if "ok" in answer else answer

    def _listed(self, listed: AgentFaults) -> AgentAnswer:
        by_inner = {kept.inner: kept for kept in self._kept.values() if kept.state["state"] == "active"}
        others = []
        for state in listed["faults"]:
            if (kept := by_inner.get(state["id"])) is not None:
                self._take(kept, state)
            elif state["id"] not in self._kept:
                others.append(state)
        for kept in self._kept.values():
            left_s = kept.left_s
            kept.state = {**kept.state, "left_s": left_s, "state": "active" if left_s else "ended"}
        return {"ok": {**listed, "faults": [*(kept.state for kept in self._kept.values()), *others]}}

    def _take(self, kept: _Kept, state: ListedFault) -> ListedFault:
        counters = {
            name: state["counters"].get(name, 0) + kept.before.get(name, 0)
            for name in {**kept.before, **state["counters"]}
        }
        before = kept.state
        kept.state = {**state, "id": before["id"], "lease_s": before["lease_s"], "counters": counters}
        # A fault that goes on in another agent keeps its start and its first hit.
        if (started_unix_s := before.get("started_unix_s")) is not None:
            kept.state["started_unix_s"] = started_unix_s
        if (hit_unix_s := before.get("hit_unix_s")) is not None:
            kept.state["hit_unix_s"] = hit_unix_s
        return kept.state


def _ended(kept: _Kept) -> AgentAnswer:
    kept.state = {**kept.state, "left_s": 0.0, "state": "ended"}
    return {"ok": kept.state}
