"""Times of the test parts against the budget in docs/tests.md.

python tests/support/minutes.py begin                     forget the last run
python tests/support/minutes.py part NAME COMMAND ...     run and time it. Commands
between `//` run in parallel python tests/support/minutes.py end
print the times. Status 1 if the budget was not kept
"""

from __future__ import annotations

import itertools
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tests.md"
MEASURED = ROOT / "build" / "test-minutes.txt"
MARGIN = 1.2  # share of the budget, for a busy machine
LOOP = "loop"
BESIDE = "//"
FAILURE = ("E  ", "FAILED ", "ERROR ")  # as pytest begins its lines
MOST_FAILURES = 12  # lines of a lane


def main(words: Sequence[str]) -> int:
    match words:
        case ["begin"]:
            MEASURED.unlink(missing_ok=True)
        case ["part", name, *commands]:
            note(LOOP, machine.loop_s())
            begin_s = time.monotonic()
            status = side_by_side(
                [list(some) for beside, some in itertools.groupby(commands, BESIDE.__eq__) if not beside]
            )
            note(name, time.monotonic() - begin_s)
            return status
        case ["end"]:
            text = MEASURED.read_text()
            lines, kept = table_of(budgets(PAGE.read_text()), measured(text), slowness(text))
            sys.stdout.write("\n".join(lines) + "\n")
            return 0 if kept else 1
        case _:
            sys.exit(__doc__)
    return 0


def budgets(page: str) -> dict[str, float]:
    """Seconds of each part, from the rows of the page's table with a number."""
    return {name: float(number) for name, number in re.findall(r"^\| ([\w ]+) \| (\d+) \|", page, re.MULTILINE)}


def note(name: str, seconds: float) -> None:
    """Add a time to those of this run."""
    MEASURED.parent.mkdir(exist_ok=True)
    with MEASURED.open("a") as file:
        file.write(f"{name} {seconds:.3f}\n")


def measured(text: str) -> dict[str, float]:
    """Seconds of each part."""
    return {name: seconds for name, seconds in _times(text) if name != LOOP}


def slowness(text: str) -> float:
    """Ratio of this machine's time for the loop to that of the budget's, at least 1.

    The mean before all parts: other programs on a shared machine come and go.
    """
    loops = [seconds for name, seconds in _times(text) if name == LOOP]
    return max(1.0, statistics.mean(loops) / machine.REFERENCE_LOOP_S) if loops else 1.0


def _times(text: str) -> list[tuple[str, float]]:
    return [(name, float(seconds)) for name, _, seconds in (line.rpartition(" ") for line in text.splitlines())]


def table_of(budget: Mapping[str, float], seconds: Mapping[str, float], slower: float = 1.0) -> tuple[list[str], bool]:
    """The table of a run, and True if it kept the budget.

    A part without a row in the page has no seconds.

    Args:
        budget: Seconds of each part, on the machine of the budget.
        seconds: Seconds that each part took.
        slower: How many times slower this machine is.
    """
    rows: list[tuple[str, float, float]] = [(name, took_s, budget.get(name, 0.0)) for name, took_s in seconds.items()]
    spent_s, allowed_s = sum(row[1] for row in rows), sum(budget.values())
    kept = spent_s <= allowed_s * MARGIN * slower
    lines = [
        f"{name:20} {took_s:6.0f} s of {may_s:4.0f} s" for name, took_s, may_s in [*rows, ("all", spent_s, allowed_s)]
    ]
    if slower > 1:
        lines.append(f"this machine is {slower:.1f} times slower than the budget's, by a fixed loop before each part")
    if not kept:
        lines.append(
            f"expected {allowed_s * slower:.0f} s and at most {MARGIN - 1:.0%} more: make tests cheaper, or nightly "
            "(docs/tests.md)"
        )
    return lines, kept


def side_by_side(commands: Sequence[Sequence[str]]) -> int:
    """Run commands in parallel to their ends.

    Their lines are printed, marked with a number if there are several commands. The
    last lines name the failed tests, because a lane that ends early is far above.
    """
    if len(commands) == 1:
        return subprocess.run(commands[0], check=False).returncode
    with ThreadPoolExecutor(len(commands)) as lanes:
        ends = list(lanes.map(_passed_on, commands, itertools.count(1)))
    for _, failures in ends:
        sys.stdout.writelines(failures[-MOST_FAILURES:])
    return max(abs(status) for status, _ in ends)


def _passed_on(command: Sequence[str], number: int) -> tuple[int, list[str]]:
    """The status of a command, and what pytest prints of its failures."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    failures = []
    with subprocess.Popen(command, **pipes, encoding="utf-8", errors="backslashreplace") as lane:
        for line in lane.stdout or ():
            sys.stdout.write(f"{number}| {line}")
            sys.stdout.flush()
            if line.startswith(FAILURE):
                failures.append(f"{number}| {line}")
    return lane.returncode, failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
