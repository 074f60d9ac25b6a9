"""The engine's process grows until the kernel kills it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_whole

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class MemoryLeak(EngineFault):
    kind: ClassVar[str] = "memory_leak"
    lifetime: ClassVar[Lifetime] = "lasting"
    expects: ClassVar[str] = "resident memory rises to the limit, the process dies of SIGKILL; ServiceDown fires"
    counter: ClassVar[str] = "bytes"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"engine", "start", "oom_kill"}
    )  # without a limit nothing would ever end it

    def witness(self, victim: str) -> str:
        return f'delta(process_resident_memory_bytes{{service="{victim}"}}[4s]) > 1e6'


def memory_leak(target: Target, *, bytes_per_s: int = 32 << 20) -> Fault:
    """Really leak memory. Where the container has a memory limit the kernel ends it there, and the system must bring it back."""
    rate = check_whole("memory_leak(bytes_per_s=...)", bytes_per_s, at_least=1 << 20, at_most=1 << 30)
    return on_targets(MemoryLeak(options=(("bytes_per_s", rate), ("at_most_bytes", 1 << 30))), target)
