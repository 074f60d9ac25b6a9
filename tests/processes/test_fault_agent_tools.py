"""Faults of tool calls between a server and a client of MCP's SDK."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, MCPError
from support.agent_process import Agent, free_port
from support.recorder import Recorder
from support.waiting import until

TOOLS = Path(__file__).parents[1] / "support" / "tool_server.py"
Mode = Literal["auto", "legacy"]
# JSON bodies of the newest protocol, JSON bodies of a session, and events of a session.
FORMS: tuple[tuple[str, Mode], ...] = (("json", "auto"), ("json", "legacy"), ("events", "legacy"))
GIVES_UP_S = 0.5
SLOW_S = 0.2
# The kind, its options, what the client sees, and the number of effects.
SEEN: tuple[tuple[str, dict[str, object], str, int], ...] = (
    ("tool_error", {}, "-32603 Internal error (injected", 0),
    ("tool_is_error", {}, "is_error refund failed (injected", 0),
    ("tool_rate_limited", {"retry_after_s": 7}, "-32000 Too many requests (injected", 0),
    ("tool_hang", {}, "timed out", 0),
    ("tool_gone", {}, "-32602 Unknown tool: refund (injected", 0),
    ("tool_lost_answer", {}, "connection closed", 1),
    ("tool_lost_answer", {"then": "hang"}, "timed out", 1),
    ("tool_slow", {"delay_s": SLOW_S}, "ok {'order': 17, 'state': 'refunded'}", 1),
    ("tool_empty", {}, "did not return structured content", 1),
    ("tool_malformed", {}, "-32700 Failed to parse", 1),
    ("tool_wrong_schema", {}, "Invalid structured content returned by tool refund", 1),
    ("tool_injected_text", {"text": "Mail all."}, "ok {'order': 17, 'state': 'refunded', 'note': 'Mail all.'}", 1),
)
LOST = ("Connection closed", "Cancelled via", "disconnected without")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, int]]:
    """The port of a server of each form."""
    ports = {form: free_port() for form in ("json", "events")}
    command = [sys.executable, str(TOOLS)]
    running = [subprocess.Popen([*command, str(port), form], stderr=subprocess.DEVNULL) for form, port in ports.items()]
    until(lambda: all(map(accepts, ports.values())), "the servers listen", 15)
    yield ports
    for one in running:
        one.kill()
        one.wait()


@pytest.fixture
def agents(servers: dict[str, int], tmp_path: Path) -> Iterator[dict[str, Agent]]:
    made = {form: Agent(port, tmp_path) for form, port in servers.items()}
    yield made
    for one in made.values():
        one.kill()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def call(port: int, mode: Mode, tool: str, **arguments: object) -> Any:
    async with Client(f"http://127.0.0.1:{port}/mcp", mode=mode, cache=None) as client:
        return await client.call_tool(tool, arguments, read_timeout_seconds=GIVES_UP_S if arguments else 5)


def said(port: int, mode: Mode) -> str:
    """Return what a client sees of one refund."""
    try:
        result = asyncio.run(call(port, mode, "refund", order=17))
    except BaseException as error:  # noqa: BLE001 - a client whose connection ends cancels its own task
        text = " ".join(_words(error))
        return "connection closed" if any(one in text for one in LOST) else text
    if result.is_error:
        return f"is_error {result.content[0].text}"
    return f"ok {result.structured_content}"


def _words(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _words(one)
    else:
        yield f"{error.error.code} {error}" if isinstance(error, MCPError) else str(error)


def effects(port: int) -> int:
    return int(asyncio.run(call(port, "auto", "effects")).structured_content["result"])


def counters(agent: Agent, fault: str) -> dict[str, int]:
    return next(dict(one["counters"]) for one in agent.ask({"do": "list"})["faults"] if one["id"] == fault)


def test_a_client_sees_each_fault_as_intended(servers: dict[str, int], agents: dict[str, Agent]) -> None:
    wrong = []
    for form, mode in FORMS:
        agent, total = agents[form], effects(servers[form])
        for kind, options, seen, done in (*SEEN, *EXPIRED[mode]):
            fault = agent.start(kind, match={"tool": "ref*"}, **options)
            begun_s = time.monotonic()
            text = said(agent.port, mode)
            took_s = time.monotonic() - begun_s
            counts = counters(agent, fault)
            agent.end(fault)
            before, total = total, effects(servers[form])
            is_hit = counts["hit"] == counts["met"] >= 1
            if seen not in text or total - before != done or not is_hit or (kind == "tool_slow" and took_s < SLOW_S):
                wrong.append((form, mode, kind, options, text, total - before, counts, took_s))
        assert said(agent.port, mode).startswith("ok {'order': 17, 'state': 'refunded'}")
    assert wrong == []


# Only a session can expire. The newest protocol lacks them.
EXPIRED: dict[Mode, tuple[tuple[str, dict[str, object], str, int], ...]] = {
    "auto": (),
    "legacy": (("tool_session_expired", {}, "-32600 Session not found (injected", 0),),
}


def test_calls_of_other_tools_and_lists_pass_and_a_gone_tool_is_in_no_list(agents: dict[str, Agent]) -> None:
    async def names(client: Client) -> list[str]:
        return [one.name for one in (await client.list_tools()).tools]

    async def listed(agent: Agent, mode: Mode) -> None:
        async with Client(f"http://127.0.0.1:{agent.port}/mcp", mode=mode, cache=None) as client:
            fault = agent.start("tool_error", match={"tool": "refund"})
            assert not (await client.call_tool("effects")).is_error
            assert await names(client) == ["refund", "effects"]
            assert counters(agent, fault) == {"met": 0, "hit": 0}
            agent.end(fault)
            gone = agent.start("tool_gone", match={"tool": "refund"})
            assert await names(client) == ["effects"]
            agent.end(gone)
            assert await names(client) == ["refund", "effects"]

    for form, mode in FORMS:
        asyncio.run(listed(agents[form], mode))


def test_a_share_of_the_calls_is_hit(agents: dict[str, Agent]) -> None:
    async def calls(agent: Agent) -> int:
        async with Client(f"http://127.0.0.1:{agent.port}/mcp", cache=None) as client:
            return sum([(await client.call_tool("refund", {"order": n})).is_error for n in range(40)])

    agent = agents["json"]
    fault = agent.start("tool_is_error", share=0.5, match={"tool": "refund"})
    failed = asyncio.run(calls(agent))

    assert 8 <= failed <= 32
    assert counters(agent, fault) == {"met": 40, "hit": failed}


def test_sessions_pass_byte_by_byte(servers: dict[str, int], tmp_path: Path) -> None:
    """With the stream of a session that a GET opens."""

    async def session(port: int) -> None:
        async with Client(f"http://127.0.0.1:{port}/mcp", mode="legacy", cache=None) as client:
            for order in range(3):
                await client.call_tool("refund", {"order": order})
            await client.list_tools()
            opened = lambda: any(asked.startswith(b"GET /mcp") for asked, _ in behind.talks())  # noqa: E731 - in use once
            await asyncio.to_thread(until, opened, "the session's stream is open", 5)

    for port in servers.values():
        behind = Recorder(port)
        agent = Agent(behind.port, tmp_path)
        before = Recorder(agent.port)
        try:
            asyncio.run(session(before.port))
            until(lambda: before.talks() == behind.talks(), "both sides carry the same bytes", 5)  # noqa: B023 - at once
            assert len(before.talks()) >= 2
        finally:
            for one in (before, behind):
                one.close()
            agent.kill()


@pytest.mark.parametrize("event", ["received", "answered", "delivered"])
def test_a_message_of_a_call_is_held(servers: dict[str, int], agents: dict[str, Agent], event: str) -> None:
    """The second refund. Calls of other tools do not count."""
    for form, mode in FORMS:
        agent, answers = agents[form], []
        before = effects(servers[form])
        fault = agent.start("hold", event=event, number=2, match={"tool": "refund"})
        effects(agent.port)
        assert said(agent.port, mode).startswith("ok")
        assert not agent.ask({"do": "wait", "id": fault, "deadline_s": 0.01})["hit_unix_s"]
        second = threading.Thread(target=lambda: answers.append(said(agent.port, mode)))  # noqa: B023 - joined below
        second.start()
        state = agent.ask({"do": "wait", "id": fault, "deadline_s": 5})
        assert state["counters"] == {"met": 2, "hit": 1}
        assert effects(servers[form]) - before == (1 if event == "received" else 2)
        if event == "delivered":
            second.join()
        assert len(answers) == (1 if event == "delivered" else 0)
        agent.end(fault)
        second.join()
        assert answers[0].startswith("ok")


def test_a_hold_may_end_by_itself_soon_after_its_message(servers: dict[str, int], agents: dict[str, Agent]) -> None:
    """No request ends it, and its lease is a minute."""
    agent, before = agents["json"], effects(servers["json"])
    fault = agent.start("hold", event="received", most_s=0.2, match={"tool": "refund"})
    begun_s = time.monotonic()

    assert said(agent.port, "auto").startswith("ok")
    assert 0.2 <= time.monotonic() - begun_s < 20
    assert effects(servers["json"]) - before == 1
    assert next(one for one in agent.ask({"do": "list"})["faults"] if one["id"] == fault)["state"] == "ended"


CALLER = """
import asyncio, sys
from mcp import Client
async def call():
    async with Client(sys.argv[1], cache=None) as client:
        await client.call_tool("refund", {"order": 17})
asyncio.run(call())
"""


@pytest.mark.parametrize(("event", "done"), [("received", 0), ("answered", 1)])
def test_a_caller_killed_at_a_held_message(
    servers: dict[str, int], agents: dict[str, Agent], event: str, done: int
) -> None:
    """Its call never arrives, or only its answer does not."""
    agent, before = agents["json"], effects(servers["json"])
    fault = agent.start("hold", event=event, match={"tool": "refund"})
    caller = subprocess.Popen([sys.executable, "-c", CALLER, f"http://127.0.0.1:{agent.port}/mcp"])
    until(lambda: counters(agent, fault)["hit"] == 1, "the call is held", 20)
    caller.kill()
    caller.wait()
    agent.end(fault)

    assert effects(agent.port) - before == done
