"""The same traffic under each server's names has equal canonical values.

`lab_engine.names` and `pytest_llmchaos.servers` were written independently from the
servers' sources. A real Prometheus scrapes the first and evaluates rules of the second.
"""

from __future__ import annotations

import http.server
import math
import sys
import threading
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from support.lab_engine_world import request as asked
from support.prometheus_server import free_port, prometheus_with
from support.waiting import until

from lab_engine.engine import Engine
from lab_engine.exposition import EngineCollector, page
from lab_engine.names import SERVERS
from lab_engine.settings import Settings
from lab_engine.virtual import run
from pytest_llmchaos.servers.canonical import BY_KEY, CANONICAL
from pytest_llmchaos.servers.catalogue import server as named
from pytest_llmchaos.servers.mapping import is_in
from pytest_llmchaos.servers.rules import recording_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.servers.mapping import Server

# File and version, where the engine's name is neither.
VERSIONS = {"vllm-0.8": ("vllm", "0.8.5")}
# Small, so that prompts are preempted. Shared prompts hit the cache.
MACHINE = {"LAB_SLOTS": "16", "LAB_KV_BLOCKS": "100", "LAB_MAX_MODEL_TOKENS": "1024", "LAB_JITTER": "0.3"}
QUANTILES = (0.5, 0.9, 0.99)
LATENCIES = {
    "ttft": "first_token_s",
    "inter_token": "token_gap_s",
    "per_token": "mean_token_s",
    "e2e": "request_s",
    "queue_time": "queue_s",
}
GAUGES = ("running", "waiting", "kv_use")
# No server's engine reports its health here: vLLM needs an option for it.
KEYS = [one.key for one in CANONICAL if one.key != "healthy"]
# What a server counts differently, as the trap in its file has it.
DIFFERENT = {
    ("sglang", "heartbeat"): "tokens, not steps",
    ("tgi", "per_token"): "the time for the prompt is in it",
    ("tensorrt-llm", "heartbeat"): "answers, not steps",
    ("dynamo", "heartbeat"): "tokens, not steps",
    ("dynamo", "running"): "without those that have no first token",
    ("dynamo", "waiting"): "all that have no first token",
}


class Recorder:
    """A histogram of the engine that keeps every value."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def observe(self, value: float) -> None:
        self.values.append(value)

    def at(self, quantile: float) -> float:
        return sorted(self.values)[math.ceil(quantile * len(self.values)) - 1]


def serve(engine: Engine) -> None:
    """Serve traffic to its end. Some requests fail or are given up before they run."""
    scheduler = engine.scheduler
    shared = tuple(bytes([index]) for index in range(4))
    arrivals = [
        asked(f"r{index}", index * 0.01, prompt=64 + 7 * index % 150, answer=20 + index % 60, prefix=shared)
        for index in range(300)
    ]
    run(scheduler, arrivals)
    for index, reason in enumerate(("abort", "abort", "abort", "error", "error")):
        unserved = asked(f"u{index}", 1e6)
        scheduler.add(unserved)
        scheduler.abort(unserved, reason)


def begin(engine: Engine) -> None:
    """Begin a step of more requests than fit."""
    for index in range(30):
        engine.scheduler.add(asked(f"b{index}", 2e6, prompt=200, answer=4))
    assert engine.scheduler.begin(2e6 + 60)


@dataclass
class Exposed:
    engine: Engine
    registry: CollectorRegistry

    @classmethod
    def under(cls, names: str) -> Exposed:
        engine = Engine(Settings.from_env({**MACHINE, "LAB_METRICS": names}), time.monotonic)
        registry = CollectorRegistry()
        registry.register(EngineCollector(engine))
        return cls(engine, registry)


def exposed() -> dict[str, Exposed]:
    return {names: Exposed.under(names) for names in SERVERS}


class Truth:
    """Values that no server's names have touched."""

    def __init__(self) -> None:
        self.engine = Exposed.under("vllm").engine
        stats = self.engine.scheduler.stats
        self.latencies = {key: Recorder() for key in LATENCIES}
        for key, name in LATENCIES.items():
            setattr(stats, name, self.latencies[key])
        serve(self.engine)
        for name in LATENCIES.values():
            setattr(stats, name, Recorder())
        self.values: dict[str, float] = {
            "done": 300,
            "failed": 2,
            "aborted": 3,
            "tokens_in": stats.prompt_tokens,
            "tokens_out": stats.generated_tokens,
            "preempted": stats.preemptions,
            "prefix_hits": stats.prefix_hits,
            "heartbeat": stats.steps,
        }
        begin(self.engine)
        now = self.engine.gauges()
        self.values |= {"running": now.running, "waiting": now.waiting, "kv_use": now.cache_used_ratio}
        assert all(value > 0 for value in self.values.values()), self.values


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


