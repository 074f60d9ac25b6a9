"""Take memory away from a service's processes, see it in the kernel, and give it back. What the local runtime inherits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from pytest_llmchaos.faults.base import first_event
from pytest_llmchaos.model import Proof, RuntimeEvent, Undo, UndoOp
from pytest_llmchaos.runtime.local.control import Control
from pytest_llmchaos.runtime.local.daemon import Daemon
from pytest_llmchaos.runtime.local.process_groups import MIB, data_limit, data_limits


class MemoryLimitable:
    """The limit is each process's own (RLIMIT_DATA), a new process has none: who needs more is refused it, not killed."""

    _control: Control
    _daemon: Daemon
    _act: Callable[..., None]
    events: Callable[[float, float], Sequence[RuntimeEvent]]

    def limit_memory(self, service: str, mebibytes: int) -> None:
        """Raises NotReady if the service does not run, or the kernel refuses."""
        self._act("limit_memory", service, str(mebibytes))

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None:
        """Proof that supervisord did it and that the kernel shows it on every process; None until both are seen."""
        size = int(amount)
        event = first_event(self.events(since_unix_s, float("inf")), service, frozenset({kind}), mebibytes=str(size))
        if event is None or self._limits(service) != {size * MIB}:
            return None
        witness = f"runtime event {kind}; kernel: at most {size * MIB} bytes of data in each process of {service}"
        return Proof(step="injected", witness=witness, at_unix_s=event.at_unix_s)

    def released(self, kind: str, service: str) -> Proof | None:
        """Proof that the service runs and each of its processes may take what supervisord may; None until it is so."""
        if self._limits(service) != {data_limit(self._daemon.pid)}:
            return None
        return Proof(step="healed", witness=f"kernel: {kind} of {service} is as found", at_unix_s=time.time())

    @property
    def memory_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"ensure_memory": self._give_back_memory}

    def _give_back_memory(self, undo: Undo) -> None:
        self.release(undo.service)

    def release(self, service: str) -> None:
        """Give back what was taken; nothing where nothing is missing or nothing runs."""
        limits = self._limits(service)
        if limits and limits != {data_limit(self._daemon.pid)}:
            self._control.call("unlimit_memory", service)

    def _limits(self, service: str) -> set[int]:
        """Of every process of the service; empty where it does not run."""
        seen = self._control.inspect().get(service)
        return data_limits(seen.pid) if seen and seen.pid else set()
