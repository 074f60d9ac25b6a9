"""Each line with a comment is the error that the comment names."""

from pytest_llmchaos import faults
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.model import AbleRuntime, CanKill, CanPause, CanStop, Fault
from pytest_llmchaos.runtime.local.runtime import LocalRuntime

faults.kil("api")  # attr-defined: has no attribute "kil"
faults.kill(7)  # arg-type: incompatible type "int"


class Wrong(Kill):
    def inject(self, runtime: CanPause, victim: str) -> None:  # override: Argument 1 of "inject"
        runtime.pause(victim)


def kills(runtime: CanKill) -> None:
    runtime.pause("api")  # attr-defined: "CanKill" has no attribute "pause"


def stops(runtime: CanStop) -> None:
    runtime.stop("api")  # call-arg: Missing positional argument "grace_s"


class NoFault:
    kind = "none"


fault: Fault = OnTarget(primitive=NoFault(), target="api")  # arg-type: expected "Primitive"


def able(local: LocalRuntime) -> AbleRuntime:
    return local  # return-value: expected "AbleRuntime"
