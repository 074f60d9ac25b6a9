"""Effects of slow-engine scenarios on a virtual clock stay far from every limit."""

import runpy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_api.settings import Deadlines
from lab_engine import virtual
from lab_engine.faults import parse
from lab_engine.leases import Faults
from lab_engine.scheduler import Scheduler
from lab_engine.settings import Settings
from lab_engine.work import Sequence

ROOT = Path(__file__).parents[1]
SLOWED = ("busy_model", "gpu_saturation")
REPLICAS = 2
PROMPT_TOKENS = 24  # about the length of a "short-chat" prompt, without cost in this engine
LATENCY_BOUND_S = 2.56  # of the latency-p95 objective
CLIENTS_WAIT_S = 10.0  # a client's wait for its whole answer


@dataclass(frozen=True, kw_only=True)
class Served:
    """One replica's share of a scenario's load, with the fault in force throughout."""

    first_token_s: list[float]
    whole_s: list[float]
    steps_s: list[float]
    most_inside: int


def experiment_of(scenario: str) -> Any:
    return runpy.run_path(str(ROOT / "scenarios" / f"test_{scenario}.py"))["pytestmark"].kwargs["experiment"]


def slowdown_of(experiment: Any) -> float:
    """Combined effects of the fault on one replica. Both are hit alike."""
    one, other = (fault.primitive for _, fault in experiment.faults[0].parts)
    assert one == other
    faults = Faults()
    faults.start(*parse({"kind": one.kind, "lease_s": 60, **dict(one.options)}), 0.0)
    return faults.effects.slowdown


def served(scenario: str, *, slowdown: float | None = None, times: float = 1.0) -> Served:
    experiment = experiment_of(scenario)
    load, profile = experiment.load, Settings.from_env({}).profile
    every_s = REPLICAS / (times * load.mean_rps)
    arrivals = [
        Sequence(name=str(n), arrived_s=n * every_s, prompt_tokens=PROMPT_TOKENS, answer_tokens=load.max_tokens)
        for n in range(int(experiment.fault_s / every_s))
    ]
    inside: list[tuple[float, int]] = [(each.arrived_s, 1) for each in arrivals]
    ends_s: list[float] = []

    def token(sequence: Sequence, now_s: float) -> None:
        ends_s.append(now_s)
        if sequence.state == "finished":
            inside.append((now_s, -1))

    chosen = slowdown_of(experiment) if slowdown is None else slowdown
    virtual.run(Scheduler(speed=profile.speed, limits=profile.limits), arrivals, on_token=token, slowdown=chosen)
    steps = sorted(set(ends_s))
    total, most = 0, 0
    for _, change in sorted(inside):
        total += change
        most = max(most, total)
    return Served(
        first_token_s=[each.first_token_s - each.arrived_s for each in arrivals],
        whole_s=[each.last_token_s - each.arrived_s for each in arrivals],
        steps_s=[late - early for early, late in pairwise(steps)],
        most_inside=most,
    )


def places() -> int:
    """Requests that the gateway lets into one replica of the simulated engine."""
    compose = yaml.safe_load((ROOT / "stack" / "compose.sim.yaml").read_text(encoding="utf-8"))
    return int(compose["services"]["api"]["environment"]["LAB_CONCURRENCY"])


def signal(name: str) -> float:
    """The bound at which a signal of the remediator fires."""
    rules = yaml.safe_load((ROOT / "stack" / "remediation.yaml").read_text(encoding="utf-8"))
    return float(rules["signals"][name]["fires"].split()[1])


@pytest.mark.parametrize("scenario", SLOWED)
def test_clients_meet_a_slow_engine_and_not_a_full_gateway(scenario: str) -> None:
    assert served(scenario).most_inside <= 0.75 * places()


@pytest.mark.parametrize("scenario", SLOWED)
def test_twice_and_a_half_the_load_would_be_an_overload(scenario: str) -> None:
    """Scenarios held by luck here: the queue grew until clients were refused."""
    assert served(scenario, times=2.5).most_inside > 1.5 * places()


@pytest.mark.parametrize("scenario", SLOWED)
def test_every_answer_misses_the_latency_objective_and_none_did_before(scenario: str) -> None:
    """The burn rate reaches its maximum, so alerts do not depend on a few requests."""
    assert min(served(scenario).whole_s) >= 1.2 * LATENCY_BOUND_S
    assert max(served(scenario, slowdown=1).whole_s) <= 0.2 * LATENCY_BOUND_S


@pytest.mark.parametrize("scenario", SLOWED)
def test_no_deadline_comes_near(scenario: str) -> None:
    times, deadlines = served(scenario), Deadlines()

    assert experiment_of(scenario).load.timeout_s == CLIENTS_WAIT_S
    assert max(times.whole_s) <= 0.6 * CLIENTS_WAIT_S
    assert max(times.first_token_s) <= 0.5 * deadlines.ttft_s
    assert max(times.steps_s) <= 0.5 * deadlines.gap_s


def test_a_busy_engine_keeps_clients_waiting_longer_than_a_hung_one_would_be_left() -> None:
    """The step counter moves between any two scrapes two seconds apart.

    A remediator that judges by waiting alone would restart the replica.
    """
    times = served("busy_model")

    assert max(times.first_token_s) > 1.5 * signal("replica-still")
    assert max(times.steps_s) < 2
