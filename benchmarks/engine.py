"""The simulated engine on one core against a naive one.

300 concurrent streams at 10,000 tokens a second in all. Each engine runs alone on one
core, the clients on another. Compared in one run: `lab_engine`, and a naive simulator
of twenty lines (a task per stream that sleeps and writes). The timing error is what a
client measures: how far the time between two tokens of a stream lies from the modelled
one. A second figure is the wall time of an hour of traffic on the virtual clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import cast

import httpx
import uvloop
from figures import figure, publish

SERVICES = Path(__file__).parents[1] / "stack" / "services"
sys.path.insert(0, str(SERVICES))

from lab_engine import virtual  # noqa: E402 - the path above comes first
from lab_engine.profiles import PROFILES  # noqa: E402
from lab_engine.scheduler import Scheduler  # noqa: E402
from lab_engine.work import Sequence  # noqa: E402

STREAMS, TOKENS_PER_S = 300, 10_000
GAP_S = STREAMS / TOKENS_PER_S
WARM_S, MEASURED_S = 3.0, 8.0
TOKENS = round((WARM_S + MEASURED_S + 3) / GAP_S)
BODY = json.dumps(
    {"model": "smollm2:135m", "stream": True, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "bench"}]}
).encode()


class Client(asyncio.Protocol):
    """One stream that records when each packet came and its number of tokens."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        write = cast("asyncio.Transport", transport).write  # uvloop's is one without being its subclass
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        write(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)

    def data_received(self, data: bytes) -> None:
        tokens = data.count(b'"content":"') - data.count(b'"content":""')
        if tokens > 0:
            self.arrivals.append((time.perf_counter(), tokens))
        if b"[DONE]" in data and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the stream ended early"))


async def drive(port: int) -> tuple[list[Client], float]:
    loop, clients = asyncio.get_running_loop(), []
    start_s = time.perf_counter()
    for _ in range(STREAMS):
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        clients.append(client)
        await asyncio.sleep(0.002)
    await asyncio.wait_for(asyncio.gather(*(client.ended for client in clients)), 60)
    return clients, start_s


def judged(clients: list[Client], start_s: float) -> dict[str, float]:
    """Figures of the part of the run in which all streams were open."""
    from_s, to_s = start_s + WARM_S, start_s + WARM_S + MEASURED_S
    errors, tokens = [], 0
    for client in clients:
        inside = [(at_s, count) for at_s, count in client.arrivals if from_s <= at_s < to_s]
        tokens += sum(count for _, count in inside)
        for (before_s, _), (at_s, count) in pairwise(inside):
            # Tokens of one packet: the first is as late as the others are early.
            errors += [abs(at_s - before_s - GAP_S)] + [GAP_S] * (count - 1)
    errors.sort()
    return {
        "p50_s": errors[len(errors) // 2],
        "p99_s": errors[len(errors) * 99 // 100],
        "tokens_per_s": tokens / MEASURED_S,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(command: list[str], port: int, shape: dict[str, str], *, real_time: bool) -> dict[str, float]:
    """Run the server on the last core and the clients on the first, each half idle."""
    cores = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SERVICES), "LAB_PORT": str(port), **shape},
        stdout=subprocess.DEVNULL,
    )
    try:
        os.sched_setaffinity(process.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        _wait_for(port)
        if real_time:
            for pid in (process.pid, 0):
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(10))
        before_mib, before_s = _memory_mib(process.pid), _cpu_s(process.pid)
        started_s = time.perf_counter()
        figures = judged(*uvloop.run(drive(port)))
        figures["cpu"] = (_cpu_s(process.pid) - before_s) / (time.perf_counter() - started_s)
        figures["grown_mib"] = _memory_mib(process.pid) - before_mib
        return figures
    finally:
        os.sched_setaffinity(0, set(cores))
        if real_time:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + 15
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline_s:
                print("the server did not start within 15 s", file=sys.stderr)
                sys.exit(2)
            time.sleep(0.05)
        else:
            return


