"""The deadline for the removal of a run that died."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from support import machine
from support.waiting import until

GONE_S = 3.0
LATEST_S = 40.0
# The most that starts which Docker had begun may take: seven took 2.8 s on two cores.
STARTS_S = 3.0


def seconds_until_gone(
    left: Callable[[], Sequence[str]],
    died_s: float,
    *,
    last_start_s: Callable[[], float] = lambda: 0.0,
    latest_s: float = LATEST_S,
    gone_s: float = GONE_S,
) -> float:
    """Seconds from a death until nothing is left. Fails if they are too many.

    The machine is measured only then, because a shared one changes by the minute.

    Args:
        left: Names of what is left.
        died_s: Monotonic time of the death.
        last_start_s: Monotonic time of the last start that Docker completed, before
            which it could not remove everything. Queried where the time is exceeded.
        latest_s: Seconds after which this stops to wait.
        gone_s: Seconds allowed on the machine of the budget.
    """
    last: list[str] = []

    def is_gone() -> bool:
        found = left()
        last[:] = found or last
        return not found

    until(is_gone, "nothing is left after the death", latest_s, every_s=0.05, seen=lambda: last)
    took_s = time.monotonic() - died_s
    if took_s > gone_s:
        slower = machine.slowness()
        starts_s = min(max(0.0, last_start_s() - died_s), STARTS_S * slower)
        assert took_s - starts_s <= gone_s * slower, (
            f"{took_s:.1f} s after the death there was left: {last}; expected {gone_s:g} s, {slower:.2f} times as many "
            f"on this machine, and {starts_s:.1f} s for the starts that Docker had begun"
        )
    return took_s
