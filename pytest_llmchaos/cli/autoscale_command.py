"""`llmchaos autoscale`: compares scaling policies under faults, simulated."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from pytest_llmchaos.errors import BadScenario, LlmchaosError, NotReady
from pytest_llmchaos.loads import Load
from pytest_llmchaos.loads.traces import Row, Trace
from pytest_llmchaos.loads.written import load_of, requests_of
from pytest_llmchaos.report.formatting import figure, one_line, percent
from pytest_llmchaos.report.frontier import Cell, compare, text_of
from pytest_llmchaos.report.frontier_page import frontier_page
from pytest_llmchaos.subject.lab import stack_dir

POLICIES = ("fixed(4)", "hpa()", "keda()", "kpa()", "slo()", "queue()")
FAULTS = ("none", "kill(at_s=peak)", "scrape_gap(at_s=peak, for_s=60)", "slow_load(at_s=0, for_s=86400, factor=3)")
SHAPE_S = 900.0  # length of a load that is no trace
# A profile without a model loads in no time, and then a start costs nothing. This is a
# small model from a local disk.
DEFAULTS: Mapping[str, object] = {"load_s": 30}
INTERRUPTED = 130  # as shells report SIGINT
_DESCRIPTION = """\
Compare policies that scale a fleet of model replicas: which one keeps the
objective with the fewest replica-hours when a replica dies at the peak, or the
autoscaler sees nothing? Each policy serves the same requests under each fault,
with simulated engines behind a simulated queue, on a virtual clock.
"""
_EPILOG = """\
policies (arguments are optional, docs/autoscaling.md explains all):
  fixed(4)   a constant number of replicas
  hpa()      Kubernetes' HorizontalPodAutoscaler
  keda()     KEDA: a trigger, scale to zero
  kpa()      Knative: a stable and a panic window
  slo()      share of requests within their latency targets
  queue()    waiting and running requests

faults (`at_s` is a second, or `peak`: the start of the busiest minute):
  none
  kill(at_s=peak)                           a replica dies
  crash_on_boot(at_s=peak, for_s=120)       replicas die while they start
  slow_load(at_s=peak, for_s=300, factor=3) replicas start slowly
  scrape_gap(at_s=peak, for_s=60)           the autoscaler sees nothing
  nan(at_s=peak, for_s=60)                  it reads NaN
  throttle(at_s=peak, for_s=120, factor=2)  a replica becomes slow

examples:
  llmchaos autoscale compare --load trace.csv
  llmchaos autoscale compare --load 'ramp(from_rps=2, to_rps=40, over_s=600, max_tokens=64)' \\
      --policies 'hpa(target=0.7)' 'slo()' 'fixed(6)' --faults none 'kill(at_s=peak)' \\\n      --set maximum=6
  llmchaos autoscale compare --load trace.csv --set load_s=90 --set drain_s=30

