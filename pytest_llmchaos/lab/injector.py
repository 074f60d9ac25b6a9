"""Injection, proof and revert of the faults of one `with` block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import FaultNotObserved, HealFailed, NoVictim
from pytest_llmchaos.faults.base import plain_strength
from pytest_llmchaos.model import REPLICA, BeginsAtMoment, CountsRequests, MayEndEarly, Moment, replica_name
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.runtime.undo import is_over, prove_reverted, revert_until_done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.model import AbleRuntime, Injection, Proof, Runtime, RuntimeEvent, Undo
    from pytest_llmchaos.prometheus.annotations import Signals

PROOF_DEADLINE_S = 5.0


# From the runtime's time stamp of an act to the end of our call.
OWN_SLACK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class OwnAct:
    """A period in which the instrument injected or reverted on a service."""

    service: str
    from_unix_s: float
    to_unix_s: float


class Injected:
    """The faults of one block.

    Attributes:
        acts: the planned injections that were begun.
        proven: injections that a witness saw, each with its Unix time.
        start_unix_s: the first proven injection.
        last_unix_s: the last proven injection.
        reverted_unix_s: start of the revert.
        over_unix_s: end of the last fault before our revert, or None if none was seen
            to end.
        own: periods in which the instrument itself acted on a service.
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
        """True if the instrument caused this event of the runtime."""
        return any(
            one.service == event.service
            and one.from_unix_s - OWN_SLACK_S <= event.at_unix_s <= one.to_unix_s + OWN_SLACK_S
            for one in self.own
        )

    @contextmanager
    def acting(self, service: str) -> Iterator[None]:
        """Attribute events of the service inside the block to the instrument."""
        begin_s = time.time()
        try:
            yield
        finally:
            self.own.append(OwnAct(service=service, from_unix_s=begin_s, to_unix_s=time.time()))

    @property
    def victims(self) -> tuple[str, ...]:
        """The services that were hit, each once."""
        return tuple(dict.fromkeys(act.victim for act in self.acts))


def name_of(act: Injection) -> str:
    """Return the victim as journal and report name it, such as `web#2`."""
    return replica_name(act.victim, act.replica)


def undo_of(act: Injection) -> Undo:
    """Return the undo of an act, with the number of the container that it hits."""
    undo = act.fault.undo(act.victim)
    return undo if act.replica is None else replace(undo, args={**undo.args, REPLICA: act.replica})


