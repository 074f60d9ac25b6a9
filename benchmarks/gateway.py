"""The lab's gateway against no gateway, the Rust gateway smg and LiteLLM's proxy.

A null server streams 32 tokens (the first after 20 ms, then one every 5 ms). An
open-loop Poisson load measures the time to first token from the due time and checks
that every stream is complete. Server and load share one core. The gateway has the
other. The lab's runs with every pattern on. Both are scraped once a second. Then come
rising rates, many open streams, and replicas that all fail.

The peers are `smg` and `litellm` on PATH or in `build/peers/NAME`. Without them, their
columns stay empty.

    python benchmarks/gateway.py [--seconds 16] [--rounds 4] [--no-litellm] [--json]
"""

import argparse
import asyncio
import gc
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import uvloop
from figures import Figure, figure, publish

TOKENS = 32
FIRST_S, NEXT_S = 0.020, 0.005
RATE_RPS = 100
BUSY_RPS = 400
CAPACITY_RPS = (600, 800, 1000)
LITELLM_RPS = (5, 10, 20, 30, 40)
HELD_P99_S = 0.060  # three times the server's own first token
LITELLM_HELD_P99_S = 0.3  # its own first token takes 40 ms when idle
SLOW_S = 0.5  # between two tokens of one of many open streams
NOTHING, LAB, SMG, LITELLM = "nothing", "lab_api", "smg", "litellm"
PEERS = Path(__file__).parents[1] / "build" / "peers"
INSTALL = {SMG: "smg==1.13.0", LITELLM: "litellm[proxy]==1.110.2"}
OFF_BY_DEFAULT = ("SHED", "MIGRATION", "AFFINITY", "HEDGING")
SERVICES = Path(__file__).parents[1] / "stack" / "services"


def _event(finish: str) -> bytes:
    said = (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"null",'
        f'"choices":[{{"index":0,"delta":{{"content":"token "}},"finish_reason":{finish}}}]}}'
    )
    return _chunked(f"data: {said}\n\n".encode())


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN, LAST = _event("null"), _event('"stop"') + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"null","object":"model","owned_by":"benchmark"}]}'
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(MODELS) + MODELS
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"


def request(said: str) -> bytes:
    """A request. Its prompt makes the null server `slow` or makes it `fail`."""
    body = f'{{"model":"null","stream":true,"messages":[{{"role":"user","content":"{said}"}}]}}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


HELLO, SLOW, FAIL = request("hello"), request("slow"), request("fail")


class NullServer(asyncio.Protocol):
    """Stream canned tokens by timers, with as little work as possible."""

    transport: asyncio.Transport
    failed = 0  # requests answered with 500

    def __init__(self) -> None:
        self.seen = b""
        self.sent = 0
        self.due_s = 0.0
        self.gap_s = NEXT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, _, body = self.seen.partition(b"\r\n\r\n")
        if self.seen.startswith(b"GET") and self.seen.endswith(b"\r\n\r\n"):
            counted = b"%d" % NullServer.failed
            asked = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(counted) + counted
            self.transport.write(asked if b"/failed" in head else HEALTHY)
        elif body and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            if b'"fail"' in body:
                NullServer.failed += 1
                self.transport.write(FAILED)
                self.seen = b""
                return
            self.gap_s = SLOW_S if b'"slow"' in body else NEXT_S
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
            self.due_s += self.gap_s
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
        return self.held_within(HELD_P99_S)

    def held_within(self, p99_s: float) -> bool:
        late = sorted(self.late_s)[int(0.99 * len(self.late_s))]
        return self.complete >= 0.999 * self.offered and self.quantile(0.99) <= p99_s and late <= 0.02

    def add(self, other: "Seen") -> None:
        """Count another run of the same arrangement."""
        self.ttft_s += other.ttft_s
        self.late_s += other.late_s
        self.offered += other.offered
        self.complete += other.complete


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
        self.transport.write(HELLO)

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


