"""Faults of one block: written down before they act, proven, undone in reverse order and proven healed. When, is for others to say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import FaultNotObserved, HealFailed, NoVictim
from pytest_llmchaos.model import MayEndEarly
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.runtime.undo import is_over, prove_reverted, revert_until_done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.model import Injection, Runtime, RuntimeEvent
    from pytest_llmchaos.prometheus.annotations import Signals

PROOF_DEADLINE_S = 5.0


# Between the runtime's time stamp of an act and the end of our call.
OWN_SLACK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class OwnAct:
    """A time in which the instrument itself acted on a service: a fault, or its revert."""

    service: str
    from_unix_s: float
    to_unix_s: float


class Injected:
    """The faults of one block, as they took hold. `start_unix_s` is the first one's, by the runtime's own event.

    `over_unix_s` is when nothing of them was found to be left before our revert; None where that was not seen.
    """

    def __init__(self) -> None:
        self.acts: list[Injection] = []
        self.proven: list[tuple[Injection, float]] = []
        self.start_unix_s: float | None = None
        self.last_unix_s: float | None = None
        self.reverted_unix_s: float | None = None
        self.over_unix_s: float | None = None
        self.own: list[OwnAct] = []

    def is_own(self, event: RuntimeEvent) -> bool:
        """Whether an event of the runtime is of the instrument's own making."""
        return any(
            one.service == event.service
            and one.from_unix_s - OWN_SLACK_S <= event.at_unix_s <= one.to_unix_s + OWN_SLACK_S
            for one in self.own
        )

    @contextmanager
    def acting(self, service: str) -> Iterator[None]:
        """What happens to the service inside the block is our own doing."""
        begin_s = time.time()
        try:
            yield
        finally:
            self.own.append(OwnAct(service=service, from_unix_s=begin_s, to_unix_s=time.time()))

    @property
    def victims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(act.victim for act in self.acts))


def merged(blocks: Sequence[Injected]) -> Injected:
    """All faults of one load, as if of one block."""
    whole = Injected()
    for one in blocks:
        whole.acts += one.acts
        whole.proven += one.proven
        whole.own += one.own
    whole.start_unix_s = min((one.start_unix_s for one in blocks if one.start_unix_s is not None), default=None)
    whole.last_unix_s = max((one.last_unix_s for one in blocks if one.last_unix_s is not None), default=None)
    whole.reverted_unix_s = max(
        (one.reverted_unix_s for one in blocks if one.reverted_unix_s is not None), default=None
    )
    return whole


class Injector:
    """Acts on one runtime, and writes what it does into one record. What it did is in `injected`."""

    def __init__(self, runtime: Runtime, record: Record, signals: Signals) -> None:
        self._runtime, self._record, self._signals = runtime, record, signals
        self._intents: list[tuple[str, Injection]] = []  # by the id that the journal has
        self.injected = Injected()

    def still_hit(self) -> set[str]:
        """The services of which a fault is still in force."""
        return {act.victim for act, since in self.injected.proven if not is_over(self._runtime, act, since)}

    def act(self, act: Injection) -> None:
        """Write down, inject, prove. Raises FaultNotObserved where no witness saw it in time."""
        record, injected = self._record, self.injected
        able = grant(self._runtime, act.fault.needs, act.fault.kind)
        before_s = time.time()
        intent = record.intent(act.fault.kind, act.victim, act.fault.undo(act.victim))
        injected.acts.append(act)
        self._intents.append((intent, act))
        with injected.acting(act.victim):
            act.fault.inject(able, act.victim)
        proof = None
        deadline = time.monotonic() + PROOF_DEADLINE_S
        while proof is None:
            proof = act.fault.observed(able, act.victim, before_s - 0.001)
            if proof is None:
                if time.monotonic() > deadline:
                    raise FaultNotObserved(
                        f"{act.fault.kind} {act.victim}: no witness saw it within {PROOF_DEADLINE_S:g} s; expected: {act.fault.expects}"
                    )
                time.sleep(0.02)
        record.proof("injected", proof.witness, proof.at_unix_s, intent=intent)
        record.event(
            "instrument", f"{act.fault.kind} {act.victim}", at_s=record.at_s(proof.at_unix_s), service=act.victim
        )
        self._signals.fault(act.fault.kind, act.victim, active=True)
        if injected.start_unix_s is None:
            injected.start_unix_s = proof.at_unix_s
        injected.last_unix_s = proof.at_unix_s
        injected.proven.append((act, proof.at_unix_s))

    def require_lasted(self) -> None:
        """Every fault that was proven was in force until now. Raises FaultNotObserved for one that ended by itself."""
        for act, _ in self.injected.proven:
            able = grant(self._runtime, act.fault.needs, act.fault.kind)
            if isinstance(act.fault, MayEndEarly) and act.fault.ended_early(able, act.victim):
                raise FaultNotObserved(
                    f"{act.fault.kind} {act.victim} was over before its undo, and nothing that was seen ended it: "
                    "what the clients met since then was no fault"
                )

    def revert(self) -> None:
        """Undo in reverse order, and prove it. Every undo is tried, also when one before it failed or was interrupted.

        Raises what interrupted it (a second Ctrl-C), else HealFailed, else NoVictim where a victim was removed by somebody else,
        which leaves nothing to undo and no claim.
        """
        record, injected = self._record, self.injected
        injected.reverted_unix_s = time.time()
        since = injected.start_unix_s or 0.0  # without a proof of the start, a healthy state is all there is to see
        failed: list[str] = []
        gone: list[str] = []
        interrupt: BaseException | None = None
        for intent, act in reversed(self._intents):
            try:
                self._undo(intent, act, since)
            except NoVictim as error:
                gone.append(str(error))
            except HealFailed as error:
                failed.append(str(error))
            except BaseException as error:  # noqa: BLE001 - whatever it was, the acts before this one must be undone too
                failed.append(
                    f"the undo of {act.fault.kind} {act.victim} broke off: {type(error).__name__}: {error}; "
                    "heal by hand with `llmchaos heal`"
                )
                if not isinstance(error, Exception):
                    interrupt = interrupt or error
        record.healed = record.healed and not failed
        if interrupt is not None:
            raise interrupt
        if failed:
            raise HealFailed("; ".join(failed))
        if gone:
            raise NoVictim("; ".join(gone))

    def _undo(self, intent: str, act: Injection, since_unix_s: float) -> None:
        """One act undone and proven healed, or written down as one that is not."""
        record, undo = self._record, act.fault.undo(act.victim)
        try:
            with self.injected.acting(act.victim):
                revert_until_done(self._runtime, undo)
            proof = prove_reverted(self._runtime, act, since_unix_s)
            record.proof("healed", proof.witness, proof.at_unix_s, intent=intent)
            record.undone(intent, act.victim, undo.op, ok=True)
        except NoVictim as error:
            record.undone(intent, act.victim, undo.op, ok=True, why=str(error))
            raise
        except BaseException as error:
            record.undone(intent, act.victim, undo.op, ok=False, why=str(error) or type(error).__name__)
            raise
        finally:
            self._signals.fault(act.fault.kind, act.victim, active=False)
