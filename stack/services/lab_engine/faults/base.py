"""Base of the engine's faults, and the acts open to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from lab_engine.effects import Effects

LONGEST_LEASE_S = 3600.0


class StartFailedError(RuntimeError):
    """A fault ends the start of the process, with a real engine's log text."""


class Struck(Protocol):
    """The engine as faults see it. Methods return how many requests they failed."""

    def fail_in_flight(self) -> int: ...
    def end_process(self, linger_s: float) -> int:
        """Die at once. The process exits with status 1 after `linger_s` seconds."""

    def crash_and_load(self) -> int:
        """Die, and reload the model as soon as there is memory."""

    def drop_model(self, load_s: float) -> int:
        """Reload the model, which takes `load_s` seconds."""

    def restore_load_time(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault. Its fields are its options, its methods are ways to act."""

    kind: ClassVar[str]
    refuses: ClassVar[bool] = False  # counts the requests that a dead or failing engine refuses

    @property
    def at_boot(self) -> bool:
        """True if it hits the next start, and so must outlive the process."""
        return False

    def effects(self, others: Effects) -> Effects:
        """`others` with the effects of this fault added."""
        return others

    def strike(self, engine: Struck, counters: Counter[str]) -> Callable[[], None] | None:
        """Act once at the start. Returns a callback for the end, or None."""

    def boot(self) -> float | None:
        """Seconds of loading at a start within the lease, None if unchanged.

        Raises:
            StartFailedError: the fault ends this start.
        """


KINDS: dict[str, type[Fault]] = {}
SomeFault = TypeVar("SomeFault", bound=Fault)


def register(fault: type[SomeFault]) -> type[SomeFault]:
    KINDS[fault.kind] = fault
    return fault
