"""Two providers behind one gateway: what the dashboard `llmchaos-providers` shows.

Two simulated engines serve the same Poisson load through the lab's gateway. One is
quick and exposes vLLM's names, the other slower with SGLang's. A real Prometheus
scrapes callers, gateway and engines, and answers the dashboard's own queries. The
figures of callers are compared with the callers' exact times.

    python benchmarks/providers.py [--seconds 60] [--rate 12] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import yaml
from figures import Figure, figure, publish
from prometheus_client import CollectorRegistry, start_http_server

from pytest_llmchaos.generate.boards.providers import PROVIDERS
from pytest_llmchaos.generate.prices import parse_prices, price_rules
from pytest_llmchaos.loadgen.metrics import Counts
from pytest_llmchaos.prometheus.binary import find_or_fetch
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.servers.catalogue import server
from pytest_llmchaos.servers.rules import recording_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
GOOD_TTFT_S, GOOD_E2E_S = 1.0, 5.0
TOKENS = 64
# model-2 has three times the first token and twice the time of a token.
ENGINES: dict[str, tuple[str, dict[str, str]]] = {
    "model-1": ("vllm", {"LAB_METRICS": "vllm"}),
    "model-2": ("sglang", {"LAB_METRICS": "sglang", "LAB_FIRST_TOKEN_S": "0.06", "LAB_TOKEN_GAP_S": "0.01"}),
}
PRICES = """\
currency = "USD"

[providers.vllm]
replica_hour = 2.5

[providers.sglang]
input_per_million = 0.1
output_per_million = 0.4
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], log: Path, **env: str) -> Iterator[None]:
    path = os.pathsep.join([str(ROOT / "stack" / "services"), os.environ.get("PYTHONPATH", "")])
    with log.open("w") as out:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, **env}, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


async def _is_up(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


async def _call(
    http: aiohttp.ClientSession, url: str, due_s: float, counts: Counts, exact: Mapping[str, list[float]]
) -> None:
    body = {
        "model": "smollm2:135m", "messages": [{"role": "user", "content": "Compare two providers."}],
        "max_tokens": TOKENS, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    first_s, text, replica = None, b"", ""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
            replica = answer.headers.get("x-llmlab-replica", "")
            async for line in answer.content:
                text = line if line.strip() else text
                if first_s is None and re.search(rb'"content": ?"[^"]', line):
                    first_s = time.monotonic() - due_s
    e2e_s = time.monotonic() - due_s
    is_ok = first_s is not None and text.strip() == b"data: [DONE]"
    if is_ok and first_s is not None:
        exact[replica].append(first_s)
    ttft_s = e2e_s if first_s is None else first_s
    is_good = is_ok and ttft_s <= GOOD_TTFT_S and e2e_s <= GOOD_E2E_S
    counts.count_end("ok" if is_ok else "truncated", ttft_s, e2e_s, is_good, replica)


async def _load(url: str, seconds: float, rate_rps: float, counts: Counts) -> dict[str, list[float]]:
    """Exact times to first token of the callers, by replica."""
    exact: dict[str, list[float]] = defaultdict(list)
    rng, calls = random.Random(42), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await _is_up(http, f"{url}/readyz")
        due_s = time.monotonic()
        end_s = due_s + seconds
        while (due_s := due_s + rng.expovariate(rate_rps)) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            calls.append(asyncio.create_task(_call(http, url, due_s, counts, exact)))
        await asyncio.gather(*calls)
    return exact


def _config(folder: Path, targets: Mapping[str, int]) -> str:
    jobs = [
        {
            "job_name": name,
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"service": name}}],
        }
        for name, port in targets.items()
    ]
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "*.rules.yml")],
            "scrape_configs": jobs,
        }
    )


def _figures(prometheus: Prometheus, seconds: float, exact: Mapping[str, list[float]]) -> dict[str, Figure]:
    """The values of every query of the dashboard, over the load."""
    found = {}
    now_s = time.time()
    for panel in PROVIDERS.panels:
        for query in panel.queries:
            expr = query.expr.replace("$__rate_interval", f"{seconds:.0f}s")
            for labels, value in sorted(prometheus.vector(expr, now_s, may_be_empty=True).items(), key=str):
                legend = query.legend
                for name, text in dict(labels).items():
                    legend = legend.replace(f"{{{{{name}}}}}", text)
                unit = {"s": "s", "percentunit": "ratio", "reqps": "1/s"}.get(panel.unit, "")
                found[f"{panel.title}: {legend}"] = figure(value, unit, digits=4)
    for replica, times_s in sorted(exact.items()):
        p95_s = statistics.quantiles(times_s, n=20, method="inclusive")[-1]
        found[f"First token, p95, exact: {ENGINES[replica][0]} callers"] = figure(p95_s, "s", digits=4)
    return found


def measure(seconds: float, rate_rps: float) -> dict[str, Figure]:
    counts = Counts(lambda: 0)
    registry = CollectorRegistry()
    registry.register(counts)
    ports = {name: _free_port() for name in (*ENGINES, "api", "clients")}
    web, thread = start_http_server(ports["clients"], "127.0.0.1", registry)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for engine, (_, env) in ENGINES.items():
            own = {"LAB_PORT": str(ports[engine]), "LAB_ADMIN_PORT": str(_free_port()), **env}
            stack.enter_context(_running([sys.executable, "-m", "lab_engine"], folder / f"{engine}.log", **own))
        gateway = {
            "LAB_PORT": str(ports["api"]),
            "LAB_MODEL": "smollm2:135m",
            "LAB_REPLICAS": ",".join(f"{one}=http://127.0.0.1:{ports[one]}" for one in ENGINES),
            "LAB_PROVIDERS": ",".join(f"{one}={provider}" for one, (provider, _) in ENGINES.items()),
        }
        stack.enter_context(_running([sys.executable, "-m", "lab_api"], folder / "api.log", **gateway))
        for number, (provider, _) in enumerate(ENGINES.values(), 1):
            rules = recording_rules([server(provider)], f'service="model-{number}"')
            (folder / f"{provider}.rules.yml").write_text(rules)
        (folder / "prices.rules.yml").write_text(price_rules(parse_prices(PRICES, "prices"), "prices"))
        (folder / "prometheus.yml").write_text(_config(folder, ports))
        address = f"127.0.0.1:{_free_port()}"
        command = [
            str(find_or_fetch("prometheus")), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
        ]  # fmt: skip
        stack.enter_context(_running(command, folder / "prometheus.log"))
        try:
            exact = asyncio.run(_load(f"http://127.0.0.1:{ports['api']}", seconds, rate_rps, counts))
            time.sleep(2.5)  # one more scrape and evaluation
            return _figures(Prometheus(f"http://{address}"), seconds, exact)
        finally:
            web.shutdown()
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of load (default 60)")
    parser.add_argument("--rate", type=float, default=12, help="requests per second (default 12)")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    given = parser.parse_args()
    publish("providers", measure(given.seconds, given.rate), as_json=given.json)
