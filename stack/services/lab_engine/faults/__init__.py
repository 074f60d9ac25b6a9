"""Registry of faults, one file a kind.

To add one, write its file and name it in the import below.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from lab_common.values import InvalidValueError, require
from lab_engine.faults import (  # noqa: F401 - each of them registers its kind
    corrupted_output,
    cpu_fallback,
    crash_on_boot,
    gpu_exhaustion,
    gpu_saturation,
    hang,
    memory_leak,
    slow_load,
    thermal_throttling,
    xid,
)
from lab_engine.faults.base import KINDS, LONGEST_LEASE_S, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "LONGEST_LEASE_S", "Fault", "options", "parse"]


def parse(data: object) -> tuple[Fault, float]:
    """The fault and its lease in seconds from a decoded JSON body.

    Raises:
        InvalidValueError: an unknown kind or option, or a value out of bounds.
    """
    if not isinstance(data, dict):
        raise InvalidValueError(f"a fault must be a JSON object, got {data!r}")
    given: dict[str, Any] = dict(data)
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidValueError(f"kind must be one of {', '.join(sorted(KINDS))}, got {name!r}")
    if "lease_s" not in given:
        raise InvalidValueError("lease_s is missing: every fault needs the seconds after which it ends by itself")
    lease_s = given.pop("lease_s")
    require("lease_s", lease_s, above=0, at_most=LONGEST_LEASE_S)
    known = [field.name for field in fields(KINDS[name])]
    for unknown in sorted(set(given) - set(known)):
        takes = f"takes {', '.join(known)}" if known else "takes no options"
        raise InvalidValueError(f"{name} has no option {unknown!r}; it {takes}")
    make: Callable[..., Fault] = KINDS[name]
    return make(**given), float(lease_s)


def options(fault: Fault) -> dict[str, Any]:
    return asdict(fault)
