"""What a person sees while a trial runs: one updating line in a terminal, a plain line now and then in CI. It only talks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmchaos.lab import Lab

TERMINAL_EVERY_S = 0.5
PLAIN_EVERY_S = 5.0


class Progress:
    """Writes through `write(text, end_of_line)`; `tty` chooses the updating line; without `write` it is silent."""

    def __init__(self, write: Callable[[str, bool], None] | None, *, tty: bool) -> None:
        self._write = write
        self._tty = tty
        self._last_s = 0.0
        self._phase = ""

    def __call__(self, lab: Lab, what: str, left_s: float | None) -> None:
        if self._write is None:
            return
        now = time.monotonic()
        phase = lab.record.phase_now if lab.record and lab.record.phase_now else what
        every_s = TERMINAL_EVERY_S if self._tty else PLAIN_EVERY_S
        if phase == self._phase and now - self._last_s < every_s:
            return
        self._last_s, self._phase = now, phase
        self._write(self.line(lab, phase, left_s), not self._tty)

    def line(self, lab: Lab, phase: str, left_s: float | None) -> str:
        """Phase, rates, errors and p95 of the last five seconds, and the most that the phase can still take."""
        parts = [f"{phase:<8}"]
        load = lab.running_load
        if load is not None:
            live = load.live_window(5.0)
            seconds = max(0.1, min(5.0, load.now_s()))
            parts.append(f"{load.now_s():6.1f} s")
            parts.append(f"answered {live.offered / seconds:5.1f}/s of {load.offered_rps():5.1f}/s")
            parts.append(f"failed {live.offered - live.ok:3d}")
            p95 = load.recent_p95_s(live)
            parts.append(f"p95 {p95:6.3f} s" if p95 is not None else "p95      -  ")
        if left_s is not None and left_s > 0:
            parts.append(f"at most {left_s:3.0f} s more")
        return "  ".join(parts)

    def note(self, text: str) -> None:
        """One line of its own."""
        if self._write is not None:
            self._write(text, True)
