"""State of each replica after recovery: answers, health and free slots."""

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

# The clients cancel open requests when the load stops. The engine then frees their
# slots, and Prometheus shows that one scrape later.
REST_DEADLINE_S = 6.0
POLL_S = 0.2
# Probability that evenly spread requests all miss one replica by chance.
BY_CHANCE = 0.001


@dataclass(frozen=True, kw_only=True)
class Replica(NoClaim):
    """One replica after recovery.

    Attributes:
        name: The replica's service.
        answered: Answers that this replica gave after the fault.
        of: Answers that all replicas gave after the fault.
        trouble: Reasons why the replica does not serve. Empty if it serves.
        unknown: Checks that could not be made, with the reason.
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
    """All replicas, from the end of the fault to the end of the trial.

    Attributes:
        replicas: Each replica with its answers and its troubles.
    """

    how_to_claim: ClassVar[str] = "such as .all_serve"

    replicas: tuple[Replica, ...]

    def __repr__(self) -> str:
        return f"<replicas after the fault: {'; '.join(map(str, self.replicas))}>"

    @property
    def serving(self) -> tuple[str, ...]:
        """Names of the replicas without trouble."""
        known = Known("replica", (one.name for one in self.replicas))
        return Names((one.name for one in self.replicas if not one.trouble), known)

    @property
    def all_serve(self) -> bool:
        """True if every replica answers, is healthy and has free slots again.

        Raises:
            NoData: No replica has trouble, but at least one check could not be made.
        """
        if any(one.trouble for one in self.replicas):
            return False
        unknown = [f"{one.name}: {what}" for one in self.replicas for what in one.unknown]
        if unknown:
            raise NoData(f"not every replica could be checked: {'; '.join(unknown)}")
        return True


def least_answers(replicas: int) -> int:
    """Return how many answers show that a replica without any is not chance."""
    return 1 if replicas < 2 else math.ceil(math.log(BY_CHANCE) / math.log(1 - 1 / replicas))


def served_again_s(record: Record, plan: TrialPlan) -> float:
    """Return when clients were served again, in seconds from the load's start.

    The trial's phases give the time.
    """
    recovery_s = next((phase.from_s for phase in record.phases if phase.name == "recovery"), 0.0)
    # The last `stable_s` of a lasting fault's phase were good already.
    return recovery_s - plan.experiment.stable_s if plan.is_lasting else recovery_s


def judge_replicas(lab: Lab, samples: Samples, from_s: float) -> Replicas | None:
    """Return the state of the subject's replicas, or None if it names no replicas.

    Call it after the load has ended.

    Args:
        lab: The running stack.
        samples: The clients' requests.
        from_s: Seconds from the load's start until clients were served again.
    """
    names = lab.subject.replicas
    if not names:
        return None
    # In an attached stack, other clients can occupy slots.
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
        unknown.append("no response header names the replica (replica_header)")
    elif not answered:
        least = least_answers(len(lab.subject.replicas))
        if of >= least:
            trouble.append("gets no requests")
        else:
            unknown.append(f"{of} answers after the fault are too few to show that it gets none, {least} needed")
    if busy is None or name not in busy:
        unknown.append("no metric shows how many of its slots are taken (busy_query)")
    elif busy[name]:
        trouble.append(f"{busy[name]:g} of its slots are still taken {REST_DEADLINE_S:g} s after the load")
    if lab.subject.rotation_query is not None and (routed is None or name not in routed):
        unknown.append("no metric shows whether requests are routed to it (rotation_query)")
    elif routed is not None and routed[name] != 1:
        trouble.append("the service routes no requests to it")
    return Replica(name=name, answered=answered, of=of, trouble=tuple(trouble), unknown=tuple(unknown))


def _settled(
    lab: Lab, query: str | None, names: tuple[str, ...], good: Callable[[float], bool]
) -> Mapping[str, float] | None:
    """Return the query's values by service once all are good, or at the deadline.

    None if there is no query or no answer.
    """
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
