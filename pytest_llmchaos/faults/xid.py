"""An error that the GPU's driver reports (XID)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineDeath, EngineFault
from pytest_llmchaos.faults.option_checks import check_choice, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.model import Fault, Lifetime, Primitive


class XidDeath(EngineDeath):
    """An XID error of which the engine dies."""

    kind: ClassVar[str] = "xid"


class XidReported(EngineFault):
    """An XID error that the engine survives."""

    kind: ClassVar[str] = "xid"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "GpuXid fires; with errors every request gets 500 and the gateway takes the replica out"

    def witness(self, victim: str) -> str:
        return f'DCGM_FI_DEV_XID_ERRORS{{service="{victim}"}} == {self.number("code"):g}'


class XidErrors(XidReported):
    """An XID error after which every request gets 500, until a restart."""

    lifetime: ClassVar[Lifetime] = "lasting"


def xid(target: Target, *, code: int = 79, engine: str = "dies") -> Fault:
    """Report an error of the GPU's driver (XID) for an engine.

    - `engine="dies"`: the process exits with status 1. `lasting`. In the lab
      `ServiceDown` fires.
    - `engine="errors"`: every request gets 500 while `/health` returns 200. `lasting`.
      `GpuXid` fires and the gateway ejects the replica.
    - `engine="survives"`: only the driver's report shows it. `passing`, ends after
      `fault_s`. `GpuXid` fires.

    Fidelity: `simulated`. The victim must be a simulated engine.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        code: XID number, 1 to 999, from NVIDIA's XID catalogue. The default of 79 is
            "GPU has fallen off the bus".
        engine: `dies`, `errors` or `survives`.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, `code` is out of bounds
            or `engine` is not one of the three.
    """
    number = check_whole("xid(code=...)", code, at_least=1, at_most=999)
    fates: dict[str, Callable[..., Primitive]] = {"dies": XidDeath, "errors": XidErrors, "survives": XidReported}
    fate = check_choice("xid(engine=...)", engine, tuple(fates))
    return on_targets(fates[fate](options=(("code", number), ("engine", fate))), target)
