"""Dashboard of the simulated engine and its GPU."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import ENGINES, Board, Panel, Query, Unit


def _line(
    title: str, description: str, expr: str, unit: Unit, *, highest: float | None = None, width: int = 8
) -> Panel:
    return Panel(
        title=title,
        description=description,
        kind="lines",
        unit=unit,
        queries=(Query(expr=expr, legend="{{service}}"),),
        highest=highest,
        width=width,
    )


def _of(metric: str) -> str:
    return f'sum by (service) ({metric}{{service=~"$engine"}})'


def _rate(metric: str) -> str:
    return f'sum by (service) (rate({metric}{{service=~"$engine"}}[$__rate_interval]))'


ENGINE = Board(
    uid="llmchaos-engine",
    title="LLM lab: engine and GPU (simulated)",
    description="The simulated engine and its GPU, under the metric names of vLLM and DCGM. Empty with a real backend.",
    needs="the sim backend",
    variables=(ENGINES,),
    rows=(
        (
            "Engine",
            (
                _line(
                    "Running requests",
                    "Requests in the batch. High with steps per second above zero: the engine is busy. "
                    "High with no steps: it hangs.",
                    _of("vllm:num_requests_running"),
                    "short",
                ),
                _line(
                    "Waiting requests",
                    "Requests that wait for room in the batch or in the KV cache. "
                    "A growing queue: more load than the engine serves.",
                    _of("vllm:num_requests_waiting"),
                    "short",
                ),
                _line(
                    "KV cache in use",
                    "At 100 %, requests wait, or are preempted and computed again.",
                    'max by (service) (vllm:kv_cache_usage_perc{service=~"$engine"})',
                    "percentunit",
                    highest=1,
                ),
                _line(
                    "Tokens generated per second",
                    "The engine's output. A drop to a twentieth under the same load: the GPU was lost.",
                    _rate("vllm:generation_tokens_total"),
                    "short",
                ),
                _line(
                    "Steps per second",
                    "The scheduler's heartbeat. Zero while requests run or wait: the engine hangs.",
                    _rate("vllm:iteration_tokens_total_count"),
                    "short",
                ),
                _line(
                    "Preemptions per second",
                    "Requests removed from a full KV cache, to be computed again.",
                    _rate("vllm:num_preemptions_total"),
                    "short",
                ),
            ),
        ),
        (
            "GPU (simulated)",
            (
                _line(
                    "Utilisation",
                    "Near 100 % at any batch size, as on real GPUs. It shows that there is work, not how much.",
                    'max by (service) (DCGM_FI_DEV_GPU_UTIL{service=~"$engine"})',
                    "percent",
                    highest=100,
                ),
                _line(
                    "Memory in use",
                    "The engine reserves it at its start. A change: the engine restarted or the GPU was lost.",
                    _of("DCGM_FI_DEV_FB_USED"),
                    "mbytes",
                ),
                _line(
                    "Temperature",
                    "From 88 degrees Celsius on, the GPU throttles.",
                    'max by (service) (DCGM_FI_DEV_GPU_TEMP{service=~"$engine"})',
                    "celsius",
                ),
                _line("Power", "Rises and falls with the load.", _of("DCGM_FI_DEV_POWER_USAGE"), "watt"),
                _line(
                    "Last XID",
                    "Code of the last error that the driver reported. 79: the GPU fell off the bus. "
                    "A repeat of the same code does not show.",
                    'max by (service) (DCGM_FI_DEV_XID_ERRORS{service=~"$engine"})',
                    "none",
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
