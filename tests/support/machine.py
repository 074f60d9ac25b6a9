"""Speed of this machine, by a fixed loop."""

from __future__ import annotations

import functools
import time

# The loop on the machine of the numbers in docs/tests.md. It follows from the units,
# which took 170 s there, and 333 s on a machine whose loop takes 0.2 s.
REFERENCE_LOOP_S = 0.11


def loop_s() -> float:
    """Seconds for a fixed loop, the least of a few."""
    return min(_loop_s() for _ in range(3))


def slowness_now() -> float:
    """Ratio of this machine's time for the loop to the reference, at least 1.

    For deadlines of what Docker or another program must do.
    """
    return max(1.0, loop_s() / REFERENCE_LOOP_S)


@functools.cache
def slowness() -> float:
    """The same, as measured first."""
    return slowness_now()


def _loop_s() -> float:
    begin_s, total = time.perf_counter(), 0
    for number in range(3_000_000):
        total += number
    return time.perf_counter() - begin_s
