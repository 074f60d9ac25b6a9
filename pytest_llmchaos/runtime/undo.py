"""Undo what is still open, with a deadline, and see that it is undone. It never injects."""

from __future__ import annotations

import time

from pytest_llmchaos.errors import HealFailed, LlmchaosError, NoVictim
from pytest_llmchaos.model import Injection, Proof, Runtime, Undo

UNDO_DEADLINE_S = 15.0
HEALED_DEADLINE_S = 20.0


def undo_until_done(runtime: Runtime, undo: Undo, deadline_s: float = UNDO_DEADLINE_S) -> None:
    """Try one undo until it works. Raises HealFailed with the last reason when the deadline passes."""
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            runtime.undo(undo)
        except Exception as error:  # noqa: BLE001 - a fault of another package may raise anything, and nobody else undoes it
            if time.monotonic() > deadline:
                raise HealFailed(
                    f"could not undo {undo.op} on {undo.service} of {runtime.project} within {deadline_s:g} s: {_said(error)}; "
                    "heal by hand with `llmchaos heal`"
                ) from None
            time.sleep(0.2)
        else:
            return


def healed(runtime: Runtime, act: Injection, since_unix_s: float, deadline_s: float = HEALED_DEADLINE_S) -> Proof:
    """The proof that nothing is left of an act that was undone.

    Raises HealFailed when the deadline passes, NoVictim at once where somebody else removed the victim.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        why = ""
        try:
            proof = act.fault.healed(runtime, act.victim, since_unix_s)
            if proof is not None:
                return proof
            if act.victim not in runtime.states():
                raise NoVictim(
                    f"{act.victim} was removed by somebody else while {act.fault.kind} was in force: nothing is left to undo"
                )
        except NoVictim:
            raise
        except Exception as error:  # noqa: BLE001 - a daemon that restarts, say: ask again; a fault of another package may raise anything
            why = f": {_said(error)}"
        if time.monotonic() > deadline:
            raise HealFailed(
                f"{act.fault.kind} {act.victim} is not healed {deadline_s:g} s after its undo{why}; heal by hand with `llmchaos heal`"
            )
        time.sleep(0.05)


def _said(error: Exception) -> str:
    """Errors of this package and of the system speak for themselves; a KeyError, say, does not."""
    return str(error) if isinstance(error, LlmchaosError | OSError) else f"{type(error).__name__}: {error}"


def over(runtime: Runtime, act: Injection, since_unix_s: float) -> bool:
    """Whether the system has repaired an act by itself. A passing one is in force until it is undone."""
    if act.fault.lifetime == "passing":
        return False
    state = runtime.state(act.victim)
    return (
        state.running and state.healthy is not False and act.fault.healed(runtime, act.victim, since_unix_s) is not None
    )