def _memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_share(for_s: float) -> float:
    """Share of all cores' time that was not idle."""

    def times() -> tuple[float, float]:
        numbers = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    before, idle_before = times()
    time.sleep(for_s)
    after, idle_after = times()
    return 1 - (idle_after - idle_before) / max(1, after - before)


def hour(profile: str, rate_rps: float) -> tuple[float, int]:
    """Wall seconds that an hour of Poisson traffic takes, and its tokens."""
    chosen, rng = PROFILES[profile], random.Random(1)
    arrivals: list[Sequence] = []
    now_s = 0.0
    while (now_s := now_s + rng.expovariate(rate_rps)) < 3600:
        prompt, answer = rng.randint(64, 512), rng.randint(32, 256)
        arrivals.append(Sequence(name=str(len(arrivals)), arrived_s=now_s, prompt_tokens=prompt, answer_tokens=answer))
    scheduler = Scheduler(speed=chosen.speed, limits=chosen.limits)
    started_s = time.perf_counter()
    virtual.run(scheduler, arrivals)
    return time.perf_counter() - started_s, scheduler.stats.generated_tokens


def naive(port: int) -> None:
    """The peer: the obvious implementation."""
    from aiohttp import web  # noqa: PLC0415 - only the peer's process needs it

    async def completions(request: web.Request) -> web.StreamResponse:
        await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(TOKENS):
            await asyncio.sleep(GAP_S)
            delta = {"index": 0, "delta": {"content": f"{index:06d} "}, "finish_reason": None}
            event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": [delta]}
            await response.write(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def health(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", completions), web.get("/health", health)])
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--busy", action="store_true", help="measure although other work runs, at real-time priority (root)"
    )
    parser.add_argument("--naive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.naive:
        naive(arguments.naive)
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        print("this benchmark needs two cores: one for the engine and one for its clients", file=sys.stderr)
        return 2
    busy = busy_share(1.0)
    if busy > 0.25 and not arguments.busy:
        print(
            f"other work takes {busy:.0%} of this machine, so timing errors would be its own: try later",
            file=sys.stderr,
        )
        return 2
    # 3 ms per step and the rest by sequence: 300 make 10,000 tokens a second.
    shape = {"LAB_TOKEN_GAP_S": "0.003", "LAB_TOKENS_PER_S": str(STREAMS / (GAP_S - 0.003)), "LAB_SLOTS": str(STREAMS)}
    ours = measured([sys.executable, "-m", "lab_engine"], free_port(), shape, real_time=arguments.busy)
    port = free_port()
    peer = measured([sys.executable, __file__, "--naive", str(port)], port, {}, real_time=arguments.busy)
    figures = {
        "tokens_per_s": figure(ours["tokens_per_s"], "tokens/s", ">= 9900", peer=peer["tokens_per_s"]),
        "timing_error_p50": figure(ours["p50_s"] * 1000, "ms", peer=peer["p50_s"] * 1000),
        "timing_error_p99": figure(ours["p99_s"] * 1000, "ms", "<= 10", peer=peer["p99_s"] * 1000),
        "share_of_one_core": figure(ours["cpu"], "cores", "<= 1", peer=peer["cpu"]),
        "memory_grown": figure(ours["grown_mib"], "MiB", "<= 64", peer=peer["grown_mib"]),
    }
    for profile, rate_rps in (("llama-3.1-8b-a100-40gb", 3.0), ("gpt-oss-120b-h200", 5.0)):
        wall_s, tokens = hour(profile, rate_rps)
        figures[f"hour_of_{profile}_at_{rate_rps:g}_rps"] = figure(wall_s, "s", "<= 20")
        print(f"an hour of {profile} at {rate_rps:g} requests/s: {tokens:,} tokens in {wall_s:.1f} s")
    publish("engine", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
