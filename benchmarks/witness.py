"""Times to detect and recover against an independent onlooker.

The onlooker (`peers/onlooker.py`) shares no code with the instrument. It reads the
runtime's events and the remediator's log, queries Prometheus for firing alerts every 20
ms, and calls the API every 20 ms. The load is 50 requests a second, so neither side
resolves a recovery to less than 20 ms. The backend is `sim`, and the images must be
present. Each fault is performed `--rounds` times. A figure is the largest difference of
all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from figures import Figure, figure, publish
from peers.moments import WITHIN_S, Blind, differences, seen
from peers.onlooker import Place, watching

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import LlmchaosError, ProvesNothing
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.model import Fault
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.subject.lab import Subject
from pytest_llmchaos.trial.perform import perform
from pytest_llmchaos.trial.trial import Trial

BACKEND = "sim"
STABLE_S = 3.0
BOTH = ("detect_s", "recover_s")
# Each fault with the times to compare. A restart ends before its detection.
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "kill api": (faults.kill("api"), BOTH),
    "pause api": (faults.pause("api"), ("detect_s", "settle_s")),
    "restart api": (faults.restart("api"), ("recover_s",)),
    "kill both models": (faults.together(faults.kill("model-1"), faults.kill("model-2")), BOTH),
}
FAULT_S = 6.0


def once(lab: Lab, name: str, number: int, directory: Path) -> dict[str, float]:
    """One trial: the instrument's numbers less the onlooker's, in seconds."""
    fault, times = FAULTS[name]
    fault_s = FAULT_S if fault.lifetime == "passing" else None
    made = experiment(
        load=loads.open_loop(rate_rps=50, max_tokens=4), fault=fault, steady_s=3, stable_s=STABLE_S, fault_s=fault_s
    )
    plan = plan_trial(
        scenario="witness",
        hypothesis="",
        experiment=made.kwargs["experiment"],
        fault=fault,
        repeat=number,
        seed=42,
        services=lab.subject.targets,
    )
    lab.require_clean()
    lab.remediator.ensure(True)
    place = Place(
        project=lab.runtime.project,
        api_url=lab.service("api").url,
        prometheus_url=lab.prometheus.url,
        model=lab.subject.model,
    )
    out = directory / f"seen-{name.replace(' ', '-')}-{number}.jsonl"
    with watching(place, out):
        trial = perform(lab, plan).require()
    there = seen([json.loads(line) for line in out.read_text().splitlines()], trial.victims, STABLE_S, fault_s or 0.0)
    told = told_by(trial, times)
    found = differences(told, there)
    row = "".join(f"{one.removesuffix('_s'):>10}{told[one]:>10.3f}{found[one] * 1000:>+10.0f}" for one in times)
    print(f"{name:<20}{row}   {trial.detected_by}", flush=True)
    return found


def alone(subject: Subject) -> Subject:
    """The subject without its own counters, which count the onlooker's requests too."""
    return replace(subject, availability_query=None, latency_shares=(), attempts_counters=None)


def told_by(trial: Trial, times: Sequence[str]) -> dict[str, float]:
    """The instrument's own times."""
    return {one: float(getattr(trial, f"time_to_{one}")) for one in times}


def measure(rounds: int, keep: Path | None) -> dict[str, Figure]:
    print(f"load average {os.getloadavg()[0]:.1f} at the start; above 2 on 2 cores, rounds are left out")
    print(f"{'fault':<20}" + f"{'time':>10}{'s':>10}{'apart ms':>10}" * 2 + "   detected by")
    apart: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchaos-bench-"))
        settings = Settings(
            run="bench",
            seed=42,
            runtime="compose",
            backend=BACKEND,
            reports=Path(folder),
            repeat=1,
            worker="",
            replay_line="python benchmarks/witness.py",
        )
        run = Run(settings, Progress(None, tty=False))
        try:
            run.preflight()
            run.announce([])
            lab = run.lab()
            lab.subject = alone(lab.subject)
            for number in range(rounds):
                for name in FAULTS:
                    try:
                        found = once(lab, name, number, Path(folder))
                    except (Blind, ProvesNothing) as error:
                        print(f"{name:<20}left out, {type(error).__name__}: {error}", flush=True)
                        continue
                    for what, seconds in found.items():
                        apart.setdefault(f"{name}: {what.removesuffix('_s')}", []).append(seconds)
        finally:
            run.close(0)
    return {name: worst_of(values) for name, values in apart.items()}


def worst_of(values: list[float]) -> Figure:
    """The largest difference of all rounds."""
    worst, median = max(abs(value) for value in values), round(statistics.median(values), 3)
    return figure(worst, "s", f"<= {WITHIN_S:g}", median=median, n=len(values))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line at the end")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave there what both sides saw")
    arguments = parser.parse_args()
    try:
        figures = measure(arguments.rounds, arguments.keep)
    except LlmchaosError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    if not figures:
        print("could not measure: no round proved anything", file=sys.stderr)
        return 2
    publish("witness", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
