"""The catalogue of faults.

Most faults have a file of their own. Other packages add theirs (docs/faults.md).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.answer_faults import Flaky, SlowError, flaky, slow_error
from pytest_llmchaos.faults.boundaries import every_boundary
from pytest_llmchaos.faults.compositions import random, sequence, together
from pytest_llmchaos.faults.corrupted_output import CorruptedOutput, corrupted_output
from pytest_llmchaos.faults.cpu_fallback import CpuFallback, cpu_fallback
from pytest_llmchaos.faults.crash import Crash, crash
from pytest_llmchaos.faults.crash_on_boot import CrashOnBoot, crash_on_boot
from pytest_llmchaos.faults.entry_points import discover, factory
from pytest_llmchaos.faults.gpu_exhaustion import OutOfKvCache, gpu_exhaustion
from pytest_llmchaos.faults.gpu_saturation import GpuSaturation, gpu_saturation
from pytest_llmchaos.faults.hang import Hang, hang
from pytest_llmchaos.faults.kill import Kill, kill
from pytest_llmchaos.faults.limit_cpu import LimitCpu, limit_cpu
from pytest_llmchaos.faults.limit_memory import LimitMemory, limit_memory
from pytest_llmchaos.faults.memory_leak import MemoryLeak, memory_leak
from pytest_llmchaos.faults.network_faults import (
    Bandwidth,
    BlackHole,
    Latency,
    Reject,
    Reset,
    bandwidth,
    black_hole,
    latency,
    reject,
    reset,
)
from pytest_llmchaos.faults.none import none
from pytest_llmchaos.faults.overload import Overload, overload
from pytest_llmchaos.faults.partition import Partition, partition
from pytest_llmchaos.faults.pause import Pause, pause
from pytest_llmchaos.faults.restart import Restart, restart
from pytest_llmchaos.faults.scrape_faults import ScrapeGap, StaleMetrics, scrape_gap, stale_metrics
from pytest_llmchaos.faults.slow_load import SlowLoad, slow_load
from pytest_llmchaos.faults.stop import Stop, stop
from pytest_llmchaos.faults.stream_edits import (
    Duplicate,
    Malformed,
    Reorder,
    WrongModel,
    duplicate,
    malformed,
    reorder,
    wrong_model,
)
from pytest_llmchaos.faults.stream_ends import EmptyAnswer, InbandError, Truncate, empty_answer, inband_error, truncate
from pytest_llmchaos.faults.stream_timing import LateFirstToken, SlowDrip, Stall, late_first_token, slow_drip, stall
from pytest_llmchaos.faults.thermal_throttling import ThermalThrottling, thermal_throttling
from pytest_llmchaos.faults.timed import timed
from pytest_llmchaos.faults.tool_faults import ToolFault, tool
from pytest_llmchaos.faults.wire_match import match
from pytest_llmchaos.faults.xid import XidReported, xid
from pytest_llmchaos.model import Fault

__all__ = [
    "bandwidth",
    "black_hole",
    "corrupted_output",
    "cpu_fallback",
    "crash",
    "crash_on_boot",
    "duplicate",
    "empty_answer",
    "every_boundary",
    "flaky",
    "gpu_exhaustion",
    "gpu_saturation",
    "hang",
    "inband_error",
    "kill",
    "late_first_token",
    "latency",
    "limit_cpu",
    "limit_memory",
    "malformed",
    "match",
    "memory_leak",
    "none",
    "overload",
    "partition",
    "pause",
    "random",
    "reject",
    "reorder",
    "reset",
    "restart",
    "scrape_gap",
    "sequence",
    "slow_drip",
    "slow_error",
    "slow_load",
    "stale_metrics",
    "stall",
    "stop",
    "thermal_throttling",
    "timed",
    "together",
    "tool",
    "truncate",
    "wrong_model",
    "xid",
]


# Each fault with the abilities that it needs of a runtime, in the order of a report's
# coverage table. Faults of other packages follow there.
CATALOGUE: dict[str, frozenset[str]] = {
    fault.kind: fault.needs
    for fault in (
        Kill,
        Crash,
        Stop,
        Restart,
        Pause,
        Partition,
        LimitCpu,
        LimitMemory,
        Overload,
        Hang,
        GpuSaturation,
        OutOfKvCache,
        XidReported,
        CpuFallback,
        ThermalThrottling,
        CorruptedOutput,
        SlowLoad,
        CrashOnBoot,
        MemoryLeak,
        Latency,
        Bandwidth,
        BlackHole,
        Reset,
        Reject,
        LateFirstToken,
        Stall,
        SlowDrip,
        Truncate,
        InbandError,
        EmptyAnswer,
        Malformed,
        Duplicate,
        Reorder,
        WrongModel,
        Flaky,
        SlowError,
        ScrapeGap,
        StaleMetrics,
        ToolFault,
    )
}


def foreign(name: str) -> Callable[..., Fault]:
    """Return the maker of a fault of another package, typed.

    Type checkers do not read entry points, so `faults.<name>` is unknown to them.
    `faults.foreign("live_migration")("model-*")` is the same fault.

    Args:
        name: Name of the entry point, such as `live_migration`.

    Returns:
        The function that makes the fault.

    Raises:
        BadScenario: `name` is not a string, no installed package has it, or this
            package has it itself.
    """
    given: object = name
    if not isinstance(given, str):
        raise BadScenario(
            f"faults.foreign({given!r}): expected the name of a fault of an installed package; "
            f"installed: {', '.join(foreign_names()) or 'none'}"
        )
    if name in __all__:
        raise BadScenario(f"faults.foreign({name!r}): this package has it itself; write faults.{name}(...)")
    make = factory(name)
    if make is None:
        raise BadScenario(
            f"faults.foreign({name!r}): no installed package has it; installed: {', '.join(foreign_names()) or 'none'}"
        )
    return make


if not TYPE_CHECKING:  # pragma: no branch - type checkers would accept every name

    def __getattr__(name: str) -> Callable[..., Fault]:
        """Return the maker of another package's fault. It cannot shadow one here."""
        make = None if name.startswith("_") else factory(name)
        if make is None:
            raise AttributeError(f"there is no faults.{name}; available: {', '.join(__dir__())}")
        return make


def foreign_names() -> list[str]:
    """Return the names of the faults of other packages."""
    return sorted(set(discover()) - set(globals()))


def __dir__() -> list[str]:
    return sorted({*__all__, *foreign_names()})
