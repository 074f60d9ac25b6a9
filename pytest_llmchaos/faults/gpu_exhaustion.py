"""Exhausted GPU memory: of the device, or of the KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault
from pytest_llmchaos.faults.option_checks import check_choice, check_number
from pytest_llmchaos.servers.canonical import BY_KEY

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class OutOfDeviceMemory(EngineDeath):
    """CUDA out of memory. The engine exits."""

    kind: ClassVar[str] = "gpu_exhaustion"


class OutOfKvCache(EngineFault):
    """A full KV cache. Requests wait or are preempted."""

    kind: ClassVar[str] = "gpu_exhaustion"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = (
        "the KV cache is full, requests wait or are preempted; KvCacheFull fires; nothing is restarted"
    )

    def witness(self, victim: str) -> str:
        return f'{BY_KEY["kv_use"].name}{{service="{victim}"}} >= {0.99 * self.number("ratio"):g}'


def gpu_exhaustion(target: Target, *, what: str = "device_memory", ratio: float = 0.999) -> Fault:
    """Exhaust the GPU memory of an engine.

    With `what="device_memory"` CUDA runs out of memory:

    - Requests in flight fail and the engine exits with status 1.
    - Ends: when the system repairs it (`lasting`).
    - Expected signal: in the lab `ServiceDown` fires.

    With `what="kv_cache"` a share of the cache's blocks is gone:

    - Requests wait or are preempted. None is lost.
    - Ends: after `fault_s` (`passing`).
    - Expected signal: `KvCacheFull` fires. Nothing is restarted.

    Fidelity: `simulated`. The victim must be a simulated engine.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        what: `device_memory` or `kv_cache`.
        ratio: Share of the KV cache's blocks that is gone, above 0, at most 1. Only for
            `kv_cache`. The default of 0.999 leaves almost none.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, `what` is neither of the
            two, or `ratio` is out of bounds.
    """
    chosen = check_choice("gpu_exhaustion(what=...)", what, ("device_memory", "kv_cache"))
    gone = check_number("gpu_exhaustion(ratio=...)", ratio, above=0, at_most=1)
    if chosen == "device_memory":
        return on_targets(OutOfDeviceMemory(options=(("what", chosen), ("then", "die"))), target)
    return on_targets(OutOfKvCache(options=(("what", chosen), ("ratio", gone))), target)
