"""The catalogue of faults. Each lives in a file of its own, and other packages add theirs (docs/faults.md)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.compositions import random, sequence, together
from pytest_llmchaos.faults.corrupted_output import corrupted_output
from pytest_llmchaos.faults.cpu_fallback import cpu_fallback
from pytest_llmchaos.faults.crash import crash
from pytest_llmchaos.faults.crash_on_boot import crash_on_boot
from pytest_llmchaos.faults.entry_points import discover, factory
from pytest_llmchaos.faults.gpu_exhaustion import gpu_exhaustion
from pytest_llmchaos.faults.gpu_saturation import gpu_saturation
from pytest_llmchaos.faults.hang import hang
from pytest_llmchaos.faults.kill import kill
from pytest_llmchaos.faults.limit_cpu import limit_cpu
from pytest_llmchaos.faults.limit_memory import limit_memory
from pytest_llmchaos.faults.memory_leak import memory_leak
from pytest_llmchaos.faults.none import none
from pytest_llmchaos.faults.overload import overload
from pytest_llmchaos.faults.partition import partition
from pytest_llmchaos.faults.pause import pause
from pytest_llmchaos.faults.restart import restart
from pytest_llmchaos.faults.slow_load import slow_load
from pytest_llmchaos.faults.stop import stop
from pytest_llmchaos.faults.thermal_throttling import thermal_throttling
from pytest_llmchaos.faults.xid import xid
from pytest_llmchaos.model import Fault

__all__ = [
    "corrupted_output",
    "cpu_fallback",
    "crash",
    "crash_on_boot",
    "gpu_exhaustion",
    "gpu_saturation",
    "hang",
    "kill",
    "limit_cpu",
    "limit_memory",
    "memory_leak",
    "none",
    "overload",
    "partition",
    "pause",
    "random",
    "restart",
    "sequence",
    "slow_load",
    "stop",
    "thermal_throttling",
    "together",
    "xid",
]


# What a report's coverage table lists, in its order, before the faults that other packages bring.
CATALOGUE: tuple[str, ...] = tuple(
    make.__name__
    for make in (
        kill,
        crash,
        stop,
        restart,
        pause,
        partition,
        limit_cpu,
        limit_memory,
        overload,
        hang,
        gpu_saturation,
        gpu_exhaustion,
        xid,
        cpu_fallback,
        thermal_throttling,
        corrupted_output,
        slow_load,
        crash_on_boot,
        memory_leak,
    )
)


def foreign(name: str) -> Callable[..., Fault]:
    """The maker of a fault that another package brings, for type checkers: they do not know `faults.<name>`.

    Raises BadScenario if no installed package has that name, or this one has it.
    """
    given: object = name
    if not isinstance(given, str):
        raise BadScenario(
            f"faults.foreign({given!r}): expected the name of a fault that an installed package brings; "
            f"there are {', '.join(foreign_names()) or 'none'}"
        )
    if name in __all__:
        raise BadScenario(f"faults.foreign({name!r}): this package has it itself; write faults.{name}(...)")
    make = factory(name)
    if make is None:
        raise BadScenario(
            f"faults.foreign({name!r}): no installed package brings it; there are {', '.join(foreign_names()) or 'none'}"
        )
    return make


if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe that every name exists here

    def __getattr__(name: str) -> Callable[..., Fault]:
        """A fault that another package brings. One of that name here is found before this is asked: none can be shadowed."""
        make = None if name.startswith("_") else factory(name)
        if make is None:
            raise AttributeError(f"there is no faults.{name}; there are {', '.join(__dir__())}")
        return make


def foreign_names() -> list[str]:
    """Names of the faults that other packages bring."""
    return sorted(set(discover()) - set(globals()))


def __dir__() -> list[str]:
    return sorted({*__all__, *foreign_names()})
