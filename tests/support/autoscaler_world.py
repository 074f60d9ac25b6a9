"""Worlds for tests of the autoscaler's simulation."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from lab_autoscaler.arrivals import Arrival
from lab_autoscaler.simulation import Steering
from lab_autoscaler.world import World, simulate
from lab_autoscaler.world_faults import parse
from lab_autoscaler.world_settings import WorldSettings
from lab_autoscaler.written import parse as parse_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab_autoscaler.outcome import Outcome
    from lab_autoscaler.seen import Observed


def arrivals(
    rate_rps: float,
    until_s: float,
    *,
    seed: int = 1,
    prompt: tuple[int, int] = (20, 200),
    answer: tuple[int, int] = (20, 100),
) -> list[Arrival]:
    """Poisson arrivals of requests with uniform lengths."""
    rng, now_s, found = random.Random(seed), 0.0, list[Arrival]()
    while (now_s := now_s + rng.expovariate(rate_rps)) < until_s:
        found.append(Arrival(at_s=now_s, prompt_tokens=rng.randint(*prompt), answer_tokens=rng.randint(*answer)))
    return found


def fixed(count: int) -> Callable[[Observed], tuple[int, str]]:
    """An autoscaler that always wants this count."""
    return lambda observed: (count, "fixed")


def steps(*changes: tuple[float, int]) -> Callable[[Observed], tuple[int, str]]:
    """An autoscaler that wants each count from its time on."""
    return lambda observed: ([count for at_s, count in changes if at_s <= observed.now_s][-1], "by the clock")


def run(
    requests: Sequence[Arrival],
    steer: Callable[[Observed], tuple[int, str]] | str,
    *faults: str,
    until_s: float = 120.0,
    seed: int = 0,
    **settings: object,
) -> Outcome:
    """The outcome of one world, whose autoscaler is a function or a written policy."""
    chosen = Steering(parse_policy(steer)) if isinstance(steer, str) else steer
    return simulate(
        requests,
        chosen,
        WorldSettings(**settings),  # type: ignore[arg-type]
        until_s=until_s,
        faults=[parse(one) for one in faults],
        seed=seed,
    )


def world(
    requests: Sequence[Arrival],
    steer: Callable[[Observed], tuple[int, str]],
    *faults: str,
    until_s: float = 120.0,
    **settings: object,
) -> World:
    """A world before its first event."""
    chosen = WorldSettings(**settings)  # type: ignore[arg-type]
    return World(requests, steer, chosen, until_s=until_s, faults=[parse(one) for one in faults])
