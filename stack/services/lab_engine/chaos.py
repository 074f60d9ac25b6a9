"""Start and end of faults in the engine, each with its lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lab_engine.leases import FaultConflictError, Lease
from lab_engine.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_engine.boot import BootFaults
    from lab_engine.engine import Engine
    from lab_engine.faults import Fault


class Chaos:
    """Starts and ends faults. `exit_status` resolves when a fault ends the process."""

    def __init__(self, engine: Engine, boot: BootFaults | None) -> None:
        self.engine = engine
        self.exit_status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._boot = boot
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._undo: dict[str, Callable[[], None]] = {}

    def start(self, fault: Fault, lease_s: float) -> Lease:
        engine = self.engine
        if engine.life == "dead":
            raise FaultConflictError(f"the engine is dead, so {fault.kind} would change nothing: wait for its restart")
        if fault.at_boot and self._boot is None:
            raise FaultConflictError(f"{fault.kind} must outlive the process: set LAB_STATE_DIR to a folder that does")
        lease = engine.faults.start(fault, lease_s, engine.clock())
        self._ends[lease.id] = asyncio.get_running_loop().call_later(lease_s, self.end, lease.id, "lease")
        log("fault started", fault=lease.described(engine.clock()))
        if fault.at_boot and self._boot is not None:
            self._boot.add(fault, lease_s)
        engine.apply_faults()
        undo = fault.strike(self, lease.counters)
        if undo is not None:
            self._undo[lease.id] = undo
        return lease

    def end(self, id_: str, by: str = "request") -> Lease:
        engine = self.engine
        lease, now = engine.faults.end(id_, engine.clock(), by)
        if not now:
            return lease
        handle = self._ends.pop(id_, None)
        if handle is not None:
            handle.cancel()
        undo = self._undo.pop(id_, None)
        if undo is not None:
            undo()
        if self._boot is not None:
            self._boot.remove(lease.fault)
        engine.apply_faults()
        log("fault ended", fault=lease.described(engine.clock()))
        return lease

    def close(self) -> None:
        """Forget all timers and free what faults hold. Faults end with the process."""
        for handle in self._ends.values():
            handle.cancel()
        for undo in self._undo.values():
            undo()

    # Acts of faults, see `faults.base.Struck`.

    def fail_in_flight(self) -> int:
        return self.engine.fail_in_flight()

    def end_process(self, linger_s: float) -> int:
        """End the process as vLLM's API server ends.

        It outlives its engine process only to report its death.
        """
        failed = self.engine.die()
        asyncio.get_running_loop().call_later(linger_s, self._exit)
        return failed

    def crash_and_load(self) -> int:
        failed = self.engine.die()
        self.engine.life = "loading"
        self.restore_load_time()
        return failed

    def drop_model(self, load_s: float) -> int:
        self.engine.load_s = load_s
        return self.engine.drop_model()

    def restore_load_time(self) -> None:
        self.engine.load_s = self.engine.settings.load_s

    def _exit(self) -> None:
        log("engine dead", status=1)
        if not self.exit_status.done():
            self.exit_status.set_result(1)