async def _null(port: int) -> None:
    await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", port, backlog=1024)
    gc.disable()
    await asyncio.Event().wait()


def two_cores() -> tuple[int, int]:
    """Core of this process, which stays there, and core of what is measured.

    Exits with 2 where there are fewer.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("cannot measure: needs 2 cores, one for what is measured alone", file=sys.stderr)
        sys.exit(2)
    os.sched_setaffinity(0, {cores[0]})
    return cores[0], cores[1]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(
    argv: list[str], port: int, core: int, env: Mapping[str, str] | None = None, *, within_s: float = 10
) -> Iterator[int]:
    """A server on `core`, ready when its port answers within the time."""
    own = argv[0] == sys.executable
    child = subprocess.Popen(
        argv,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=None if own else subprocess.DEVNULL,
    )
    os.sched_setaffinity(child.pid, {core})
    try:
        deadline_s = time.monotonic() + within_s
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
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:  # smg waits for its workers
            child.kill()
            child.wait(5)


@dataclass(kw_only=True)
class Way:
    """One arrangement and what was measured of it."""

    name: str
    port: int
    pid: int | None = None
    metrics_port: int | None = None
    seen: dict[int, Seen] = field(default_factory=dict)  # by rate

    def measure(self, rate_rps: int, seconds: float, seed: int) -> Seen:
        """Load it. Returns all that was seen at this rate."""
        one = uvloop.run(self._load(rate_rps, seconds, seed))
        total = self.seen.setdefault(rate_rps, Seen())
        total.add(one)
        total.cpu_share = one.cpu_share
        return total

    async def _load(self, rate_rps: int, seconds: float, seed: int) -> Seen:
        scraper = asyncio.ensure_future(_scrape(self.metrics_port)) if self.metrics_port else None
        began_s, used_s = time.monotonic(), cpu_s(self.pid) if self.pid else 0.0
        seen = await load(self.port, rate_rps, seconds, seed)
        if self.pid:
            seen.cpu_share = (cpu_s(self.pid) - used_s) / (time.monotonic() - began_s)
        if scraper:
            scraper.cancel()
        return seen

    def held_rps(self, p99_s: float = HELD_P99_S) -> int:
        return max((rate for rate, one in self.seen.items() if one.held_within(p99_s)), default=0)


class Open(asyncio.Protocol):
    """A client of one slow stream, which counts its tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(SLOW)

    def data_received(self, data: bytes) -> None:
        self.tokens += data.count(b"token ")


async def open_streams(port: int, count: int, pid: int | None) -> tuple[int, int]:
    """Open so many slow streams. How many got three tokens, and the memory of `pid`."""
    clients: list[Open] = []
    for _ in range(count):
        _, client = await asyncio.get_running_loop().create_connection(Open, "127.0.0.1", port)
        clients.append(client)
        await asyncio.sleep(0.002)
    deadline_s = time.monotonic() + 10 + 6 * SLOW_S
    while time.monotonic() < deadline_s and any(client.tokens < 3 for client in clients):  # noqa: ASYNC110 -- a poll
        await asyncio.sleep(0.05)
    resident_bytes = rss_bytes(pid) if pid is not None else 0
    for client in clients:
        client.transport.abort()
    return sum(client.tokens >= 3 for client in clients), resident_bytes


