"""A process that grows until the kernel kills it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_whole

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class MemoryLeak(EngineFault):
    """An engine that allocates and touches memory."""

    kind: ClassVar[str] = "memory_leak"
    lifetime: ClassVar[Lifetime] = "lasting"
    expects: ClassVar[str] = "resident memory rises to the limit, the process dies of SIGKILL; ServiceDown fires"
    counter: ClassVar[str] = "bytes"
    needs: ClassVar[frozenset[str]] = frozenset({"engine", "start", "oom_kill"})  # without a limit it would never end

    def witness(self, victim: str) -> str:
        return f'delta(process_resident_memory_bytes{{service="{victim}"}}[4s]) > 1e6'


def memory_leak(target: Target, *, bytes_per_s: int = 32 << 20) -> Fault:
    """Leak memory in an engine's process until the kernel kills it.

    The memory is really allocated, up to 1 GiB. The OOM killer ends the process at its
    container's memory limit, and the system must repair it. A runtime without an OOM
    killer skips the trial.

    - Ends: when the system repairs it (`lasting`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: resident memory rises to the limit, the process dies of SIGKILL.
      In the lab `ServiceDown` fires.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        bytes_per_s: Growth in bytes per second, 1 MiB to 1 GiB. The default is 32 MiB.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, or `bytes_per_s` is out
            of bounds.
    """
    rate = check_whole("memory_leak(bytes_per_s=...)", bytes_per_s, at_least=1 << 20, at_most=1 << 30)
    return on_targets(MemoryLeak(options=(("bytes_per_s", rate), ("at_most_bytes", 1 << 30))), target)
