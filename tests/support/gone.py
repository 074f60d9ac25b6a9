"""The deadline for the removal of a run that died."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from support import machine
from support.waiting import until

GONE_S = 3.0
LATEST_S = 40.0


def seconds_until_gone(
    left: Callable[[], Sequence[str]],
    died_s: float,
    *,
    not_before_s: Callable[[], float] = lambda: 0.0,
    latest_s: float = LATEST_S,
    gone_s: float = GONE_S,
) -> float:
    """Seconds from a death until nothing is left. Fails if they are too many.

    The machine is measured once more where its first measure does not do, because a
    shared machine's speed changes by the minute.

    Args:
        left: Names of what is left.
        died_s: Monotonic time of the death.
        not_before_s: Monotonic time before which nothing could be removed, queried once
            everything is gone.
        latest_s: Seconds after which this stops to wait.
        gone_s: Seconds allowed on the machine of the budget.
    """
    until(lambda: not left(), "nothing is left after the death", latest_s, every_s=0.05, seen=left)
    took_s = time.monotonic() - max(died_s, not_before_s())
    if took_s > gone_s * machine.slowness():
        slower = machine.slowness_now()
        assert took_s <= gone_s * slower, (
            f"{took_s:.1f} s after the death something was left: expected {gone_s:g} s, and {slower:.2f} times as many "
            "on this machine"
        )
    return took_s
