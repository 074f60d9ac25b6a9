"""Cost of the fault agent, compared with a direct connection and toxiproxy 2.

A null server streams 32 tokens (the first after 20 ms, then one every 5 ms). Open-loop
Poisson loads run in turn: directly, through the agent, and through toxiproxy. Then come
rising rates, large bodies, many open streams, and tool calls one after the other, while
the agent has a fault of another tool. Server and load share one core. The program under
test has the other.

The peer is `toxiproxy-server` on PATH. Otherwise Go builds it once into the cache.
Without either, its columns stay empty.

    python benchmarks/fault_agent.py [--seconds 16] [--rounds 4] [--json] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import gateway
import uvloop
from figures import Figure, figure, publish
from gateway import NullServer, Seen

from pytest_llmchaos.host.state_dirs import cache_dir

RATE_RPS = 100
CAPACITY_RPS = (400, 600, 800)
TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
BUILD_S = 300
NOTHING, AGENT, PEER = "nothing", "fault agent", "toxiproxy"
BLOCK = b"x" * (1 << 20)
CALLS = 1000
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "refund", "arguments": {"order": 17}}}
).encode()
RESULT = json.dumps(
    {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "refunded"}], "isError": False}}
).encode()
ASKED = b"POST /mcp HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(CALL),
    CALL,
)
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(RESULT), RESULT)


class Server(NullServer):
    """Streams of tokens, and large bodies."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.free = asyncio.Event()
        self.free.set()

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /body/"):
            size = int(data.split(b" ", 2)[1].rpartition(b"/")[2])
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            self.task = asyncio.ensure_future(self.send_body(size))
        elif data.startswith(b"POST /mcp "):
            self.transport.write(ANSWERED)
        else:
            super().data_received(data)

    async def send_body(self, size: int) -> None:
        while size > 0 and not self.transport.is_closing():
            await self.free.wait()
            self.transport.write(BLOCK if size >= len(BLOCK) else BLOCK[:size])
            size -= len(BLOCK)

    def pause_writing(self) -> None:
        self.free.clear()

    def resume_writing(self) -> None:
        self.free.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.free.set()


class Body(asyncio.BufferedProtocol):
    """A client that drops the bytes of one body."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.size = size
        self.buffer = bytearray(1 << 20)
        self.read = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"GET /body/%d HTTP/1.1\r\nHost: lab\r\n\r\n" % self.size)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's name
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.left -= nbytes
        if self.left <= 0 and not self.read.done():
            self.read.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.read.done():
            self.read.set_exception(exc or ConnectionError(f"the body lacks {self.left} bytes"))


@dataclass
class Way:
    """One arrangement and what was measured of it."""

    port: int
    pid: int | None = None
    seen: Seen = field(default_factory=Seen)
    rising: dict[int, Seen] = field(default_factory=dict)
    bytes_per_s: float = 0.0
    body_cores: float = 0.0
    calls_s: list[float] = field(default_factory=list)
    rss_bytes: int = 0
    control: str = ""

    def cpu_s(self) -> float:
        return gateway.cpu_s(self.pid) if self.pid is not None else 0.0

    def held_rps(self) -> int:
        return max((rate for rate, one in self.rising.items() if one.held), default=0)


async def _streams(way: Way, rate_rps: float, seconds: float, seed: int) -> Seen:
    began_s, cpu_s = time.monotonic(), way.cpu_s()
    seen = await gateway.load(way.port, rate_rps, seconds, seed)
    seen.cpu_share = (way.cpu_s() - cpu_s) / (time.monotonic() - began_s)
    return seen


async def _bodies(way: Way, size: int, rounds: int) -> None:
    """Read one body after the other. The fastest counts."""
    for _ in range(rounds):
        began_s, cpu_s = time.monotonic(), way.cpu_s()
        transport, body = await asyncio.get_running_loop().create_connection(lambda: Body(size), "127.0.0.1", way.port)
        await body.read
        took_s = time.monotonic() - began_s
        transport.abort()
        if size / took_s > way.bytes_per_s:
            way.bytes_per_s, way.body_cores = size / took_s, (way.cpu_s() - cpu_s) / took_s


async def _calls(way: Way, number: int) -> None:
    """Call a tool so many times on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    for _ in range(number):
        began_s = time.perf_counter()
        writer.write(ASKED)
        await reader.readexactly(len(ANSWERED))
        way.calls_s.append(time.perf_counter() - began_s)
    writer.close()


