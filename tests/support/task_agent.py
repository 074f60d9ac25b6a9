"""A scripted agent behind the HTTP contract of tasks.

The first tool of a plan selects the behaviour: `lose` (404), `forget` (410), `hang`,
`fail`, `reject`, `drain` (refused once, with Retry-After), `stumble` (so is its first
poll, with 500), `ignore` (cancellations have no effect), `drop` (cancels by itself),
`babble` (its states are unusable), any other completes its steps.
"""

import asyncio
import contextlib
import json
import threading
from urllib.parse import parse_qs, urlsplit

from pytest_llmchaos.host.ports import http_url, loopback

REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    404: "Not Found",
    410: "Gone",
    500: "Error",
    503: "Service Unavailable",
}


class TaskAgent:
    """Answers on loopback from a thread of its own.

    Attributes:
        inputs: input of each task by id, in the order of arrival.
        posts: number of POST requests by task.
        holds: polls that are held now.
    """

    def __init__(self, step_s=0.02):
        self.inputs, self.posts, self.holds = {}, {}, 0
        self._step_s = step_s
        self._states, self._ends, self._streams, self._stumbling = {}, {}, set(), set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    def __enter__(self):
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_):
        self._call(self._shut())
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def statuses(self):
        """The statuses of all known tasks, in the order of arrival."""
        return [state["status"] for state in list(self._states.values())]

    @property
    def url(self):
        return http_url(loopback(), self._port)

    @contextlib.contextmanager
    def away(self):
        """Close the port and all connections for a while. Tasks go on."""
        self._call(self._shut())
        yield
        self._call(self._listen())

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self):
        self._server = await asyncio.start_server(self._serve, loopback(), self._port, backlog=1000)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _shut(self):
        self._server.close()
        for writer in list(self._streams):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _end(self):
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._streams.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                size = next(
                    (int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0
                )
                status, body, more = await self._answer(method, target, await reader.readexactly(size))
                text = json.dumps(body).encode()
                writer.write(
                    f"HTTP/1.1 {status} {REASONS[status]}\r\n{more}Content-Length: {len(text)}\r\n\r\n".encode() + text
                )
                await writer.drain()
        self._streams.discard(writer)
        writer.close()

    async def _answer(self, method, target, body):
        parts = urlsplit(target)
        if method == "POST":
            return self._accept(json.loads(body))
        name = parts.path.removeprefix("/tasks/")
        if name not in self._states:
            return self._unknown(name)
        if method == "DELETE":
            if "ignore" not in self.inputs[name]:
                self._finish(name, "cancelled")
            return 202, self._states[name], ""
        wait_s = float(parse_qs(parts.query)["wait_s"][0])
        self.holds += 1
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ends[name].wait(), wait_s)
        self.holds -= 1
        if name in self._stumbling:
            self._stumbling.discard(name)
            return 500, {"error": "stumbled"}, "Retry-After: 1\r\n"
        return (200, self._states[name], "") if name in self._states else self._unknown(name)

    def _unknown(self, name):
        return 410 if "forget" in self.inputs.get(name, "") else 404, {"error": "unknown"}, ""

    def _accept(self, wanted):
        name, text = wanted["id"], wanted["input"]
        self.posts[name] = self.posts.get(name, 0) + 1
        if name in self._states:
            return 200, self._states[name], ""
        steps = text.removeprefix("plan:").split(";")
        tool = steps[0].split()[0]
        if tool == "reject":
            return 400, {"error": "no"}, ""
        if tool == "drain" and self.posts[name] == 1:
            return 503, {"error": "draining"}, "Retry-After: 1\r\n"
        self.inputs[name] = text
        self._states[name] = {"id": name, "status": "running"}
        self._ends[name] = asyncio.Event()
        if tool == "stumble":
            self._stumbling.add(name)
        if tool in ("lose", "forget"):
            self._loop.call_later(self._step_s, self._forget, name)
        elif tool == "babble":
            self._states[name] |= {"tokens": 10**400, "error": "\ud800"}
            self._ends[name].set()
        elif tool != "hang":
            last = {"fail": "failed", "drop": "cancelled"}.get(tool, "completed")
            self._loop.call_later(len(steps) * self._step_s, self._finish, name, last)
        return 202, self._states[name], ""

    def _forget(self, name):
        del self._states[name]
        self._ends[name].set()

    def _finish(self, name, status):
        if self._states[name]["status"] == "running":
            steps = self.inputs[name].count(";") + 1
            counts = {"steps": steps, "tokens": 40, "model_calls": steps + 1, "tool_calls": steps}
            error = f"a tool failed: token=hunter2-hunter2 \ud800 {'x' * 900}" if status == "failed" else None
            self._states[name] = {"id": name, "status": status, **counts, "error": error}
            self._ends[name].set()
