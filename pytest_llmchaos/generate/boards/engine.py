"""Dashboard of the engines and of the simulated GPU."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import ENGINES, Board, Panel, Query, Unit
from pytest_llmchaos.servers.canonical import BY_KEY

# Records of servers.yml have the label `server`. The gateway's own metrics lack it.
OF_AN_ENGINE = '{server!="",service=~"$engine"}'
OF_A_GPU = '{service=~"$engine"}'
LEGEND = "{{service}} {{server}}"


def _panel(
    title: str, description: str, unit: Unit, *queries: Query, may_be_empty: bool = False, highest: float | None = None
) -> Panel:
    return Panel(
        title=title,
        description=description,
        kind="lines",
        unit=unit,
        queries=queries,
        highest=highest,
        width=8,
        may_be_empty=may_be_empty,
    )


def _sum(key: str, legend: str = LEGEND) -> Query:
    return Query(expr=f"sum by (service, server) ({BY_KEY[key].name}{OF_AN_ENGINE})", legend=legend)


def _max(key: str) -> Query:
    return Query(expr=f"max by (service, server) ({BY_KEY[key].name}{OF_AN_ENGINE})", legend=LEGEND)


def _rate(key: str, ending: str = "") -> Query:
    rate = f"rate({BY_KEY[key].name}{OF_AN_ENGINE}[$__rate_interval])"
    return Query(expr=f"sum by (service, server) ({rate})", legend=f"{LEGEND} {ending}".strip())


def _p95(key: str) -> Query:
    rate = f"rate({BY_KEY[key].name}_bucket{OF_AN_ENGINE}[$__rate_interval])"
    return Query(expr=f"histogram_quantile(0.95, sum by (service, server, le) ({rate}))", legend=LEGEND)


def _of_gpu(metric: str, how: str = "max") -> Query:
    return Query(expr=f"{how} by (service) ({metric}{OF_A_GPU})", legend="{{service}}")


ENGINE = Board(
    uid="llmchaos-engine",
    title="LLM lab: engines",
    description="The inference engines behind the gateway, one line each, under the same names for every model server. "
    "A panel stays empty for a server that lacks the metric. The last row is the simulated GPU.",
    variables=(ENGINES,),
    rows=(
        (
            "Load",
            (
                _panel(
                    "Running requests",
                    "Requests in the batch. High with steps per second above zero: the engine is busy. "
                    "High with no steps: it hangs.",
                    "short",
                    _sum("running"),
                ),
                _panel(
                    "Waiting requests",
                    "Requests that wait for room in the batch or in the KV cache. "
                    "A growing queue: more load than the engine serves.",
                    "short",
                    _sum("waiting"),
                ),
                _panel(
                    "KV cache in use",
                    "At 100 %, requests wait, or are preempted and computed again.",
                    "percentunit",
                    _max("kv_use"),
                    highest=1,
                ),
                _panel(
                    "Tokens generated per second",
                    "The engine's output. A drop to a twentieth under the same load: the GPU was lost.",
                    "short",
                    _rate("tokens_out"),
                ),
                _panel(
                    "Steps per second",
                    "The engine's heartbeat. Zero while requests run or wait: the engine hangs. Some servers count "
                    "batches or requests instead of steps: zero is normal there during a long prompt.",
                    "short",
                    _rate("heartbeat"),
                ),
                _panel(
                    "Preemptions per second",
                    "Requests removed from a full KV cache, to be computed again.",
                    "short",
                    _rate("preempted"),
                ),
            ),
        ),
        (
            "Latency and results",
            (
                _panel(
                    "Time to first token, p95",
                    "From a request's arrival at the engine. Much lower than the clients' figure: the wait is in front "
                    "of the engine.",
                    "s",
                    _p95("ttft"),
                ),
                _panel(
                    "Time per output token, p95",
                    "Mean of each answer, without its first token. It grows with the batch.",
                    "s",
                    _p95("per_token"),
                ),
                _panel(
                    "Time in the queue, p95",
                    "Wait for a place in the batch. It grows before requests fail.",
                    "s",
                    _p95("queue_time"),
                ),
                _panel(
                    "Answers and failures per second",
                    "Whole answers, and requests that the engine ended with an error. Many servers count no failures: "
                    "the api's dashboard has them.",
                    "reqps",
                    _rate("done", "done"),
                    _rate("failed", "failed"),
                ),
                _panel(
                    "Prefix cache hits, tokens per second",
                    "Tokens of prompts that were not computed again. A drop to zero after a restart: the cache is cold.",
                    "short",
                    _rate("prefix_hits"),
                ),
            ),
        ),
        (
            "GPU (simulated)",
            (
                _panel(
                    "Utilisation",
                    "Near 100 % at any batch size, as on real GPUs. It shows that there is work, not how much.",
                    "percent",
                    _of_gpu("DCGM_FI_DEV_GPU_UTIL"),
                    highest=100,
                ),
                _panel(
                    "Memory in use",
                    "The engine reserves it at its start. A change: the engine restarted or the GPU was lost.",
                    "mbytes",
                    _of_gpu("DCGM_FI_DEV_FB_USED", "sum"),
                ),
                _panel(
                    "Temperature",
                    "From 88 degrees Celsius on, the GPU throttles.",
                    "celsius",
                    _of_gpu("DCGM_FI_DEV_GPU_TEMP"),
                ),
                _panel("Power", "Rises and falls with the load.", "watt", _of_gpu("DCGM_FI_DEV_POWER_USAGE", "sum")),
                _panel(
                    "Last XID",
                    "Code of the last error that the driver reported. 79: the GPU fell off the bus. "
                    "A repeat of the same code does not show.",
                    "none",
                    _of_gpu("DCGM_FI_DEV_XID_ERRORS"),
                ),
                Panel(
                    title="Simulated faults",
                    description="Faults that an experiment injected into the engine, as the engine reports them.",
                    kind="states",
                    unit="none",
                    queries=(
                        Query(
                            expr='max by (service, kind) (llmchaos_engine_fault_active{service=~"$engine"}) > 0',
                            legend="{{service}} {{kind}}",
                        ),
                    ),
                    width=8,
                    highest=1,
                    may_be_empty=True,
                ),
            ),
        ),
    ),
)