class Recorded:
    """Canonical series of a server, at the end of the traffic and in the next step."""

    def __init__(self, ended: Prometheus, at_s: float, later_s: float) -> None:
        self._prometheus, self._at_s, self._later_s = ended, at_s, later_s

    def query(self, service: str, key: str, part: str = "", text: str = "sum({})") -> float | None:
        selector = f'{BY_KEY[key].name}{part}{{service="{service}"}}'
        at_s = self._later_s if key in GAUGES else self._at_s
        found = self._prometheus.vector(text.format(selector), at_s, may_be_empty=True)
        return next(iter(found.values()), None)

    def bounds(self, service: str, key: str) -> list[float]:
        selector = f'{BY_KEY[key].name}_bucket{{service="{service}"}}'
        found = self._prometheus.vector(f"sum by (le) ({selector})", self._at_s, may_be_empty=True)
        return sorted(float(dict(labels)["le"]) for labels in found)


def served(pages: Mapping[str, Callable[[], bytes]]) -> http.server.ThreadingHTTPServer:
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(pages[self.path.strip("/")]())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def file_of(names: str) -> tuple[Server, str]:
    name, version = VERSIONS.get(names, (names, ""))
    return named(name), version


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Series of every server by its file, and by the wrong files."""
    folder = tmp_path_factory.mktemp("prometheus")
    jobs = {names: (names, file_of(names)[0]) for names in SERVERS}
    jobs |= {wrong_service(names): (names, made()) for names, (made, _) in WRONG.items()}
    engines = exposed()
    for one in engines.values():
        serve(one.engine)
    pages = {names: page(one.registry) for names, one in engines.items()}
    server = served({names: lambda names=names: pages[names] for names in engines})  # type: ignore[misc]
    (folder / "rules").mkdir()
    scraped = []
    for service, (names, file) in jobs.items():
        rules = folder / "rules" / f"{service}.yml"
        rules.write_text(recording_rules([file], f'service="{service}"').replace("canonical-", f"{service}-"))
        scraped.append(
            f"  - job_name: {service}\n    metrics_path: /{names}\n    static_configs:\n"
            f"      - {{targets: ['127.0.0.1:{server.server_port}'], labels: {{service: {service}}}}}\n"
        )
    head = "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules/*.yml]\nscrape_configs:\n"
    with prometheus_with(folder, head + "".join(scraped)) as prometheus:
        waiting = "count(count by (service) (llmchaos:requests_waiting"

        def until_all(condition: str, what: str) -> None:
            query = f"{waiting} {condition})) == {len(jobs)}"
            until(lambda: prometheus.vector(query, time.time(), may_be_empty=True), what, 20)

        until_all("== 0", "canonical series of every server")
        ended_s = time.time()
        for names, one in engines.items():
            begin(one.engine)
            pages[names] = page(one.registry)
        until_all("> 0", "requests that wait at every server")
        yield Recorded(prometheus, ended_s, time.time())
    server.shutdown()
    server.server_close()


def mapped(names: str, key: str) -> bool:
    """True if a server's version has the metric."""
    server, version = file_of(names)
    entries = [one for one in server.of(key) if one.status != "absent"]
    return any(is_in(version, one) for one in entries)


def problems(recorded: Recorded, truth: Truth, service: str, key: str) -> list[str]:
    """Errors of a service's canonical metric, none if it is equal."""
    if key in LATENCIES:
        return latency_problems(recorded, truth.latencies[key], service, key)
    found, true = recorded.query(service, key), truth.values[key]
    return [] if found == true else [f"{found} for {true}"]


