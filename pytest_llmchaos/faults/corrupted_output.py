"""Answers are fast, complete, status 200, and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault, check_choice, check_number
from pytest_llmchaos.model import CLIENT_REQUESTS

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class CorruptedOutput(EngineFault):
    kind: ClassVar[str] = "corrupted_output"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "every server-side signal is green; only clients that check what they got see it"
    counter: ClassVar[str] = "requests"

    def witness(self, victim: str) -> str:  # noqa: ARG002 - clients do not know who answered them wrongly
        return f'sum(increase({CLIENT_REQUESTS}_total{{outcome="corrupted"}}[5s])) > 0'


def corrupted_output(target: Target, *, how: str = "garbage", share: float = 1.0) -> Fault:
    """Corrupt that share of the answers: `garbage`, `wrong` tokens, or `swapped` with another client's."""
    manner = check_choice("corrupted_output(how=...)", how, ("garbage", "wrong", "swapped"))
    part = check_number("corrupted_output(share=...)", share, above=0, at_most=1)
    return on_targets(CorruptedOutput(options=(("how", manner), ("share", part))), target)
