"""Progress lines: an updating line in a terminal, a line every 5 s elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab

TERMINAL_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0
LIVE_S = 5.0


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
        if phase == self._phase and now - self._last_s < every_s:
            return
        self._last_s, self._phase = now, phase
        self._write(self.line(lab, phase, left_s), not self._tty)

    def line(self, lab: Lab | None, phase: str, left_s: float | None) -> str:
        """Phase, time left, rates, failures and p95 of the last 5 s.

        Under 80 characters. "answered" counts complete answers.
        """
        left = f" ({left_s:.0f} s left)" if left_s is not None and left_s > 0 else ""
        load = lab.running_load if lab else None
        if load is None:
            return f"{phase}{left}"
        live = load.live_window(LIVE_S)
        answered_rps = live.ok / max(0.1, min(LIVE_S, load.now_s()))
        p95_s = load.recent_p95_s(live)
        shown = "-" if p95_s is None else "inf" if p95_s == math.inf else f"{p95_s:.2f} s"
        return (
            f"{phase} {load.now_s():.0f} s{left}  offered {load.offered_rps():.1f}/s, answered {answered_rps:.1f}  "
            f"failed {int(live.failed)}  p95 {shown}"
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
