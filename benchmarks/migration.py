"""Cut streams of the gateway with mid-stream migration, against uncut ones.

Two simulated engines (first token after 50 ms, then one every 5 ms) stand behind
proxies that cut each answer once, at a drawn byte after its first token: half by a
reset, half by an early end. Clients compute every token of their answer. The gap of a
cut stream is compared with the time to first token of uncut streams in the same run,
and its peer is the largest gap of those. Then replicas stall instead, and the gateway's
gap deadline is part of the gap.

    python benchmarks/migration.py [--cuts 1000] [--stalls 100] [--busy] [--json]
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from figures import Figure, figure, publish

SERVICES = Path(__file__).parents[1] / "stack" / "services"
MODEL = "smollm2:135m"
TOKENS = 32
FIRST_S, NEXT_S = 0.05, 0.005
CLIENTS = 6
STALL_S = 0.5
HEAD_BYTES = 700  # of an answer, with its first token
END_BYTES = 1000  # of an answer: its last token and its usage, which no other replica could count
START_S = 15.0


@dataclass(kw_only=True)
class Cuts:
    """Planned cuts by prompt, and the proxies that perform them."""

    at: dict[bytes, int] = field(default_factory=dict)
    way: dict[bytes, str] = field(default_factory=dict)
    done: set[bytes] = field(default_factory=set)
    longest: int = 0  # bytes of an answer

    async def serve(self, upstream: int) -> int:
        """Port of a proxy in front of `upstream`."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.CancelledError):
                await self._connection(upstream, reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _connection(self, upstream: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below_reader, below_writer = await asyncio.open_connection("127.0.0.1", upstream)
        request, sent, cut = b"", 0, b""

        async def answer() -> None:
            nonlocal sent
            while data := await below_reader.read(2**16):
                if cut and sent + len(data) >= self.at[cut]:
                    writer.write(data[: self.at[cut] - sent])
                    await self._end(self.way[cut], writer)
                    return
                sent += len(data)
                self.longest = max(self.longest, sent)
                writer.write(data)
            writer.close()

        answers = asyncio.create_task(answer())
        try:
            while data := await reader.read(2**16):
                if data.startswith((b"GET ", b"POST ")):
                    request, sent, cut = b"", 0, b""
                request += data
                if not cut and (begin := request.find(b"prompt <")) >= 0 and (end := request.find(b">", begin)) >= 0:
                    prompt = request[begin : end + 1]
                    if prompt in self.at and prompt not in self.done:
                        self.done.add(prompt)
                        cut = prompt
                below_writer.write(data)
        finally:
            answers.cancel()
            below_writer.close()

    async def _end(self, way: str, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        if way == "stall":
            await asyncio.Event().wait()
        if way == "reset":
            writer.transport.abort()
        else:
            writer.close()


@dataclass(kw_only=True)
class Seen:
    """Results of the clients of one arm."""

    streams: int = 0
    errors: list[str] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)  # the largest of each stream


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def tokens(prompt: str) -> str:
    return "".join(hashlib.sha256(f"{prompt}\x1f{at}".encode()).hexdigest()[:6] + " " for at in range(TOKENS))


def errors_of(body: bytes, prompt: str) -> list[str]:
    """Everything that a client would notice of its stream."""
    events = [json.loads(part[6:]) for part in body.split(b"\n\n") if part.startswith(b"data: {")]
    choices = [choice for event in events for choice in event.get("choices", [])]
    usages = [event["usage"]["completion_tokens"] for event in events if "usage" in event]
    checks = {
        "no end": body.endswith(b"data: [DONE]\n\n"),
        "wrong tokens": "".join(choice["delta"].get("content", "") for choice in choices) == tokens(prompt),
        "roles": sum("role" in choice["delta"] for choice in choices) == 1,
        "ids": len({event.get("id") for event in events}) == 1,
        "finish_reason": [one["finish_reason"] for one in choices if one["finish_reason"]] == ["length"],
        "usage": usages == [TOKENS],
    }
    return [name for name, holds in checks.items() if not holds]


async def client(session: aiohttp.ClientSession, url: str, prompt: str, seen: Seen) -> None:
    asked = {
        "model": MODEL, "stream": True, "max_tokens": TOKENS, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
    }  # fmt: skip
    began_s = last_s = time.monotonic()
    body, gap_s = b"", None
    async with session.post(url + "/v1/chat/completions", json=asked) as response:
        async for data in response.content.iter_any():
            now_s = time.monotonic()
            if gap_s is None:
                seen.ttft_s.append(now_s - began_s)
            gap_s = 0.0 if gap_s is None else max(gap_s, now_s - last_s)
            last_s = now_s
            body += data
    seen.streams += 1
    seen.gap_s.append(gap_s or 0.0)
    seen.errors += [f"{prompt}: {error}" for error in errors_of(body, prompt)]


async def arm(url: str, prompts: list[str]) -> Seen:
    """All prompts, by a fixed number of clients at a time."""
    seen, left = Seen(), iter(prompts)

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        for prompt in left:
            await client(session, url, prompt, seen)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(CLIENTS)))
    return seen


