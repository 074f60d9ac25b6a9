"""Wrong answers that are fast, complete and status 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.faults.compositions import Target, on_targets
from pytest_llmchaos.faults.engine_faults import EngineFault
from pytest_llmchaos.faults.option_checks import check_choice, check_number
from pytest_llmchaos.model import CLIENT_REQUESTS

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault, Lifetime


class CorruptedOutput(EngineFault):
    """An engine that answers wrongly. Only the clients' check detects it."""

    kind: ClassVar[str] = "corrupted_output"
    lifetime: ClassVar[Lifetime] = "passing"
    expects: ClassVar[str] = "every server-side signal is green; only clients that check what they got see it"
    counter: ClassVar[str] = "requests"

    def witness(self, victim: str) -> str:  # noqa: ARG002 - clients cannot see which replica was wrong
        return f'sum(increase({CLIENT_REQUESTS}_total{{outcome="corrupted"}}[5s])) > 0'


def corrupted_output(target: Target, *, how: str = "garbage", share: float = 1.0) -> Fault:
    """Corrupt a share of an engine's answers.

    They stay fast, complete and status 200.

    - Ends: after `fault_s` (`passing`).
    - Fidelity: `simulated`. The victim must be a simulated engine.
    - Expected signal: every server-side signal is green. Only clients that check
      answers detect it.

    Args:
        target: Service name, `model-*` for one service drawn by the seed, or a list of
            these. All services of a list are hit at once.
        how: `garbage` (`!!!!`, as of NaN logits), `wrong` (other tokens) or `swapped`
            (another client's answer). Length and speed are unchanged.
        share: Share of the answers that is corrupted, above 0, at most 1.

    Returns:
        A fault for `experiment(fault=...)` and `lab.inject`.

    Raises:
        BadScenario: `target` is not a service name or pattern, `how` is not one of the
            three, or `share` is out of bounds.
    """
    manner = check_choice("corrupted_output(how=...)", how, ("garbage", "wrong", "swapped"))
    part = check_number("corrupted_output(share=...)", share, above=0, at_most=1)
    return on_targets(CorruptedOutput(options=(("how", manner), ("share", part))), target)
