"""Everything this package raises on purpose. No logic, no imports from the package.

LlmchaosError
├── BadScenario          a wrong argument, found before anything starts (a collection error; inside a claim an ERROR)
├── NotReady             the machine lacks something: engine, image, port, permission (an ERROR, nothing was started)
├── Unsupported          the runtime lacks an ability that a fault needs (a SKIP that names it)
├── ProvesNothing        the trial cannot support any claim (an ERROR, never a pass)
│   ├── InvalidExperiment    the trial was not performed as planned
│   │   ├── NotSteady            the service was not in its steady state before the fault
│   │   ├── FaultNotObserved     no independent witness saw the fault take hold, or it did not last
│   │   ├── NoVictim             the target matches nothing that may be hit
│   │   ├── LoadNotHeld          the load ran late, or sent less than its schedule
│   │   ├── TooFewSamples        a number was asked for that so few samples cannot give
│   │   ├── VacuousClaim         a claim or comparison that comes out the same whatever its trial showed
│   │   ├── EvidenceLost         a disk is full, say: the session stops, everything is undone
│   │   └── Aborted              an abort condition was met: the fault was reverted and the trial ended
│   └── Inconclusive         the judge cannot answer
│       ├── NoData               a query matched no series, or no sample in its window
│       ├── NotANumber           a query answered NaN or infinity
│       ├── StaleData            the newest sample is too old to speak for the window
│       ├── PartialScrape        scrapes are missing inside the window
│       ├── CounterReset         a counter began again at 0 inside the window
│       ├── OpenRequests         a comparison depends on requests that were open when the load ended
│       ├── PrometheusUnreachable
│       └── TruthsDisagree       clients, Prometheus and the service's own counters differ
├── Refuted (AssertionError) the claim is wrong: raised where a value does not exist because the system failed
│   ├── NotRecovered         the service did not come back before our own revert, or not at all
│   ├── NotDetected          the system raised no signal of its own
│   └── UnprovokedReaction   it repaired or paged in a control arm, or before it, though nothing was wrong
└── HealFailed           an undo did not work: the session stops, the message says how to heal by hand
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

Verdict = Literal["held", "refuted", "invalid", "inconclusive", "heal_failed"]


class LlmchaosError(Exception):
    """Base of all errors of this package."""


class BadScenario(LlmchaosError, ValueError):
    """A wrong argument; raised when the scenario is read."""


class NotReady(LlmchaosError):
    """The machine lacks something that the run needs."""


class Unsupported(LlmchaosError):
    """The runtime lacks an ability that the fault needs."""


class ProvesNothing(LlmchaosError):
    """The trial cannot support any claim."""

    verdict: ClassVar[Verdict] = "invalid"


class InvalidExperiment(ProvesNothing):
    """The trial was not performed as planned."""


class NotSteady(InvalidExperiment):
    """The service was not in its steady state before the fault."""


class FaultNotObserved(InvalidExperiment):
    """No independent witness saw the fault take hold, or it was over before its undo."""


class NoVictim(InvalidExperiment):
    """The target matches nothing that may be hit."""


class LoadNotHeld(InvalidExperiment):
    """The load ran late, or sent less than its schedule."""


class TooFewSamples(InvalidExperiment):
    """So few samples cannot give the number asked for."""


class VacuousClaim(InvalidExperiment):
    """A claim, or a comparison, comes out the same whatever its trial or window showed."""


class EvidenceLost(InvalidExperiment):
    """The journal or a trial's samples cannot be written: what cannot be written down is not done, and the session stops."""


class Aborted(InvalidExperiment):
    """An abort condition was met; the fault was reverted and the trial ended."""


class Inconclusive(ProvesNothing):
    """The judge cannot answer."""

    verdict: ClassVar[Verdict] = "inconclusive"


class NoData(Inconclusive):
    """A query matched no series, or no sample in its window."""


class NotANumber(Inconclusive):
    """A query answered NaN or infinity."""


class StaleData(Inconclusive):
    """The newest sample is too old to speak for the window."""


class PartialScrape(Inconclusive):
    """Scrapes are missing inside the window."""


class CounterReset(Inconclusive):
    """A counter began again at 0 inside the window: what its process counted last is lost."""


class OpenRequests(Inconclusive):
    """A comparison depends on requests that were still open when the load ended."""


class PrometheusUnreachable(Inconclusive):
    """Prometheus did not answer in time."""


class TruthsDisagree(Inconclusive):
    """Clients, Prometheus or the service's own counters differ by more than is explained."""


class Refuted(LlmchaosError, AssertionError):
    """The claim is wrong: the value asked for does not exist because the system failed."""


class NotRecovered(Refuted):
    """The service did not come back before our own revert, or not at all."""


class NotDetected(Refuted):
    """The system raised no signal of its own."""


class UnprovokedReaction(Refuted):
    """The system repaired or paged though nothing was wrong."""


class HealFailed(LlmchaosError):
    """An undo did not work."""


# What the outcome of one claim makes of a trial that held.
CLAIM_MAKES: dict[str, Verdict] = {"failed": "refuted", "error": "invalid", "skipped": "invalid"}


def verdict_after(outcomes: Iterable[str]) -> Verdict:
    """What the outcomes of its claims make of a trial that was judged.

    `held` needs a claim that passed and none that did otherwise; a trial of which a claim was not performed is not judged.
    """
    seen = set(outcomes)
    otherwise = next((becomes for outcome, becomes in CLAIM_MAKES.items() if outcome in seen), None)
    return otherwise or ("held" if "passed" in seen else "invalid")


def verdict_of(error: BaseException) -> Verdict:
    """The verdict on a trial that ended with this error."""
    if isinstance(error, HealFailed):
        return "heal_failed"
    if isinstance(error, Refuted):
        return "refuted"
    return error.verdict if isinstance(error, ProvesNothing) else "invalid"
