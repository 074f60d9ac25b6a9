"""Phases of the replicas: which one to start, drain, stop, and who owns it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Phase = Literal["cold", "ready", "draining", "stopped"]
Owner = Literal["autoscaler", "remediator"]
PHASES: tuple[Phase, ...] = ("cold", "ready", "draining", "stopped")


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One replica as runtime and gateway report it. None is unknown."""

    is_running: bool | None = None  # by the runtime
    is_healthy: bool | None = None  # by the gateway's probe
    is_draining: bool = False  # the gateway gives it no new request
    in_flight: int | None = None  # requests that the gateway has there
    is_repaired: bool = False  # the remediator acts on it now


UNSEEN = Sight()


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One replica's phase. Times are monotonic seconds."""

    name: str
    phase: Phase
    since_s: float  # start of the phase
    owned_s: float  # since when it is not the remediator's, if it is not
    dead_since_s: float | None = None  # of a ready one
    started_s: float | None = None  # our last start of it that succeeded
    failures: int = 0  # starts in a row that led to no ready replica
    is_acting: bool = False  # a call to the runtime is under way
    pause_until_s: float = -math.inf  # after a call that failed
    looked_s: float = -math.inf  # time of the last look at it
    unknown_s: float = 0.0  # of a cold one: time without a report on it
    cut: int = 0  # requests in flight at a stop whose end is not known yet

    @property
    def owner(self) -> Owner:
        """The one program that may act on it."""
        return "remediator" if self.phase == "ready" else "autoscaler"

    @property
    def counts(self) -> bool:
        """True if it belongs to the wanted replicas."""
        return self.phase in ("cold", "ready")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Bounds of the phases, in seconds."""

    settle_s: float = 1.0  # two polls of the readers of `/replicas`
    drain_s: float = 30.0  # for the requests in flight at a drain's start
    repair_s: float = 10.0  # a dead replica is the remediator's for this long
    cold_s: float = 120.0  # from start to ready
    pause_s: float = 2.0  # after a call that failed
    silent_s: float = 5.0  # half of the gateway's patience: after it, it may use a draining one again


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of phase, for the audit log. `cut` requests ended with it."""

    replica: str
    phase: Phase
    reason: str
    cut: int = 0


@dataclass(frozen=True, kw_only=True)
class Act:
    """A call to the runtime that is due. `cut` requests are in flight there."""

    replica: str
    action: Literal["start", "stop"]
    reason: str
    cut: int = 0


Fleet = tuple[Replica, ...]


def taken_up(names: Iterable[str], sights: Mapping[str, Sight], now_s: float) -> Fleet | None:
    """The fleet of what runs, for a start of the autoscaler. Nothing is stopped.

    None while the runtime's or the gateway's report on a replica is missing.
    """
    fleet: list[Replica] = []
    for name in names:
        sight = sights.get(name, UNSEEN)
        if sight.is_running is None or (sight.is_running and sight.is_healthy is None):
            return None
        phase: Phase = "stopped"
        if sight.is_running:
            phase = "ready" if sight.is_healthy else "cold"
        fleet.append(Replica(name=name, phase=phase, since_s=now_s, owned_s=now_s, looked_s=now_s))
    return tuple(fleet)


def left(fleet: Fleet, sights: Mapping[str, Sight]) -> Fleet:
    """The fleet at the end of the autoscaler: what runs is in service.

    A replica whose stop is under way still runs, and is not in service.
    """

    def after(one: Replica) -> Replica:
        runs = sights.get(one.name, UNSEEN).is_running and not _is_stopping(one)
        return replace(one, phase="ready") if runs else one

    return tuple(after(one) for one in fleet)


def stopping(fleet: Fleet) -> int:
    """Requests in flight where a stop is under way."""
    return sum(one.cut for one in fleet if _is_stopping(one))


def _is_stopping(one: Replica) -> bool:
    return one.is_acting and one.phase == "draining"


def unowned(fleet: Fleet, minimum: int) -> Fleet:
    """The fleet of an autoscaler that does nothing: what is in use is the remediator's.

    A replica that is down counts as one that was stopped on purpose, as long as the
    policy's `minimum` is there without it.
    """
    missing = minimum - sum(one.phase != "stopped" for one in fleet)
    after: list[Replica] = []
    for one in fleet:
        is_missing = one.phase == "stopped" and missing > 0
        missing -= is_missing
        after.append(one if one.phase == "stopped" and not is_missing else replace(one, phase="ready"))
    return tuple(after)


