"""CPU time of the simulated autoscaler, and its policies at a kill.

First one simulated hour of 8 replicas, with 10 requests a second in all and with 10 for
each. Then the command `simulate` over six policies, four faults and three seeds, with
15 minutes of a load that rises and falls, on two cores. The tables have the policies
without a fault and with a replica killed at the peak: the share of requests within
their targets, and the replica-hours, as means over the seeds.

    python benchmarks/autoscaler.py [--minutes 60] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from figures import figure, publish

ROOT = Path(__file__).parent.parent
SERVICES = ROOT / "stack" / "services"
sys.path.insert(0, str(SERVICES))

from lab_autoscaler.arrivals import Arrival  # noqa: E402 - found through the line above
from lab_autoscaler.policies import Fixed  # noqa: E402
from lab_autoscaler.simulation import Steering  # noqa: E402
from lab_autoscaler.world import simulate  # noqa: E402
from lab_autoscaler.world_settings import WorldSettings  # noqa: E402

REPLICAS = 8
TRACE_S = 900.0
QUIET_RPS, PEAK_RPS = 2.0, 16.0  # a replica serves about 5 requests a second within the targets
BOUNDS = "minimum=1, maximum=8"
POLICIES = ["fixed(4)", *(f"{law}({BOUNDS})" for law in ("hpa", "keda", "kpa", "slo", "queue"))]
KILL = "kill(at_s=peak)"
FAULTS = ["none", KILL, "scrape_gap(at_s=peak, for_s=120)", "slow_load(at_s=0, for_s=900, factor=4)"]
SEEDS = [0, 1, 2]
# Replicas that load for 30 s and answer in about 1.6 s.
WORLD: dict[str, object] = {
    "maximum": REPLICAS, "initial": 2, "load_s": 30.0, "token_gap_s": 0.025, "first_token_s": 0.1,
    "tokens_per_s": 1000.0, "first_token_target_s": 1.0, "token_gap_target_s": 0.05,
}  # fmt: skip


def steady(rate_rps: float, until_s: float) -> list[Arrival]:
    """Poisson arrivals of one rate."""
    rng, at_s, arrivals = random.Random(1), 0.0, list[Arrival]()
    while (at_s := at_s + rng.expovariate(rate_rps)) < until_s:
        arrivals.append(Arrival(at_s=at_s, prompt_tokens=100, answer_tokens=rng.randint(32, 224)))
    return arrivals


def wave(until_s: float) -> list[list[float]]:
    """Poisson arrivals, as rows of the file. The rate rises to its peak and falls."""
    rng, rows = random.Random(2), list[list[float]]()
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(PEAK_RPS)) < until_s:
        rate_rps = QUIET_RPS + (PEAK_RPS - QUIET_RPS) * math.sin(math.pi * at_s / until_s) ** 2
        if rng.random() < rate_rps / PEAK_RPS:
            rows.append([at_s, 100, rng.randint(32, 96)])
    return rows


def hour(rate_rps: float, until_s: float) -> tuple[float, int]:
    """CPU seconds of one run of eight replicas, and its requests."""
    arrivals = steady(rate_rps, until_s)
    settings = WorldSettings(minimum=REPLICAS, maximum=REPLICAS, initial=REPLICAS)
    began_s = time.process_time()
    outcome = simulate(arrivals, Steering(Fixed(replicas=REPLICAS)), settings, until_s=until_s)
    took_s = time.process_time() - began_s
    if outcome.served < 0.99 * outcome.offered:
        sys.exit(f"cannot measure: {outcome.served} of {outcome.offered} requests were served")
    return took_s, outcome.offered


def cells(jobs: int) -> tuple[list[dict[str, object]], float, float]:
    """The results of all cells, and the wall and CPU seconds of the command."""
    plan = {"arrivals": wave(TRACE_S), "policies": POLICIES, "faults": FAULTS, "seeds": SEEDS, "world": WORLD}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(json.dumps({**plan, "until_s": TRACE_S}))
        command = [sys.executable, "-m", "lab_autoscaler", "simulate", str(file), f"--jobs={jobs}"]
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(SERVICES)}, capture_output=True, text=True, check=False
        )
        wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"cannot measure: {done.stderr.strip()}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [json.loads(line) for line in done.stdout.splitlines()], wall_s, cpu_s


def means(found: list[dict[str, object]], fault: str, name: str) -> dict[str, float]:
    """Mean of one value over the seeds, by policy."""
    values = defaultdict[str, list[float]](list)
    for cell in found:
        if str(cell["fault"]).split("(", maxsplit=1)[0] == fault:
            values[str(cell["policy"])].append(float(str(cell[name])))
    return {policy: statistics.mean(values[policy]) for policy in sorted(values)}


def show(found: list[dict[str, object]], fault: str) -> dict[str, tuple[float, float]]:
    """Print a table of policies, best first, and return its values."""
    attained, seconds = means(found, fault, "attained"), means(found, fault, "replica_s")
    lost, flaps = means(found, fault, "lost"), means(found, fault, "flaps")
    print(f"{fault + ': policy':<48} {'attained':>9} {'replica-hours':>14} {'lost':>6} {'flaps':>6}")
    for policy in sorted(attained, key=lambda one: -attained[one]):
        hours = seconds[policy] / 3600
        print(f"{policy:<48} {attained[policy]:>9.3f} {hours:>14.3f} {lost[policy]:>6.1f} {flaps[policy]:>6.1f}")
    print()
    return {policy: (round(attained[policy], 4), round(seconds[policy], 1)) for policy in attained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="simulated minutes of the first part (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the figures as a last line of JSON, too")
    given = parser.parse_args()
    scale, jobs = 60.0 / given.minutes, min(2, os.cpu_count() or 1)
    light_s, light = hour(10.0, 60.0 * given.minutes)
    heavy_s, heavy = hour(10.0 * REPLICAS, 60.0 * given.minutes)
    found, wall_s, cpu_s = cells(jobs)
    expected = len(POLICIES) * len(FAULTS) * len(SEEDS)
    control, killed = show(found, "none"), show(found, "kill")
    apart = sum(control[policy] != killed[policy] for policy in control)
    publish(
        "autoscaler",
        {
            "hour_of_10_rps": figure(light_s * scale, "CPU s", "<= 60", requests=light),
            "hour_of_80_rps": figure(heavy_s * scale, "CPU s", "<= 60", requests=heavy),
            "request": figure(1e6 * heavy_s / heavy, "CPU us"),
            "cells": figure(len(found), "runs", f"== {expected}"),
            "all_cells": figure(cpu_s, "CPU s", "<= 300", wall_s=round(wall_s, 1), jobs=jobs),
            "all_cells_wall": figure(wall_s, f"s on {jobs} cores"),
            "results_at_the_kill": figure(len(set(killed.values())), "different ones", f"== {len(POLICIES)}"),
            "policies_that_the_kill_moves": figure(apart, "policies", f"== {len(POLICIES)}"),
        },
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
