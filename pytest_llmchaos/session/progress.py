"""Progress lines: an updating line in a terminal, a line every 5 s elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import TooFewSamples
from pytest_llmchaos.stats.quantiles import Quantiles

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab

TERMINAL_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
LIVE_S = 5.0
NOT_FAILED = frozenset({"ok", "left", "cancelled"})


class Progress:
    """Prints the progress of a trial."""

    def __init__(self, write: Callable[[str, bool], None] | None, *, tty: bool) -> None:
        """Create a printer.

        Args:
            write: prints a text, and ends the line if its second argument is True. None
                prints nothing.
            tty: True to update one line in place.
        """
        self._write = write
        self._tty = tty
        self._last_s = 0.0
        self._phase = ""

    def __call__(self, lab: Lab | None, what: str, left_s: float | None) -> None:
        """Print progress if it is time to. `lab` is None before the stack is up."""
        if self._write is None:
            return
        now = time.monotonic()
        phase = lab.record.phase_now if lab and lab.record and lab.record.phase_now else what
        every_s = TERMINAL_EVERY_S if self._tty else PLAIN_EVERY_S
        # The words after a colon are details that change often.
        head = phase.partition(": ")[0]
        if head == self._phase and now - self._last_s < every_s:
            return
        self._last_s, self._phase = now, head
        self._write(self.line(lab, phase, left_s), not self._tty)

    def line(self, lab: Lab | None, phase: str, left_s: float | None) -> str:
        """Phase, time left, and the requests that ended in the last 5 s.

        A request counts when it ends, however long ago it was due. So slow answers and
        requests that run into a time limit show. `open` has the oldest one's age.
        """
        left = f" ({left_s:.0f} s left)" if left_s is not None and left_s > 0 else ""
        load = lab.running_load if lab else None
        if load is None:
            return f"{phase}{left}"
        now_s, status = load.now_s(), load.status()
        ended = load.ended(now_s - LIVE_S)
        took_s = [sample.end_s - sample.due_s for sample in ended if sample.outcome == "ok"]
        failed = sum(sample.outcome not in NOT_FAILED for sample in ended)
        ok_rps = len(took_s) / max(0.1, min(LIVE_S, now_s))
        oldest = f" ({max(0.0, now_s - status.settled_s):.1f} s)" if status.inflight else ""
        return (
            f"{phase} {now_s:.0f} s{left}  offered {load.offered_rps():.1f}/s, ok {ok_rps:.1f}, failed {failed}, "
            f"open {status.inflight}{oldest}, p95 {_p95(took_s, failed)}"
        )

    def done(self) -> None:
        """Clear the updating line at the end of a trial, for pytest's own."""
        if self._write is not None and self._tty and self._last_s:
            self._write("", False)
        self._last_s, self._phase = 0.0, ""

    def note(self, text: str) -> None:
        """Print a line of its own."""
        if self._write is not None:
            self._write(text, True)


def _p95(took_s: Sequence[float], failed: int) -> str:
    """The 95th percentile, with failed requests as slower than every answer."""
    try:
        p95_s = float(Quantiles("the whole answer", took_s, failed).p95)
    except TooFewSamples:
        return "-"
    return "inf" if p95_s == math.inf else f"{p95_s:.2f} s"
