"""The load generator against plain Locust, each on one core.

Whole answers at 2,000 requests a second, streams of 32 tokens at 600 a second, and
streams at 100 a second whose time to first token is compared with the server's own
measurement. Samples are written, and contents are checked at the end of each stream.
Plain Locust aims at the same rates with closed-loop users. A null server on the other
core answers.

    python benchmarks/load.py [--seconds 8] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from figures import Figure, figure, publish

from pytest_llmchaos import loads
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.loadgen.process import LoadPlan, LoadProcess
from pytest_llmchaos.stats import windows

TOKENS = 32
FIRST_S, NEXT_S = 0.020, 0.005
PEER = Path(__file__).parent / "peers" / "plain_locust.py"
USERS_SHARE = 4  # requests a second of one of plain Locust's users


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(finish: str) -> bytes:
    said = f'{{"choices":[{{"index":0,"delta":{{"content":"token "}},"finish_reason":{finish}}}]}}'
    return chunked(f"data: {said}\n\n".encode())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN, LAST = event("null"), event('"length"') + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
SAID = b'{"choices":[{"message":{"content":"token"},"finish_reason":"length"}],"usage":{"completion_tokens":1}}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(SAID), SAID)


class NullServer(asyncio.Protocol):
    """Stream canned answers by timers, with as little work as possible.

    `GET /truth` returns and clears the server's own times.
    """

    first_s: list[float] = []  # noqa: RUF012 - one list for all connections of this process
    since = [0.0, 0.0]  # noqa: RUF012

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._asked_s = 0.0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            self._buffer = b""
            self._transport.write(self._truth())
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        if len(body) < length:
            return
        self._buffer = b""
        if b'"stream": true' in body or b'"stream":true' in body:
            self._asked_s, self._left = time.monotonic(), TOKENS
            self._transport.write(HEAD)
            self._timer = self._loop.call_later(FIRST_S, self._token)
        else:
            self._transport.write(WHOLE)

    def _token(self) -> None:
        if self._left == TOKENS:
            self.first_s.append(time.monotonic() - self._asked_s)
        self._left -= 1
        if self._left:
            self._transport.write(TOKEN)
            self._timer = self._loop.call_later(NEXT_S, self._token)
        else:
            self._transport.write(LAST)

    def _truth(self) -> bytes:
        now = [time.monotonic(), time.process_time()]
        cpu = (now[1] - self.since[1]) / (now[0] - self.since[0])
        told = json.dumps({"first_p50_s": middle(self.first_s), "cpu": cpu}).encode()
        self.since[:], self.first_s[:] = now, []
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(told), told)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of one generator for one task.

    `held` is the share of the target rate that was answered well.
    """

    what: str
    who: str
    rate_rps: float
    held: float
    lateness_p99_s: float | None
    ttft_p50_s: float | None
    truth_p50_s: float
    cpu: float
    server_cpu: float

    def row(self) -> str:
        late = "" if self.lateness_p99_s is None else f"{self.lateness_p99_s * 1000:.2f} ms"
        ttft = "" if self.ttft_p50_s is None else f"{self.ttft_p50_s * 1000:.2f} ({self.truth_p50_s * 1000:.2f}) ms"
        return (
            f"{self.what:<8} {self.who:<13} {self.rate_rps:>6g}/s {self.held:>7.1%} {late:>10} {ttft:>18} "
            f"{self.cpu:>6.0%} {self.server_cpu:>6.0%}"
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def null_server() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--server", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                truth(url)
                break
            except OSError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(5)


def truth(url: str) -> dict[str, float]:
    answer = request("GET", f"{url}/truth", timeout_s=5)
    return {name: float(value) for name, value in answer.json().items()}


def ours(url: str, *, stream: bool, rate_rps: float, seconds: float) -> Result:
    arrivals = loads.poisson(rate_rps=rate_rps, max_tokens=TOKENS).schedule(Random(42), seconds)
    plan = LoadPlan(url=url, model="null", arrivals=arrivals, stream=stream, drain_s=5)
    with tempfile.TemporaryDirectory() as directory, LoadProcess(plan, Path(directory)) as process:
        truth(url)
        while process.alive:
            time.sleep(0.1)
        summary, told = process.stop(), truth(url)
        seen = samples_file.load(Path(directory) / "samples.jsonl")
    (window,) = windows.windows(seen, [("all", 0, seconds + 1)])
    return Result(
        what="streams" if stream else "plain",
        who="llmchaos",
        rate_rps=rate_rps,
        held=window.ok / len(arrivals),
        lateness_p99_s=summary.lateness_p99_s,
        ttft_p50_s=window.ttft_s.p50 if stream else None,
        truth_p50_s=told["first_p50_s"],
        cpu=summary.generator_cpu,
        server_cpu=told["cpu"],
    )


def peer(url: str, *, stream: bool, rate_rps: float, seconds: float) -> Result:
    users = str(int(rate_rps / USERS_SHARE))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "peer.json"
        command = [sys.executable, "-m", "locust", "-f", str(PEER), "Streams" if stream else "Plain", "--headless"]
        command += ["--only-summary", "--host", url, "--users", users, "--spawn-rate", users]
        command += ["--run-time", f"{seconds:g}s", "--exit-code-on-error", "0"]
        truth(url)
        began_s = time.monotonic()
        subprocess.run(
            command, env={**os.environ, "PEER_FILE": str(file)}, capture_output=True, check=False, timeout=60
        )
        took_s, server = time.monotonic() - began_s, truth(url)
        told = json.loads(file.read_text())
    return Result(
        what="streams" if stream else "plain",
        who="plain Locust",
        rate_rps=rate_rps,
        held=told["done"] / max(seconds, told["seconds"]) / rate_rps,
        lateness_p99_s=None,
        ttft_p50_s=middle(told["first_s"]) if stream else None,
        truth_p50_s=server["first_p50_s"],
        cpu=told["cpu_s"] / took_s,
        server_cpu=server["cpu"],
    )


def measured(seconds: float) -> list[Result]:
    asked: tuple[tuple[bool, float], ...] = ((False, 2000.0), (True, 600.0), (True, 100.0))
    results = []
    with null_server() as url:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for stream, rate_rps in asked:
            for generator in (ours, peer):
                results.append(generator(url, stream=stream, rate_rps=rate_rps, seconds=seconds))
                print(results[-1].row(), flush=True)
    return results


def figures(results: list[Result]) -> dict[str, Figure]:
    plain, plain_peer, streams, streams_peer, slow, slow_peer = results

    def error_s(result: Result) -> float:
        return abs((0.0 if result.ttft_p50_s is None else float(result.ttft_p50_s)) - result.truth_p50_s)

    return {
        "plain_2000_rps_held": figure(plain.held, "share", ">= 0.99", peer=plain_peer.held, digits=6),
        "plain_lateness_p99": figure(plain.lateness_p99_s or 0.0, "s", "<= 0.01", digits=6),
        "streams_600_rps_held": figure(streams.held, "share", ">= 0.99", peer=streams_peer.held, digits=6),
        "streams_lateness_p99": figure(streams.lateness_p99_s or 0.0, "s", "<= 0.01", digits=6),
        "ttft_p50_error": figure(error_s(slow), "s", "<= 0.002", peer=error_s(slow_peer), digits=6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.server:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        uvloop.run(serve(args.server))
        return
    if len(os.sched_getaffinity(0)) < 2:
        print("this needs two cores: one for the generator, one for the server", file=sys.stderr)
        raise SystemExit(2)
    print(f"load average {os.getloadavg()[0]:.1f} at the start; 0.2 or less is a quiet machine")
    print(
        f"{'task':<8} {'generator':<13} {'asked':>8} {'held':>7} {'late p99':>10} {'ttft p50 (true)':>18} {'core':>6} {'server':>6}"
    )
    publish("load", figures(measured(args.seconds)), as_json=args.json)


if __name__ == "__main__":
    main()
