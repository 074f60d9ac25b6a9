"""Starts that exit with status 1 before the port opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lab_engine.faults.base import Fault, StartFailedError, register


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class CrashOnBoot(Fault):
    """A failing start, for every start within the lease."""

    kind: ClassVar[str] = "crash_on_boot"

    @property
    def at_boot(self) -> bool:
        return True

    def boot(self) -> None:
        raise StartFailedError("RuntimeError: Engine core initialization failed. See root cause above.")