def _start_fault(control: str) -> None:
    """Start a fault of another tool, for which the agent reads each call."""
    fault = {"kind": "tool_error", "lease_s": 3600, "match": {"tool": "mail"}}
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(control)
        one.sendall(json.dumps({"do": "start", "fault": fault}).encode() + b"\n")
        if b'"ok"' not in (answer := one.recv(1 << 16)):
            raise SystemExit(f"the fault agent refused a fault: {answer.decode()}")


def toxiproxy() -> str | None:
    """The program, built into the cache unless it is on PATH. None without it."""
    if found := shutil.which("toxiproxy-server"):
        return found
    folder = cache_dir() / "toxiproxy-2.12.0"
    program = folder / "server"
    if program.exists():
        return str(program)
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None:
        print(f"without {PEER}: neither toxiproxy-server nor go is on PATH", file=sys.stderr)
        return None
    print(f"building {PEER} with Go into {folder}", file=sys.stderr)
    environment = {**os.environ, "GOBIN": str(folder)}
    try:
        subprocess.run(
            [go, "install", TOXIPROXY], env=environment, check=True, capture_output=True, text=True, timeout=BUILD_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        print(f"without {PEER}: go install {TOXIPROXY} failed: {' '.join(detail)}", file=sys.stderr)
        return None
    return str(program)


@contextmanager
def _ways(program: str | None) -> Iterator[dict[str, Way]]:
    cores = gateway.two_cores()
    null, agent, peer, peer_admin = (gateway.free_port() for _ in range(4))
    python = sys.executable
    with (
        tempfile.TemporaryDirectory(prefix="llmchaos-bench-") as folder,
        gateway.process([python, str(Path(__file__)), "--serve", str(null)], null, cores[0]),
        gateway.process(
            [python, "-m", "fault_agent"],
            agent,
            cores[1],
            {
                "PYTHONSAFEPATH": "1",  # else this file shadows the package in its own folder
                "LAB_TARGET": "null",
                "LAB_HOST": "127.0.0.1",
                "LAB_PORT": str(agent),
                "LAB_UPSTREAM": f"127.0.0.1:{null}",
                "LAB_CONTROL": f"{folder}/control",
            },
        ) as agent_pid,
    ):
        ways = {NOTHING: Way(null), AGENT: Way(agent, agent_pid, control=f"{folder}/control")}
        if program is None:
            yield ways
            return
        config = Path(folder) / "toxiproxy.json"
        proxy = {"name": "null", "listen": f"127.0.0.1:{peer}", "upstream": f"127.0.0.1:{null}", "enabled": True}
        config.write_text(json.dumps([proxy]))
        command = [program, "-host", "127.0.0.1", "-port", str(peer_admin), "-config", str(config)]
        with gateway.process(command, peer, cores[1], {"GOMAXPROCS": "1", "LOG_LEVEL": "fatal"}) as peer_pid:
            yield {**ways, PEER: Way(peer, peer_pid)}


def _measure(ways: dict[str, Way], asked: argparse.Namespace) -> None:
    for turn in range(asked.rounds):
        for way in ways.values():
            one = uvloop.run(_streams(way, RATE_RPS, asked.seconds / asked.rounds, turn))
            way.seen.ttft_s += one.ttft_s
            way.seen.late_s += one.late_s
            way.seen.offered += one.offered
            way.seen.complete += one.complete
            way.seen.cpu_share += one.cpu_share / asked.rounds
    proxies = [way for name, way in ways.items() if name != NOTHING]
    for way in proxies:
        for rate in CAPACITY_RPS:
            way.rising[rate] = uvloop.run(_streams(way, rate, min(asked.seconds, 5), rate))
            if not way.rising[rate].held:
                break
    for way in ways.values():
        uvloop.run(_bodies(way, asked.body_mb * 1_000_000, asked.rounds))
    for name, way in ways.items():
        opened, way.rss_bytes = uvloop.run(gateway.open_streams(way.port, asked.streams, way.pid))
        if opened < asked.streams and name != PEER:
            print(f"cannot measure: only {opened} of {asked.streams} streams run through {name}", file=sys.stderr)
            sys.exit(2)
    _start_fault(ways[AGENT].control)
    for _ in range(asked.rounds):
        for way in ways.values():
            uvloop.run(_calls(way, CALLS))


def _show(name: str, seen: Seen) -> None:
    p50, p99 = seen.quantile(0.5) * 1000, seen.quantile(0.99) * 1000
    print(f"{name:32} {seen.complete:6}/{seen.offered:<6} {p50:8.2f} {p99:8.2f} {seen.cpu_share:8.2f}")


def _figures(ways: dict[str, Way], streams: int) -> dict[str, Figure]:
    agent, peer = ways[AGENT], ways.get(PEER)

    def added(way: Way | None, q: float) -> float | None:
        return None if way is None else way.seen.quantile(q) - ways[NOTHING].seen.quantile(q)

    def of_peer(value: float | None) -> float | None:
        return None if peer is None else value

    def added_to_call(way: Way) -> float:
        return statistics.median(way.calls_s) - statistics.median(ways[NOTHING].calls_s)

    first = agent.rising[CAPACITY_RPS[0]]
    peer_first = peer.rising[CAPACITY_RPS[0]].cpu_share if peer is not None else None
    whole = all(way.seen.complete == way.seen.offered for way in ways.values())
    megabytes = 1_000_000
    return {
        "added_ttft_p50_s": figure(added(agent, 0.5) or 0.0, "s", "<= 0.0006", peer=added(peer, 0.5), digits=6),
        "added_ttft_p99_s": figure(added(agent, 0.99) or 0.0, "s", "<= 0.004", peer=added(peer, 0.99), digits=6),
        "tool_call_added_p50_s": figure(
            added_to_call(agent), "s", "<= 0.001", peer=None if peer is None else added_to_call(peer), digits=6
        ),
        "streams_per_core_rps": figure(
            agent.held_rps(), "streams/s", ">= 400", peer=of_peer(peer.held_rps() if peer else None)
        ),
        f"cores_at_{CAPACITY_RPS[0]}_rps": figure(first.cpu_share, "cores", "<= 1", peer=peer_first),
        "body_mb_per_s": figure(
            agent.bytes_per_s / megabytes,
            "MB/s",
            ">= 200",
            peer=of_peer(peer.bytes_per_s / megabytes if peer else None),
            direct=round(ways[NOTHING].bytes_per_s / megabytes, 1),
            cores=round(agent.body_cores, 3),
            digits=1,
        ),
        f"rss_mb_of_{streams}_streams": figure(
            agent.rss_bytes / megabytes,
            "MB",
            "<= 60",
            peer=of_peer(peer.rss_bytes / megabytes if peer else None),
            digits=1,
        ),
        "complete": figure(float(whole), "1 if every stream was", "== 1"),
    }


async def _serve(port: int) -> None:
    await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=4096)
    gc.disable()
    await asyncio.Event().wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16, help="of load for each arrangement (default 16)")
    parser.add_argument("--rounds", type=int, default=4, help="turns it is split into (default 4)")
    parser.add_argument("--body-mb", type=int, default=400, help="size of a large body (default 400)")
    parser.add_argument("--streams", type=int, default=1000, help="streams that are open at once (default 1000)")
    parser.add_argument("--no-peer", action="store_true", help="leave toxiproxy out")
    parser.add_argument(
        "--busy", action="store_true", help="measure although other work runs, at real-time priority (root)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a goal is not met")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    asked = _arguments()
    if asked.serve:
        uvloop.run(_serve(asked.serve))
        return 0
    gc.disable()
    peer = None if asked.no_peer else toxiproxy()
    if asked.busy:  # the processes below inherit it
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    with _ways(peer) as ways:
        _measure(ways, asked)
    print(f"{'what stands between':32} {'complete':>13} {'p50 ms':>8} {'p99 ms':>8} {'core':>8}")
    for name, way in ways.items():
        _show(f"{name}, {RATE_RPS}/s", way.seen)
        for rate, one in way.rising.items():
            _show(f"{name}, {rate}/s{'' if one.held else ' (not held)'}", one)
    if not ways[NOTHING].seen.held:
        print("cannot measure: the load does not hold without anything in between", file=sys.stderr)
        return 2
    figures = _figures(ways, asked.streams)
    publish("fault_agent", figures, as_json=asked.json)
    return 1 if asked.check and any(one.met is False for one in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
