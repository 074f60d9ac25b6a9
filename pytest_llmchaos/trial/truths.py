"""Agreement of three counts: clients' samples, Prometheus, the service."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_llmchaos.stats.columns import CANCELLED, CODES, LEFT, OK

if TYPE_CHECKING:
    from pytest_llmchaos.model import Measure
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.stats.columns import Columns

# Outcomes that a service cannot count as its failure: it was not reached, the client
# left, or the content of the answer was wrong.
UNSEEN = frozenset(CODES[outcome] for outcome in ("refused", "timeout", "corrupted"))
# A client's clock starts when a request is due, the service's when it reads it. Between
# them lie the generator's lateness (at most 0.05 s, or the load is not held), the
# connection and a busy event loop.
LATENCY_SLACK_S = 0.5
# PromQL's increase() extrapolates each series by up to half a scrape at either end, and
# by less if it began at 0: some 2 % of a window of 30 s. One event is rounding.
SLACK_SHARE = 0.02
SLACK_EVENTS = 1.0
# The push at the load's end has all counts of the clients. The share is for rounding.
EXACT_SHARE = 0.001

_FIRST_TOKEN = re.compile(r"first_token|ttft", re.IGNORECASE)
_WHOLE_ANSWER = re.compile(r"(request|e2e)\w*(duration|latency)", re.IGNORECASE)

Spell = tuple[float, float]
"""Start and end, in seconds from the load's start."""


class Between(NamedTuple):
    """A share that a histogram's edges only bound."""

    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return " to ".join(format(end, spec) for end in self)


Share = float | Between


def measure_of(slo: Slo) -> Measure | None:
    """Return the measure by which clients can judge the SLO, or None.

    The SLO's key `clients` names it. Without that key it is availability for the SLO
    named `availability`, and for an SLO with a threshold the time to first token or to
    the whole answer, by the name of its metric.
    """
    if slo.clients is not None:
        return None if slo.clients == "none" else slo.clients
    if slo.name == "availability":
        return "availability"
    metric = slo.counters[0].partition("{")[0]
    if slo.threshold_s is None:
        return None
    if _FIRST_TOKEN.search(metric):
        return "ttft"
    return "e2e" if _WHOLE_ANSWER.search(metric) else None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Requests as clients judged them, with those that another count may differ in.

    Attributes:
        good: Good requests.
        total: All requests.
        unsure_good: Good requests that another count may miss or judge bad. The
            service was dead, could not see them, or measured from another instant.
        unsure_bad: Bad requests that another count may miss or judge good.
    """

    good: float
    total: float
    unsure_good: int = 0
    unsure_bad: int = 0

    @property
    def share(self) -> float:
        return self.good / self.total

    def explains(self, share: Share, slack_events: float) -> bool:
        """True if another count of the requests may give this share of good ones."""
        least = self.good - self.unsure_good - slack_events
        most = self.good + self.unsure_bad + slack_events
        low, high = _ends(share)
        return least <= high * self.total and low * self.total <= most


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Limits of a count other than the clients' own.

    Attributes:
        blind: Spells in which the service was dead or cut off.
        until_s: End of the comparison, in seconds from the load's start.
        known_s: When the last request was due, in seconds from the load's start.
        counts_failures: True if a failed request is in the histogram of latencies as
            one that is not good.
        unseen: Codes of outcomes that the service cannot count as its failure.
    """

    blind: Sequence[Spell] = ()
    until_s: float = float("inf")
    known_s: float = float("inf")
    counts_failures: bool = True
    unseen: frozenset[int] = UNSEEN


def seen_by_clients(columns: Columns, measure: Measure, bound_s: float | None, sight: Sight | None) -> Seen:
    """Return the clients' judgement of their requests.

    Without a `sight`, the other count is the clients' own, as pushed to Prometheus.
    """
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
            code in sight.unseen
            or any(due_s <= to_s and from_s <= end_s for from_s, to_s in sight.blind)
            # A request cancelled at the load's end is one whose client left. For the
            # service, a first token in time is good even if the answer then fails.
            or (code != OK and (end_s >= sight.known_s or is_begun))
            or (measure != "availability" and code != OK and not sight.counts_failures)
            or (measure != "availability" and code == OK and abs(took_s - limit_s) <= LATENCY_SLACK_S)
        )
        unsure_good += is_unsure and is_good
        unsure_bad += is_unsure and not is_good
    if sight is not None:
        # A service may count a request whose client left as good, as bad or not.
        unsure_good, unsure_bad = min(good, unsure_good + left), min(total - good, unsure_bad + left)
    return Seen(good=good, total=total, unsure_good=unsure_good, unsure_bad=unsure_bad)


def miscount(seen: Seen, may_be_more: int, counted: float) -> str | None:
    """Return a message if the service's number of requests is odd, or None.

    Args:
        seen: The clients' judgement of their requests.
        may_be_more: Requests that clients cancelled, which a service may count or not.
        counted: Requests that the service counted.
    """
    slack = SLACK_EVENTS + SLACK_SHARE * seen.total
    unsure = seen.unsure_good + seen.unsure_bad
    if seen.total - unsure - slack <= counted <= seen.total + may_be_more + slack:
        return None
    return (
        f"clients sent {seen.total:g} requests in the whole trial, the service counted {counted:g}: its counters are odd "
        f"({unsure + may_be_more} requests have an explanation, {slack:.1f} are slack)"
    )


def _ends(share: Share) -> Between:
    return share if isinstance(share, Between) else Between(share, share)


def oddity(what: str, exact: Seen, sighted: Seen, slo_says: Share, service_says: Share | None) -> str | None:
    """Return a message that names the odd count of the three, or None if they agree.

    Args:
        what: The SLO's name.
        exact: The clients' judgement, for comparison with the SLO.
        sighted: The same, for comparison with the service's counters.
        slo_says: The SLO's share of good requests in Prometheus.
        service_says: The share by the service's own counters, or None.
    """
    slack = SLACK_EVENTS + SLACK_SHARE * sighted.total
    # Counters that the clients pushed count exactly what the clients saw.
    slack_of_slo = slack if exact is sighted else EXACT_SHARE * exact.total
    by_clients = exact.explains(slo_says, slack_of_slo)
    numbers = (
        f"{what} of the whole trial: clients counted {exact.share:.4f} ({exact.good:g} of {exact.total:g}), "
        f"Prometheus' SLO {slo_says:.4f}"
    )
    if service_says is None:
        return (
            None if by_clients else f"{numbers}: one of them is wrong, and the service has no counters that show which"
        )
    by_service = sighted.explains(service_says, slack)
    if by_clients and by_service:
        return None
    if by_service:
        odd = "Prometheus' SLO is odd"
    elif by_clients:
        odd = "the service's own counters are odd"
    else:
        as_slo = replace(sighted, good=sighted.good + (_ends(slo_says).low - exact.share) * exact.total)
        odd = "the clients' samples are odd" if as_slo.explains(service_says, slack) else "no two of them agree"
    explained = sighted.unsure_good + sighted.unsure_bad
    return (
        f"{numbers}, the service's own counters {service_says:.4f}: {odd} "
        f"({explained} of {sighted.total:g} requests have an explanation, {slack:.1f} are slack)"
    )
