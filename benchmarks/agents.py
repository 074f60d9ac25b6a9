"""Cost of the lab's agents: start, memory, CPU of a task, tasks per second.

For each agent, the desk, the simulated engine and the agent start at once as processes.
Tasks of five steps are performed one after the other, and then at rising rates. A rate
is held if each of its tasks is completed within 2 s of its due time. The desk's ledger
is the witness: two effects of a task, each once, or the benchmark fails.

    python benchmarks/agents.py [--seconds 20] [--tasks 40] [--only durable] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from figures import Figure, figure, publish
from gateway import cpu_s

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local import prerequisites

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVICES = Path(__file__).parents[1] / "stack" / "services"
AGENTS = ("naive", "checkpointed", "durable")
STEPS = ("find_order", "refund", "find_order", "mail", "find_order")
EFFECTS = ("refund", "mail")
RATES_RPS = (1, 2, 3, 5, 7, 10, 15)
GOOD_S = 2.0
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process of the stack."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Tasks of one rate: seconds from due to end, infinite for one that failed."""

    rate_rps: float
    took_s: Sequence[float]

    @property
    def is_held(self) -> bool:
        return max(self.took_s) <= GOOD_S


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def stack(agent: str, packages: Path, folder: Path) -> Iterator[dict[str, Service]]:
    """Desk, engine and agent. Agent and desk have packages of their own."""
    ports = free_ports(4)
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    apart = {"PYTHONPATH": os.pathsep.join([str(packages), str(SERVICES)])}
    here = {"PYTHONPATH": os.pathsep.join([str(SERVICES), os.environ.get("PYTHONPATH", "")])}
    (folder / "state").mkdir(parents=True)
    started: dict[str, Service] = {}

    def start(name: str, module: str, port: int, *options: str, **env: str) -> None:
        log = folder / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *options, "-m", module],
                env={"PATH": os.environ["PATH"], "LAB_PORT": str(port), **env},
                stdout=out,
                stderr=out,
            )
        started[name] = Service(process=process, url=f"http://127.0.0.1:{port}", log=log)

    try:
        start("model", "lab_engine", ports[0], LAB_ADMIN_PORT=str(ports[3]), LAB_MODEL="m", **here)
        start("desk", "lab_desk", ports[1], "-S", LAB_LEDGER_FILE=str(folder / "ledger.sqlite"), **apart)
        calls = {"LAB_MODEL_URL": f"{addresses[0]}/v1", "LAB_MODEL": "m", "LAB_DESK_URL": f"{addresses[1]}/mcp"}
        own = {"LAB_AGENT": agent, "LAB_STATE_DIR": str(folder / "state")}
        start("agent", "lab_agents", ports[2], "-S", **calls, **own, **apart)
        yield started
    finally:
        for service in started.values():
            service.process.kill()
            service.process.wait()


async def listening(http: aiohttp.ClientSession, service: Service) -> None:
    """Wait until a service answers. Raises RuntimeError with the end of its log."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and service.process.poll() is None:
        for path in ("/healthz", "/health"):
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(service.url + path) as answer:
                    if answer.status == 200:
                        return
        await asyncio.sleep(0.02)
    raise RuntimeError(f"{service.log.stem} does not answer: {service.log.read_text()[-2000:]}")


class Tasks:
    """Tasks with an order number each."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/tasks"
        self._orders = count(1)
        self.done: list[int] = []

    async def perform(self, due_s: float) -> float:
        """Seconds from `due_s` to the end, infinite if the task failed."""
        order = next(self._orders)
        body = {"id": f"t-{order}", "input": "plan: " + "; ".join(f"{tool} {order}" for tool in STEPS)}
        async with self._http.post(self._url, json=body) as answer:
            answer.raise_for_status()
        async with self._http.get(f"{self._url}/t-{order}?wait_s=60") as answer:
            state = await answer.json()
        self.done.append(order)
        return time.monotonic() - due_s if state["status"] == "completed" else float("inf")

    async def at_rate(self, rate_rps: float, seconds: float) -> Seen:
        begun_s = time.monotonic()
        running = []
        for number in range(max(1, round(rate_rps * seconds))):
            due_s = begun_s + number / rate_rps
            await asyncio.sleep(due_s - time.monotonic())
            running.append(asyncio.create_task(self.perform(due_s)))
        return Seen(rate_rps=rate_rps, took_s=await asyncio.gather(*running))


