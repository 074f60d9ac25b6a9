"""Revert of open faults within a deadline, and its proof."""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random

from pytest_llmchaos.errors import HealFailed, LlmchaosError, NotReady, NoVictim
from pytest_llmchaos.model import Injection, Proof, Runtime, ServiceState, Undo, UndoOp, replica_name
from pytest_llmchaos.runtime.abilities import grant

UNDO_DEADLINE_S = 15.0
HEALED_DEADLINE_S = 20.0


class UndoRegistry:
    """Mixin that runs undos by their journalled names. Runtimes extend `undo_ops`."""

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

    def aim(self, service: str, draw: Random, number: int | None = None) -> int | None:  # noqa: ARG002 - one process for each service
        """Refuse a number: a service is one process."""
        if number is not None:
            raise NoVictim(
                f"target {replica_name(service, number)!r} is one of several containers, and a service of the "
                f"{self.name} runtime is one process: drop the number"
            )
        return None

    def undo(self, undo: Undo) -> None:
        """Revert one undo. Does nothing if the service is gone or already well.

        Raises:
            HealFailed: the runtime lacks the operation, or refused it.
        """
        op = self.undo_ops.get(undo.op)
        if op is None:
            raise HealFailed(_unknown(self.name, self.undo_ops, undo))
        try:
            op(undo)
        except NotReady as error:
            raise HealFailed(f"{undo.op} {undo.service}: {error}; run `llmchaos heal`") from None

    def _ensure_running(self, undo: Undo) -> None:
        self._put_back(undo.service, start=True)

    def _ensure_unpaused(self, undo: Undo) -> None:
        self._put_back(undo.service, start=False)

    def _put_back(self, service: str, *, start: bool) -> None:
        """Unpause and optionally start a service.

        An error is ignored if the service runs and is not paused afterwards.
        """
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
        f"the {name} runtime has no undo {undo.op!r}, which the journal names for {undo.service!r}; it has "
        f"{', '.join(sorted(ops))}: run `llmchaos heal` of the version that wrote the journal, or restore {undo.service!r} by hand"
    )


def revert_until_done(runtime: Runtime, undo: Undo, deadline_s: float = UNDO_DEADLINE_S) -> None:
    """Retry one undo until it works.

    Args:
        runtime: where the fault was injected.
        undo: the journalled undo.
        deadline_s: seconds to retry.

    Raises:
        HealFailed: at the deadline, with the last reason. At once if the runtime lacks
            the operation.
    """
    if undo.op not in runtime.undo_ops:
        raise HealFailed(_unknown(runtime.name, runtime.undo_ops, undo))
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            runtime.undo(undo)
        except Exception as error:  # noqa: BLE001 - a third-party fault may raise anything, and no other code reverts it
            if time.monotonic() > deadline:
                raise HealFailed(
                    f"could not revert {undo.op} on {undo.service} of {runtime.project} within {deadline_s:g} s: "
                    f"{_describe_error(error)}; run `llmchaos heal`"
                ) from None
            time.sleep(0.2)
        else:
            return


def prove_reverted(
    runtime: Runtime, act: Injection, since_unix_s: float, deadline_s: float = HEALED_DEADLINE_S
) -> Proof:
    """Wait for the proof that a fault is fully reverted.

    Args:
        runtime: where the fault was injected.
        act: the injection.
        since_unix_s: start of the revert, in Unix seconds.
        deadline_s: seconds to wait.

    Raises:
        HealFailed: at the deadline.
        NoVictim: at once, if another process removed the victim. At the deadline, if it
            ended during a passing fault and stays down.
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
                    f"{act.victim} was removed by another process while {act.fault.kind} was in force: nothing is left to revert"
                )
        except NoVictim:
            raise
        except Exception as error:  # noqa: BLE001 - Docker may be restarting, and a third-party fault may raise anything
            why = f": {_describe_error(error)}"
        if time.monotonic() > deadline:
            _require_alive(runtime, act)
            raise HealFailed(
                f"{act.fault.kind} on {act.victim} is still in force {deadline_s:g} s after its revert{why}; run `llmchaos heal`"
            )
        time.sleep(0.05)


def _require_alive(runtime: Runtime, act: Injection) -> None:
    try:
        state = runtime.state(act.victim)
    except Exception:  # noqa: BLE001 - without an answer the revert is unproven, whatever raised
        return
    if act.fault.lifetime == "passing" and state.exit_code is not None and not state.paused:
        raise NoVictim(
            f"{act.victim} ended with status {state.exit_code} while {act.fault.kind} was in force, so nothing is left to revert: "
            "see its log, and who ended it (another process, the kernel, or itself)"
        )


def _describe_error(error: Exception) -> str:
    """Return the message of our own and system errors, else also the error's type."""
    return str(error) if isinstance(error, LlmchaosError | OSError) else f"{type(error).__name__}: {error}"


def is_over(runtime: Runtime, act: Injection, since_unix_s: float) -> bool:
    """True if the system has repaired a fault itself.

    A passing fault counts as in force until it is reverted.
    """
    if act.fault.lifetime == "passing":
        return False
    able = grant(runtime, act.fault.needs, act.fault.kind)
    state = able.state(act.victim)
    return state.running and state.healthy is not False and act.fault.healed(able, act.victim, since_unix_s) is not None
