"""Faults of a scenario, and one of a user, that a type checker must accept."""

from typing import ClassVar

from pytest_llmchaos import faults
from pytest_llmchaos.faults.base import ActFault, OnTarget, RestrictionFault
from pytest_llmchaos.model import AbleRuntime, CanLimitCpu, CanStop, Fault, Runtime
from pytest_llmchaos.runtime.docker.attached import AttachedRuntime
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.local.runtime import LocalRuntime

one: Fault = faults.kill("api")
several: Fault = faults.kill(["model-1", "model-2"])
stopped: Fault = faults.stop(["api", "model-1"], grace_s=5)
foreign: Fault = faults.foreign("stun")("api", for_s=3)


class Slow(RestrictionFault):
    kind: ClassVar[str] = "slow"
    needs: ClassVar[frozenset[str]] = frozenset({"limit_cpu"})
    expects: ClassVar[str] = "less"
    undo_op: ClassVar[str] = "ensure_cpu"

    def inject(self, runtime: CanLimitCpu, victim: str) -> None:
        runtime.limit_cpu(victim, 0.1)


class Softly(ActFault):
    kind: ClassVar[str] = "softly"
    needs: ClassVar[frozenset[str]] = frozenset({"stop", "start", "events"})

    def inject(self, runtime: CanStop, victim: str) -> None:
        runtime.stop(victim, 5)


softly: Fault = OnTarget(primitive=Softly(), target="api")
slow: Fault = OnTarget(primitive=Slow(), target="api")


def runtimes(compose: ComposeRuntime, attached: AttachedRuntime, local: LocalRuntime) -> tuple[Runtime, ...]:
    able: AbleRuntime = compose
    other: AbleRuntime = attached
    return able, other, local