def rss_bytes(pid: int) -> int:
    """The most memory that the process has had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(found.group(1)) * 1024 if found else 0


async def _attempts_per_request(port: int, null: int, count: int) -> float:
    """Requests that reached the null server for each that a client sent. All fail."""

    async def ask(sent: bytes, to: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", to)
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()
        return body

    for _ in range(count):
        await ask(FAIL, port)
    return int(await ask(b"GET /failed HTTP/1.1\r\nHost: lab\r\n\r\n", null)) / count


def peer(name: str) -> str | None:
    """Program of a peer, None if it is not installed."""
    found = shutil.which(name) or shutil.which(str(PEERS / name / "bin" / name))
    if found is None:
        print(
            f"without {name}: not on PATH. Install it: python -m venv {PEERS / name} && "
            f"{PEERS / name}/bin/pip install '{INSTALL[name]}'",
            file=sys.stderr,
        )
    return found


@contextmanager
def litellm(program: str, port: int, null: int, core: int) -> Iterator[Way]:
    """LiteLLM's proxy, once it has answered its first requests."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        upstream = {"model": "openai/null", "api_base": f"http://127.0.0.1:{null}/v1", "api_key": "none"}
        config.write_text(json.dumps({"model_list": [{"model_name": "null", "litellm_params": upstream}]}))
        argv = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        switches = {
            "LITELLM_OFFLINE_MODE": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "PYTHONPATH": "",
        }
        with process(argv, port, core, switches, within_s=180) as pid:
            _wait_for_stream(port)
            yield Way(name=LITELLM, port=port, pid=pid)


@contextmanager
def gateways(null: int, core: int) -> Iterator[dict[str, Way]]:
    """Nothing, the lab's gateway, and smg if it is installed."""
    port, peers_port, metrics_port = (free_port() for _ in range(3))
    environment = {
        "LAB_PORT": str(port),
        "LAB_MODEL": "null",
        "LAB_REPLICAS": f"model-1=http://127.0.0.1:{null},model-2=http://127.0.0.1:{null}",
        "LAB_CONCURRENCY": "1000",
        "LAB_QUEUE_MAX": "1000",
        **{f"LAB_{name}": "on" for name in OFF_BY_DEFAULT},
    }
    with ExitStack() as running:
        ways = {NOTHING: Way(name=NOTHING, port=null)}
        pid = running.enter_context(process([sys.executable, "-m", "lab_api"], port, core, environment))
        ways[LAB] = Way(name=LAB, port=port, pid=pid, metrics_port=port)
        if program := peer(SMG):
            argv = [program, "launch", "--host", "127.0.0.1", "--port", str(peers_port)]
            argv += ["--worker-urls", f"http://127.0.0.1:{null}", "--policy", "round_robin", "--log-level", "error"]
            argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)]
            argv += ["--worker-startup-check-interval", "1", "--disable-tokenizer-autoload"]
            pid = running.enter_context(process(argv, peers_port, core))
            ways[SMG] = Way(name=SMG, port=peers_port, pid=pid, metrics_port=metrics_port)
            _wait_for_stream(peers_port)
        yield ways


def _wait_for_stream(port: int) -> None:
    deadline_s = time.monotonic() + 30
    while uvloop.run(load(port, 2, 2, 0)).complete == 0:
        if time.monotonic() > deadline_s:
            print(f"cannot measure: no stream through port {port}", file=sys.stderr)
            sys.exit(2)


def _show(name: str, seen: Seen) -> None:
    p50, p99 = seen.quantile(0.5) * 1000, seen.quantile(0.99) * 1000
    print(f"{name:32} {seen.complete:6}/{seen.offered:<6} {p50:8.2f} {p99:8.2f} {seen.cpu_share:8.2f}", flush=True)


def _measure_all(ways: dict[str, Way], seconds: float, rounds: int) -> None:
    """Each way in turn at the two rates, then each at rising rates."""
    for turn in range(rounds):
        for rate in (RATE_RPS, BUSY_RPS):
            for way in ways.values():
                way.measure(rate, seconds / rounds, turn)
    for way in ways.values():
        for rate in CAPACITY_RPS:
            if not way.measure(rate, min(seconds, 5), rate).held:
                break
    for way in ways.values():
        for rate, seen in sorted(way.seen.items()):
            _show(f"{way.name}, {rate}/s{'' if seen.held else ' (not held)'}", seen)


