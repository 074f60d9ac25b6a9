"""The lab's gateway against no gateway and against a naive pass-through.

A null server streams 32 tokens (the first after 20 ms, then one every 5 ms). An
open-loop Poisson load measures the time to first token from the due time and checks
that every stream is complete. Server and load share one core. The program under test
between them has the other. The gateway runs with every pattern on and is scraped once a
second.

    python benchmarks/api.py [--seconds 8] [--rounds 2] [--json]
"""

import argparse
import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import uvloop
from aiohttp import web
from figures import Figure, figure, publish

TOKENS = 32
FIRST_S, NEXT_S = 0.020, 0.005
RATE_RPS = 100
CAPACITY_RPS = (200, 400, 600, 800, 1000)
HELD_P99_S = 0.060  # three times the server's own first token
SERVICES = Path(__file__).parents[1] / "stack" / "services"


def _event(finish: str) -> bytes:
    said = f'{{"choices":[{{"index":0,"delta":{{"content":"token "}},"finish_reason":{finish}}}]}}'
    return _chunked(f"data: {said}\n\n".encode())


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN, LAST = _event("null"), _event('"stop"') + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"null","object":"model","owned_by":"benchmark"}]}'
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(MODELS) + MODELS
BODY = b'{"model":"null","stream":true,"messages":[{"role":"user","content":"hello"}]}'
REQUEST = (
    f"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
).encode() + b"\r\n\r\n"


class NullServer(asyncio.Protocol):
    """Stream canned tokens by timers, with as little work as possible."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.seen = b""
        self.sent = 0
        self.due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, _, body = self.seen.partition(b"\r\n\r\n")
        if self.seen.startswith(b"GET") and self.seen.endswith(b"\r\n\r\n"):
            self.transport.write(HEALTHY)
        elif body and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            self.sent = 0
            self.due_s = time.monotonic() + FIRST_S
            asyncio.get_running_loop().call_later(FIRST_S, self.speak)
        else:
            return
        self.seen = b""

    def speak(self) -> None:
        if self.transport.is_closing():
            return
        self.sent += 1
        said = LAST if self.sent == TOKENS else TOKEN
        self.transport.write(HEAD + said if self.sent == 1 else said)
        if self.sent < TOKENS:
            self.due_s += NEXT_S
            asyncio.get_running_loop().call_later(max(0.0, self.due_s - time.monotonic()), self.speak)


@dataclass
class Seen:
    """Results of the clients of one run."""

    ttft_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    offered: int = 0
    complete: int = 0
    cpu_share: float = 0.0

    def quantile(self, q: float) -> float:
        ordered = sorted(self.ttft_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("inf")

    @property
    def held(self) -> bool:
        """True if every answer was whole and in time and the load kept its schedule."""
        late = sorted(self.late_s)[int(0.99 * len(self.late_s))]
        return self.complete >= 0.999 * self.offered and self.quantile(0.99) <= HELD_P99_S and late <= 0.02


class Client(asyncio.Protocol):
    """One connection of the load, reused for the next stream."""

    transport: asyncio.Transport

    def __init__(self, seen: Seen, idle: list["Client"]) -> None:
        self.seen = seen
        self.idle = idle
        self.due_s = 0.0
        self.waiting = False
        self.said: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, due_s: float) -> None:
        self.due_s = due_s
        self.waiting = True
        self.seen.late_s.append(time.monotonic() - due_s)
        self.transport.write(REQUEST + BODY)

    def data_received(self, data: bytes) -> None:
        if self.waiting and b"token" in data:
            self.waiting = False
            self.seen.ttft_s.append(time.monotonic() - self.due_s)
        self.said.append(data)
        if data.endswith(b"0\r\n\r\n"):
            answer = b"".join(self.said)
            self.seen.complete += answer.count(b"token ") == TOKENS and b"data: [DONE]" in answer
            self.said = []
            self.idle.append(self)


async def load(port: int, rate_rps: float, seconds: float, seed: int) -> Seen:
    """An open-loop Poisson load that waits until its last stream can have ended."""
    loop = asyncio.get_running_loop()
    seen, idle, every = Seen(), [], []  # type: ignore[var-annotated]
    rng = random.Random(seed)
    begin_s = time.monotonic() + 0.1
    due_s = begin_s

    async def send(due_s: float) -> None:
        if idle:
            idle.pop().ask(due_s)
            return
        with suppress(OSError):  # counted: the stream is offered and never complete
            _, client = await loop.create_connection(lambda: Client(seen, idle), "127.0.0.1", port)
            every.append(client)
            client.ask(due_s)

    while (due_s := due_s + rng.expovariate(rate_rps)) < begin_s + seconds:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        seen.offered += 1
        if idle:
            idle.pop().ask(due_s)
        else:
            loop.create_task(send(due_s))  # noqa: RUF006 -- ends long before the wait below
    deadline_s = time.monotonic() + 3
    while seen.complete < seen.offered and time.monotonic() < deadline_s:  # noqa: ASYNC110 -- an event would cost time
        await asyncio.sleep(0.02)
    for client in every:
        client.transport.abort()
    return seen


async def _scrape(port: int) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            await asyncio.sleep(1)
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                await response.read()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(port: int, rate_rps: float, seconds: float, seed: int, pid: int | None, *, scraped: bool) -> Seen:
    scraper = asyncio.ensure_future(_scrape(port)) if scraped else None
    began_s, used_s = time.monotonic(), cpu_s(pid) if pid else 0.0
    seen = await load(port, rate_rps, seconds, seed)
    if pid:
        seen.cpu_share = (cpu_s(pid) - used_s) / (time.monotonic() - began_s)
    if scraper:
        scraper.cancel()
    return seen


async def _naive(port: int, upstream: int) -> None:
    """The obvious pass-through: aiohttp on both sides, chunks relayed as they come."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            url = f"http://127.0.0.1:{upstream}{request.path}"
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                async for data in answer.content.iter_any():
                    await response.write(data)
            return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", forward)
        await _serve_app(app, port)


