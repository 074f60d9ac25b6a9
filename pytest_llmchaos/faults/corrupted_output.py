"""Answers are fast, complete, status 200, and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.faults.engine_faults import EngineFault, check_choice, check_number, on_engine

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault


def corrupted_output(target: str, *, how: str = "garbage", share: float = 1.0) -> Fault:
    """Corrupt that share of the answers: `garbage`, `wrong` tokens, or `swapped` with another caller's."""
    manner = check_choice("corrupted_output(how=...)", how, ("garbage", "wrong", "swapped"))
    part = check_number("corrupted_output(share=...)", share, above=0, at_most=1)
    fault = EngineFault(
        kind="corrupted_output",
        lifetime="passing",
        expects="every server-side signal is green; only callers that check what they got see it",
        options=(("how", manner), ("share", part)),
        counter="requests",
        witness='sum(increase(llmchaos_caller_requests_total{outcome="corrupted"}[5s])) > 0',
    )
    return on_engine(fault, target)
