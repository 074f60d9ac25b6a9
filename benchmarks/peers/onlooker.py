"""An onlooker next to the instrument, in a process of its own.

It shares no code and no path with the instrument. It reads `docker events` and `docker
logs`, queries Prometheus for firing alerts (not for stored ones), and calls the API
over its own sockets. It prints its observations as JSON lines until its standard input
is closed. Times are Unix seconds on its own clock, except `event`, which has the
daemon's `timeNano`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

EVERY_S = 0.02
SCRAPES_EVERY_S = 0.5
TAKES_PART = '{__name__=~"up|llmlab_upstream_health"}[3s]'
FIRST_TOKEN_S = 2.0  # a good answer's limit, the load's own default
WHOLE_S = 10.0
READY_S = 15.0
_TOKEN = re.compile(rb'"content": ?"[^"]')
_FINISHED = re.compile(rb'"finish_reason": ?"')


@dataclass(frozen=True, kw_only=True)
class Place:
    """Addresses and names to observe."""

    project: str
    api_url: str
    prometheus_url: str
    model: str


class Onlooker:
    """All watchers of one process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        question = {"model": place.model, "messages": [{"role": "user", "content": "are you there"}]}
        self._body = json.dumps({**question, "stream": True, "max_tokens": 4}).encode()
        self._began_s = time.time()
        self._firing: set[str] | None = None
        self._probed = asyncio.Event()
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Watch until standard input is closed."""
        watchers = [
            self._events(),
            self._log(),
            self._scrapes(),
            self._every(self._ask_alerts),
            self._every(self._probe),
        ]
        tasks = [asyncio.create_task(one) for one in watchers]
        ready = asyncio.create_task(self._ready())
        await asyncio.wait([ready, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            tell("ready")
            ended = asyncio.create_task(_end_of_input())
            await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():  # a watcher that ended early saw less
                tell("blind", why=str(task.exception() or "a docker command ended"))
            task.cancel()

    async def _ready(self) -> None:
        await self._probed.wait()
        await self._asked.wait()

    async def _events(self) -> None:
        filters = [f"label=com.docker.compose.project={self._place.project}", "type=container"]
        filters += [f"event={action}" for action in ("die", "start", "pause", "unpause", "health_status")]
        command = ["docker", "events", "--since", f"{self._began_s:.6f}", "--format", "{{json .}}"]
        async for line in _lines(*command, *(part for one in filters for part in ("--filter", one))):
            attributes = line["Actor"]["Attributes"]
            tell(
                "event",
                at=line["timeNano"] / 1e9,
                service=attributes["com.docker.compose.service"],
                action=line["Action"],
            )

    async def _log(self) -> None:
        """The remediator's standard output, which repeats its audit log."""
        whose = [
            f"label=com.docker.compose.project={self._place.project}",
            "label=com.docker.compose.service=remediator",
        ]
        filters = (part for one in whose for part in ("--filter", one))
        found = await asyncio.create_subprocess_exec("docker", "ps", "-q", *filters, stdout=subprocess.PIPE)
        container = (await found.communicate())[0].decode().strip()
        async for line in _lines("docker", "logs", "--follow", "--since", f"{self._began_s:.6f}", container):
            if line.get("event") == "detected":
                tell("signal", at=time.time(), name=f"remediator rule {line['rule']}")

    async def _scrapes(self) -> None:
        """Each scrape of a service, and each gateway report on a replica's rotation."""
        told: set[tuple[str, str, float]] = set()
        path = "/api/v1/query?" + urlencode({"query": TAKES_PART})
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    body = b"".join([part async for part in _ask(self._place.prometheus_url, "GET", path)])
                for series in json.loads(body)["data"].get("result", ()):
                    labels = series["metric"]
                    service = labels.get("replica") or labels.get("service", "")
                    what = labels.get("probe") or "scrape"
                    for at, value in series["values"]:
                        if (service, what, at) not in told:
                            told.add((service, what, at))
                            tell("part", at=at, service=service, what=what, good=value == "1")
            await asyncio.sleep(SCRAPES_EVERY_S)

    async def _every(self, act: Callable[[float], Awaitable[None]]) -> None:
        """An open loop: each act happens at its instant, late or slow ones included."""
        running: set[asyncio.Task[None]] = set()
        due_s = time.time()
        while True:
            task = asyncio.ensure_future(act(due_s))
            running.add(task)
            task.add_done_callback(running.discard)
            due_s += EVERY_S
            await asyncio.sleep(max(0.0, due_s - time.time()))

    async def _ask_alerts(self, due_s: float) -> None:
        """Alerts that fire now and did not at the last query."""
        asked_s = time.time()
        try:
            async with asyncio.timeout(1.0):
                body = b"".join([part async for part in _ask(self._place.prometheus_url, "GET", "/api/v1/alerts")])
        except (OSError, TimeoutError):
            return
        alerts = json.loads(body)["data"]["alerts"]
        firing = {json.dumps(one["labels"], sort_keys=True) for one in alerts if one["state"] == "firing"}
        for labels in firing - (firing if self._firing is None else self._firing):
            tell("signal", at=time.time(), name=f"alert {json.loads(labels)['alertname']}")
        self._firing = firing
        tell("look", asked=asked_s, answered=time.time(), late=asked_s - due_s)
        self._asked.set()

    async def _probe(self, due_s: float) -> None:
        sent_s = time.time()
        good = False
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WHOLE_S):
                good = await self._answered(due_s)
        tell("probe", due=due_s, good=good, late=sent_s - due_s)
        if good:
            self._probed.set()

    async def _answered(self, due_s: float) -> bool:
        """True if a whole answer came with its first token in time."""
        body, first_s = b"", float("inf")
        async for part in _ask(self._place.api_url, "POST", "/v1/chat/completions", self._body):
            body += part
            if _TOKEN.search(body):
                first_s = min(first_s, time.time())
        return b"[DONE]" in body and _FINISHED.search(body) is not None and first_s - due_s <= FIRST_TOKEN_S


def tell(saw: str, **what: Any) -> None:
    print(json.dumps({"saw": saw, **what}), flush=saw != "probe")


async def _ask(url: str, method: str, path: str, body: bytes = b"") -> Any:
    """The parts of an answer's body as they come.

    HTTP/1.0: no chunks, and the end of the connection is the end of the body.
    """
    host = urlsplit(url)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    try:
        head = f"{method} {path} HTTP/1.0\r\nHost: {host.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        if answered.split(b" ", 2)[1] != b"200":
            return
        while part := await reader.read(1 << 16):
            yield part
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("no whole answer") from error
    finally:
        writer.close()


async def _lines(*command: str) -> Any:
    """The JSON objects that a command prints, as they come."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=1 << 20
    )
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()  # or the loop closes before the command has ended


async def _end_of_input() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


@contextlib.contextmanager
def watching(place: Place, out: Path) -> Iterator[None]:
    """An onlooker in its own process for the length of the block. Writes to `out`."""
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(vars(place))], stdin=subprocess.PIPE, stdout=file
        )
    try:
        deadline = time.monotonic() + READY_S
        while b'"ready"' not in out.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the onlooker sees nothing after {READY_S:g} s: {out.read_text()[-500:]}")
            time.sleep(EVERY_S)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _hurry() -> None:
    """Raise this process's priority. Needs root.

    On a shared machine a busy service would delay the onlooker's clock.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        Path("/proc/self/autogroup").write_text("-10", encoding="ascii")


if __name__ == "__main__":
    _hurry()
    asyncio.run(Onlooker(Place(**json.loads(sys.argv[1]))).run())
