"""Time, memory and page size of a report of 1,000,000 samples.

The run has 50 trials. The peer, in one run on the same files, is the lower bound of any
report: reading every sample once. Each of the two runs in a process of its own.
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

from figures import figure, publish

from pytest_llmchaos import report
from pytest_llmchaos.evidence import samples_file

TRIALS, SAMPLES = 50, 1_000_000
STEADY_S, FAULT_S, RECOVERY_S = 8.0, 14.0, 12.0
SLOS = (
    "availability",
    "availability-without-429",
    "latency-p95",
    "latency-p99",
    "ttft-p95",
    "stream-completeness",
    "goodput",
)
GOALS = {"time": 15.0, "page": 1_000_000}


def make(run_dir: Path) -> None:
    """A run on disk. Each trial has an outage of another length, repaired."""
    each = SAMPLES // TRIALS
    lines: list[dict[str, object]] = [
        {
            "kind": "run",
            "schema": "llmchaos-journal/1",
            "schedule": [],
            "run": run_dir.name,
            "seed": 42,
            "replay": "pytest scenarios",
            "runtime": "compose",
            "backend": "sim",
        }
    ]
    for i in range(TRIALS):
        trial = f"{i + 1:03d}"
        down_s = 1.0 + i % 7
        path = run_dir / "trials" / trial / "samples.jsonl"
        path.parent.mkdir(parents=True)
        _write_samples(path, each, down_s, Random(i))
        lines += _journal(trial, i, down_s, each)
    lines.append({"kind": "run_end", "exit_status": 0})
    text = "".join(json.dumps({"at_unix_s": 1.8e9 + i / 100, **line}) + "\n" for i, line in enumerate(lines))
    (run_dir / "journal.jsonl").write_text(text)


def _write_samples(path: Path, count: int, down_s: float, rng: Random) -> None:
    rate_rps = count / (STEADY_S + FAULT_S + RECOVERY_S)
    with path.open("w", encoding="utf-8") as file:
        file.write(samples_file.HEADER + "\n")
        for i in range(count):
            due_s = i / rate_rps
            if STEADY_S <= due_s < STEADY_S + down_s:
                row = [due_s, due_s + 0.0003, None, due_s + 0.001, 0.0, 0, "refused", "", f"0123abcd-{i}", 0, None]
            else:
                first_s = due_s + 0.02 + rng.expovariate(100)
                row = [
                    due_s,
                    due_s + 0.0003,
                    first_s,
                    first_s + 0.2,
                    0.006,
                    32,
                    "ok",
                    "model-1",
                    f"0123abcd-{i}",
                    200,
                    None,
                ]
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def _journal(trial: str, repeat: int, down_s: float, count: int) -> list[dict[str, object]]:
    bounds = (
        ("steady", 0.0, STEADY_S),
        ("fault", STEADY_S, STEADY_S + FAULT_S),
        ("recovery", STEADY_S + FAULT_S, 34.0),
    )
    about: dict[str, object] = {
        "scenario": "kill_api",
        "fault": "kill api",
        "target": "api",
        "fidelity": "real",
        "lifetime": "lasting",
    }
    judged = {
        **about,
        "verdict": "held",
        "repeat": repeat,
        "time_to_detect_s": 1.2,
        "detected_by": "alert AvailabilityFastBurn",
        "time_to_recover_s": down_s,
        "repaired_by": "remediator",
        "proof": [{"step": "injected", "witness": "runtime event die exitCode=137", "at_s": STEADY_S}],
        "phases": [
            {"name": name, "from_s": a, "to_s": b, "offered": count // 3, "ok": count // 3} for name, a, b in bounds
        ],
        "slos": [_slo(name) for name in SLOS],
        "events": [
            {
                "at_s": STEADY_S + i / 4,
                "source": "prometheus",
                "what": f"alert LatencyP99MediumBurn {i} fires",
                "service": "api",
            }
            for i in range(20)
        ],
    }
    claims: list[dict[str, object]] = [
        {"kind": "claim", "trial": trial, "nodeid": f"scenarios/test_kill_api.py::test_claim_{i}", "outcome": "passed"}
        for i in range(3)
    ]
    planned = {
        "kind": "trial",
        "trial": trial,
        "samples": f"trials/{trial}/samples.jsonl",
        "hypothesis": "It recovers.",
        **about,
    }
    return [planned, {"kind": "judged", "trial": trial, **judged}, *claims]


def _slo(name: str) -> dict[str, object]:
    """A query as long as the judge's own, with its raw values."""
    ratio = " - ".join(f'sum(llmchaos_client_requests_total{{outcome="{name}"}} offset {n}34000ms)' for n in range(3))
    raw = {f"{what} at the window's {end}": 25.0 for what in ("good", "total") for end in ("start", "end")}
    values = {"objective": 0.995, "value": 0.8, "budget_spent": 0.0001, "clients_say": 0.8, "burn_rate": 40.0}
    return {"name": name, "query": f"({ratio}) / ({ratio})", "raw": raw, "window_s": 34.0, "estimated": False, **values}


def work(what: str, run_dir: Path) -> dict[str, float]:
    """One of the two: its seconds, and the peak memory of this process in MB."""
    began_s = time.perf_counter()
    size = 0
    if what == "report":
        size = report.build(run_dir).stat().st_size
    else:
        for path in sorted(run_dir.glob("trials/*/samples.jsonl")):
            size += sum(1 for _ in samples_file.read(path))
    took_s = time.perf_counter() - began_s
    return {"took_s": took_s, "size": size, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measured(what: str, run_dir: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--work", what, str(run_dir)], check=True, capture_output=True, text=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    parser.add_argument("--work", nargs=2, metavar=("WHAT", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], Path(arguments.work[1]))))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory) / "run"
        run_dir.mkdir()
        make(run_dir)
        try:
            floor, built = measured("read", run_dir), measured("report", run_dir)
        except subprocess.CalledProcessError as error:
            print(f"could not measure: {error.stderr}", file=sys.stderr)
            return 2
    figures = {
        "time": figure(built["took_s"], "s", f"<= {GOALS['time']:g}", peer=floor["took_s"], digits=2),
        "page": figure(built["size"], "bytes", f"<= {GOALS['page']:.0f}", digits=0),
        "memory": figure(built["peak_mb"], "MB", peer=floor["peak_mb"], digits=0),
    }
    print(f"report of {TRIALS} trials and {SAMPLES:,} samples, against reading every sample once")
    publish("report", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
