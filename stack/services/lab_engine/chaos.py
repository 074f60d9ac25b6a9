"""Starts and ends faults in the engine, each with its lease. The admin port's deeds, without its HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lab_engine import fault_kinds as kinds
from lab_engine.faults import FaultConflictError, Lease
from lab_engine.leak import Leak
from lab_engine.log import log

if TYPE_CHECKING:
    from lab_engine.boot import BootFaults
    from lab_engine.engine import Engine


class Chaos:
    """`exit_status` resolves when a fault ends the process."""

    def __init__(self, engine: Engine, boot: BootFaults | None) -> None:
        self.engine = engine
        self.exit_status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._boot = boot
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._leak: Leak | None = None

    def start(self, fault: kinds.Fault, lease_s: float) -> Lease:
        engine = self.engine
        if engine.life == "dead":
            raise FaultConflictError(f"the engine is dead, so {fault.kind} would change nothing: wait for its restart")
        at_boot = isinstance(fault, kinds.CrashOnBoot) or (isinstance(fault, kinds.SlowLoad) and fault.when != "now")
        if at_boot and self._boot is None:
            raise FaultConflictError(f"{fault.kind} must outlive the process: set LAB_STATE_DIR to a folder that does")
        lease = engine.faults.start(fault, lease_s, engine.clock())
        self._ends[lease.id] = asyncio.get_running_loop().call_later(lease_s, self.end, lease.id, "lease")
        log("fault started", fault=lease.described(engine.clock()))
        if at_boot and self._boot is not None:
            self._boot.add(fault, lease_s)
        engine.apply_faults()
        self._strike(lease)
        return lease

    def end(self, id_: str, by: str = "request") -> Lease:
        engine = self.engine
        lease, now = engine.faults.end(id_, engine.clock(), by)
        if not now:
            return lease
        handle = self._ends.pop(id_, None)
        if handle is not None:
            handle.cancel()
        if isinstance(lease.fault, kinds.MemoryLeak) and self._leak is not None:
            self._leak.stop()
            self._leak = None
        if isinstance(lease.fault, kinds.SlowLoad):
            engine.load_s = engine.settings.load_s
        if self._boot is not None:
            self._boot.remove(lease.fault)
        engine.apply_faults()
        log("fault ended", fault=lease.described(engine.clock()))
        return lease

    def close(self) -> None:
        """Forget all timers and free leaked memory; the faults end with the process."""
        for handle in self._ends.values():
            handle.cancel()
        if self._leak is not None:
            self._leak.stop()

    def _strike(self, lease: Lease) -> None:
        """What a fault does once, at its start."""
        engine = self.engine
        match lease.fault:
            case kinds.Exhaustion(what="device_memory", then=then, linger_s=linger_s):
                log(
                    "torch.OutOfMemoryError",
                    message="CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 0 bytes free.",
                )
                if then == "die":
                    self._die(lease, linger_s)
                else:
                    lease.counters["requests_failed"] += engine.die()
                    engine.life = "loading"
                    engine.load_s = engine.settings.load_s
            case kinds.Xid(code=code, engine=fate, linger_s=linger_s):
                log("kernel", message=f"NVRM: Xid (PCI:0000:17:00): {code}, pid=1, name=python3 (simulated)")
                if fate == "dies":
                    self._die(lease, linger_s)
                elif fate == "errors":
                    lease.counters["requests_failed"] += engine.fail_in_flight()
            case kinds.SlowLoad(load_s=load_s, when="now"):
                engine.load_s = load_s
                lease.counters["requests_failed"] += engine.drop_model()
            case kinds.MemoryLeak() as leak:
                self._leak = Leak(leak, lease)
            case _:
                pass

    def _die(self, lease: Lease, linger_s: float) -> None:
        """As vLLM's API server, which outlives its engine process only to say so."""
        lease.counters["requests_failed"] += self.engine.die()
        asyncio.get_running_loop().call_later(linger_s, self._exit)

    def _exit(self) -> None:
        log("engine dead", status=1)
        if not self.exit_status.done():
            self.exit_status.set_result(1)