Exit status: 0 if a policy keeps the objective under every fault, 1 if none does,
2 for a wrong option, load, policy, fault or setting, and for a fault that struck in
no run.
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work of one process.

    Attributes:
        rows: Requests in order of time.
        policies: Policies as written.
        faults: Faults as written.
        seeds: Seeds of the fleet.
        world: Settings by name.
        until_s: Seconds to simulate.
    """

    rows: tuple[Row, ...]
    policies: tuple[str, ...]
    faults: tuple[str, ...]
    seeds: tuple[int, ...]
    world: Mapping[str, object]
    until_s: float

    @property
    def text(self) -> str:
        """The file that the simulation reads."""
        return json.dumps(
            {
                "arrivals": [[row.at_s, row.prompt_tokens, row.answer_tokens] for row in self.rows],
                "policies": self.policies,
                "faults": self.faults,
                "seeds": self.seeds,
                "world": self.world,
                "until_s": self.until_s,
            }
        )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args(args)
    try:
        return _compare(given)
    except (LlmchaosError, OSError) as error:
        sys.stderr.write(f"llmchaos autoscale: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("llmchaos autoscale: interrupted, nothing was written\n")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos autoscale",
        description="Policies that scale a fleet of model replicas, with faults.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser(
        "compare",
        help="compare policies under faults, simulated",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "--load", required=True, help="a trace (docs/load.md has the formats), or a load such as 'poisson(rate_rps=8)'"
    )
    one.add_argument("--until-s", type=float, metavar="S", help="seconds to simulate (default: the trace's, or 900)")
    one.add_argument("--policies", nargs="+", default=POLICIES, metavar="POLICY", help="default: all six")
    one.add_argument("--faults", nargs="+", default=FAULTS, metavar="FAULT", help=f"default: {', '.join(FAULTS)}")
    one.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each policy and fault (default: 3)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    one.add_argument(
        "--objective",
        type=float,
        default=0.99,
        metavar="RATIO",
        help="of requests within their targets (default: 0.99)",
    )
    one.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the fleet, may be repeated"
    )
    one.add_argument("--out", type=Path, default=Path("reports/autoscale.html"), metavar="FILE", help="the page")
    return parser


def _compare(given: argparse.Namespace) -> int:
    _check(given)
    load = load_of(given.load, Path.cwd())
    until_s = given.until_s or _length_s(load)
    world = {**DEFAULTS, **dict(_setting(text) for text in given.set)}
    seeds = tuple(range(given.seed, given.seed + given.seeds))
    total = len(given.policies) * len(given.faults) * len(seeds)
    runs: list[tuple[Cell, bytes]] = []
    began_s = time.monotonic()
    first: tuple[Row, ...] = ()
    # A drawn load differs between seeds, a recorded one does not.
    groups = [seeds] if isinstance(load.shape, Trace) else [(seed,) for seed in seeds]
    for group in groups:
        rows = requests_of(load, Random(f"autoscale {group[0]}"), until_s)  # noqa: S311 - a load, not a secret
        first = first or rows
        job = Job(
            rows=rows,
            policies=tuple(given.policies),
            faults=tuple(given.faults),
            seeds=group,
            world=world,
            until_s=until_s,
        )
        for line in _simulate(job):
            cell = _cell(line)
            runs.append((cell, line))
            _show(cell, len(runs), total)
    runs.sort(key=lambda run: (run[0].cell, run[0].seed))
    frontier = compare([cell for cell, _ in runs], given.objective)
    facts = {
        "load": one_line(load, 200),
        "requests": f"{len(first):,} in {figure(until_s)} s",
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "settings": ", ".join(f"{name}={value}" for name, value in world.items()),
        "objective": percent(given.objective),
    }
    page = frontier_page(frontier, facts, [row.at_s for row in first], until_s)
    sys.stdout.write(text_of(frontier))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page, encoding="utf-8")
    lines = given.out.with_suffix(".jsonl")
    lines.write_bytes(b"".join(line for _, line in runs))
    took_s = time.monotonic() - began_s
    sys.stdout.write(f"simulated in {figure(took_s)} s; the picture: {given.out}, the runs: {lines}\n")
    if frontier.idle_faults:
        raise BadScenario(
            f"{', '.join(frontier.idle_faults)} struck in no run, so its results show nothing: "
            "choose another time or replica, or a load that the policies scale for"
        )
    return 0 if frontier.best else 1


def _check(given: argparse.Namespace) -> None:
    for name, value, low, high in (
        ("--seeds", given.seeds, 1, 100),
        ("--objective", given.objective, 0, 1),
        ("--until-s", 1.0 if given.until_s is None else given.until_s, 1, 86_400),
    ):
        if not low <= value <= high:
            raise BadScenario(f"{name}: expected {low:,} to {high:,}, got {value:g}")
    if given.out.is_dir() or given.out.suffix == ".jsonl":
        raise BadScenario(f"--out: expected a file such as reports/autoscale.html, got {given.out}")
    for name, values in (("--policies", given.policies), ("--faults", given.faults)):
        twice = sorted({value for value in values if list(values).count(value) > 1})
        if twice:
            raise BadScenario(f"{name}: {twice[0]} is given twice: drop one")


def _length_s(load: Load) -> float:
    if not isinstance(load.shape, Trace):
        return SHAPE_S
    # The last request has a minute to end. Of a cut trace the rest is unknown.
    return load.shape.length_s / load.speed + (0.0 if load.shape.cut else 60.0)


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise BadScenario(f"--set: expected NAME=VALUE such as load_s=90, got {text!r}")
    try:
        return name.strip(), json.loads(value, parse_constant=str)
    except ValueError:
        return name.strip(), value.strip()


def _simulate(job: Job) -> Iterator[bytes]:
    """Yield a line for each run, in the order in which they end.

    Raises:
        BadScenario: The simulation refused a policy, a fault or a setting.
        NotReady: It failed.
    """
    with tempfile.TemporaryDirectory(prefix="llmchaos-autoscale-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(job.text, encoding="utf-8")
        errors = Path(folder) / "errors.txt"
        services = str(stack_dir() / "services")
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "lab_autoscaler", "simulate", str(file)],
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, "PYTHONPATH": services},
            ) as process,
        ):
            try:
                assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
                yield from process.stdout
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said = errors.read_text(encoding="utf-8", errors="replace").strip() or "no message"
            # Status 2 is a wrong input, and its only line has what was expected.
            if process.returncode == 2:
                raise BadScenario(one_line(said.splitlines()[-1], 600))
            raise NotReady(f"the simulation ended with status {process.returncode}: {one_line(said[-600:], 600)}")


def _cell(line: bytes) -> Cell:
    try:
        return msgspec.json.decode(line, type=Cell)
    except msgspec.DecodeError as error:
        raise NotReady(
            f"the simulation printed a line that is no result ({error}): if no request could be judged, raise --until-s"
        ) from error


def _show(cell: Cell, done: int, total: int) -> None:
    sys.stderr.write(
        f"[{done:>{len(str(total))}}/{total}] {cell.policy} under {cell.fault}, seed {cell.seed}: "
        f"{percent(cell.attained)} within targets, {figure(cell.replica_h)} replica-hours\n"
    )