def latency_problems(recorded: Recorded, true: Recorder, service: str, key: str) -> list[str]:
    wrong = []
    count, total = recorded.query(service, key, "_count"), recorded.query(service, key, "_sum")
    if count != len(true.values):
        wrong.append(f"count {count} for {len(true.values)}")
    if total != pytest.approx(sum(true.values), rel=1e-6):
        wrong.append(f"sum {total} for {sum(true.values)}")
    bounds = recorded.bounds(service, key)
    for quantile in QUANTILES if bounds else ():
        text = f"histogram_quantile({quantile}, sum by (le) ({{}}))"
        found = recorded.query(service, key, "_bucket", text)
        value = true.at(quantile)
        low, high = next((low, high) for low, high in pairwise([-math.inf, *bounds]) if low < value <= high)
        if found is None or not max(low, 0) <= found <= (high if high < math.inf else low):
            wrong.append(f"p{100 * quantile:g} {found}, true {value:.4g} is between {low:g} and {high:g}")
    return wrong


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("names", SERVERS)
def test_a_canonical_value_is_the_same_under_each_servers_names(
    recorded: Recorded, truth: Truth, names: str, key: str
) -> None:
    part = "_count" if key in LATENCIES else ""
    if not mapped(names, key):
        assert recorded.query(names, key, part) is None
    elif (names, key) in DIFFERENT:
        assert recorded.query(names, key, part) is not None
        assert problems(recorded, truth, names, key)
    else:
        assert problems(recorded, truth, names, key) == []


def changed(names: str, key: str, **values: Any) -> Server:
    server = file_of(names)[0]
    return replace(
        server,
        entries=tuple(replace(one, **values) if one.canonical.key == key else one for one in server.entries),
    )


def swapped(names: str) -> Server:
    """The file with the tokens of prompts and answers interchanged."""
    server, keys = file_of(names)[0], ("tokens_in", "tokens_out")
    canonical = dict(zip(keys, (BY_KEY[key] for key in reversed(keys)), strict=True))
    return replace(
        server,
        entries=tuple(
            replace(one, canonical=canonical.get(one.canonical.key, one.canonical)) for one in server.entries
        ),
    )


# A file, and where it is wrong.
WRONG = {
    "triton": (lambda: changed("triton", "ttft", factor=1e-6), ("ttft",)),
    "tensorrt-llm": (lambda: changed("tensorrt-llm", "e2e", expr="trtllm_time_to_first_token_seconds{}"), ("e2e",)),
    "llamacpp": (lambda: changed("llamacpp", "running", expr="llamacpp:requests_deferred{}"), ("running",)),
    "vllm": (lambda: changed("vllm", "preempted", expr="vllm:num_preemption_total{}"), ("preempted",)),
    "sglang": (lambda: swapped("sglang"), ("tokens_in", "tokens_out")),
}


def wrong_service(names: str) -> str:
    """The service whose series are by the wrong file of this server."""
    return f"wrong-{names}"


def test_a_wrong_factor_name_or_swap_is_seen(recorded: Recorded, truth: Truth) -> None:
    found = {
        (names, key)
        for names in WRONG
        for key in KEYS
        if mapped(names, key) and (names, key) not in DIFFERENT and problems(recorded, truth, wrong_service(names), key)
    }

    assert found == {(names, key) for names, (_, keys) in WRONG.items() for key in keys}


def test_the_table(recorded: Recorded, truth: Truth, capsys: pytest.CaptureFixture[str]) -> None:
    keys = KEYS
    lines = [f"{'':13}" + " ".join(f"{key[:9]:>9}" for key in keys)]
    equal = 0
    for names in SERVERS:
        cells = []
        for key in keys:
            cell = "-"
            if mapped(names, key):
                cell = "differs" if problems(recorded, truth, names, key) else "equal"
            cells.append(f"{cell:>9}")
            equal += cell == "equal"
        lines.append(f"{names:13}" + " ".join(cells))
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")

    assert equal >= 80
