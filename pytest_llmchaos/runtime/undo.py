"""Undoes what is still open within a deadline, and verifies it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pytest_llmchaos.errors import HealFailed, LlmchaosError, NotReady, NoVictim
from pytest_llmchaos.model import Injection, Proof, Runtime, ServiceState, Undo, UndoOp
from pytest_llmchaos.runtime.abilities import grant

UNDO_DEADLINE_S = 15.0
HEALED_DEADLINE_S = 20.0


class UndoRegistry:
    """What a runtime inherits to undo faults by the names that journals keep. It adds its own operations to `undo_ops`."""

    name: str

    def state(self, service: str) -> ServiceState:
        raise NotImplementedError

    def start(self, service: str) -> None:
        raise NotImplementedError

    def unpause(self, service: str) -> None:
        raise NotImplementedError

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        return {"ensure_running": self._ensure_running, "ensure_unpaused": self._ensure_unpaused}

    def undo(self, undo: Undo) -> None:
        """Put one service back. Content with one that is gone or already well.

        Raises HealFailed if the runtime lacks the operation, or refuses.
        """
        op = self.undo_ops.get(undo.op)
        if op is None:
            raise HealFailed(_unknown(self.name, self.undo_ops, undo))
        try:
            op(undo)
        except NotReady as error:
            raise HealFailed(f"{undo.op} {undo.service}: {error}; heal by hand with `llmchaos heal`") from None

    def _ensure_running(self, undo: Undo) -> None:
        self._put_back(undo.service, start=True)

    def _ensure_unpaused(self, undo: Undo) -> None:
        self._put_back(undo.service, start=False)

    def _put_back(self, service: str, *, start: bool) -> None:
        """Thaw a service, and start it if asked to. A refusal does not count once the service is well."""
        state = self.state(service)
        if not state.identity:
            return
        try:
            if state.paused:
                self.unpause(service)
            if start and not state.running:
                self.start(service)
        except NotReady:
            again = self.state(service)
            if not again.running or again.paused:
                raise


def _unknown(name: str, ops: Mapping[str, UndoOp], undo: Undo) -> str:
    return (
        f"the {name} runtime has no undo {undo.op!r}, which the journal asks for on {undo.service!r}; it has "
        f"{', '.join(sorted(ops))}: heal with the version that wrote the journal, or put {undo.service!r} right by hand"
    )


def revert_until_done(runtime: Runtime, undo: Undo, deadline_s: float = UNDO_DEADLINE_S) -> None:
    """Try one undo until it works. Raises HealFailed with the last reason when the deadline passes.

    An operation that the runtime lacks is not tried again.
    """
    if undo.op not in runtime.undo_ops:
        raise HealFailed(_unknown(runtime.name, runtime.undo_ops, undo))
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            runtime.undo(undo)
        except Exception as error:  # noqa: BLE001 - a fault of another package may raise anything, and nobody else undoes it
            if time.monotonic() > deadline:
                raise HealFailed(
                    f"could not undo {undo.op} on {undo.service} of {runtime.project} within {deadline_s:g} s: {_describe_error(error)}; "
                    "heal by hand with `llmchaos heal`"
                ) from None
            time.sleep(0.2)
        else:
            return


def prove_reverted(
    runtime: Runtime, act: Injection, since_unix_s: float, deadline_s: float = HEALED_DEADLINE_S
) -> Proof:
    """The proof that nothing is left of an act that was undone.

    Raises HealFailed when the deadline passes, NoVictim at once where somebody else removed the victim.
    """
    able = grant(runtime, act.fault.needs, act.fault.kind)
    deadline = time.monotonic() + deadline_s
    while True:
        why = ""
        try:
            proof = act.fault.healed(able, act.victim, since_unix_s)
            if proof is not None:
                return proof
            if act.victim not in runtime.states():
                raise NoVictim(
                    f"{act.victim} was removed by somebody else while {act.fault.kind} was in force: nothing is left to undo"
                )
        except NoVictim:
            raise
        except Exception as error:  # noqa: BLE001 - a daemon that restarts, say: ask again; a fault of another package may raise anything
            why = f": {_describe_error(error)}"
        if time.monotonic() > deadline:
            raise HealFailed(
                f"{act.fault.kind} {act.victim} is not healed {deadline_s:g} s after its undo{why}; heal by hand with `llmchaos heal`"
            )
        time.sleep(0.05)


def _describe_error(error: Exception) -> str:
    """Errors of this package and of the system speak for themselves; a KeyError, say, does not."""
    return str(error) if isinstance(error, LlmchaosError | OSError) else f"{type(error).__name__}: {error}"


def is_over(runtime: Runtime, act: Injection, since_unix_s: float) -> bool:
    """Whether the system has repaired an act by itself. A passing one is in force until it is undone."""
    if act.fault.lifetime == "passing":
        return False
    able = grant(runtime, act.fault.needs, act.fault.kind)
    state = able.state(act.victim)
    return state.running and state.healthy is not False and act.fault.healed(able, act.victim, since_unix_s) is not None
