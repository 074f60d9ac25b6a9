"""Import time that the plugin adds to every pytest run.

One import statement is timed in a fresh process that has imported pytest already, with
the compiled files in place: each module in turn, in as many rounds as fit into 30 s,
next to other plugins. The time is the CPU's, which is the whole time on an idle
machine. The figure is the median of all rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from figures import figure, publish

SECONDS = 30.0
LEAST_ROUNDS = 3
OURS = "pytest_llmchaos.plugin"
PEERS = ("pytest_timeout", "xdist.plugin", "pytest_randomly", "pytest_html.plugin", "_hypothesis_pytestplugin")
GOAL_MS = 30.0
# Without compiled files an import is three times as slow.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
CODE = "import pytest, time; began_s = time.process_time(); import {0}; print(time.process_time() - began_s)"


def one_ms(module: str) -> float:
    """CPU milliseconds that the import of `module` takes in a process of its own."""
    command = [sys.executable, "-c", CODE.format(module)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{module} cannot be imported: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        raise SystemExit(2)
    return float(done.stdout) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"to measure (default {SECONDS:g})")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line")
    args = parser.parse_args()
    modules = (OURS, *PEERS)
    for module in modules:
        one_ms(module)  # the first import of all writes the compiled files
    taken: dict[str, list[float]] = {module: [] for module in modules}
    until_s, rounds = time.monotonic() + args.seconds, 0
    while rounds < LEAST_ROUNDS or time.monotonic() < until_s:
        for module in modules:
            taken[module].append(one_ms(module))
        rounds += 1
    print(f"{'import of':<28} {'best':>8} {'median':>8} of {rounds} rounds")
    for module, values in taken.items():
        print(f"{module:<28} {min(values):>5.1f} ms {statistics.median(values):>5.1f} ms")
    median_ms = {module: statistics.median(values) for module, values in taken.items()}
    peers = {module: round(median_ms[module], 2) for module in PEERS}
    found = figure(median_ms[OURS], "ms", f"<= {GOAL_MS:g}", peer=peers, digits=2)
    publish("import", {"plugin_import": found}, as_json=args.json)


if __name__ == "__main__":
    main()
