"""The dashboard of the simulated engine and its GPU, as a value."""

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
    description="The simulated engine under vLLM's names and its made-up GPU under DCGM's. Empty with a real backend.",
    needs="the sim backend",
    variables=(ENGINES,),
    rows=(
        (
            "Engine",
            (
                _line(
                    "Running requests",
                    "In the batch. High and steady is a busy engine; high while no step is taken is a hung one.",
                    _of("vllm:num_requests_running"),
                    "short",
                ),
                _line(
                    "Waiting requests",
                    "For room in the batch or in the cache.",
                    _of("vllm:num_requests_waiting"),
                    "short",
                ),
                _line(
                    "KV cache in use",
                    "At the top, requests wait or are thrown out and computed again.",
                    'max by (service) (vllm:kv_cache_usage_perc{service=~"$engine"})',
                    "percentunit",
                    highest=1,
                ),
                _line(
                    "Tokens generated per second",
                    "The engine's work. A twentieth of before is the sign of a GPU that was lost.",
                    _rate("vllm:generation_tokens_total"),
                    "short",
                ),
                _line(
                    "Steps per second",
                    "The heartbeat: it stops only when the scheduler stands still, however long the queue is.",
                    _rate("vllm:iteration_tokens_total_count"),
                    "short",
                ),
                _line(
                    "Preemptions per second",
                    "Requests thrown out of a full cache.",
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
                    "Near 100 % at any batch size, as with real ones: it says that work is there, not how much.",
                    'max by (service) (DCGM_FI_DEV_GPU_UTIL{service=~"$engine"})',
                    "percent",
                    highest=100,
                ),
                _line(
                    "Memory in use",
                    "Taken in advance by the engine, so a change is news.",
                    _of("DCGM_FI_DEV_FB_USED"),
                    "mbytes",
                ),
                _line(
                    "Temperature",
                    "From 88 degrees on it slows itself down.",
                    'max by (service) (DCGM_FI_DEV_GPU_TEMP{service=~"$engine"})',
                    "celsius",
                ),
                _line("Power", "Follows the work.", _of("DCGM_FI_DEV_POWER_USAGE"), "watt"),
                _line(
                    "Last XID",
                    "The code of the last fault that the driver reported; 79 is a GPU that fell off the bus. "
                    "A repeat of the same code does not show.",
                    'max by (service) (DCGM_FI_DEV_XID_ERRORS{service=~"$engine"})',
                    "none",
                ),
                Panel(
                    title="Faults that were switched on",
                    description="By the engine's own word: what an experiment asked it to simulate.",
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
