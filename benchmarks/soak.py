"""Growth of one pytest process over many trials.

Memory, files, threads, processes, containers, ports and disk are read from outside
after every trial. The slope of a straight line through these points (least squares) is
the cost of a trial. The first fifth is left out: caches fill and code is loaded. Only
the evidence on disk may grow. Other growth is a leak. The backend is `sim`, so a trial
takes seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, figure, publish

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.journal import read
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.local import cleanup

SCENARIO = '''"""A model that is killed and a model that freezes, again and again."""
from pytest_llmchaos import experiment, faults, loads

LOAD = loads.open_loop(rate_rps=10, max_tokens=4)

@experiment(load=LOAD, fault=faults.kill("model-1"), remediator=False, steady_s=1, repair_within_s=1, stable_s=1)
def test_killed(trial):
    assert trial.whole.offered

@experiment(load=LOAD, fault=faults.pause("model-2"), remediator=False, steady_s=1, fault_s=1, settle_within_s=5, stable_s=1)
def test_frozen(trial):
    assert trial.whole.offered
'''
# Less than this is negligible even in a hundred times as many trials.
GOALS = {
    "memory of pytest": (64.0, "KiB/trial"),
    "open files": (0.02, "/trial"),
    "threads": (0.02, "/trial"),
    "child processes": (0.02, "/trial"),
    "processes of the run": (0.02, "/trial"),
    "containers": (0.0, "/trial"),
    "networks": (0.0, "/trial"),
    "volumes": (0.0, "/trial"),
    "listening ports": (0.02, "/trial"),
    "disk beyond the evidence": (1.0, "KiB/trial"),
}
EVIDENCE = ("journal.jsonl", "trials", "logs", "run.json", "report.html", "summary.md")
STACK = "local"  # data folders of running processes, removed with the stack


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Resources that the session held right after a trial."""

    after_trials: int
    held: dict[str, float]
    may_grow_kib: dict[str, float]


class Watcher:
    """Observes one session from outside: /proc, the Docker daemon, the disk."""

    def __init__(self, pid: int, folder: Path, runtime: str) -> None:
        self._proc, self._folder, self._runtime = Path("/proc", str(pid)), folder, runtime

    def look(self, after_trials: int, project: str) -> Seen:
        children = _descendants(int(self._proc.name))
        compose = f"label=com.docker.compose.project={project}"
        engine = (
            (lambda kind: float(len(docker_cli.list_rows(kind, compose)))) if self._runtime == "compose" else _nothing
        )
        run = next((self._folder / "reports").glob("2*"))
        evidence_kib = sum(_kib(run / name) for name in EVIDENCE) + _kib(self._folder / "reports" / "ledger.jsonl")
        stack_kib = _kib(run / STACK)
        held = {
            "memory of pytest": _rss_kib(self._proc),
            "open files": _entries(self._proc / "fd"),
            "threads": _entries(self._proc / "task"),
            "child processes": float(len(children)),
            "processes of the run": float(len(cleanup.processes_of(project))),
            "containers": engine("container"),
            "networks": engine("network"),
            "volumes": engine("volume"),
            "listening ports": float(_listening()),
            "disk beyond the evidence": _kib(self._folder) - evidence_kib - stack_kib,
        }
        return Seen(
            after_trials=after_trials,
            held=held,
            may_grow_kib={"evidence": evidence_kib, "data of the running stack": stack_kib},
        )


def _nothing(_kind: str) -> float:
    return 0.0


def _entries(folder: Path) -> float:
    return float(sum(1 for _ in folder.iterdir()))


def _rss_kib(process: Path) -> float:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS:"))
    return float(line.split()[1])


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _listening() -> int:
    """Sockets in state LISTEN on this machine, IPv4 and IPv6."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[3] == "0A")


def _kib(path: Path) -> float:
    """Size of the files at and below a path, in KiB."""
    total = 0
    for one in (path, *path.rglob("*")):
        with suppress(OSError):
            total += one.lstat().st_size if one.is_file() else 0
    return total / 1024


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the straight line through these points, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def judged_trials(journal: Path) -> int:
    return sum(1 for line in read(journal) if line["kind"] == "judged") if journal.exists() else 0


def session(folder: Path, runtime: str, trials: int) -> subprocess.Popen[bytes]:
    (folder / "test_soak.py").write_text(SCENARIO)
    (folder / "pytest.ini").write_text("[pytest]\n")
    words = ["-m", "pytest", str(folder), f"--rootdir={folder}", "-c", str(folder / "pytest.ini"), "-q"]
    words += ["-p", "no:randomly", "-p", "no:cacheprovider", f"--chaos-report={folder / 'reports'}", "--chaos-seed=1"]
    words += [f"--chaos-runtime={runtime}", "--chaos-backend=sim", f"--chaos-repeat={(trials + 1) // 2}"]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}  # so that what it leaves there is seen
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )


def watched(folder: Path, runtime: str, trials: int, note: Callable[[str], None]) -> Iterator[Seen]:
    """One look after every trial.

    Raises:
        NotReady: the session ends badly or performs too few trials.
    """
    process = session(folder, runtime, trials)
    watcher, seen = Watcher(process.pid, folder, runtime), 0
    began_s = time.monotonic()
    try:
        while process.poll() is None and seen < trials:
            journal = next(iter((folder / "reports").glob("2*/journal.jsonl")), Path("none"))
            done = judged_trials(journal)
            if done > seen:
                seen = done
                project = next(str(line["project"]) for line in read(journal) if line["kind"] == "stack")
                yield watcher.look(done, project)
                if done % 10 == 0:
                    note(f"{done} trials after {time.monotonic() - began_s:.0f} s")
            time.sleep(0.02)
        if process.wait(timeout=60) != 0 or seen < trials - 1:
            raise NotReady(f"after {seen} trials: {(folder / 'output.txt').read_text()[-1500:]}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


def figures_of(points: Sequence[Seen]) -> dict[str, Figure]:
    counted = points[len(points) // 5 :]
    figures: dict[str, Figure] = {}
    for name, (goal, unit) in GOALS.items():
        value = slope([(one.after_trials, one.held[name]) for one in counted])
        first, last = counted[0].held[name], counted[-1].held[name]
        figures[name] = figure(value, unit, f"<= {goal:g}", digits=4, first=first, last=last)
    for name in counted[0].may_grow_kib:
        value = slope([(one.after_trials, one.may_grow_kib[name]) for one in counted])
        figures[name] = figure(value, "KiB/trial", digits=1)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line at the end")
    parser.add_argument("--trials", type=int, default=100, help="how many in a row (default 100, at least 10)")
    parser.add_argument("--runtime", choices=("local", "compose"), default="local")
    arguments = parser.parse_args()
    trials = max(10, arguments.trials)
    folder = Path(tempfile.mkdtemp(prefix="llmchaos-soak-"))
    try:
        began_s = time.monotonic()
        points = list(watched(folder, arguments.runtime, trials, lambda text: print(text, file=sys.stderr)))
        took_s = time.monotonic() - began_s
        figures = figures_of(points)
    except NotReady as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{points[-1].after_trials} trials on {arguments.runtime}/sim in {took_s:.0f} s; slopes without the first fifth"
    )
    publish("soak", figures, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
