"""Speed of this machine, by a fixed loop on two cores.

Two, because the tests use two. Cores that share what is below them are slower together:
a loop alone took 0.11 to 0.22 s by the minute where two at once took 0.20 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

# The loop on the machine of the budget in docs/tests.md.
REFERENCE_LOOP_S = 0.11
CORES, LOOPS = min(2, os.cpu_count() or 1), 4


def loop_s() -> float:
    """Seconds for a fixed loop while each core runs it, the mean of a few."""
    command = [sys.executable, "-I", "-S", __file__]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    return statistics.mean(float(word) for one in programs for word in one.communicate()[0].split())


def slowness() -> float:
    """Ratio of this machine's time for the loop to the reference, at least 1.

    For deadlines of what Docker or another program must do.
    """
    return max(1.0, loop_s() / REFERENCE_LOOP_S)


def _loop_s() -> float:
    begin_s, total = time.perf_counter(), 0
    for number in range(3_000_000):
        total += number
    return time.perf_counter() - begin_s


if __name__ == "__main__":
    print(*(_loop_s() for _ in range(LOOPS)))  # noqa: T201 - the output of this program
