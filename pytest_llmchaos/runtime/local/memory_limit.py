"""The ability `limit_memory` of the local runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from pytest_llmchaos.faults.base import first_event
from pytest_llmchaos.model import Proof, RuntimeEvent, Undo, UndoOp
from pytest_llmchaos.runtime.local.control import Control
from pytest_llmchaos.runtime.local.daemon import Daemon
from pytest_llmchaos.runtime.local.process_groups import MIB, data_limit, data_limits


class MemoryLimitable:
    """Mixin that limits each process of a service with RLIMIT_DATA.

    Above the limit the kernel refuses memory. It does not kill the process. A process
    started later is unlimited.
    """

    _control: Control
    _daemon: Daemon
    _act: Callable[..., None]
    events: Callable[[float, float], Sequence[RuntimeEvent]]

    def limit_memory(self, service: str, mebibytes: int) -> None:
        """Limit memory. Raises NotReady if the service does not run or on refusal."""
        self._act("limit_memory", service, str(mebibytes))

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None:
        """Proof from supervisord's event and the kernel. None until both agree."""
        size = int(amount)
        event = first_event(self.events(since_unix_s, float("inf")), service, frozenset({kind}), mebibytes=str(size))
        if event is None or self._limits(service) != {size * MIB}:
            return None
        witness = f"runtime event {kind}; kernel: at most {size * MIB} bytes of data in each process of {service}"
        return Proof(step="injected", witness=witness, at_unix_s=event.at_unix_s)

    def released(self, kind: str, service: str) -> Proof | None:
        """Proof that each process has supervisord's own limit. None until then."""
        if self._limits(service) != {data_limit(self._daemon.pid)}:
            return None
        return Proof(step="healed", witness=f"kernel: {kind} of {service} is as found", at_unix_s=time.time())

    @property
    def memory_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"ensure_memory": self._give_back_memory}

    def _give_back_memory(self, undo: Undo) -> None:
        self.release(undo.service)

    def release(self, service: str) -> None:
        """Restore the original limit. Does nothing if the service is not limited."""
        limits = self._limits(service)
        if limits and limits != {data_limit(self._daemon.pid)}:
            self._control.call("unlimit_memory", service)

    def _limits(self, service: str) -> set[int]:
        """Soft limits of its processes, in bytes. Empty if it does not run."""
        seen = self._control.inspect().get(service)
        return data_limits(seen.pid) if seen and seen.pid else set()
