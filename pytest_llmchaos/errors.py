"""The package's error tree and the verdict of each error.

LlmchaosError
├── BadScenario           wrong argument (collection error, or an ERROR in a claim)
├── NotReady              the machine lacks an image, port or permission (an ERROR)
├── Unsupported           the runtime cannot inject the fault (a SKIP)
├── ProvesNothing         the trial supports no claim (an ERROR, never a pass)
│   ├── InvalidExperiment     the trial was not performed as planned
│   │   ├── NotSteady             not in steady state before the fault
│   │   ├── FaultNotObserved      no witness saw the fault, or it ended early
│   │   ├── NoVictim              the target matches no service
│   │   ├── LoadNotHeld           the load fell behind its schedule
│   │   ├── TooFewSamples         too few samples for the value
│   │   ├── VacuousClaim          the claim has the same outcome in every trial
│   │   ├── EvidenceLost          the journal or the samples cannot be written
│   │   └── Aborted               an abort condition was met
│   └── Inconclusive          the evidence does not give an answer
│       ├── NoData                no series, or no sample in the window
│       ├── NotANumber            NaN or infinity
│       ├── StaleData             the newest sample is too old
│       ├── PartialScrape         scrapes are missing in the window
│       ├── CounterReset          a counter restarted at 0 in the window
│       ├── OpenRequests          the result depends on unfinished requests
│       ├── BetweenEdges          the result depends on a histogram's coarse edges
│       ├── PrometheusUnreachable no answer from Prometheus
│       └── TruthsDisagree        clients, Prometheus and service differ
├── Refuted               the system failed, so the value does not exist (a FAILED)
│   ├── NotRecovered          no recovery before our own revert
│   ├── NotDetected           no alert and no remediator rule
│   └── UnprovokedReaction    a repair or a page although nothing was wrong
└── HealFailed            a fault could not be reverted, the session stops
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

Verdict = Literal["held", "refuted", "invalid", "inconclusive", "heal_failed"]


class LlmchaosError(Exception):
    """Base of all errors of this package.

    Catch it to handle any of them. An error without a verdict of its own makes the
    trial `invalid`.
    """


class BadScenario(LlmchaosError, ValueError):
    """An argument of a scenario or a claim is wrong.

    Correct the argument that the message names. It is raised at collection, before
    anything starts, or in a claim that names something that does not exist.
    Verdict: `invalid`.
    """


class NotReady(LlmchaosError):
    """The machine lacks something that the run needs.

    Nothing was started. Provide what the message names, then check with
    `llmchaos doctor`. Verdict: `invalid`.
    """


class Unsupported(LlmchaosError):
    """The runtime lacks an ability that the fault needs.

    pytest reports a skip that names the ability. Use another fault, or a runtime
    that has the ability. Verdict: `invalid`.
    """


class ProvesNothing(LlmchaosError):
    """The trial supports no claim: the base of `invalid` and `inconclusive` errors.

    Remove the cause that the message names and run the trial again.

    Attributes:
        verdict: The verdict on a trial that ends with this error.
    """

    verdict: ClassVar[Verdict] = "invalid"


class InvalidExperiment(ProvesNothing):
    """The trial was not performed as planned.

    Remove the cause that the message names and run the trial again.
    Verdict: `invalid`.
    """


class NotSteady(InvalidExperiment):
    """The service was not in its steady state before the fault.

    Lower the load, relax the latency targets, or repair the service.
    Verdict: `invalid`.
    """


class FaultNotObserved(InvalidExperiment):
    """No independent witness saw the fault, or the fault ended before its revert.

    Check that the fault can affect its target in this runtime.
    Verdict: `invalid`.
    """


class NoVictim(InvalidExperiment):
    """The target matches no service that the fault may hit.

    Name one of the services that the message lists. Verdict: `invalid`.
    """


class LoadNotHeld(InvalidExperiment):
    """The load ran late, or sent fewer requests than its schedule.

    Lower the rate, or give the load generator more CPU. Verdict: `invalid`.
    """


class TooFewSamples(InvalidExperiment):
    """The window has too few samples for the requested value.

    Raise the rate or the length of the phase that the message names.
    Verdict: `invalid`.
    """


class VacuousClaim(InvalidExperiment):
    """A claim has the same outcome whatever its trial or window showed.

    Bound the value inside the range that the message states. Verdict: `invalid`.
    """


class EvidenceLost(InvalidExperiment):
    """The journal or the samples of a trial cannot be written, as on a full disk.

    All faults are reverted and the session stops, because no act takes place without
    its record. Free disk space and run again. Verdict: `invalid`.
    """


class Aborted(InvalidExperiment):
    """An abort condition was met, the fault was reverted and the trial ended.

    Reduce the fault or the load, or relax `abort_if`. Verdict: `invalid`.
    """


class Inconclusive(ProvesNothing):
    """The evidence does not show whether the claim is true.

    Remove the cause that the message names and run the trial again.
    Verdict: `inconclusive`.
    """

    verdict: ClassVar[Verdict] = "inconclusive"


class NoData(Inconclusive):
    """A query matched no series, or no sample in its window.

    Check that Prometheus scrapes the metric and that requests were sent.
    Verdict: `inconclusive`.
    """


class NotANumber(Inconclusive):
    """A query returned NaN or infinity.

    Check the query for a division by zero. Verdict: `inconclusive`.
    """


class StaleData(Inconclusive):
    """The newest sample is too old to describe the window.

    Shorten the scrape interval, or check that the target is up.
    Verdict: `inconclusive`.
    """


class PartialScrape(Inconclusive):
    """Scrapes are missing inside the window.

    Check that the target answers Prometheus in time, or free a CPU core.
    Verdict: `inconclusive`.
    """


class CounterReset(Inconclusive):
    """A counter restarted at 0 inside the window, so its last counts are lost.

    Compute the SLO from counters that outlive the service, such as those of the
    clients. Verdict: `inconclusive`.
    """


class OpenRequests(Inconclusive):
    """The result of a comparison depends on requests open at the end of the load.

    Move the bound away from the value, or extend the load so that they end.
    Verdict: `inconclusive`.
    """


class BetweenEdges(Inconclusive):
    """An SLO's latency bound is no edge of the histogram, and the result depends on it.

    Choose an edge as the bound, or give the server that edge.
    Verdict: `inconclusive`.
    """


class PrometheusUnreachable(Inconclusive):
    """Prometheus did not answer in time.

    Check its address and that it is running. Verdict: `inconclusive`.
    """


class TruthsDisagree(Inconclusive):
    """Clients, Prometheus and the service's counters differ beyond the tolerance.

    Find the source that the message calls odd before you trust any of them.
    Verdict: `inconclusive`.
    """


class Refuted(LlmchaosError, AssertionError):
    """The claim is false: the system failed, so the requested value does not exist.

    It is an `AssertionError`, so pytest reports a failed test. Fix the system, or
    correct the hypothesis. Verdict: `refuted`.
    """


class NotRecovered(Refuted):
    """The service did not recover before our own revert, or not at all.

    See the trial's events for the step of the recovery that is missing.
    Verdict: `refuted`.
    """


class NotDetected(Refuted):
    """No alert fired and no rule of the remediator matched after the fault.

    Add an alert or a rule for this failure, or correct its threshold.
    Verdict: `refuted`.
    """


class UnprovokedReaction(Refuted):
    """The system repaired something or paged although nothing was wrong.

    Raise the threshold of the alert or the rule that the message names.
    Verdict: `refuted`.
    """


class HealFailed(LlmchaosError):
    """A fault could not be reverted.

    The session stops. Run the `llmchaos heal` command that the message gives, or
    revert by hand. Verdict: `heal_failed`.
    """


# Verdict on a trial that held until a claim had this outcome.
CLAIM_MAKES: dict[str, Verdict] = {"failed": "refuted", "error": "invalid", "skipped": "invalid"}


def verdict_after(outcomes: Iterable[str]) -> Verdict:
    """Return the verdict on a judged trial, given the outcomes of its claims.

    `held` needs at least one passed claim and no other outcome. A trial without any
    claim is `invalid`.

    Args:
        outcomes: pytest's outcomes, such as "passed", "failed", "error" or "skipped".
    """
    seen = set(outcomes)
    otherwise = next((becomes for outcome, becomes in CLAIM_MAKES.items() if outcome in seen), None)
    return otherwise or ("held" if "passed" in seen else "invalid")


def verdict_of(error: BaseException) -> Verdict:
    """Return the verdict on a trial that ended with this error."""
    if isinstance(error, HealFailed):
        return "heal_failed"
    if isinstance(error, Refuted):
        return "refuted"
    return error.verdict if isinstance(error, ProvesNothing) else "invalid"
