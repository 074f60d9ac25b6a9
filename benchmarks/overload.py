"""Goodput and the high class of the lab's gateway at three times its capacity.

A null server streams 32 tokens (the first after 20 ms, then one every 5 ms). The
gateway lets 8 requests into each of two replicas, so 91 streams a second are the most
that it can serve. First comes an open-loop Poisson load of 90 % of that, then three
times as much: a fifth is of the high class, the rest normal and low. An answer is good
if it is complete and its first token comes within 0.5 s of its due time. The same load
runs through a gateway without classes and shedding, as the peer.

    python benchmarks/overload.py [--seconds 15] [--json]
"""

import argparse
import asyncio
import gc
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import gateway
import uvloop
from figures import figure, publish

PLACES = 16
ANSWER_S = gateway.FIRST_S + (gateway.TOKENS - 1) * gateway.NEXT_S
CAPACITY_RPS = PLACES / ANSWER_S
TIMES = 3
SLO_S = 0.5
CLASSES = {"high": 0.2, "normal": 0.4, "low": 0.4}
PATTERNS = {"LAB_SHED": "on", "LAB_SHED_TTFT_S": "0.4", "LAB_PRIORITY": "on"}
NAIVE = {"LAB_SHED": "off", "LAB_PRIORITY": "off"}


@dataclass(kw_only=True)
class Seen:
    """Answers by class."""

    offered: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def goodput_rps(self) -> float:
        return self.good.total() / self.seconds


class Client(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, kind: str, due_s: float, seen: Seen) -> None:
        self.kind = kind
        self.due_s = due_s
        self.seen = seen
        self.said = b""
        self.first_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nx-llmlab-priority: %b\r\nConnection: close\r\n" % self.kind.encode()
        )
        self.transport.write(head + gateway.HELLO.split(b"\r\n", 1)[1])

    def data_received(self, data: bytes) -> None:
        self.said += data
        if self.first_s is None and b"token" in self.said:
            self.first_s = time.monotonic() - self.due_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        whole = self.said.count(b"token ") == gateway.TOKENS and b"data: [DONE]" in self.said
        self.seen.good[self.kind] += whole and self.first_s is not None and self.first_s <= SLO_S
        self.seen.refused[self.kind] += not self.said.startswith(b"HTTP/1.1 200")


async def load(port: int, rate_rps: float, seconds: float, seed: int) -> Seen:
    """An open-loop Poisson load of all classes."""
    loop = asyncio.get_running_loop()
    rng = random.Random(seed)
    seen = Seen(seconds=seconds)
    begin_s = due_s = time.monotonic() + 0.1

    async def send(kind: str, due_s: float) -> None:
        with suppress(OSError):  # offered and never good
            await loop.create_connection(lambda: Client(kind, due_s, seen), "127.0.0.1", port)

    while (due_s := due_s + rng.expovariate(rate_rps)) < begin_s + seconds:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        (kind,) = rng.choices(list(CLASSES), list(CLASSES.values()))
        seen.offered[kind] += 1
        loop.create_task(send(kind, due_s))  # noqa: RUF006 -- ends long before the wait below
    await asyncio.sleep(6)  # longer than the gateway's queue
    return seen


def _measure(null: int, core: int, patterns: dict[str, str], seconds: float) -> tuple[Seen, Seen]:
    """Answers below the capacity, and far above it."""
    port = gateway.free_port()
    environment = {
        "LAB_PORT": str(port),
        "LAB_MODEL": "null",
        "LAB_REPLICAS": f"model-1=http://127.0.0.1:{null},model-2=http://127.0.0.1:{null}",
        "LAB_CONCURRENCY": str(PLACES // 2),
        **patterns,
    }
    with gateway.process([sys.executable, "-m", "lab_api"], port, core, environment):
        calm = uvloop.run(load(port, 0.9 * CAPACITY_RPS, seconds, 1))
        flood = uvloop.run(load(port, TIMES * CAPACITY_RPS, seconds, 2))
    return calm, flood


def _show(name: str, seen: Seen) -> None:
    for kind in CLASSES:
        offered, good, refused = seen.offered[kind], seen.good[kind], seen.refused[kind]
        print(f"{name:24} {kind:8} {offered:8} {good:8} {refused:8}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each load (default 15)")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    asked = parser.parse_args()
    gc.disable()
    cores = gateway.two_cores()
    null = gateway.free_port()
    print(f"{'load':24} {'class':8} {'offered':>8} {'good':>8} {'refused':>8}")
    serve = [sys.executable, str(Path(gateway.__file__)), "--serve", str(null)]
    with gateway.process(serve, null, cores[0]):
        calm, flood = _measure(null, cores[1], PATTERNS, asked.seconds)
        _, naive = _measure(null, cores[1], NAIVE, asked.seconds)
    for name, seen in (
        ("0.9 of the capacity", calm),
        (f"{TIMES} times", flood),
        (f"{TIMES} times, fixed queue", naive),
    ):
        _show(name, seen)

    def high(seen: Seen) -> float:
        return seen.good["high"] / max(1, seen.offered["high"])

    if calm.good.total() < 0.99 * calm.offered.total():
        print("cannot measure: the load does not hold below the capacity", file=sys.stderr)
        return 2
    figures = {
        "high_class_in_slo_ratio": figure(high(flood), "of its requests", ">= 0.99", peer=high(naive), digits=4),
        "goodput_of_capacity_ratio": figure(
            flood.goodput_rps / CAPACITY_RPS, "of the capacity", ">= 0.8", peer=naive.goodput_rps / CAPACITY_RPS
        ),
        "low_class_good_rps": figure(flood.good["low"] / flood.seconds, "streams/s"),
    }
    publish("overload", figures, as_json=asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
