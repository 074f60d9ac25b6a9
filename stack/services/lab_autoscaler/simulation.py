"""The command `simulate`: many simulated runs from one file."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab_autoscaler import world_faults, written
from lab_autoscaler.arrivals import Arrival, arrivals_from, require_fit
from lab_autoscaler.decision import State
from lab_autoscaler.policies import decide
from lab_autoscaler.world import simulate
from lab_autoscaler.world_settings import WorldSettings, settings_from
from lab_common.settings import refuse
from lab_common.values import InvalidValueError, require, require_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lab_autoscaler.policies import Policy
    from lab_autoscaler.seen import Observed
    from lab_autoscaler.world_faults import Fault

_LONGEST_S = 7 * 86_400.0
_MOST_JOBS = 1024
_PARENT_EVERY_S = 0.5


class BadFileError(ValueError):
    """A file that describes no simulation, in one line."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked content of a file."""

    arrivals: tuple[Arrival, ...]
    policies: tuple[Policy, ...]
    faults: tuple[tuple[Fault, ...], ...]
    seeds: tuple[int, ...]
    settings: WorldSettings
    until_s: float

    def cells(self) -> list[tuple[Policy, tuple[Fault, ...], int]]:
        """Each combination of policy, fault and seed, which is one run."""
        return list(itertools.product(self.policies, self.faults, self.seeds))


class Steering:
    """A policy with its memory, as the `steer` of one world."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state = State()

    def __call__(self, observed: Observed) -> tuple[int, str]:
        """The wanted count and its reason."""
        decision = decide(self._policy, observed, self._state)
        self._state = decision.state
        return decision.desired, decision.reason


def main(words: Sequence[str]) -> int:
    """Exit status: 0 after all runs, 2 for a bad file or option."""
    parser = argparse.ArgumentParser(prog="lab_autoscaler simulate", description="Simulated runs, one JSON line each.")
    parser.add_argument("file", type=Path, help="JSON file with arrivals, policies, faults, seeds, world and until_s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    given = parser.parse_args(words)
    try:
        require_whole("--jobs", given.jobs, at_least=1, at_most=_MOST_JOBS)
        plan = plan_of(given.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return refuse("lab_autoscaler simulate", error)
    # Ctrl-C and a closed pipe end it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for line in lines(plan, jobs=given.jobs):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def plan_of(text: str) -> Plan:
    """The plan of a file's text.

    Raises:
        BadFileError: with the first thing that is wrong.
    """
    try:
        given = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"expected a JSON object, got: {error}") from None
    if not isinstance(given, dict):
        raise BadFileError(f"expected a JSON object, got {type(given).__name__}")
    names = ("arrivals", "policies", "faults", "seeds", "world", "until_s")
    unknown, missing = sorted(given.keys() - set(names)), [name for name in names[:2] + names[5:] if name not in given]
    if unknown or missing:
        expected = f"expected the names {', '.join(names)}"
        raise BadFileError(
            f"{expected}, got also {', '.join(unknown)}" if unknown else f"{expected}, without {missing[0]}"
        )
    try:
        return _checked(given)
    except (InvalidValueError, written.InvalidPolicyError, world_faults.InvalidFaultError) as error:
        raise BadFileError(" ".join(str(error).split())) from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name}, which is no JSON number")


def _checked(given: Mapping[str, object]) -> Plan:
    world, until_s = given.get("world", {}), given["until_s"]
    if not isinstance(world, dict):
        raise InvalidValueError(f"world must be an object, got {world!r}")
    require("until_s", until_s, above=0, at_most=_LONGEST_S)
    settings = settings_from(world)
    arrivals = arrivals_from(_rows("arrivals", given["arrivals"]))
    plan = Plan(
        arrivals=arrivals,
        policies=tuple(_policy(one, settings) for one in _texts("policies", given["policies"])),
        faults=tuple(world_faults.parse_all(one) for one in _texts("faults", given.get("faults", ["none"]))),
        seeds=_seeds(given.get("seeds", [0])),
        settings=settings,
        until_s=float(until_s),  # type: ignore[arg-type]
    )
    for name, values in (("policies", plan.policies), ("faults", plan.faults), ("seeds", plan.seeds)):
        if len(set(values)) < len(values):
            raise InvalidValueError(
                f"{name} must differ from each other, got {len(values) - len(set(values))} of them twice"
            )
    for faults in plan.faults:
        world_faults.require_start_before(plan.until_s, faults)
    require_fit(arrivals, until_s=plan.until_s, max_model_tokens=settings.engine().limits.max_model_tokens)
    return plan


def _policy(text: str, settings: WorldSettings) -> Policy:
    """The policy of a text. A law without a maximum has the fleet's."""
    policy = written.parse(text, maximum=settings.maximum)
    if policy.maximum > settings.maximum:
        raise written.InvalidPolicyError(
            f"{text!r} wants up to {policy.maximum} replicas, and the fleet has {settings.maximum}: "
            "raise the setting maximum, or lower that of the policy"
        )
    return policy


def _at_start(policy: Policy, settings: WorldSettings) -> WorldSettings:
    """The settings with as many replicas at the start as the policy permits."""
    initial = min(max(settings.initial, policy.minimum), policy.maximum)
    return replace(settings, initial=initial)


def _rows(name: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise InvalidValueError(f"{name} must be a list that is not empty, got {str(value)[:80]!r}")
    return value


def _texts(name: str, value: object) -> list[str]:
    rows = _rows(name, value)
    for index, one in enumerate(rows):
        if not isinstance(one, str):
            raise InvalidValueError(f"{name}[{index}] must be a text, got {one!r}")
    return [one for one in rows if isinstance(one, str)]


def _seeds(value: object) -> tuple[int, ...]:
    rows = _rows("seeds", value)
    for index, one in enumerate(rows):
        require_whole(f"seeds[{index}]", one, at_least=0, at_most=2**63)
    return tuple(one for one in rows if isinstance(one, int))


def lines(plan: Plan, *, jobs: int) -> Iterator[str]:
    """One JSON line for each cell, in the order in which they finish."""
    cells = len(plan.cells())
    if jobs == 1 or cells == 1:
        yield from (_line(plan, place) for place in range(cells))
        return
    with ProcessPoolExecutor(min(jobs, cells), initializer=_keep, initargs=(plan, os.getpid())) as pool:
        for done in as_completed([pool.submit(_line_of, place) for place in range(cells)]):
            yield done.result()


_kept: list[Plan] = []  # of a worker process, sent once


def _keep(plan: Plan, parent: int) -> None:
    _kept[:] = [plan]
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker once its parent has ended, which a signal may have done."""
    while os.getppid() == parent:
        time.sleep(_PARENT_EVERY_S)
    os._exit(1)


def _line_of(place: int) -> str:
    return _line(_kept[0], place)


def _line(plan: Plan, place: int) -> str:
    policy, faults, seed = plan.cells()[place]
    settings = _at_start(policy, plan.settings)
    outcome = simulate(plan.arrivals, Steering(policy), settings, until_s=plan.until_s, faults=faults, seed=seed)
    cell = {"cell": place, "policy": written.written(policy), "fault": world_faults.written_all(faults), "seed": seed}
    return json.dumps({**cell, **outcome.as_json()}, allow_nan=False)
