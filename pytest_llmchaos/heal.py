"""Undo what is still open, with a deadline, and see that it is undone. It never injects."""

from __future__ import annotations

import time

from pytest_llmchaos.errors import HealFailed, LlmchaosError, NotReady, NoVictim
from pytest_llmchaos.model import Injection, Proof, Runtime, Undo

UNDO_DEADLINE_S = 15.0
HEALED_DEADLINE_S = 20.0


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
        except (HealFailed, NotReady, OSError) as error:  # a daemon that restarts, say: ask again
            why = f": {error}"
        if time.monotonic() > deadline:
            raise HealFailed(
                f"{act.fault.kind} {act.victim} is not healed {deadline_s:g} s after its undo{why}; heal by hand with `llmchaos heal`"
            )
        time.sleep(0.05)


def over(runtime: Runtime, act: Injection, since_unix_s: float) -> bool:
    """Whether the system has repaired an act by itself. A passing one is in force until it is undone."""
    if act.fault.lifetime == "passing":
        return False
    state = runtime.state(act.victim)
    return (
        state.running and state.healthy is not False and act.fault.healed(runtime, act.victim, since_unix_s) is not None
    )
