"""What every fault of the engine declares, and what it may do to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from lab_engine.effects import Effects

LONGEST_LEASE_S = 3600.0


class StartFailedError(RuntimeError):
    """A fault ends the start of the process; the text is what a real engine would log."""


class Struck(Protocol):
    """The engine as a fault meets it. Each method returns how many requests in flight it failed."""

    def fail_in_flight(self) -> int: ...
    def end_process(self, linger_s: float) -> int:
        """Die at once; the process exits with status 1 after `linger_s`."""

    def crash_and_load(self) -> int:
        """Die, and load anew as soon as there is memory for it."""

    def drop_model(self, load_s: float) -> int:
        """Load anew, which takes `load_s` seconds."""

    def restore_load_time(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault; its fields are its options, checked at birth. Each method is one way to act."""

    kind: ClassVar[str]
    refuses: ClassVar[bool] = False  # it counts the requests that a dead or erring engine refuses

    @property
    def at_boot(self) -> bool:
        """Whether it strikes at the next start, and so must outlive the process."""
        return False

    def effects(self, others: Effects) -> Effects:
        """What `others` become with this fault in force as well."""
        return others

    def strike(self, engine: Struck, counters: Counter[str]) -> Callable[[], None] | None:
        """Act once, at the start. Returns what is to be called at the end, if anything is."""

    def boot(self) -> float | None:
        """Seconds that loading takes at a start within the lease, if it changes them. May raise StartFailedError."""


KINDS: dict[str, type[Fault]] = {}
SomeFault = TypeVar("SomeFault", bound=Fault)


def register(fault: type[SomeFault]) -> type[SomeFault]:
    KINDS[fault.kind] = fault
    return fault