def wanted(fleet: Fleet) -> int:
    """The count in force: replicas that are ready or on their way."""
    return sum(one.counts for one in fleet)


def serving(fleet: Fleet, sights: Mapping[str, Sight]) -> tuple[str, ...]:
    """Names of the ready replicas, without those that fail the gateway's probe."""
    return tuple(one.name for one in fleet if one.phase == "ready" and _is_good(sights.get(one.name, UNSEEN)))


def _is_good(sight: Sight) -> bool:
    return sight.is_running is not False and sight.is_healthy is not False


def observed(
    fleet: Fleet, sights: Mapping[str, Sight], now_s: float, timing: Timing
) -> tuple[Fleet, tuple[Change, ...]]:
    """The fleet after a look at it. Unknown reports change nothing."""
    changes: list[Change] = []
    after: list[Replica] = []
    for one in fleet:
        sight = sights.get(one.name, UNSEEN)
        seen, reason = _seen(_timed(one, sight, now_s, timing), sight, now_s, timing)
        if seen.phase != one.phase:
            cut = one.cut if seen.phase == "stopped" else 0
            changes.append(Change(replica=one.name, phase=seen.phase, reason=reason, cut=cut))
        after.append(replace(seen, looked_s=now_s))
    return tuple(after), tuple(changes)


def _timed(one: Replica, sight: Sight, now_s: float, timing: Timing) -> Replica:
    """The replica with its clocks, in which unknown time does not count.

    A drain's time starts once the gateway drains, and starts again if it stopped to,
    or may have, because the autoscaler was silent.
    """
    gap_s = now_s - one.looked_s
    is_unknown = sight.is_healthy is None
    if one.phase == "cold" and (sight.is_running is None or (sight.is_running and is_unknown)):
        return replace(one, unknown_s=one.unknown_s + gap_s)
    if one.phase != "draining":
        return one
    if gap_s > timing.silent_s or not (is_unknown or sight.is_draining):
        return replace(one, since_s=now_s, owned_s=now_s)
    return replace(one, since_s=one.since_s + gap_s) if is_unknown else one


def _seen(one: Replica, sight: Sight, now_s: float, timing: Timing) -> tuple[Replica, str]:
    match one.phase:
        case "cold":
            return _cold(one, sight, now_s, timing)
        case "ready":
            return _ready(one, sight, now_s, timing)
        case "draining" if sight.is_running is False and not (one.is_acting or sight.is_repaired):
            return _entered(one, "stopped", now_s), "it has ended"
        case "stopped" if sight.is_running:
            return replace(_entered(one, "cold", now_s), started_s=now_s), "another program started it"
        case _:
            return one, ""


def _cold(one: Replica, sight: Sight, now_s: float, timing: Timing) -> tuple[Replica, str]:
    if sight.is_running and sight.is_healthy:
        return replace(_entered(one, "ready", now_s), failures=0), f"ready {now_s - one.since_s:.1f} s after"
    spent_s = now_s - (one.since_s if one.started_s is None else one.started_s) - one.unknown_s
    if one.is_acting or sight.is_running is None:
        return one, ""
    if sight.is_running and sight.is_healthy is False and spent_s > timing.cold_s:
        return _failed(one, "draining", now_s), f"not ready {timing.cold_s:g} s after its start"
    if not sight.is_running and spent_s > timing.repair_s + timing.settle_s:
        return _failed(one, "stopped", now_s), f"not running {spent_s:.1f} s after its start"
    return one, ""


def _ready(one: Replica, sight: Sight, now_s: float, timing: Timing) -> tuple[Replica, str]:
    if sight.is_running is None:
        return one, ""
    if sight.is_running:
        return replace(one, dead_since_s=None), ""
    if one.dead_since_s is None:
        return replace(one, dead_since_s=now_s), ""
    if now_s - one.dead_since_s < timing.repair_s:
        return one, ""
    return _entered(one, "cold", now_s), f"dead for {timing.repair_s:g} s, no repair by the remediator"


def _entered(one: Replica, phase: Phase, now_s: float) -> Replica:
    owned_s = now_s if one.phase == "ready" else one.owned_s
    return replace(
        one, phase=phase, since_s=now_s, owned_s=owned_s, dead_since_s=None, started_s=None, unknown_s=0.0, cut=0
    )