def _measure_litellm(null: int, core: int) -> Way | None:
    """LiteLLM's proxy at rising rates, None if it is not installed."""
    program = peer(LITELLM)
    if program is None:
        return None
    with litellm(program, free_port(), null, core) as way:
        for rate in LITELLM_RPS:
            seen = way.measure(rate, 5, rate)
            held = seen.held_within(LITELLM_HELD_P99_S)
            _show(f"{LITELLM}, {rate}/s{'' if held else ' (not held)'}", seen)
            if not held:
                break
    return way


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16, help="of load for each arrangement (default 16)")
    parser.add_argument("--rounds", type=int, default=4, help="turns it is split into (default 4)")
    parser.add_argument("--streams", type=int, default=1000, help="open at once (default 1000)")
    parser.add_argument("--no-litellm", action="store_true", help="leave LiteLLM out: its start takes a minute")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        uvloop.run(_null(asked.serve))
        return 0
    gc.disable()
    cores = two_cores()
    null = free_port()
    print(f"{'what stands between':32} {'complete':>13} {'p50 ms':>8} {'p99 ms':>8} {'core':>8}", flush=True)
    with process([sys.executable, str(Path(__file__)), "--serve", str(null)], null, cores[0]):
        with gateways(null, cores[1]) as ways:
            _measure_all(ways, asked.seconds, asked.rounds)
            if not ways[NOTHING].seen[RATE_RPS].held:
                print("cannot measure: the load does not hold without anything in between", file=sys.stderr)
                return 2
            opened = {name: uvloop.run(open_streams(way.port, asked.streams, way.pid)) for name, way in ways.items()}
            attempts = uvloop.run(_attempts_per_request(ways[LAB].port, null, 1000))
        slow = None if asked.no_litellm else _measure_litellm(null, cores[1])
    publish("gateway", _figures(ways, slow, opened, attempts), as_json=asked.json)
    return 0


def _figures(
    ways: dict[str, Way], slow: Way | None, opened: dict[str, tuple[int, int]], attempts: float
) -> dict[str, Figure]:
    def added(name: str, rate: int, q: float) -> float | None:
        if name not in ways:
            return None
        return round(ways[name].seen[rate].quantile(q) - ways[NOTHING].seen[rate].quantile(q), 6)

    figures: dict[str, Figure] = {}
    for rate, q in ((RATE_RPS, 0.5), (RATE_RPS, 0.99), (BUSY_RPS, 0.5), (BUSY_RPS, 0.99)):
        own, peers = added(LAB, rate, q), added(SMG, rate, q)
        goal = "<= 0.02" if rate == BUSY_RPS and q > 0.9 else f"<= {peers:g}" if peers and rate == RATE_RPS else None
        figures[f"added_ttft_p{q * 100:.0f}_s_at_{rate}"] = figure(own or 0.0, "s", goal, peer=peers, digits=6)
    lab, smg = ways[LAB], ways.get(SMG)
    held = smg.held_rps() if smg else None
    figures["held_streams_per_core_rps"] = figure(lab.held_rps(), "streams/s", ">= 600", peer=held)
    if slow is not None and (held := slow.held_rps(LITELLM_HELD_P99_S)):
        figures["held_times_litellm"] = figure(lab.held_rps() / held, "times", ">= 15")
    served, resident_bytes = opened[LAB]
    peers_mb = opened[SMG][1] / 1e6 if smg else None
    figures["rss_mb_of_open_streams"] = figure(resident_bytes / 1e6, "MB", "<= 150", peer=peers_mb)
    figures["open_streams_served"] = figure(served, "streams", f">= {opened[NOTHING][0]}")
    figures["attempts_per_failed_request"] = figure(attempts, "attempts", "<= 1.1")
    whole = all(one.complete == one.offered for one in (lab.seen[RATE_RPS], lab.seen[BUSY_RPS]))
    figures["complete"] = figure(float(whole), "1 if every stream was", "== 1")
    return figures


if __name__ == "__main__":
    sys.exit(main())
