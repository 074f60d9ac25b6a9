"""Guards between a policy's wish and the replicas, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["acted", "held", "dry_run", "paused", "blind"]
RESULTS: tuple[Result, ...] = ("acted", "held", "dry_run", "paused", "blind")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A policy's wanted count, and its limits.

    Attributes:
        desired: The policy's count.
        current: The count in force.
        minimum: The fewest replicas of the policy.
        maximum: The most replicas, of policy and fleet.
        steps_max: The most replicas up or down at once.
        is_blind: The policy lacked values that it needs.
        is_paused: The hold file exists.
        is_dry_run: Nothing is done.
    """

    desired: int
    current: int
    minimum: int
    maximum: int
    steps_max: int
    is_blind: bool
    is_paused: bool
    is_dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The count to steer to, and the result for the metrics."""

    desired: int
    result: Result
    reason: str = ""


def permitted(wish: Wish) -> Verdict:
    """The wish within its bounds, or the current count with the guard that refused."""
    if wish.is_paused:
        return Verdict(desired=wish.current, result="paused", reason="operator hold: remove the hold file")
    bounded = max(wish.minimum, min(wish.maximum, wish.desired))
    desired = max(wish.current - wish.steps_max, min(wish.current + wish.steps_max, bounded))
    if wish.is_dry_run:
        reason = "" if desired == wish.current else f"dry run: would have {desired} replicas"
        return Verdict(desired=wish.current, result="dry_run", reason=reason)
    if desired == wish.current:
        return Verdict(desired=desired, result="blind" if wish.is_blind else "held")
    reason = "" if desired == wish.desired else f"{wish.desired} wanted, {desired} permitted"
    return Verdict(desired=desired, result="acted", reason=reason)
