"""The truths of a service level: what clients saw, what Prometheus and the service itself counted. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_llmchaos.stats.columns import CANCELLED, CODES, LEFT, OK

if TYPE_CHECKING:
    from pytest_llmchaos.model import Measure
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.stats.columns import Columns

# A service that is refused to its clients, or that they leave, cannot count that as its failure. Nor can it see that the
# content of an answer is another than it should be.
UNSEEN = frozenset(CODES[outcome] for outcome in ("refused", "timeout", "corrupted"))
# The service's clock of a request starts when it reads it, the client's when it was due. Between them lie the generator's
# lateness (at most 0.05 s, or the load is not held), a connection, and a busy event loop.
LATENCY_SLACK_S = 0.5
# PromQL's increase() extrapolates each series by up to half a scrape at either end, and by less where it began at 0: some
# 2 % of a window of half a minute. One event is rounding.
SLACK_SHARE = 0.02
SLACK_EVENTS = 1.0
# What is pushed at the load's end is all that the clients counted. One event in a thousand is left for rounding.
EXACT_SHARE = 0.001

_FIRST_TOKEN = re.compile(r"first_token|ttft", re.IGNORECASE)
_WHOLE_ANSWER = re.compile(r"(request|e2e)\w*(duration|latency)", re.IGNORECASE)

Spell = tuple[float, float]
"""From and to, in seconds since the start of the load."""


def measure_of(slo: Slo) -> Measure | None:
    """What of a request the SLO judges, where clients can judge the same; None where they cannot.

    That is what its `clients` says. Without it: the SLO named `availability`, and those with a threshold over a time to
    first token or to the whole answer.
    """
    if slo.clients is not None:
        return None if slo.clients == "none" else slo.clients
    if slo.name == "availability":
        return "availability"
    metric = slo.good.partition("{")[0]
    if slo.threshold_s is None:
        return None
    if _FIRST_TOKEN.search(metric):
        return "ttft"
    return "e2e" if _WHOLE_ANSWER.search(metric) else None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Requests as their clients judged them, and how many of them another count may leave out or judge otherwise.

    `unsure_good` and `unsure_bad` have an explanation: the service was dead, could not see it, or measured from another instant.
    """

    good: float
    total: float
    unsure_good: int = 0
    unsure_bad: int = 0

    @property
    def share(self) -> float:
        return self.good / self.total

    def explains(self, share: float, slack_events: float) -> bool:
        """Whether a count of the same requests may come to this share of good ones."""
        least = self.good - self.unsure_good - slack_events
        most = self.good + self.unsure_bad + slack_events
        return least <= share * self.total <= most


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a count other than the clients' own cannot know.

    `blind` are spells in which the service was dead or cut off. After `until_s` nothing is compared.
    `counts_failures`: whether a request that failed is in its histogram of latencies, as no good one.
    """

    blind: Sequence[Spell] = ()
    until_s: float = float("inf")
    known_s: float = float("inf")
    counts_failures: bool = True


def seen_by_clients(columns: Columns, measure: Measure, bound_s: float | None, sight: Sight | None) -> Seen:
    """The clients' judgement of all their requests; without a `sight`, of counters that they pushed themselves."""
    good = total = unsure_good = unsure_bad = left = 0
    limit_s = float("inf") if bound_s is None else bound_s
    for code, due_s, first_s, end_s in zip(
        columns.outcomes, columns.due_s, columns.first_s, columns.end_s, strict=True
    ):
        if code == CANCELLED or (sight is not None and end_s > sight.until_s):
            continue
        if code == LEFT:
            left += 1
            continue
        is_begun = measure == "ttft" and first_s >= 0
        took_s = (first_s if is_begun else end_s) - due_s
        is_good = code == OK and (measure == "availability" or took_s <= limit_s)
        total += 1
        good += is_good
        if sight is None:
            continue
        is_unsure = (
            code in UNSEEN
            or any(due_s <= to_s and from_s <= end_s for from_s, to_s in sight.blind)
            # What was given up when the load ended is a client who left. A first token that came in time is good to the
            # service, whatever became of the answer.
            or (code != OK and (end_s >= sight.known_s or is_begun))
            or (measure != "availability" and code != OK and not sight.counts_failures)
            or (measure != "availability" and code == OK and abs(took_s - limit_s) <= LATENCY_SLACK_S)
        )
        unsure_good += is_unsure and is_good
        unsure_bad += is_unsure and not is_good
    if sight is not None:
        # Whether a service counts a request whose client left, and as what, is its own matter.
        unsure_good, unsure_bad = min(good, unsure_good + left), min(total - good, unsure_bad + left)
    return Seen(good=good, total=total, unsure_good=unsure_good, unsure_bad=unsure_bad)


def miscount(seen: Seen, may_be_more: int, counted: float) -> str | None:
    """How a service's count of its requests differs from its clients' by more than is explained; None where it does not.

    `may_be_more` requests were given up by their clients: a service may count them or not.
    """
    slack = SLACK_EVENTS + SLACK_SHARE * seen.total
    unsure = seen.unsure_good + seen.unsure_bad
    if seen.total - unsure - slack <= counted <= seen.total + may_be_more + slack:
        return None
    return (
        f"clients sent {seen.total:g} requests in the whole trial, the service counted {counted:g}: its counters are odd "
        f"({unsure + may_be_more} requests have an explanation, {slack:.1f} are slack)"
    )


def oddity(what: str, exact: Seen, sighted: Seen, slo_says: float, service_says: float | None) -> str | None:
    """Which truth differs from the others by more than is explained, with the numbers; None where they agree.

    `exact` is to be compared with the SLO, `sighted` with the service's own counters.
    """
    slack = SLACK_EVENTS + SLACK_SHARE * sighted.total
    # Counters that the clients pushed have seen what the clients saw.
    slack_of_slo = slack if exact is sighted else EXACT_SHARE * exact.total
    by_clients = exact.explains(slo_says, slack_of_slo)
    numbers = (
        f"{what} of the whole trial: clients say {exact.share:.4f} ({exact.good:g} of {exact.total:g}), "
        f"Prometheus' SLO {slo_says:.4f}"
    )
    if service_says is None:
        return None if by_clients else f"{numbers}: one of them is wrong, and the service itself tells no third"
    by_service = sighted.explains(service_says, slack)
    if by_clients and by_service:
        return None
    if by_service:
        odd = "Prometheus' SLO is odd"
    elif by_clients:
        odd = "the service's own counters are odd"
    else:
        as_slo = replace(sighted, good=sighted.good + (slo_says - exact.share) * exact.total)
        odd = "the clients' samples are odd" if as_slo.explains(service_says, slack) else "no two of them agree"
    explained = sighted.unsure_good + sighted.unsure_bad
    return (
        f"{numbers}, the service's own counters {service_says:.4f}: {odd} "
        f"({explained} of {sighted.total:g} requests have an explanation, {slack:.1f} are slack)"
    )
