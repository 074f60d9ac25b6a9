"""Time of `pytest --chaos-plan` for 1,000 experiments.

One experiment in each of 1,000 files, and 50 in each of 20 files. The peer of the same
run is `pytest --collect-only` of as many files and tests without this plugin, so
pytest's own cost. Each is a whole process, the best of several, after one that fills
the caches of compiled files. The plan must be complete, and the same each time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure, publish

EXPERIMENTS = 1000
GOAL_S = 2.0
ROUNDS = 5
HEAD = '"""It comes back."""\nfrom pytest_llmchaos import experiment, faults, loads\n'
CLAIM = """
@experiment(load=loads.open_loop(rate_rps=2, max_tokens=8), fault=faults.kill("model-*"), steady_s={steady_s})
def test_it_comes_back_{number}(trial):
    assert trial.time_to_recover_s <= 20
"""
PLAIN = """
def test_it_comes_back_{number}(tmp_path):
    assert tmp_path
"""


def write(folder: Path, files: int, head: str, test: str) -> Path:
    """Write `EXPERIMENTS` tests into this many files."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    each = EXPERIMENTS // files
    for file in range(files):
        # Experiments of one file differ in a phase, or they would share a trial.
        tests = [test.format(number=number, steady_s=8 + number) for number in range(each)]
        (folder / f"test_scenario_{file:04d}.py").write_text(head + "".join(tests))
    return folder


def run(folder: Path, *options: str) -> tuple[float, str]:
    """Wall seconds of the whole process, and its output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - began_s
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(2)
    return took_s, done.stdout


def planned(folder: Path) -> float:
    plans = set()
    times = []
    for _ in range(ROUNDS + 1):
        took_s, said = run(folder, "--chaos-plan", "--chaos-seed=42")
        if f"{EXPERIMENTS} trials planned with --chaos-seed=42; nothing was touched" not in said:
            print(said[-2000:], file=sys.stderr)
            raise SystemExit(2)
        times.append(took_s)
        plans.add("\n".join(line for line in said.splitlines() if " arrivals " in line))
    if len(plans) != 1:
        raise SystemExit(2)
    return min(times[1:])


def collected(folder: Path) -> float:
    return min([run(folder, "--collect-only", "-q")[0] for _ in range(ROUNDS + 1)][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = {}
    print(f"{'1,000 experiments in':<24} {'--chaos-plan':>12} {'pytest alone':>12}")
    with tempfile.TemporaryDirectory() as directory:
        for files in (1000, 20):
            ours = planned(write(Path(directory) / f"ours-{files}", files, HEAD, CLAIM))
            alone = collected(write(Path(directory) / f"alone-{files}", files, "", PLAIN))
            print(f"{f'{files:,} files':<24} {ours:>10.2f} s {alone:>10.2f} s")
            figures[f"plan_1000_in_{files}_files"] = figure(ours, "s", f"<= {GOAL_S:g}", peer=alone, digits=2)
    publish("plan", figures, as_json=args.json)


if __name__ == "__main__":
    main()
