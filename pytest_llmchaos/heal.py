"""Undo what is still open: at the end of a fault, by the watchdog, by hand. It never injects."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytest_llmchaos import journal
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


def undo_open(path: Path, recipe: dict[str, Any]) -> list[str]:
    """Undo every open intent of a journal on a compose project that is not ours to remove. Returns what was done, in words."""
    from pytest_llmchaos.runtime.attach import attach_for_healing  # noqa: PLC0415 - imports the SDK, which costs 0.2 s

    runtime = attach_for_healing(recipe)
    done = []
    for value in journal.open_intents(path):
        undo = Undo.from_json(value)
        undo_until_done(runtime, undo)
        done.append(f"{undo.op} {undo.service}")
    return done
