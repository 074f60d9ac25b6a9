"""Time and memory to judge 100,000 and 1,000,000 samples on disk.

The benchmark makes the calls that end every trial: `judge.judge` over the trial's
folder, then the trial as JSON and the quantiles that claims read. Events, alerts and
Prometheus are made up, because their number does not grow with the samples. Each size
runs in a process of its own.
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
from types import SimpleNamespace
from typing import Any

from figures import figure, publish

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import PhaseBounds, Record
from pytest_llmchaos.evidence.trial_result import LoadResult
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.lab.reasons import Reasons
from pytest_llmchaos.model import RuntimeEvent, Sample, ServiceState
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.stats import windows
from pytest_llmchaos.trial import judge as judging
from pytest_llmchaos.trial.result import judged_result

SMALL, LARGE = 100_000, 1_000_000
RATE_RPS = 1000.0
LIMITS = windows.LatencyTargets(ttft_s=2, e2e_s=10)


def write(path: Path, count: int) -> None:
    """A trial at 1,000 requests a second that is down for its middle tenth."""
    rng = Random(42)
    down_s = (0.4 * count / RATE_RPS, 0.5 * count / RATE_RPS)
    with path.open("w", encoding="utf-8") as file:
        file.write(samples_file.HEADER + "\n")
        for i in range(count):
            due_s = i / RATE_RPS
            is_down = down_s[0] <= due_s < down_s[1]
            first_s = None if is_down else due_s + 0.02 + rng.expovariate(100)
            end_s = due_s + 0.001 if first_s is None else first_s + 0.2
            file.write(
                samples_file.line(
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


def lab_of(events: list[RuntimeEvent]) -> Any:
    """A lab with these events, no alert, and no disagreement."""
    return SimpleNamespace(
        subject=SimpleNamespace(
            api="api",
            targets=(),
            expected_of=lambda *_: None,
            pushgateway=None,
            remediator=None,
            autoscaler=None,
            scrape_jobs=(),
            used_selector=None,
            replicas=(),
            known_rules=(),
            attempts_counters=None,
            brings_judge=False,
        ),
        slos=(),
        reasons=Reasons(),
        runtime=SimpleNamespace(
            events=lambda *_: events,
            state=lambda name: ServiceState(service=name, running=True),
            states=dict,
            event_gaps=lambda *_: (),
        ),
        remediator=SimpleNamespace(audit=lambda *_: None),
        prometheus=SimpleNamespace(
            firing_spells=lambda *_: (),
            also_rules=tuple,
            targets=lambda: (),
            raw=lambda *_: (),
            rules=tuple,
        ),
        clocks={"Prometheus' clock": lambda: 0.0},
    )


def judge(directory: Path, count: int) -> dict[str, float]:
    length_s = count / RATE_RPS
    anchor_s = time.time() - length_s
    fault_s, back_s = 0.4 * length_s, 0.5 * length_s
    kill = faults.kill("api")
    made = experiment(load=loads.open_loop(rate_rps=RATE_RPS), fault=kill, stable_s=5).kwargs["experiment"]
    plan = plan_trial(
        scenario="judge", hypothesis="", experiment=made, fault=kill, repeat=0, seed=42, services=("api",)
    )
    record = Record(Journal(directory / "journal.jsonl"), "001", directory)
    record.anchor(anchor_s, time.monotonic() - length_s)
    bounds = [("steady", 0.0, fault_s), ("fault", fault_s, 0.6 * length_s), ("recovery", 0.6 * length_s, length_s)]
    record.phases += [PhaseBounds(name=name, from_s=from_s, to_s=to_s) for name, from_s, to_s in bounds]
    injected = Injected()
    injected.acts = list(plan.injections)
    injected.start_unix_s = injected.last_unix_s = anchor_s + fault_s
    injected.reverted_unix_s = anchor_s + length_s
    events = [
        RuntimeEvent(at_unix_s=anchor_s + at_s, service="api", action=action)
        for at_s, action in ((fault_s, "die"), (back_s - 1, "start"))
    ]
    load: Any = SimpleNamespace(
        require_held=LoadResult,
        limits=LIMITS,
        due_between=lambda *_: count,
        stop=lambda: SimpleNamespace(done=count, uncancelled=0),
    )
    began_s = time.perf_counter()
    trial = judging.judge(lab_of(events), plan, record, load, injected)
    entry = judged_result(record, trial)
    asked = [(w.ttft_s.p95, w.e2e_s.p99, w.availability, w.goodput_ratio) for w in trial.windows.values()]
    judged_s = time.perf_counter() - began_s
    right = (
        abs(trial.time_to_recover_s - 0.1 * length_s) < 0.01
        and trial.whole.offered == count
        and trial.failed == trial.whole.outcomes["refused"] == count // 10
        and (len(entry.phases), len(asked)) == (3, 7)
    )
    if not right:
        raise SystemExit(f"judged wrongly: {entry}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"judged_s": judged_s, "peak_mb": peak_mb}


def measured(directory: Path, count: int) -> dict[str, float]:
    trial = directory / str(count)
    trial.mkdir()
    write(trial / "samples.jsonl", count)
    command = [sys.executable, __file__, "--judge", str(trial), str(count)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        print(answer.stderr.strip(), file=sys.stderr)
        raise SystemExit(2)
    return {name: float(value) for name, value in json.loads(answer.stdout).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--judge", nargs=2, metavar=("FOLDER", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(judge(Path(args.judge[0]), int(args.judge[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        results = {count: measured(Path(directory), count) for count in (SMALL, LARGE)}
    print(f"{'samples':>10} {'judged':>8} {'memory':>8}")
    for count, result in results.items():
        print(f"{count:>10,} {result['judged_s']:>6.2f} s {result['peak_mb']:>5.0f} MB")
    seconds, memory = results[LARGE]["judged_s"], results[LARGE]["peak_mb"]
    ratio = seconds / results[SMALL]["judged_s"]
    print(f"10 times the samples cost {ratio:.1f} times the time")
    goals = (("judged_1m", seconds, "s", 10.0), ("memory_1m", memory, "MB", 400.0), ("ratio_10x", ratio, "times", 11.0))
    figures = {name: figure(value, unit, f"<= {goal:g}", digits=2) for name, value, unit, goal in goals}
    publish("judge", figures, as_json=args.json)


if __name__ == "__main__":
    main()
