"""Tables of the servers' names, exposed by the simulated engine."""

import asyncio
import itertools
import time
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.lab_engine_world import poisson, request, world

from lab_engine.engine import Engine
from lab_engine.exposition import EngineCollector, page
from lab_engine.names import SERVERS
from lab_engine.names.dynamo import logarithmic
from lab_engine.names.rows import HistogramRow
from lab_engine.settings import Settings
from lab_engine.virtual import run

OURS = ("llmchaos_simulated", "llmchaos_engine_fault_active", "llmchaos_engine_step_late_seconds")
PREFIXES = {
    "vllm": ("vllm:",),
    "vllm-0.8": ("vllm:",),
    "sglang": ("sglang:",),
    "tensorrt-llm": ("trtllm_",),
    "triton": ("nv_",),
    "tgi": ("tgi_",),
    "llamacpp": ("llamacpp:",),
    "dynamo": ("dynamo_",),
}


class Exposed:
    """An engine without a clock, and its page."""

    def __init__(self, server, **variables):
        self.engine = Engine(Settings.from_env({"LAB_METRICS": server, **variables}), time.monotonic)
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(self.engine))

    def serve(self, count=100):
        run(self.engine.scheduler, poisson(30, count, 1, prompt=(4, 300), answer=(2, 40)))

    def text(self):
        return page(self._registry).decode()

    def families(self):
        return {one.name: one for one in text_string_to_metric_families(self.text())}

    def samples(self):
        return [sample for family in self.families().values() for sample in family.samples]


@pytest.fixture(params=SERVERS)
def exposed(request):
    return Exposed(request.param)


@pytest.mark.parametrize("server", SERVERS)
def test_every_metric_is_the_servers_or_marked_as_ours(server):
    exposed = Exposed(server)
    exposed.serve()

    names = {name for name in exposed.families() if not name.startswith(PREFIXES[server])}

    assert names == set(OURS)


def test_no_series_is_there_twice(exposed):
    exposed.serve()

    keys = Counter((sample.name, *sorted(sample.labels.items())) for sample in exposed.samples())

    assert {key: count for key, count in keys.items() if count > 1} == {}


def test_types_are_the_servers(exposed):
    lines = exposed.text().splitlines()

    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE ")}

    for row in exposed.engine.names.rows:
        assert kinds[row.name] == ("histogram" if isinstance(row, HistogramRow) else row.kind), row.name


def test_a_histogram_has_the_bounds_of_its_table(exposed):
    exposed.serve()
    rows = [row for row in exposed.engine.names.rows if isinstance(row, HistogramRow)]

    for row in rows:
        buckets = [one for one in exposed.samples() if one.name == f"{row.name}_bucket"]
        bounds = row.bounds_for(exposed.engine.scheduler.limits)
        assert [float(one.labels["le"]) for one in buckets] == [*map(float, bounds), float("inf")], row.name
        assert list(bounds) == sorted(set(bounds)), row.name
        assert [one.value for one in buckets] == sorted(one.value for one in buckets)
    # A histogram of the engine has one set of bounds.
    assert max(Counter(row.of for row in rows).values(), default=1) == 1


def test_a_late_metric_appears_with_its_first_value(exposed):
    rows = exposed.engine.names.rows
    late = {row.name for row in rows if row.late}

    def present():
        return {row.name for row in rows if any(one.name.startswith(row.name) for one in exposed.samples())}

    before = present()
    exposed.serve()

    assert before & late == set()
    # Nothing failed, was preempted or hit the cache.
    never = ("failure", "error", "retracted", "aborted", "cached_tokens_total", "reused")
    assert {name for name in late - present() if not any(word in name for word in never)} == set()


def test_counters_never_decrease(exposed):
    counters = {row.name for row in exposed.engine.names.rows if not isinstance(row, HistogramRow)}
    counters -= {row.name for row in exposed.engine.names.rows if getattr(row, "kind", "") == "gauge"}
    kept, tokens = Counter(), itertools.count()

    def check(*_):
        if next(tokens) % 50:
            return
        for sample in exposed.samples():
            # The parser appends `_total` to a counter's name that lacks it.
            if {sample.name, sample.name.removesuffix("_total")} & counters:
                key = (sample.name, *sorted(sample.labels.items()))
                assert sample.value >= kept[key], key
                kept[key] = sample.value

    run(exposed.engine.scheduler, poisson(60, 80, 3, prompt=(4, 400), answer=(2, 40)), on_token=check)

    assert kept


@pytest.mark.parametrize(
    ("server", "heartbeat"),
    [
        ("vllm", "vllm:iteration_tokens_total_count"),
        ("sglang", "sglang:realtime_tokens_total"),
        ("triton", "nv_trt_llm_general_metrics"),
        ("tgi", "tgi_batch_inference_count_total"),
        ("llamacpp", "llamacpp:n_decode_total"),
    ],
)
def test_a_heartbeat_moves_with_each_step_of_a_long_prompt(server, heartbeat):
    exposed = Exposed(server, LAB_BATCH_TOKENS="100")
    scheduler = exposed.engine.scheduler
    scheduler.add(request("long", prompt=300, answer=2))
    seen = []

    for second in range(1, 5):
        scheduler.finish(scheduler.begin(float(second)))
        seen.append(sum(one.value for one in exposed.samples() if one.name == heartbeat))

    assert seen == sorted(set(seen))
    assert seen[0] > 0


def test_a_frontend_has_logarithmic_bounds_with_two_digits():
    assert logarithmic(1.0, 256.0, 10) == (0.0, 1.9, 3.4, 6.3, 12, 22, 40, 75, 140, 260)


@pytest.mark.parametrize(("server", "status"), [("tensorrt-llm", 200), ("vllm", 404)])
def test_a_page_is_where_the_server_has_it_and_where_the_lab_scrapes(server, status):
    async def statuses():
        async with world(LAB_METRICS=server) as lab:
            for path in ("/metrics", "/prometheus/metrics"):
                async with lab.http.get(f"{lab.url}{path}") as response:
                    yield response.status

    async def scenario():
        assert [found async for found in statuses()] == [200, status]

    asyncio.run(scenario())
