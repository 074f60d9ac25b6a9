"""The GPU's driver reports an error (XID), of which the engine dies, or errs, or does not care."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault, check_choice, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.model import Fault, Lifetime, Primitive


class XidDeath(EngineDeath):
    kind: ClassVar[str] = "xid"


class XidReported(EngineFault):
    """The engine lives on as if nothing were."""

    kind: ClassVar[str] = "xid"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "GpuXid fires; with errors every request gets 500 and the gateway takes the replica out"

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_XID_ERRORS{{service="{victim}"}} == {self.number("code"):g}'


class XidErrors(XidReported):
    """The engine answers every request with an error, which only a restart ends."""

    lifetime: ClassVar[Lifetime] = "lasting"


def xid(target: Target, *, code: int = 79, engine: str = "dies") -> Fault:
    """Report an XID error. The engine `dies` of it, `errors` on every request at a healthy health path, or `survives`."""
    number = check_whole("xid(code=...)", code, at_least=1, at_most=999)
    fates: dict[str, Callable[..., Primitive]] = {"dies": XidDeath, "errors": XidErrors, "survives": XidReported}
    fate = check_choice("xid(engine=...)", engine, tuple(fates))
    return on_targets(fates[fate](options=(("code", number), ("engine", fate))), target)
