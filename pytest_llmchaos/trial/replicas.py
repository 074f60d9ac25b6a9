"""Which replicas serve after recovery: their share of answers, their health, and whether their slots are free."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_llmchaos.errors import Inconclusive, NoData
from pytest_llmchaos.stats.bounded import NoClaim
from pytest_llmchaos.stats.names import Known, Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.evidence.samples_file import Samples
    from pytest_llmchaos.evidence.trial_record import Record
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.plan.experiment import TrialPlan

# The last answers are given up when the load stops. Their slots are free once the engine has seen that, a scrape later.
REST_DEADLINE_S = 6.0
POLL_S = 0.2
# Where requests are spread evenly over the replicas, all of them miss one replica by chance this seldom.
BY_CHANCE = 0.001


@dataclass(frozen=True, kw_only=True)
class Replica(NoClaim):
    """One replica after recovery.

    `trouble` is what speaks against it. `unknown` is what could not be read of it.
    """

    how_to_claim: ClassVar[str] = "such as .trouble == ()"

    name: str
    answered: int
    of: int
    trouble: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = self.trouble or tuple(f"unknown: {one}" for one in self.unknown)
        return f"{self.name} gave {self.answered} of {self.of} answers" + "".join(f", {one}" for one in about)


@dataclass(frozen=True, kw_only=True)
class Replicas(NoClaim):
    """The replicas from the end of the fault to the trial's end."""

    how_to_claim: ClassVar[str] = "such as .all_serve"

    replicas: tuple[Replica, ...]

    def __repr__(self) -> str:
        return f"<replicas after the fault: {'; '.join(map(str, self.replicas))}>"

    @property
    def serving(self) -> tuple[str, ...]:
        """Names of the replicas against which nothing speaks."""
        known = Known("replica", (one.name for one in self.replicas))
        return Names((one.name for one in self.replicas if not one.trouble), known)

    @property
    def all_serve(self) -> bool:
        """Whether every replica answers, is healthy and has its slots free again.

        Raises NoData where nothing speaks against a replica and not all of it is known.
        """
        if any(one.trouble for one in self.replicas):
            return False
        unknown = [f"{one.name}: {what}" for one in self.replicas for what in one.unknown]
        if unknown:
            raise NoData(f"whether every replica serves again is not known: {'; '.join(unknown)}")
        return True


def least_answers(replicas: int) -> int:
    """How many answers it takes before a replica that gave none of them is no accident."""
    return 1 if replicas < 2 else math.ceil(math.log(BY_CHANCE) / math.log(1 - 1 / replicas))


def served_again_s(record: Record, plan: TrialPlan) -> float:
    """Seconds from the load's start to when clients were served again, as far as the trial's phases tell."""
    recovery_s = next((phase.from_s for phase in record.phases if phase.name == "recovery"), 0.0)
    # The stable seconds at the end of a lasting fault's phase were good already.
    return recovery_s - plan.experiment.stable_s if plan.is_lasting else recovery_s


def judge_replicas(lab: Lab, samples: Samples, from_s: float) -> Replicas | None:
    """What became of the subject's replicas; None where the subject does not name them. The load must be over.

    `from_s` is when the clients were served again, in seconds since the start of the load.
    """
    names = lab.subject.replicas
    if not names:
        return None
    # In a stack that others use as well, slots are taken by others.
    busy_query = None if lab.subject.attach else lab.subject.busy_query
    told = samples.answers_by_replica(from_s) if lab.subject.replica_header else None
    busy = _settled(lab, busy_query, names, lambda value: value == 0)
    routed = _settled(lab, lab.subject.rotation_query, names, lambda value: value == 1)
    return Replicas(replicas=tuple(_replica(lab, name, told, busy, routed) for name in names))


def _replica(
    lab: Lab,
    name: str,
    told: Counter[str] | None,
    busy: Mapping[str, float] | None,
    routed: Mapping[str, float] | None,
) -> Replica:
    trouble: list[str] = []
    unknown: list[str] = []
    state = lab.runtime.state(name)
    if state.paused or not state.running:
        trouble.append("is paused" if state.paused else "does not run")
    elif state.healthy is False:
        trouble.append("fails its health check")
    answered, of = (0, 0) if told is None else (told[name], told.total())
    if told is None:
        unknown.append("no header names the replica of an answer (replica_header)")
    elif not answered:
        least = least_answers(len(lab.subject.replicas))
        if of >= least:
            trouble.append("gets no requests")
        else:
            unknown.append(f"{of} answers after the fault are too few to miss one, {least} needed")
    if busy is None or name not in busy:
        unknown.append("no metric tells its slots that are taken (busy_query)")
    elif busy[name]:
        trouble.append(f"{busy[name]:g} of its slots are still taken {REST_DEADLINE_S:g} s after the load")
    if lab.subject.rotation_query is not None and (routed is None or name not in routed):
        unknown.append("no metric tells whether requests are routed to it (rotation_query)")
    elif routed is not None and routed[name] != 1:
        trouble.append("the service routes no requests to it")
    return Replica(name=name, answered=answered, of=of, trouble=tuple(trouble), unknown=tuple(unknown))


def _settled(
    lab: Lab, query: str | None, names: tuple[str, ...], good: Callable[[float], bool]
) -> Mapping[str, float] | None:
    """The query's values by service once all are good, or at the deadline; None where it has none."""
    if query is None:
        return None
    deadline = time.monotonic() + REST_DEADLINE_S
    while True:
        try:
            vector = lab.prometheus.vector(query, time.time(), may_be_empty=True)
        except Inconclusive:
            found = None
        else:
            found = {dict(labels).get("service", ""): value for labels, value in vector.items()}
            if all(good(found[name]) for name in names if name in found):
                return found
        if time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)
