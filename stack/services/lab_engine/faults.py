"""The faults in force, what they add up to, and what each has done so far. Acts on nothing; the time is passed in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lab_engine import fault_kinds as kinds

MOST_REMEMBERED = 100


class UnknownFaultError(LookupError):
    """No fault of that id was ever started here, or it is forgotten."""


class FaultConflictError(ValueError):
    """A fault that cannot start beside what is in force."""


@dataclass(eq=False, kw_only=True, slots=True)
class Lease:
    """One fault from its start to its end."""

    id: str
    fault: kinds.Fault
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
            "options": kinds.options(self.fault),
            "counters": dict(self.counters),
            "simulated": True,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """What all faults in force do to the machine together."""

    hung: bool = False
    slowdown: float = 1.0
    withheld_ratio: float = 0.0  # of the KV blocks
    neighbour_share: float = 0.0  # of the GPU's time
    memory_taken: bool = False  # no device memory is left for a model
    on_cpu: bool = False
    clock_ratio: float = 1.0
    xid: int = 0
    erring: bool = False  # the process lives and answers every request with 500
    corruption: kinds.Corruption | None = None


class Faults:
    def __init__(self) -> None:
        self.active: dict[str, Lease] = {}
        self.effects = Effects()
        self._ended: dict[str, Lease] = {}
        self._started = 0

    def start(self, fault: kinds.Fault, lease_s: float, now_s: float) -> Lease:
        if fault.kind in self.active:
            other = self.active[fault.kind]
            raise FaultConflictError(f"{fault.kind} is already in force as {other.id}: end that one first")
        self._started += 1
        lease = Lease(id=f"f{self._started}", fault=fault, lease_s=lease_s, started_s=now_s)
        self.active[fault.kind] = lease
        self.effects = _sum(self.active)
        return lease

    def end(self, id_: str, now_s: float, by: str) -> tuple[Lease, bool]:
        """The lease, and whether it was this call that ended it: ending twice is harmless."""
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

    def count(self, kind: type[kinds.Fault], what: str, by: int = 1) -> None:
        """Note something that the fault did, when it is in force."""
        lease = self.active.get(kind.kind)
        if lease is not None:
            lease.counters[what] += by

    def of(self, kind: type[kinds.Fault]) -> Lease | None:
        return self.active.get(kind.kind)


def _sum(active: dict[str, Lease]) -> Effects:
    total: dict[str, Any] = {"slowdown": 1.0}
    for lease in active.values():
        match lease.fault:
            case kinds.Hang():
                total["hung"] = True
            case kinds.Saturation(share=share):
                total["slowdown"] /= 1 - share
                total["neighbour_share"] = share
            case kinds.Exhaustion(what="kv_cache", ratio=ratio):
                total["withheld_ratio"] = ratio
            case kinds.Exhaustion():
                total["memory_taken"] = True
            case kinds.Xid(code=code, engine=engine):
                total |= {"xid": code, "erring": engine == "errors"}
            case kinds.CpuFallback(slowdown=slowdown):
                total["slowdown"] *= slowdown
                total["on_cpu"] = True
            case kinds.Thermal(clock_ratio=ratio):
                total["slowdown"] /= ratio
                total["clock_ratio"] = ratio
            case kinds.Corruption() as corruption:
                total["corruption"] = corruption
            case _:
                pass
    return Effects(**total)
