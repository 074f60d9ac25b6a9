"""Faults in force, each with its lease and its counts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault_agent.faults import Fault

MOST_REMEMBERED = 100
MOST_SENT_AWAY = 10_000  # refused calls of one fault


class UnknownFaultError(LookupError):
    """No fault with that id, or one already forgotten."""


class FaultConflictError(ValueError):
    """A fault that cannot start alongside the faults in force."""


@dataclass(eq=False, kw_only=True, slots=True)
class Lease:
    """One fault from its start to its end.

    Attributes:
        ended_by: "lease" or "request", None while it is in force.
        counters: `met` requests or connections that it may hit, and `hit` ones. `early`
            calls came again before the time that their refusal named.
        at_end: called once when the fault ends.
        at_hit: called at the first hit.
        acted: set at the first hit, and at the end.
        hit_unix_s: Unix time of the first hit, in seconds.
        back_s: monotonic time before which a refused call is early, in seconds.
        kept: answers that a fault repeats, by request.
        options: of the fault, as JSON has them.
    """

    id: str
    fault: Fault
    seed: int
    lease_s: float
    started_unix_s: float
    started_s: float
    ended_by: str | None = None
    counters: Counter[str] = field(default_factory=lambda: Counter(met=0, hit=0))
    at_end: set[Callable[[], None]] = field(default_factory=set)
    at_hit: Callable[[], object] | None = None
    hit_unix_s: float | None = None
    acted: asyncio.Event = field(default_factory=asyncio.Event)
    back_s: dict[str, float] = field(default_factory=dict)
    kept: dict[bytes, bytes] = field(default_factory=dict)
    options: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        self.options = asdict(self.fault)  # once, because lists of all faults are frequent

    @property
    def active(self) -> bool:
        return self.ended_by is None

    def meet(self) -> None:
        self.counters["met"] += 1

    def hit(self) -> None:
        self.counters["hit"] += 1
        if self.hit_unix_s is None:
            self.hit_unix_s = time.time()
            self.acted.set()
            if self.at_hit is not None:
                self.at_hit()

    def send_away(self, call: str, retry_after_s: float) -> None:
        """Note that a call was refused until later."""
        self.counters["early"] += 0  # present from the first refusal on
        while len(self.back_s) >= MOST_SENT_AWAY:
            del self.back_s[next(iter(self.back_s))]
        self.back_s[call] = time.monotonic() + retry_after_s

    def come_back(self, call: str) -> None:
        """Count a call as early if it was refused until later than now."""
        if time.monotonic() < self.back_s.pop(call, 0.0):
            self.counters["early"] += 1

    def described(self) -> dict[str, object]:
        left_s = self.started_s + self.lease_s - time.monotonic()
        return {
            "id": self.id,
            "kind": self.fault.kind,
            "state": "active" if self.active else "ended",
            "ended_by": self.ended_by,
            "lease_s": self.lease_s,
            "left_s": round(max(0.0, left_s), 3) if self.active else 0.0,
            "started_unix_s": self.started_unix_s,
            "hit_unix_s": self.hit_unix_s,
            "options": self.options,
            "counters": dict(self.counters),
        }


class Leases:
    """All leases, in order of their start. One of a kind can be in force."""

    def __init__(self) -> None:
        self.active: dict[str, Lease] = {}
        self._ended: dict[str, Lease] = {}
        self._started = 0

    def start(self, fault: Fault, seed: int, lease_s: float) -> Lease:
        if fault.kind in self.active:
            other = self.active[fault.kind]
            raise FaultConflictError(f"{fault.kind} is already in force as {other.id}: end that one first")
        self._started += 1
        lease = Lease(
            id=f"f{self._started}",
            fault=fault,
            seed=seed,
            lease_s=lease_s,
            started_unix_s=time.time(),
            started_s=time.monotonic(),
        )
        self.active[fault.kind] = lease
        return lease

    def end(self, lease: Lease, by: str) -> set[Callable[[], None]]:
        """End a fault in force. Return what is to be called then."""
        lease.ended_by = by
        lease.acted.set()
        lease.kept.clear()
        del self.active[lease.fault.kind]
        self._ended[lease.id] = lease
        while len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        callbacks, lease.at_end = lease.at_end, set()
        return callbacks

    def find(self, id_: str) -> Lease:
        for lease in self.all():
            if lease.id == id_:
                return lease
        raise UnknownFaultError(f"no fault {id_!r}; known are {', '.join(one.id for one in self.all()) or 'none'}")

    def all(self) -> list[Lease]:
        return [*self._ended.values(), *self.active.values()]
