"""The catalogue of faults. Names only; each lives in a file of its own."""

from pytest_llmchaos.faults.compose import random, sequence, together
from pytest_llmchaos.faults.crash import crash
from pytest_llmchaos.faults.kill import kill
from pytest_llmchaos.faults.limit_cpu import limit_cpu
from pytest_llmchaos.faults.limit_memory import limit_memory
from pytest_llmchaos.faults.none import none
from pytest_llmchaos.faults.overload import overload
from pytest_llmchaos.faults.partition import partition
from pytest_llmchaos.faults.pause import pause
from pytest_llmchaos.faults.restart import restart

__all__ = [
    "crash",
    "kill",
    "limit_cpu",
    "limit_memory",
    "none",
    "overload",
    "partition",
    "pause",
    "random",
    "restart",
    "sequence",
    "together",
]