def merged(blocks: Sequence[Injected]) -> Injected:
    """Combine the faults of several blocks of one load."""
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
    """Injects and reverts on one runtime, and records it.

    Attributes:
        injected: the faults so far.
    """

    def __init__(self, runtime: Runtime, record: Record, signals: Signals) -> None:
        self._runtime, self._record, self._signals = runtime, record, signals
        self._intents: list[tuple[str, Injection]] = []  # with their ids in the journal
        self.injected = Injected()

    def still_hit(self) -> set[str]:
        """Services with a fault that is still in force."""
        return {act.victim for act, since in self.injected.proven if not is_over(self._runtime, act, since)}

    def act(self, act: Injection) -> None:
        """Journal, inject and prove one fault.

        Raises FaultNotObserved without a proof in time.
        """
        record, injected = self._record, self.injected
        within_s = act.fault.proof_within_s if isinstance(act.fault, CountsRequests) else PROOF_DEADLINE_S
        able = grant(self._runtime, act.fault.needs, act.fault.kind)
        before_s, name = time.time(), name_of(act)
        intent = record.intent(act.fault.kind, name, undo_of(act), plain_strength(act.fault))
        injected.acts.append(act)
        self._intents.append((intent, act))
        with self._moment(able, act) as moment:
            with injected.acting(act.victim):
                act.fault.inject(able, act.victim)
            proof = self._proof(able, act, since_s=before_s - 0.001, within_s=within_s)
            _require_in_time(act, moment, proof)
        record.proof("injected", proof, intent=intent)
        record.event("instrument", f"{act.fault.kind} {name}", at_s=record.at_s(proof.at_unix_s), service=act.victim)
        self._signals.fault(act.fault.kind, act.victim, active=True)
        if injected.start_unix_s is None:
            injected.start_unix_s = proof.at_unix_s
        injected.last_unix_s = proof.at_unix_s
        injected.proven.append((act, proof.at_unix_s))

    def _proof(self, able: AbleRuntime, act: Injection, *, since_s: float, within_s: float) -> Proof:
        """Wait for the fault's proof.

        A held message waits too, because a process that dies still sends.

        Raises FaultNotObserved if no witness saw it in time.
        """
        deadline = time.monotonic() + within_s
        while (proof := act.fault.observed(able, act.victim, since_s)) is None:
            if time.monotonic() > deadline:
                counted = f"{act.fault.counted(able, act.victim)}; " if isinstance(act.fault, CountsRequests) else ""
                raise FaultNotObserved(
                    f"{act.fault.kind} {name_of(act)}: no witness saw it within {within_s:g} s; {counted}"
                    f"expected: {act.fault.expects}"
                )
            time.sleep(0.02)
        return proof

    @contextmanager
    def _moment(self, able: AbleRuntime, act: Injection) -> Iterator[Moment | None]:
        """Wait for the fault's moment if it has one, and record how exact it was.

        Yields the moment, None without one.

        Raises FaultNotObserved if the moment had passed before the fault began, or
        before it was proven if the moment lasts until then. Pytest may have been
        suspended.
        """
        if not isinstance(act.fault, BeginsAtMoment):
            yield None
            return
        begun_s = time.monotonic()
        with act.fault.moment(able, act.victim) as moment:
            begins = f"{act.fault.kind} {name_of(act)} was to begin {moment.at}, which"
            waited_s, late_s = time.monotonic() - begun_s, max(0.0, time.time() - moment.unix_s)
            if waited_s >= moment.passes_s:
                raise FaultNotObserved(
                    f"{begins} passed after {moment.passes_s:g} s, and pytest went on after {waited_s:.1f} s: it was suspended, "
                    "or the machine is too slow; run again"
                )
            yield moment
            waited_s = time.monotonic() - begun_s
            if moment.lasts_s is None and waited_s >= moment.passes_s:
                raise FaultNotObserved(
                    f"{begins} passed after {moment.passes_s:g} s, and the fault was proven after {waited_s:.1f} s, so it may "
                    "have begun later: raise within_s, or name an earlier message"
                )
        self._record.event("instrument", f"{act.fault.kind} {name_of(act)} began {1000 * late_s:.1f} ms {moment.at}")

    def require_lasted(self) -> None:
        """Raises FaultNotObserved for a proven fault that ended before its revert."""
        for act, _ in self.injected.proven:
            able = grant(self._runtime, act.fault.needs, act.fault.kind)
            if isinstance(act.fault, MayEndEarly) and act.fault.ended_early(able, act.victim):
                raise FaultNotObserved(
                    f"{act.fault.kind} {name_of(act)} ended before its revert, for no observed reason: "
                    "later samples show the service without the fault"
                )

    def revert(self) -> None:
        """Revert in reverse order and prove it, even if an earlier revert failed.

        Raises what interrupted it (a second Ctrl-C), else HealFailed, else NoVictim if
        another process removed a victim. Such a trial supports no claim.
        """
        record, injected = self._record, self.injected
        injected.reverted_unix_s = time.time()
        since = injected.start_unix_s or 0.0  # without a proof of the start, a healthy state is proof enough
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
            except BaseException as error:  # noqa: BLE001 - in any case the earlier injections must be reverted
                failed.append(
                    f"the revert of {act.fault.kind} {name_of(act)} was interrupted: {type(error).__name__}: {error}; "
                    "run `llmchaos heal`"
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
        """Revert one injection and prove it, and journal the result."""
        record, undo, name = self._record, undo_of(act), name_of(act)
        try:
            with self.injected.acting(act.victim):
                revert_until_done(self._runtime, undo)
            proof = prove_reverted(self._runtime, act, since_unix_s)
            record.proof("healed", proof, intent=intent)
            record.undone(intent, name, undo.op, ok=True)
        except NoVictim as error:
            record.undone(intent, name, undo.op, ok=True, why=str(error))
            raise
        except BaseException as error:
            record.undone(intent, name, undo.op, ok=False, why=str(error) or type(error).__name__)
            raise
        finally:
            self._signals.fault(act.fault.kind, act.victim, active=False)


def _require_in_time(act: Injection, moment: Moment | None, proof: Proof) -> None:
    """Raises FaultNotObserved if the fault began after its moment, by one clock."""
    if moment is None or moment.lasts_s is None:
        return
    late_s = proof.at_unix_s - moment.unix_s
    if late_s >= moment.lasts_s:
        raise FaultNotObserved(
            f"{act.fault.kind} {name_of(act)} was to begin {moment.at}, which lasts {moment.lasts_s:g} s, and it began "
            f"{late_s:.2f} s after its start: the machine is too slow; run again"
        )
