"""The simulated world: engines, gateway, fleet and scraper on one virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_autoscaler.arrivals import Arrival, peak_s, require_fit
from lab_autoscaler.gateway import Gateway
from lab_autoscaler.outcome import Moment, Outcome, ScaleEvent, fates, first_token_quantiles, flaps, judge
from lab_autoscaler.requests import Fate, Request
from lab_autoscaler.scraper import Scraper
from lab_autoscaler.timeline import Order, Timeline
from lab_autoscaler.weather import Weather
from lab_autoscaler.world_faults import Fault, at_peak
from lab_autoscaler.world_fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab_autoscaler.seen import Observed
    from lab_autoscaler.world_settings import WorldSettings


class World:
    """One run. `requests` has every request, with its times and its fate."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        steer: Callable[[Observed], tuple[int, str]],
        settings: WorldSettings,
        *,
        until_s: float,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        """A world before its first event.

        Args:
            arrivals: requests in the order of time.
            steer: the autoscaler: wanted count and reason, called at every sync.
            settings: of the world.
            until_s: end of the run, in seconds.
            faults: faults in force.
            seed: of the durations of starts, and of the engines' jitter.

        Raises:
            InvalidValueError: an arrival out of order, after the end or too long.
        """
        profile = settings.engine()
        require_fit(arrivals, until_s=until_s, max_model_tokens=profile.limits.max_model_tokens)
        self.timeline = Timeline()
        self.requests = [
            Request(
                index=index,
                at_s=one.at_s,
                prompt_tokens=one.prompt_tokens,
                answer_tokens=one.answer_tokens,
                retries=settings.retries,
            )
            for index, one in enumerate(arrivals)
        ]
        self._steer = steer
        self._settings = settings
        self._until_s = until_s
        at_s = peak_s(arrivals)
        self._weather = Weather([at_peak(one, at_s) for one in faults])
        self._gateway = Gateway(settings, self.timeline, block_tokens=profile.limits.block_tokens)
        self.fleet = Fleet(settings, self.timeline, self._gateway, starts=self._weather, seed=seed)
        self._scraper = Scraper(settings, self._gateway, self.fleet, faults=self._weather)
        self._events: list[ScaleEvent] = []
        self._moments: list[Moment] = []
        self._syncs = self._blind_syncs = 0
        self.fleet.on_change = self._note
        self._weather.attach(self.timeline, self.fleet)
        self.timeline.every(settings.probe_s, Order.PROBE, self._probe)
        self.timeline.every(settings.scrape_s, Order.SCRAPE, self._scrape)
        self.timeline.every(settings.sync_s, Order.SYNC, self._sync, first_s=settings.first_sync_s)

    def run(self) -> Outcome:
        """Run to the end.

        Raises:
            ConservationError: a request has no fate, or two.
        """
        timeline, gateway = self.timeline, self._gateway
        coming = iter(self.requests)
        following = next(coming, None)
        self._note()
        while True:
            next_s = timeline.next_s
            if following is not None and following.at_s <= next_s:
                timeline.now_s = following.at_s
                gateway.arrive(following)
                following = next(coming, None)
                continue
            if next_s > self._until_s:
                break
            timeline.step()
        timeline.now_s = self._until_s
        self._note()
        return self._outcome()

    def _probe(self) -> None:
        self._gateway.probe(self.fleet.alive)

    def _scrape(self) -> None:
        self._scraper.scrape(self.timeline.now_s)

    def _sync(self) -> None:
        observed = self._scraper.observe(self.timeline.now_s)
        self._syncs += 1
        self._blind_syncs += observed.waiting is None
        wanted, reason = self._steer(observed)
        desired = min(self._settings.maximum, max(self._settings.minimum, wanted))
        before = self.fleet.target
        if desired != before:
            self._events.append(ScaleEvent(at_s=self.timeline.now_s, before=before, after=desired, reason=reason))
        self.fleet.scale(desired)
        self._note()

    def _note(self) -> None:
        """Record the replicas. Of several moments at one time the last is kept."""
        now_s, census = self.timeline.now_s, self.fleet.census()
        if self._moments and self._moments[-1].at_s == now_s:
            self._moments.pop()
        self._moments.append(
            Moment(
                at_s=now_s,
                desired=census.desired,
                ready=census.ready,
                cold=census.cold,
                draining=census.draining,
                waiting=self._gateway.waiting,
            )
        )

    def _outcome(self) -> Outcome:
        until_s, requests, counts = self._until_s, self.requests, self._gateway.counts
        held = self._gateway.waiting + sum(one.in_flight for one in self.fleet.alive)
        fate = fates(requests, offered=counts.arrived, held=held)
        judged = judge(requests, self._settings, until_s=until_s)
        p50_s, p95_s, p99_s = first_token_quantiles(requests, (0.5, 0.95, 0.99), until_s=until_s)
        lives = [
            (one.started_s, min(one.ready_s, one.ended_s, until_s), min(one.ended_s, until_s))
            for one in self.fleet.ever
        ]
        return Outcome(
            offered=counts.arrived,
            served=fate[Fate.SERVED],
            shed=fate[Fate.SHED],
            lost=fate[Fate.LOST],
            open=fate[Fate.OPEN],
            queue_timeouts=counts.queue_timeouts,
            lost_at_zero=counts.lost_at_zero,
            cut_by_scale_down=self.fleet.cut_by_scale_down,
            replica_s=sum(end_s - start_s for start_s, _, end_s in lives),
            cold_s=sum(ready_s - start_s for start_s, ready_s, _ in lives),
            first_token_attained=judged.first_token_attained,
            token_gap_attained=judged.token_gap_attained,
            attained=judged.attained,
            first_token_censored=judged.first_token_censored,
            token_gap_censored=judged.token_gap_censored,
            censored=judged.censored,
            first_token_p50_s=p50_s,
            first_token_p95_s=p95_s,
            first_token_p99_s=p99_s,
            flaps=flaps(self._events, self._settings.flap_window_s),
            syncs=self._syncs,
            blind_syncs=self._blind_syncs,
            max_replicas=max(one.ready + one.cold + one.draining for one in self._moments),
            min_ready=min(one.ready for one in self._moments),
            fault_acts={kind: count for kind, count in self._weather.acts.items() if count},
            scale_events=tuple(self._events),
            trajectory=tuple(self._moments),
        )


def simulate(
    arrivals: Sequence[Arrival],
    steer: Callable[[Observed], tuple[int, str]],
    settings: WorldSettings,
    *,
    until_s: float,
    faults: Sequence[Fault] = (),
    seed: int = 0,
) -> Outcome:
    """Run one world to its end. Arguments and errors are those of `World`."""
    return World(arrivals, steer, settings, until_s=until_s, faults=faults, seed=seed).run()
