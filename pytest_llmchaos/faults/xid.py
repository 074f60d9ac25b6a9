"""The GPU's driver reports an error (XID), of which the engine dies, or errs, or does not care."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault, check_choice, check_whole, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def xid(target: str, *, code: int = 79, engine: str = "dies") -> Fault:
    """Report an XID error. The engine `dies` of it, `errors` on every request at a healthy health path, or `survives`."""
    number = check_whole("xid(code=...)", code, at_least=1, at_most=999)
    fate = check_choice("xid(engine=...)", engine, ("dies", "errors", "survives"))
    options = (("code", number), ("engine", fate))
    if fate == "dies":
        expects = "requests in flight fail, the process exits with 1; ServiceDown fires"
        return on_engine(EngineDeath(kind="xid", expects=expects, options=options), target)
    fault = EngineFault(
        kind="xid",
        lifetime="lasting" if fate == "errors" else "passing",
        expects="GpuXid fires; with errors every request gets 500 and the gateway takes the replica out",
        options=options,
        witness=f'DCGM_FI_DEV_XID_ERRORS{{service="{{victim}}"}} == {number}',
    )
    return on_engine(fault, target)
