"""Machines and models as data, each number with its source. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lab_engine.scheduler import Limits
from lab_engine.speed import Speed


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    name: str
    source: str
    speed: Speed
    limits: Limits


def fast(*, first_token_s: float = 0.02, token_gap_s: float = 0.005, tokens_per_s: float = 10_000.0) -> Profile:
    """No real machine: a first token after `first_token_s`, one every `token_gap_s` when idle, `tokens_per_s` at most.

    A request waits half a step on average before it enters one, hence the 1.5 steps taken off the first token.
    """
    return Profile(
        name="fast",
        source="made up for tests: quick answers, hundreds of streams on one core",
        speed=Speed(
            frontend_s=max(0.0, first_token_s - 1.5 * token_gap_s),
            step_s=token_gap_s,
            sequence_s=1 / tokens_per_s,
        ),
        limits=Limits(slots=256, batch_tokens=8192, max_model_tokens=8192, blocks=8192),
    )


PROFILES = {"fast": fast()}
