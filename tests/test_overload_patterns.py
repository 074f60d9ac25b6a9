"""Effects of the overload scenarios of patterns, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from support import virtual_time
from support.pattern_scenarios import experiment_of

from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Pool
from lab_api.priority import HEADER, requested
from lab_api.replica import Probed
from lab_api.settings import Settings
from lab_engine.settings import Settings as EngineSettings
from pytest_llmchaos.subject.lab import PEAK_TOKENS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from pytest_llmchaos.plan.experiment import Experiment

    Client = Callable[[], Coroutine[None, None, Any]]

REPLICAS = "model-1=http://model-1:8080,model-2=http://model-2:8080"
SPEED = EngineSettings.from_env({}).profile.speed
FIRST_TOKEN_S = SPEED.frontend_s + 1.5 * SPEED.step_s


def goodput_ratio(experiment: Experiment, arm: str, slowdown: float) -> float:
    """Share of the load's requests that are answered in time during the overload."""
    settings = Settings.from_env(
        {"LAB_MODEL": "m", "LAB_REPLICAS": REPLICAS, **experiment.arms[arm].environment["api"]}
    )
    flood = cast("Mapping[str, float]", experiment.faults[0].strength)
    load, times_s = experiment.load, cast("float", experiment.fault_s)
    assert load.max_tokens is not None
    first_s: list[float] = []

    async def request(pool: Pool, tokens: int, header: str | None) -> float | None:
        priority = requested(header if settings.patterns.priority else None, 0)
        began_s = pool.clock()
        try:
            async with asyncio.timeout(load.timeout_s):
                lease = await pool.acquire(priority=priority)
        except (GatewayError, TimeoutError):
            return None
        lease.sent()
        await asyncio.sleep(FIRST_TOKEN_S * slowdown)
        lease.first_token()
        took_s = pool.clock() - began_s
        step_s = SPEED.step_s + SPEED.sequence_s * lease.replica.in_flight
        await asyncio.sleep((tokens - 1) * step_s * slowdown)
        lease.end(Outcome.OK)
        return took_s

    async def answered(pool: Pool) -> None:
        took_s = await request(pool, load.max_tokens or 0, dict(load.headers).get(HEADER))
        if took_s is not None:
            first_s.append(took_s)

    async def send(rate_rps: float, tasks: list[asyncio.Task[Any]], client: Client) -> None:
        for _ in range(int(times_s * rate_rps)):
            tasks.append(asyncio.ensure_future(client()))
            await asyncio.sleep(1 / rate_rps)

    async def story() -> None:
        pool = Pool(
            settings.replicas,
            admission=settings.admission,
            shedding=settings.shedding,
            probing=settings.probing,
            ejection=settings.ejection,
            patterns=settings.patterns,
            clock=asyncio.get_running_loop().time,
        )
        for replica in pool.replicas:
            replica.probed(Probed.GOOD, 0, took_s=0)
        await asyncio.sleep(settings.ejection.slow_start_s)
        ours: list[asyncio.Task[Any]] = []
        theirs: list[asyncio.Task[Any]] = []
        flood_rps = flood["times"] * PEAK_TOKENS_PER_S["sim"] / flood["max_tokens"]
        async with asyncio.TaskGroup() as senders:
            senders.create_task(send(load.mean_rps, ours, lambda: answered(pool)))
            senders.create_task(send(flood_rps, theirs, lambda: request(pool, int(flood["max_tokens"]), None)))
        for task in theirs:
            task.cancel()
        await asyncio.gather(*ours)

    virtual_time.run(story())
    return sum(took_s <= load.latency_targets.ttft_s for took_s in first_s) / int(times_s * load.mean_rps)


@pytest.mark.parametrize("slowdown", [1.0, 1.5])
@pytest.mark.parametrize(("pattern", "at_least"), [("queue", 0.15), ("shed", 0.15), ("priority", 0.7)])
def test_the_effect_is_far_from_the_claim_on_a_quick_and_on_a_slow_machine(
    pattern: str, at_least: float, slowdown: float
) -> None:
    experiment = experiment_of(pattern)

    assert goodput_ratio(experiment, "on", slowdown) - goodput_ratio(experiment, "off", slowdown) >= at_least
