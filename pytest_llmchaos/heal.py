"""Undo what is still open, with a deadline. It never injects."""

from __future__ import annotations

import time

from pytest_llmchaos.errors import HealFailed, LlmchaosError
from pytest_llmchaos.model import Runtime, Undo

UNDO_DEADLINE_S = 15.0


def undo_until_done(runtime: Runtime, undo: Undo, deadline_s: float = UNDO_DEADLINE_S) -> None:
    """Try one undo until it works. Raises HealFailed with the last reason when the deadline passes."""
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            runtime.undo(undo)
        except (LlmchaosError, OSError) as error:
            if time.monotonic() > deadline:
                raise HealFailed(
                    f"could not undo {undo.op} on {undo.service} of {runtime.project} within {deadline_s:g} s: {error}; "
                    "heal by hand with `llmchaos heal`"
                ) from None
            time.sleep(0.2)
        else:
            return
