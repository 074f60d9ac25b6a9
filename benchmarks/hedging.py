"""Time to first token through the lab's gateway, with and without hedging.

A null server streams 32 tokens (the first after 20 ms, then one every 5 ms). A random
twentieth of its answers are stragglers: the first token takes 1 s more. An open-loop
Poisson load measures the time to first token from the due time, checks that every
stream is complete, and reads from the gateway how many attempts it sent. The same load
runs through a gateway without hedging, as the peer.

    python benchmarks/hedging.py [--seconds 30] [--json]
"""

import argparse
import asyncio
import gc
import random
import re
import sys
import urllib.request
from dataclasses import dataclass

import gateway
import uvloop
from figures import figure, publish

RATE_RPS = 50
STRAGGLERS = 0.05
LATE_S = 1.0


class Straggler(gateway.NullServer):
    """A null server with late first tokens."""

    rng = random.Random(1)

    def speak(self) -> None:
        if self.sent == 0 and self.rng.random() < STRAGGLERS:
            self.due_s += LATE_S
            asyncio.get_running_loop().call_later(LATE_S, super().speak)
        else:
            super().speak()


async def _serve(port: int) -> None:
    await asyncio.get_running_loop().create_server(Straggler, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Results of one gateway: what clients saw, and what it counted."""

    clients: gateway.Seen
    attempts: int
    won: int

    @property
    def attempts_per_request(self) -> float:
        return self.attempts / self.clients.offered


def _counted(port: int, name: str, label: str = "") -> int:
    """Sum of a counter of the gateway, of the series with the label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return int(sum(map(float, re.findall(rf"^{name}{{.*{label}.*}} (\S+)$", text, re.MULTILINE))))


def _measure(null: int, core: int, switched: str, seconds: float) -> Seen:
    port = gateway.free_port()
    environment = {
        "LAB_PORT": str(port),
        "LAB_MODEL": "null",
        "LAB_REPLICAS": f"model-1=http://127.0.0.1:{null},model-2=http://127.0.0.1:{null}",
        "LAB_CONCURRENCY": "1000",
        "LAB_HEDGING": switched,
    }
    with gateway.process([sys.executable, "-m", "lab_api"], port, core, environment):
        clients = uvloop.run(gateway.load(port, RATE_RPS, seconds, 1))
        return Seen(
            clients=clients,
            attempts=_counted(port, "llmlab_upstream_attempts_total"),
            won=_counted(port, "llmlab_hedges_total", 'outcome="won"'),
        )


def _show(name: str, seen: Seen) -> None:
    quantiles = " ".join(f"{seen.clients.quantile(q) * 1000:8.1f}" for q in (0.5, 0.95, 0.99))
    answers = f"{seen.clients.complete}/{seen.clients.offered}"
    print(f"{name:8} {answers:>13} {quantiles} {seen.attempts:9} {seen.won:6}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of load for each gateway (default 30)")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        uvloop.run(_serve(asked.serve))
        return 0
    gc.disable()
    cores = gateway.two_cores()
    null = gateway.free_port()
    print(f"{'hedging':8} {'complete':>13} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'attempts':>9} {'won':>6}")
    with gateway.process([sys.executable, __file__, "--serve", str(null)], null, cores[0]):
        off, on = (_measure(null, cores[1], switched, asked.seconds) for switched in ("off", "on"))
    _show("off", off)
    _show("on", on)
    alone_s = off.clients.quantile(0.99)
    if off.clients.complete < off.clients.offered or alone_s < LATE_S:
        print("cannot measure: the load does not hold, or there were too few stragglers", file=sys.stderr)
        return 2
    figures = {
        "ttft_p99_s": figure(on.clients.quantile(0.99), "s", f"<= {alone_s / 2:g}", peer=alone_s),
        "ttft_p50_s": figure(on.clients.quantile(0.5), "s", peer=off.clients.quantile(0.5)),
        "attempts_per_request": figure(on.attempts_per_request, "attempts", "<= 1.07", peer=off.attempts_per_request),
        "hedges_won_ratio": figure(on.won / max(1, on.attempts - on.clients.offered), "of the hedges"),
        "complete": figure(float(on.clients.complete == on.clients.offered), "1 if every stream was", "== 1"),
    }
    publish("hedging", figures, as_json=asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