async def _serve_app(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


async def _null(port: int) -> None:
    await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", port, backlog=1024)
    gc.disable()
    await asyncio.Event().wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(argv: list[str], port: int, core: int, **env: str) -> Iterator[int]:
    """A server on `core`, ready when its port answers."""
    child = subprocess.Popen(
        argv,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), **env},
        stdout=subprocess.DEVNULL,
    )
    os.sched_setaffinity(child.pid, {core})
    try:
        deadline_s = time.monotonic() + 10
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if child.poll() is not None or time.monotonic() > deadline_s:
                print(f"cannot measure: {argv} does not listen on {port}", file=sys.stderr)
                sys.exit(2)
            time.sleep(0.02)
        yield child.pid
    finally:
        child.terminate()
        child.wait(5)


Measure = Callable[[float, float, int], Awaitable[Seen]]


def _rows(seconds: float, rounds: int) -> tuple[dict[str, Seen], dict[int, Seen]]:
    """TTFT of the three arrangements in turn, and the gateway at rising rates."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("cannot measure: needs 2 cores, one for what is measured alone", file=sys.stderr)
        sys.exit(2)
    os.sched_setaffinity(0, {cores[0]})
    null, naive, api = (free_port() for _ in range(3))
    environment = {
        "LAB_PORT": str(api),
        "LAB_MODEL": "null",
        "LAB_REPLICAS": f"model-1=http://127.0.0.1:{null},model-2=http://127.0.0.1:{null}",
        "LAB_CONCURRENCY": "1000",
        "LAB_QUEUE_MAX": "1000",
    }
    this = str(Path(__file__))
    with (
        process([sys.executable, this, "--serve", "null", str(null), "0"], null, cores[0]),
        process([sys.executable, this, "--serve", "naive", str(naive), str(null)], naive, cores[1]) as naive_pid,
        process([sys.executable, "-m", "lab_api"], api, cores[1], **environment) as api_pid,
    ):
        ways = {"nothing": (null, None), "naive pass-through": (naive, naive_pid), "lab_api": (api, api_pid)}
        seen = {name: Seen() for name in ways}
        for turn in range(rounds):
            for name, (port, pid) in ways.items():
                one = uvloop.run(_measure(port, RATE_RPS, seconds / rounds, turn, pid, scraped=name == "lab_api"))
                total = seen[name]
                total.ttft_s += one.ttft_s
                total.late_s += one.late_s
                total.offered += one.offered
                total.complete += one.complete
                total.cpu_share += one.cpu_share / rounds
        rising: dict[int, Seen] = {}
        for rate in CAPACITY_RPS:
            rising[rate] = uvloop.run(_measure(api, rate, min(seconds, 5), rate, api_pid, scraped=True))
            if not rising[rate].held:
                break
    return seen, rising


def _show(name: str, seen: Seen) -> None:
    p50, p99 = seen.quantile(0.5) * 1000, seen.quantile(0.99) * 1000
    print(f"{name:32} {seen.complete:6}/{seen.offered:<6} {p50:8.2f} {p99:8.2f} {seen.cpu_share:8.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16, help="of load for each arrangement (default 16)")
    parser.add_argument("--rounds", type=int, default=4, help="turns it is split into (default 4)")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        what, port, upstream = asked.serve
        uvloop.run(_null(int(port)) if what == "null" else _naive(int(port), int(upstream)))
        return 0
    gc.disable()
    seen, rising = _rows(asked.seconds, asked.rounds)
    print(f"{'what stands between':32} {'complete':>13} {'p50 ms':>8} {'p99 ms':>8} {'core':>8}")
    for name, one in seen.items():
        _show(f"{name}, {RATE_RPS}/s", one)
    for rate, one in rising.items():
        _show(f"lab_api, {rate}/s{'' if one.held else ' (not held)'}", one)
    if not seen["nothing"].held:
        print("cannot measure: the load does not hold without anything in between", file=sys.stderr)
        return 2
    publish("api", _figures(seen, rising), as_json=asked.json)
    return 0


def _figures(seen: dict[str, Seen], rising: dict[int, Seen]) -> dict[str, Figure]:
    def added(name: str, q: float) -> float:
        return round(seen[name].quantile(q) - seen["nothing"].quantile(q), 6)

    p50, p99 = added("lab_api", 0.5), added("lab_api", 0.99)
    held = max((rate for rate, one in rising.items() if one.held), default=0)
    whole = all(one.complete == one.offered for one in seen.values())
    return {
        "added_ttft_p50_s": figure(p50, "s", "<= 0.001", peer=added("naive pass-through", 0.5), digits=6),
        "added_ttft_p99_s": figure(p99, "s", "<= 0.005", peer=added("naive pass-through", 0.99), digits=6),
        "streams_per_core_rps": figure(held, "streams/s", ">= 400"),
        "complete": figure(float(whole), "1 if every stream was", "== 1"),
    }


if __name__ == "__main__":
    sys.exit(main())