def _failed(one: Replica, phase: Phase, now_s: float) -> Replica:
    return replace(_entered(one, phase, now_s), failures=one.failures + 1)


def steered(fleet: Fleet, desired: int, sights: Mapping[str, Sight], now_s: float) -> tuple[Fleet, tuple[Change, ...]]:
    """The fleet with `desired` replicas wanted.

    A draining replica returns to service before a stopped one starts. The first to go
    is one that is dead or fails, then the last of the list.
    """
    changes: list[Change] = []
    phases = {one.name: one for one in fleet}
    while (count := wanted(tuple(phases.values()))) != desired:
        more = count < desired
        found = _next_up(phases.values()) if more else _next_down(phases.values(), _kept(fleet, sights))
        if found is None:
            break
        phase: Phase = "draining"
        if more:
            phase = "ready" if found.phase == "draining" else "cold"
        phases[found.name] = _entered(found, phase, now_s)
        changes.append(Change(replica=found.name, phase=phase, reason=f"{desired} wanted, {count} there"))
    return tuple(phases.values()), tuple(changes)


def _next_up(fleet: Collection[Replica]) -> Replica | None:
    draining = [one for one in fleet if one.phase == "draining" and not one.is_acting and not one.failures]
    stopped = [one for one in fleet if one.phase == "stopped" and not one.is_acting]
    return next(iter(draining), None) or min(stopped, key=lambda one: one.failures, default=None)


def _kept(fleet: Fleet, sights: Mapping[str, Sight]) -> tuple[str, ...]:
    """Names of the replicas that serve, or load and have not failed before."""
    loading = (one for one in fleet if one.phase == "cold" and not one.failures)
    return serving(fleet, sights) + tuple(one.name for one in loading if sights.get(one.name, UNSEEN).is_running)


def _next_down(fleet: Collection[Replica], good: Collection[str]) -> Replica | None:
    there = [one for one in fleet if one.counts and not one.is_acting]
    # Of equals the last: `reversed` keeps the order of the list, and `min` the first.
    return min(reversed(there), key=lambda one: one.name in good, default=None)


def due(fleet: Fleet, sights: Mapping[str, Sight], now_s: float, timing: Timing) -> tuple[Act, ...]:
    """The calls to the runtime that are due now.

    The gateway and the remediator have had time to read the replica's new owner, and
    the last look is not too old.
    """
    acts = (_act(one, sights.get(one.name, UNSEEN), now_s, timing) for one in fleet)
    return tuple(act for act in acts if act is not None)


def _act(one: Replica, sight: Sight, now_s: float, timing: Timing) -> Act | None:
    if one.is_acting or sight.is_repaired or now_s < one.pause_until_s:
        return None
    stood_still = now_s - one.looked_s > timing.silent_s
    if stood_still or now_s - one.owned_s < timing.settle_s:
        return None
    if one.phase == "cold" and sight.is_running is False and one.started_s is None:
        return Act(replica=one.name, action="start", reason="wanted")
    return _stop(one, sight, now_s, timing) if one.phase == "draining" and sight.is_running else None


def _stop(one: Replica, sight: Sight, now_s: float, timing: Timing) -> Act | None:
    if sight.is_draining and sight.in_flight == 0:
        return Act(replica=one.name, action="stop", reason="drained")
    if sight.in_flight is None or now_s - one.since_s < timing.drain_s:
        return None
    reason = f"{sight.in_flight} requests in flight after {timing.drain_s:g} s"
    return Act(replica=one.name, action="stop", reason=reason, cut=sight.in_flight)


def acting(fleet: Fleet, act: Act) -> Fleet:
    """The fleet with a call under way."""
    return tuple(replace(one, is_acting=True, cut=act.cut) if one.name == act.replica else one for one in fleet)


def acted(fleet: Fleet, act: Act, now_s: float, timing: Timing, *, failed: bool) -> Fleet:
    """The fleet after the end of a call. One that failed may have had its effect."""

    def after(one: Replica) -> Replica:
        if failed:
            return replace(one, is_acting=False, pause_until_s=now_s + timing.pause_s)
        return replace(one, is_acting=False, started_s=now_s if act.action == "start" else None, unknown_s=0.0, cut=0)

    return tuple(after(one) if one.name == act.replica else one for one in fleet)
