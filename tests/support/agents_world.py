"""Processes of the lab's agents, with a scripted model and desk."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
from aiohttp import web
from support.agents_packages import agents_path
from support.waiting import until

PLAN = "plan: find_order 17; refund 17; mail 17"
STEPS = ["find_order 17", "refund 17", "mail 17"]
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}


class World:
    """Model and tool server in a thread of their own.

    `faults` has, for each tool, what happens to its next calls, one name a call:
    rate_limited, is_error, lost (effect, no answer), hang, kill (effect, then the
    agent dies before the answer), kill_before (no effect), gone (the session is).
    Those of `list` happen to requests for the list of tools. Requests of the model hang
    while `hanging` is a part of their plan.
    """

    def __init__(self):
        self.calls = []  # (step, key), every call that arrived
        self.effects = []  # steps of effects
        self.at = []  # seconds of each call
        self.asked = 0
        self.cut = 0  # requests of the model that their client has left
        self.manner = "disciplined"
        self.hanging = ""
        self.faults = {}
        self.answers = {}
        self.sessions = set()
        self.tokens = 10
        self.kill = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self, **faults):
        self.calls, self.effects, self.at, self.asked, self.cut = [], [], [], 0, 0
        self.manner, self.hanging = "disciplined", ""
        self.faults = {tool: list(hows) for tool, hows in faults.items()}
        self.answers = {}

    async def _serve(self):
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._chat), web.post("/mcp", self._mcp)])
        app.router.add_get("/mcp", self._no_stream)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self._runner.addresses[0][1]

    async def _no_stream(self, request):
        return web.Response(status=405)

    async def _chat(self, request):
        body = await request.json()
        self.asked += 1
        await self._hang(str(body["messages"]))
        used = {"prompt_tokens": 5, "completion_tokens": self.tokens - 5, "total_tokens": self.tokens}
        message = answer(body["messages"], self.manner)
        reason = "tool_calls" if message.get("tool_calls") else "length" if self.manner == "cut" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response({**head, "choices": [choice], "usage": used})

    async def _hang(self, messages):
        try:
            if self.hanging and self.hanging in messages:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cut += 1
            raise

    async def _mcp(self, request):
        body = await request.json()
        method, params = body.get("method"), body.get("params", {})
        if "id" not in body:
            return web.Response(status=202)
        if method == "initialize":
            session = os.urandom(8).hex()
            self.sessions.add(session)
            able = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
            result = {**able, "serverInfo": {"name": "desk", "version": "1"}}
            return web.json_response(reply(body, result), headers={"mcp-session-id": session})
        if method == "tools/list":
            if self.faults.get("list") and self.faults["list"].pop(0) == "lost":
                request.transport.abort()
            tools = [{"name": name, "inputSchema": SCHEMA} for name in ("find_order", "refund", "mail")]
            return web.json_response(reply(body, {"tools": tools}))
        if method != "tools/call":
            error = {"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32601, "message": f"no {method}"}}
            return web.json_response(error, status=404)
        return await self._called(request, body, params)

    async def _called(self, request, body, params):
        tool, key = params["name"], (params.get("_meta") or {}).get("idempotency-key")
        step = f"{tool} {params['arguments']['order']}"
        how = self.faults[tool].pop(0) if self.faults.get(tool) else None
        if request.headers.get("mcp-session-id") not in self.sessions or how == "gone":
            return web.Response(status=404)
        self.calls.append((step, key))
        self.at.append(time.monotonic())
        if how == "rate_limited":
            return web.Response(status=429, headers={"Retry-After": "1"})
        if how == "hang":
            await asyncio.sleep(60)
        if how == "is_error":
            return web.json_response(reply(body, {"content": text("no such order"), "isError": True}))
        if how != "kill_before":
            self._apply(tool, step, key)
        if how in {"kill", "kill_before"}:
            self.kill()
        if how in {"lost", "kill", "kill_before"}:
            request.transport.abort()
        return web.json_response(reply(body, {"content": text("ok")}))

    def _apply(self, tool, step, key):
        if tool == "find_order" or (key is not None and key in self.answers):
            return
        self.answers[key] = True
        self.effects.append(step)


def text(words):
    return [{"type": "text", "text": words}]


def reply(body, result):
    return {"jsonrpc": "2.0", "id": body["id"], "result": result}


def answer(messages, manner):
    """The next message of a model that follows the plan in its own manner."""
    plan = next(m["content"] for m in reversed(messages) if "plan:" in str(m.get("content")))
    if not isinstance(plan, str):
        plan = plan[0]["text"]
    steps = re.findall(r"(\w+) (\d+)", plan.partition("plan:")[2])
    done = sum(m["role"] == "tool" for m in messages)
    if manner == "cut" or (done >= len(steps) and manner != "runaway") or (manner == "liar" and done):
        return {"role": "assistant", "content": f"done: {len(steps)} steps"}
    chosen = steps[done:] if manner in {"parallel", "nameless"} else [steps[done % len(steps)]]
    calls = [
        {
            "id": "" if manner == "nameless" else f"call-{done + at}",
            "type": "function",
            "function": {
                "name": tool,
                "arguments": "{" if manner == "malformed" else json.dumps({"order": int(order)}),
            },
        }
        for at, (tool, order) in enumerate(chosen)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


class AgentProcess:
    """One agent as a process with its HTTP client."""

    def __init__(self, world, state_dir, agent, **env):
        self.world = world
        self._state_dir = state_dir
        self._env = {"LAB_AGENT": agent, **env}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        self.client.close()

    def start(self):
        self._launch()
        self.world.kill = self.kill
        until(self.alive, f"the agent listens: {self._state_dir}/log", within_s=90)

    def ended(self):
        """Exit status of a process that cannot start."""
        self._launch()
        return self.process.wait(90)

    def _launch(self):
        desk = f"http://127.0.0.1:{self.world.port}"
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": agents_path(),
            "LAB_PORT": str(self.port),
            "LAB_STATE_DIR": str(self._state_dir),
            "LAB_MODEL_URL": f"{desk}/v1",
            "LAB_DESK_URL": f"{desk}/mcp",
            "LAB_TOOL_S": "1.5",
            **self._env,
        }
        with (self._state_dir / "log").open("ab") as log:
            # -S: the agents' own packages alone, as in their image.
            command = [sys.executable, "-S", "-m", "lab_agents"]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=self._state_dir)

    def alive(self):
        assert self.process.poll() is None, (self._state_dir / "log").read_text()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/healthz").status_code == 200
        return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def begin(self, task_id, plan=PLAN):
        return self.client.post("/tasks", json={"id": task_id, "input": plan})

    def end(self, task_id, wait_s=20):
        return self.client.get(f"/tasks/{task_id}", params={"wait_s": wait_s})

    def perform(self, task_id, plan=PLAN):
        assert self.begin(task_id, plan).status_code == 202
        return self.end(task_id).json()

    def metric(self, name):
        """Sum of all samples of a name."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line))