async def count(url: str, name: str, outcome: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(f'{name}{{outcome="{outcome}"'))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(module: str, path: str, **env: str) -> Iterator[int]:
    """A service on a free port, ready when `path` answers."""
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICES), "LAB_PORT": str(port), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + START_S
        while not answers(port, path):
            if child.poll() is not None or time.monotonic() > deadline_s:
                print(f"cannot measure: {module} does not answer {path}", file=sys.stderr)
                sys.exit(2)
            time.sleep(0.05)
        yield port
    finally:
        child.terminate()
        child.wait(5)


def answers(port: int, path: str) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as one:
        one.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return one.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    return False


@dataclass(frozen=True, kw_only=True)
class Result:
    """Arms of one run."""

    uncut: Seen
    cut: Seen
    stalled: Seen
    continued: int
    ended: int


async def measured(engines: list[int], stack: ExitStack, asked: argparse.Namespace) -> Result:
    rng, cuts = random.Random(asked.seed), Cuts()
    ports = [await cuts.serve(port) for port in engines]
    gateway: dict[str, Any] = {
        "LAB_MODEL": MODEL,
        "LAB_REPLICAS": ",".join(f"model-{index + 1}=http://127.0.0.1:{port}" for index, port in enumerate(ports)),
        "LAB_MIGRATION": "on", "LAB_RETRY_BUDGET": "off", "LAB_EJECT_MIN_REQUESTS": "100000",
        "LAB_GAP_TIMEOUT_S": str(STALL_S),
    }  # fmt: skip
    entered = await asyncio.to_thread(stack.enter_context, process("lab_api", "/readyz", **gateway))
    url = f"http://127.0.0.1:{entered}"
    await arm(url, [f"warm-up {number}" for number in range(CLIENTS)])
    uncut = await arm(url, [f"whole {number}" for number in range(max(CLIENTS, asked.cuts // 4))])

    def planned(kind: str, number: int, ways: tuple[str, ...]) -> list[str]:
        prompts = [f"prompt <{kind} {one}>" for one in range(number)]
        for index, prompt in enumerate(prompts):
            cuts.at[prompt.encode()] = rng.randrange(HEAD_BYTES, cuts.longest - END_BYTES)
            cuts.way[prompt.encode()] = ways[index % len(ways)]
        return prompts

    cut = await arm(url, planned("cut", asked.cuts, ("reset", "end")))
    stalled = await arm(url, planned("stall", asked.stalls, ("stall",)))
    name = "llmlab_migrations_total"
    return Result(
        uncut=uncut,
        cut=cut,
        stalled=stalled,
        continued=await count(url, name, "continued"),
        ended=await count(url, name, "ended"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=1000, help="streams that are cut (default 1000)")
    parser.add_argument("--stalls", type=int, default=100, help="streams that stall (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the places of the cuts (default 1)")
    parser.add_argument("--busy", action="store_true", help="other work runs: take real-time priority (root)")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    asked = parser.parse_args()
    if asked.busy:  # the services inherit it
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    shape = {"LAB_FIRST_TOKEN_S": str(FIRST_S), "LAB_TOKEN_GAP_S": str(NEXT_S)}
    with ExitStack() as stack:
        engines = [
            stack.enter_context(process("lab_engine", "/health", LAB_ADMIN_PORT=str(free_port()), **shape))
            for _ in range(2)
        ]
        result = uvloop.run(measured(engines, stack, asked))
    for error in [*result.uncut.errors, *result.cut.errors, *result.stalled.errors][:10]:
        print(error)
    if result.uncut.errors:
        print("cannot measure: streams that nothing cut are wrong", file=sys.stderr)
        return 2
    publish("migration", figures_of(result), as_json=asked.json)
    return 0


def figures_of(result: Result) -> dict[str, Figure]:
    uncut, cut, stalled = result.uncut, result.cut, result.stalled
    first_s = quantile(uncut.ttft_s, 0.5)
    beyond_s = [gap_s - first_s for gap_s in cut.gap_s]
    after_stall_s = [gap_s - first_s - STALL_S for gap_s in stalled.gap_s] or [0.0]
    migrated = result.continued + result.ended
    noise_s = max(uncut.gap_s)
    return {
        "first_token_p50_s": figure(first_s, "s"),
        "migrated": figure(migrated, "streams", f">= {cut.streams + stalled.streams}", digits=0),
        "token_errors": figure(len(cut.errors) + len(stalled.errors), "errors", "== 0", digits=0),
        "gap_beyond_first_token_p50_s": figure(quantile(beyond_s, 0.5), "s"),
        "gap_beyond_first_token_p99_s": figure(quantile(beyond_s, 0.99), "s", "<= 0.1"),
        "gap_beyond_first_token_max_s": figure(max(beyond_s), "s", "<= 0.1", peer=noise_s),
        "gap_after_stall_max_s": figure(max(after_stall_s), "s", "<= 0.1", peer=noise_s),
    }


if __name__ == "__main__":
    sys.exit(main())
