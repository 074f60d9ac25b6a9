"""The autoscaler's view of the simulated world: what was scraped, and when."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lab_autoscaler.replica import Life
from lab_autoscaler.seen import Observed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab_autoscaler.gateway import Gateway
    from lab_autoscaler.world_fleet import Fleet
    from lab_autoscaler.world_settings import WorldSettings


class Scrapes(Protocol):
    """The faults that strike scrapes."""

    def misses(self, now_s: float) -> bool: ...
    def garbles(self, now_s: float) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One scrape of the gateway and the replicas."""

    at_s: float
    is_number: bool  # False: every value was NaN
    reporting: frozenset[int]  # ready replicas, by the number of their start
    waiting: int
    running: int
    arrived: int
    first_tokens: int
    first_tokens_in_time: int
    answers: int
    answers_in_time: int


class Scraper:
    """Scrapes at its interval, and answers from samples that are fresh."""

    def __init__(self, settings: WorldSettings, gateway: Gateway, fleet: Fleet, *, faults: Scrapes) -> None:
        self._settings = settings
        self._gateway = gateway
        self._fleet = fleet
        self._faults = faults
        self._slots = min(settings.concurrency, settings.engine().limits.slots)
        self._samples: deque[Sample] = deque()
        # The base of a rate is up to this much older than the newest sample.
        self._window_s = max(settings.window_s, 2 * settings.scrape_s)

    def scrape(self, now_s: float) -> None:
        """Take one sample, unless a fault prevents it."""
        if self._faults.misses(now_s):
            return
        counts, ready = self._gateway.counts, self._fleet.of(Life.READY)
        self._samples.append(
            Sample(
                at_s=now_s,
                is_number=not self._faults.garbles(now_s),
                reporting=frozenset(one.number for one in ready),
                waiting=self._gateway.waiting,
                running=sum(one.in_flight for one in ready),
                arrived=counts.arrived,
                first_tokens=counts.first_tokens,
                first_tokens_in_time=counts.first_tokens_in_time,
                answers=counts.answers,
                answers_in_time=counts.answers_in_time,
            )
        )
        kept_s = self._window_s + self._settings.scrape_delay_s + self._settings.fresh_s
        while self._samples[0].at_s < now_s - kept_s:
            self._samples.popleft()

    def observe(self, now_s: float) -> Observed:
        """The fleet as an autoscaler sees it now.

        Counts of replicas come from their controller and are always there. The other
        values come from the newest scrape, and are None if it is stale or NaN.
        """
        ready = self._fleet.of(Life.READY)
        slots = self._slots
        visible = [one for one in self._samples if one.at_s + self._settings.scrape_delay_s <= now_s]
        newest = visible[-1] if visible else None
        if newest is None or not newest.is_number or now_s - newest.at_s > self._settings.fresh_s:
            return _blind(now_s, replicas=self._fleet.target, ready=len(ready), slots=slots)
        base = self._base(visible, newest)
        rate_rps = first_token = token_gap = None
        if base is not None:
            rate_rps = (newest.arrived - base.arrived) / (newest.at_s - base.at_s)
            in_time = newest.first_tokens_in_time - base.first_tokens_in_time
            first_token = _share(in_time, newest.first_tokens - base.first_tokens)
            token_gap = _share(newest.answers_in_time - base.answers_in_time, newest.answers - base.answers)
        reporting = sum(one.number in newest.reporting for one in ready)
        places = slots * len(newest.reporting)
        return Observed(
            now_s=now_s,
            replicas=self._fleet.target,
            ready=len(ready),
            waiting=newest.waiting,
            running=newest.running,
            rate_rps=rate_rps,
            slots=slots,
            utilisation=min(1.0, newest.running / places) if places else None,
            first_token_attained=first_token,
            token_gap_attained=token_gap,
            reporting=reporting,
        )

    def _base(self, visible: Sequence[Sample], newest: Sample) -> Sample | None:
        """The oldest sample within the window of a rate. None if there is no other."""
        earliest_s = newest.at_s - self._window_s
        return next((one for one in visible[:-1] if one.is_number and one.at_s >= earliest_s - 1e-9), None)


def _share(good: int, every: int) -> float | None:
    """Share of good ones. None without any."""
    return good / every if every else None


def _blind(now_s: float, *, replicas: int, ready: int, slots: int) -> Observed:
    return Observed(
        now_s=now_s,
        replicas=replicas,
        ready=ready,
        waiting=None,
        running=None,
        rate_rps=None,
        slots=slots,
        utilisation=None,
        first_token_attained=None,
        token_gap_attained=None,
        reporting=0,
    )
