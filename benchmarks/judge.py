"""How long it takes to judge samples on disk, and how much memory: 100,000 of them, 1,000,000, and the ratio of the two.

Judged means read once, then all that a trial's verdict needs of them: windows of all phases with their quantiles, the
second of recovery, the first bad second, and the rows of a chart. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from pytest_llmchaos import history, samples
from pytest_llmchaos.model import Sample

SMALL, LARGE = 100_000, 1_000_000
RATE_RPS = 1000.0
LIMITS = history.Limits(ttft_s=2, e2e_s=10)


def write(path: Path, count: int) -> None:
    """A trial at 1,000 requests a second that is down for its middle tenth."""
    rng = Random(42)
    down_s = (0.4 * count / RATE_RPS, 0.5 * count / RATE_RPS)
    with path.open("w", encoding="utf-8") as file:
        file.write(samples.HEADER + "\n")
        for i in range(count):
            due_s = i / RATE_RPS
            is_down = down_s[0] <= due_s < down_s[1]
            first_s = None if is_down else due_s + 0.02 + rng.expovariate(100)
            end_s = due_s + 0.001 if first_s is None else first_s + 0.2
            file.write(
                samples.line(
                    Sample(
                        due_s,
                        due_s + 0.0003,
                        first_s,
                        end_s,
                        0.0 if is_down else 0.006,
                        0 if is_down else 32,
                        "refused" if is_down else "ok",
                        "" if is_down else f"model-{1 + i % 2}",
                        f"0123abcd-{i}",
                    )
                )
            )


def judge(path: Path, count: int) -> dict[str, float]:
    length_s = count / RATE_RPS
    bounds = [("steady", 0.0, 0.4 * length_s), ("fault", 0.4 * length_s, 0.6 * length_s)]
    bounds += [("recovery", 0.6 * length_s, length_s), ("whole", 0.0, length_s)]
    began_s = time.perf_counter()
    seen = samples.load(path)
    read_s = time.perf_counter() - began_s
    windows = history.windows(seen, bounds, LIMITS)
    quantiles = [(w.ttft_s.p95, w.e2e_s.p99, w.availability, w.goodput) for w in windows]
    good_s = history.first_sustained_good_s(seen, 0.4 * length_s, 5, LIMITS, length_s)
    bad_s = history.first_bad_s(seen, 0.0, LIMITS)
    rows = history.per_second(seen)
    judged_s = time.perf_counter() - began_s
    right = bad_s == 0.4 * length_s and good_s == 0.5 * length_s and len(rows) == length_s and len(quantiles) == 4
    if not right:
        raise SystemExit(f"judged wrongly: bad from {bad_s}, good from {good_s}, {len(rows)} seconds")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"read_s": read_s, "judged_s": judged_s, "peak_mb": peak_mb}


def measured(directory: Path, count: int) -> dict[str, float]:
    path = directory / f"{count}.jsonl"
    write(path, count)
    command = [sys.executable, __file__, "--judge", str(path), str(count)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        print(answer.stderr.strip(), file=sys.stderr)
        raise SystemExit(2)
    return {name: float(value) for name, value in json.loads(answer.stdout).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--judge", nargs=2, metavar=("FILE", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(judge(Path(args.judge[0]), int(args.judge[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        results = {count: measured(Path(directory), count) for count in (SMALL, LARGE)}
    print(f"{'samples':>10} {'read':>8} {'judged':>8} {'memory':>8}")
    for count, result in results.items():
        print(f"{count:>10,} {result['read_s']:>6.2f} s {result['judged_s']:>6.2f} s {result['peak_mb']:>5.0f} MB")
    seconds, memory = results[LARGE]["judged_s"], results[LARGE]["peak_mb"]
    ratio = seconds / results[SMALL]["judged_s"]
    print(f"10 times the samples cost {ratio:.1f} times the time")
    goals = (("judged_1m", seconds, "s", 10.0), ("memory_1m", memory, "MB", 400.0), ("ratio_10x", ratio, "times", 11.0))
    figures = {
        name: {"value": round(value, 2), "unit": unit, "goal": f"<= {goal:g}", "met": value <= goal, "peer": None}
        for name, value, unit, goal in goals
    }
    if args.json:
        print(json.dumps({"benchmark": "judge", "figures": figures}))


if __name__ == "__main__":
    main()
