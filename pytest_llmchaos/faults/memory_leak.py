"""The engine's process grows until the kernel kills it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_whole, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def memory_leak(target: str, *, bytes_per_s: int = 32 << 20) -> Fault:
    """Really leak memory. Where the container has a memory limit the kernel ends it there, and the system must bring it back."""
    rate = check_whole("memory_leak(bytes_per_s=...)", bytes_per_s, at_least=1 << 20, at_most=1 << 30)
    fault = EngineFault(
        kind="memory_leak",
        lifetime="lasting",
        expects="resident memory rises to the limit, the process dies of SIGKILL; ServiceDown fires",
        options=(("bytes_per_s", rate), ("at_most_bytes", 1 << 30)),
        counter="bytes",
        witness='delta(process_resident_memory_bytes{service="{victim}"}[4s]) > 1e6',
        needs=frozenset({"engine", "start", "oom_kill"}),  # without a limit nothing would ever end it
    )
    return on_engine(fault, target)