async def ledger_is_true(http: aiohttp.ClientSession, url: str, orders: Sequence[int]) -> bool:
    """True if each task has each of its effects once, and there are no others."""
    effects: Counter[tuple[str, int]] = Counter()
    after = 0
    while True:
        async with http.get(f"{url}/ledger?after={after}") as answer:
            page: dict[str, Any] = await answer.json()
        if not page["calls"]:
            return effects == Counter((tool, order) for order in orders for tool in EFFECTS)
        effects.update((row["tool"], row["order"]) for row in page["calls"] if row["effect"] is not None)
        after = page["next"]


async def measured(agent: str, packages: Path, folder: Path, tasks: int, seconds: float) -> dict[str, Figure]:
    begun_s = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        with stack(agent, packages, folder) as services:
            await asyncio.gather(*(listening(http, one) for one in services.values()))
            up_s = time.monotonic() - begun_s
            pid = services["agent"].process.pid
            start_cpu_s = cpu_s(pid)
            load = Tasks(http, services["agent"].url)
            await load.perform(time.monotonic())  # the first one imports and connects
            before_s = cpu_s(pid)
            alone_s = [await load.perform(time.monotonic()) for _ in range(tasks)]
            task_cpu_s = (cpu_s(pid) - before_s) / tasks
            held = Seen(rate_rps=0, took_s=[])
            for rate_rps in RATES_RPS:
                seen = await load.at_rate(rate_rps, seconds)
                if not seen.is_held:
                    break
                held = seen
            rss_mb = sum(one.rss_mb() for one in services.values())
            if not await ledger_is_true(http, services["desk"].url, load.done):
                raise RuntimeError(f"{agent}: the ledger differs from the plans: {services['agent'].log}")
            late_s = statistics.quantiles(held.took_s, n=20, method="inclusive")[-1] if len(held.took_s) > 1 else 0.0
            return {
                f"{agent}: stack listens": figure(up_s, "s", "<= 4"),
                f"{agent}: agent's CPU until then": figure(start_cpu_s, "s"),
                f"{agent}: memory of the stack": figure(rss_mb, "MB", "<= 500", digits=0),
                f"{agent}: memory of the agent": figure(services["agent"].rss_mb(), "MB", digits=0),
                f"{agent}: CPU of a task": figure(1000 * task_cpu_s, "ms", digits=1),
                f"{agent}: a task alone, p50": figure(statistics.median(alone_s), "s"),
                f"{agent}: tasks held": figure(held.rate_rps, "1/s", ">= 10", digits=0),
                f"{agent}: a task at that rate, p95": figure(late_s, "s"),
            }


def measure(names: Sequence[str], tasks: int, seconds: float) -> dict[str, Figure]:
    packages = prerequisites.agents_packages(SERVICES / "requirements-agents.lock")
    found: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="llmchaos-bench-") as folder:
        for name in names:
            found |= asyncio.run(measured(name, packages, Path(folder) / name, tasks, seconds))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of load at each rate (default 20)")
    parser.add_argument("--tasks", type=int, default=40, help="one after the other (default 40)")
    parser.add_argument("--only", choices=AGENTS, help="one agent")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line at the end")
    given = parser.parse_args()
    try:
        figures = measure([given.only] if given.only else AGENTS, given.tasks, given.seconds)
    except (NotReady, RuntimeError) as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    publish("agents", figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
