"""Faults in force, their combined effects, and their counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lab_engine.effects import Effects
from lab_engine.faults import Fault, options

MOST_REMEMBERED = 100


class UnknownFaultError(LookupError):
    """No fault with that id, or one already forgotten."""


class FaultConflictError(ValueError):
    """A fault that cannot start alongside the faults in force."""


@dataclass(eq=False, kw_only=True, slots=True)
class Lease:
    """One fault from its start to its end."""

    id: str
    fault: Fault
    lease_s: float
    started_s: float
    ended_s: float | None = None
    ended_by: str | None = None  # "lease", "request" or "death"
    counters: Counter[str] = field(default_factory=Counter)

    def described(self, now_s: float) -> dict[str, Any]:
        active = self.ended_s is None
        return {
            "id": self.id,
            "kind": self.fault.kind,
            "state": "active" if active else "ended",
            "ended_by": self.ended_by,
            "lease_s": self.lease_s,
            "left_s": round(max(0.0, self.started_s + self.lease_s - now_s), 3) if active else 0.0,
            "options": options(self.fault),
            "counters": dict(self.counters),
            "simulated": True,
        }


class Faults:
    """All leases, in order of their start."""

    def __init__(self) -> None:
        self.active: dict[str, Lease] = {}
        self.effects = Effects()
        self._ended: dict[str, Lease] = {}
        self._started = 0

    def start(self, fault: Fault, lease_s: float, now_s: float) -> Lease:
        if fault.kind in self.active:
            other = self.active[fault.kind]
            raise FaultConflictError(f"{fault.kind} is already in force as {other.id}: end that one first")
        self._started += 1
        lease = Lease(id=f"f{self._started}", fault=fault, lease_s=lease_s, started_s=now_s)
        self.active[fault.kind] = lease
        self.effects = _sum(self.active)
        return lease

    def end(self, id_: str, now_s: float, by: str) -> tuple[Lease, bool]:
        """The lease, and True if this call ended it.

        A second end changes nothing.
        """
        lease = self.find(id_)
        if lease.ended_s is not None:
            return lease, False
        lease.ended_s, lease.ended_by = now_s, by
        del self.active[lease.fault.kind]
        self._ended[id_] = lease
        while len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self.effects = _sum(self.active)
        return lease, True

    def find(self, id_: str) -> Lease:
        for lease in (*self.active.values(), *self._ended.values()):
            if lease.id == id_:
                return lease
        raise UnknownFaultError(f"no fault {id_!r}; known are {', '.join(each.id for each in self.all()) or 'none'}")

    def all(self) -> list[Lease]:
        return [*self._ended.values(), *self.active.values()]

    def count(self, kind: str, what: str) -> None:
        """Count an act of the fault, if it is in force."""
        lease = self.active.get(kind)
        if lease is not None:
            lease.counters[what] += 1

    def count_refusal(self) -> None:
        """Count a request that a dead or failing engine refused."""
        for lease in self.active.values():
            if lease.fault.refuses:
                lease.counters["requests_failed"] += 1


def _sum(active: dict[str, Lease]) -> Effects:
    total = Effects()
    for lease in active.values():
        total = lease.fault.effects(total)
    return total
