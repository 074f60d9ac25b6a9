"""Start and stop of the stack against plain Docker Compose.

The peer is `docker compose up --wait` and `down` of the same files in one run. A second
figure is the cost of a trial beyond the phases that the system itself needed. The
backend is `sim`, and the images must be present. Each is done `--rounds` times in turn,
trials at most 3 times, and the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, figure, publish
from runtimes import trial_times

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.subject.lab import lab_subject

BACKEND = "sim"


def plain(runtime: ComposeRuntime) -> tuple[float, float]:
    """Seconds of `docker compose up --wait` and `down` with the same files."""
    command, env = runtime.compose.command(), runtime.compose.environment()
    begin = time.perf_counter()
    docker_cli.run([*command, "up", "--wait"], env=env, timeout_s=120)
    up_s = time.perf_counter() - begin
    begin = time.perf_counter()
    docker_cli.run([*command, "down", "-v", "-t", "1"], env=env, timeout_s=60)
    return up_s, time.perf_counter() - begin


def ours(runtime: ComposeRuntime) -> tuple[float, float]:
    begin = time.perf_counter()
    runtime.up()
    up_s = time.perf_counter() - begin
    begin = time.perf_counter()
    runtime.down()
    return up_s, time.perf_counter() - begin


def fresh(directory: Path) -> ComposeRuntime:
    runtime = ComposeRuntime(
        lab_subject(BACKEND), project="llmchaos-bench", run="bench", owner=identity.owner_label(), directory=directory
    )
    runtime.prepare()
    runtime.compose.write_override()  # so that both sides start the same services with the same labels
    return runtime


def measure(rounds: int) -> dict[str, Figure]:
    up_s: list[float] = []
    down_s: list[float] = []
    peer_up_s: list[float] = []
    peer_down_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="llmchaos-bench-") as folder:
        for number in range(rounds):
            for measured, into in ((ours, (up_s, down_s)), (plain, (peer_up_s, peer_down_s))):
                taken = measured(fresh(Path(folder) / f"{measured.__name__}-{number}"))
                into[0].append(taken[0])
                into[1].append(taken[1])
    cost_s = statistics.median(trial["beyond"] for trial in trial_times("compose", rounds, BACKEND))
    up, down = statistics.median(up_s), statistics.median(down_s)
    peer_up, peer_down = statistics.median(peer_up_s), statistics.median(peer_down_s)
    return {
        "up over plain compose": figure(up / peer_up, "ratio", "<= 1.3", peer=peer_up),
        "up": figure(up, "s", "<= 5", peer=peer_up),
        "down over plain compose": figure(down / peer_down, "ratio", "<= 1.3", peer=peer_down),
        "down": figure(down, "s", "<= 1", peer=peer_down),
        "kill_api beyond its phases": figure(cost_s, "s", "<= 5"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line at the end")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        figures = measure(arguments.rounds)
    except NotReady as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    publish("stack", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
