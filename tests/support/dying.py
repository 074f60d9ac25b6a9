"""Sessions that kill themselves at a line of their journal."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from support import sessions

SIDE_BY_SIDE = 3
BEFORE = [
    ("run", 1), ("stack", 1), ("stack_up", 1), ("trial", 1), ("process", 1), ("anchor", 1),
    ("phase_begin", 1), ("phase", 1), ("phase_begin", 2),
]  # fmt: skip
IN_FORCE = [("intent", 1), ("proof", 1), ("event", 1), ("proof", 2), ("undone", 1)]
AFTER = [("phase", 2), ("phase_begin", 3), ("phase", 3)]
JUDGED = [("finding", 1), ("judged", 1), ("claim", 1), ("stack_down", 1), ("run_end", 1)]
STAGES = {"before": BEFORE, "in force": IN_FORCE, "after": AFTER, "judged": JUDGED}
# For sessions that share two cores with others: nothing is measured.
BESIDE_OTHERS = """
from pytest_llmchaos.lab import live_load
live_load.MAX_LATENESS_P99_S, live_load.MIN_ACHIEVED, live_load.MAX_GENERATOR_CPU = 60.0, 0.0, 60.0
"""
# For sessions that die or are watched here. Only a run's own watchdog cleans up, and
# they do not wait for each other.
ALONE = (
    BESIDE_OTHERS
    + """
import contextlib, os, signal
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.session import run
from pytest_llmchaos.evidence.journal import Journal

run.sweep.sweep_dead_runs = lambda *_, **__: run.sweep.Swept()
measurement_lock.measuring = lambda **_: contextlib.nullcontext()
"""
)
# Kills its own process before or after the n-th line of a kind is written.
KILLER = (
    ALONE
    + """
write, left = Journal.write, [{number}]

def write_and_die(self, line):
    kind = line.__struct_config__.tag
    left[0] -= kind == {kind!r}
    dies = kind == {kind!r} and left[0] == 0
    if dies and {when!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, line)
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.write = write_and_die
"""
)


def named(case: Sequence[Any]) -> str:
    return "-".join(map(str, case))


def stage(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Stage of a case for sampling: its fault, and the part of the trial it dies in."""
    fault, _, kind, number = parameters["case"]
    return fault, next((name for name, lines in STAGES.items() if (kind, number) in lines), "reported")


def chosen(request: pytest.FixtureRequest, name: str) -> list[Any]:
    """Selected cases of the requesting test file, in order."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    return [item.callspec.params[name] for item in items if name in item.callspec.params]


def in_the_background(perish: Callable[[Any], Any], cases: Sequence[Any]) -> Iterator[dict[Any, Future[Any]]]:
    """Run a few cases at a time, because each mostly waits. Returns case -> future."""
    assert len(set(cases)) == len(cases), "each case dies once"
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = {case: pool.submit(perish, case) for case in cases}
        yield futures
        for future in futures.values():
            future.cancel()


def die(child: Popen[bytes], reports: Path) -> tuple[int, float]:
    """Pid and time of death of a session that kills itself."""
    try:
        child.wait(timeout=60)
    finally:
        child.kill()
        child.wait()
    died_s = time.monotonic()
    assert child.returncode == -signal.SIGKILL, sessions.said(reports)
    return child.pid, died_s


def kinds(reports: Path) -> list[tuple[str, int]]:
    """Kinds and numbers of a journal's lines.

    A row of events or findings counts as one line, because nothing happens in between.
    """
    seen: dict[str, int] = {}
    found = []
    for kind, _ in itertools.groupby(line["kind"] for line in sessions.lines(reports)):
        seen[kind] = seen.get(kind, 0) + 1
        found.append((kind, seen[kind]))
    return found
