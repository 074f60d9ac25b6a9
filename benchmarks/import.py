"""Import time that the plugin adds to every pytest run.

One import statement is timed in a fresh process that has imported pytest already, with
the compiled files in place: each module in turn, many rounds, next to other plugins.
The figure is the median of all rounds. The best round approximates an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from figures import figure, publish

ROUNDS = 31
OURS = "pytest_llmchaos.plugin"
PEERS = ("pytest_timeout", "xdist.plugin", "pytest_randomly", "pytest_html.plugin", "_hypothesis_pytestplugin")
GOAL_MS = 30.0
CODE = "import pytest, time; began_s = time.perf_counter(); import {0}; print(time.perf_counter() - began_s)"


def one_ms(module: str) -> float:
    """Milliseconds that the import of `module` takes in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{module} cannot be imported: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        raise SystemExit(2)
    return float(done.stdout) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    modules = (OURS, *PEERS)
    for module in modules:
        one_ms(module)  # the first import of all writes the compiled files
    taken: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(ROUNDS):
        for module in modules:
            taken[module].append(one_ms(module))
    print(f"{'import of':<28} {'best':>8} {'median':>8}")
    for module, values in taken.items():
        print(f"{module:<28} {min(values):>5.1f} ms {statistics.median(values):>5.1f} ms")
    median_ms = {module: statistics.median(values) for module, values in taken.items()}
    peers = {module: round(median_ms[module], 2) for module in PEERS}
    found = figure(median_ms[OURS], "ms", f"<= {GOAL_MS:g}", peer=peers, digits=2)
    publish("import", {"plugin_import": found}, as_json=args.json)


if __name__ == "__main__":
    main()
