"""The autoscaler's loop: look, decide, record, act."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from lab_autoscaler import fleet as fleets
from lab_autoscaler.decision import State
from lab_autoscaler.eyes import observed_of
from lab_autoscaler.guards import Wish, permitted
from lab_autoscaler.policies import decide
from lab_autoscaler.written import written
from lab_remediator.audit import Audit, AuditError, Entry
from lab_remediator.clients import AskError, Docker
from lab_remediator.model import Evidence
from lab_remediator.watch import Troubles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab_autoscaler.clients import Lookout
    from lab_autoscaler.eyes import Eyes
    from lab_autoscaler.fleet import Act, Change, Fleet, Sight
    from lab_autoscaler.metrics import Metrics
    from lab_autoscaler.seen import Observed
    from lab_autoscaler.settings import Settings

_LIVE_S = 5.0  # a loop without a turn for this long is stuck
_LAST_ACT_S = 0.8  # of the 1 s between SIGTERM and SIGKILL
_STOP_GRACE_S = 1  # as the compose file's stop_grace_period. A drained replica needs none
POLL_OF_READERS_S = 0.5  # of `/replicas`, by the gateway and the remediator


class Autoscaler:
    """Owner of the fleet's phases."""

    def __init__(
        self,
        *,
        settings: Settings,
        docker: Docker,
        lookout: Lookout,
        eyes: Eyes,
        audit: Audit,
        metrics: Metrics,
        troubles: Troubles,
    ) -> None:
        self._settings, self._docker, self._lookout, self._eyes = settings, docker, lookout, eyes
        self._audit, self._metrics, self._troubles = audit, metrics, troubles
        self._timing = settings.phases.timing(2 * POLL_OF_READERS_S)
        self._policy, self._law = settings.policy, State()
        self._sights: dict[str, Sight] = {}
        self._turned_s = time.monotonic()
        self._synced_s: float | None = None
        self._scaled: tuple[float, int] | None = None  # time and direction of the last change
        self._is_blind = False
        self._acts: set[asyncio.Task[None]] = set()
        self.fleet: Fleet = ()
        self.desired = 0
        self.has_ended = False

    @property
    def live(self) -> bool:
        """True while the loop runs."""
        return time.monotonic() - self._turned_s < _LIVE_S

    @property
    def ready(self) -> bool:
        """True once the replicas are taken up."""
        return bool(self.fleet)

    @property
    def troubles(self) -> Mapping[str, str]:
        return self._troubles.now

    @property
    def published(self) -> Fleet:
        """The fleet for its readers. What may not act owns nothing that is in use."""
        return fleets.unowned(self.fleet, self._policy.minimum) if self._settings.dry_run else self.fleet

    async def run(self) -> None:
        """Scale until cancelled.

        An act under way is then waited for: its end belongs in the log.
        """
        mode = "dry run" if self._settings.dry_run else "acting"
        reason = f"{mode} on {', '.join(self._settings.scaled)} with {written(self._policy)}"
        self._write(Entry(at=time.time(), event="started", reason=reason))
        try:
            while True:
                begun_s = time.monotonic()
                await self.turn()
                await asyncio.sleep(max(0.0, begun_s + self._settings.poll_s - time.monotonic()))
        finally:
            await self._end()

    async def _end(self) -> None:
        """Leave what runs to the remediator, and let the readers see it."""
        if self._acts:
            await asyncio.wait(self._acts, timeout=_LAST_ACT_S)
        self._metrics.cut.inc(fleets.stopping(self.fleet))
        self.fleet = fleets.left(self.fleet, self._sights)
        self.has_ended = True
        phases = ", ".join(f"{one.name} {one.phase}" for one in self.fleet)
        self._write(Entry(at=time.time(), event="ended", reason=phases))
        if self.ready:
            await asyncio.sleep(2 * POLL_OF_READERS_S)

    async def turn(self) -> None:
        """One look at the replicas, with what follows from it."""
        may_act = any(one.phase in ("cold", "draining") for one in self.fleet)
        self._sights = dict(await self._lookout.look(with_repairs=may_act))
        now_s = time.monotonic()
        self._metrics.spent(self._sights, now_s - self._turned_s)
        self._turned_s = now_s
        if not self.ready:
            self._take_up(now_s)
            return
        is_paused = self._is_paused()
        self._observe(now_s, may_take_over=not is_paused and not self._settings.dry_run)
        if self._synced_s is None or now_s - self._synced_s >= self._settings.sync_s:
            self._synced_s = now_s
            await self._sync(is_paused=is_paused)
        if not is_paused and not self._settings.dry_run:
            for act in fleets.due(self.fleet, self._sights, time.monotonic(), self._timing):
                self._begin(act)
        self._metrics.show(self.fleet)

    def _take_up(self, now_s: float) -> None:
        found = fleets.taken_up(self._settings.scaled, self._sights, now_s)
        if found is None:
            return
        self.fleet, self.desired = found, fleets.wanted(found)
        self._metrics.desired.set(self.desired)
        self._metrics.show(found)
        phases = ", ".join(f"{one.name} {one.phase}" for one in found)
        self._write(Entry(at=time.time(), event="taken_up", reason=phases))

    def _observe(self, now_s: float, *, may_take_over: bool) -> None:
        # What does not act must not own what is dead, nor take out what is slow.
        idle = replace(self._timing, repair_s=math.inf, cold_s=math.inf)
        timing = self._timing if may_take_over else idle
        self.fleet, changes = fleets.observed(self.fleet, self._sights, now_s, timing)
        self._record(changes)

    async def _sync(self, *, is_paused: bool) -> None:
        samples = await self._eyes.look()
        for name, error in samples.errors.items():
            self._troubles.tell(f"prometheus {name}", error)
        for name in samples.found:
            self._troubles.tell(f"prometheus {name}", None)
        now_s, current = time.monotonic(), fleets.wanted(self.fleet)
        ready = fleets.serving(self.fleet, self._sights)
        seen = observed_of(samples, self._settings.sights, now_s=now_s, replicas=current, ready=ready)
        decision = decide(self._policy, seen, self._law)
        self._law = decision.state
        verdict = permitted(
            Wish(
                desired=decision.desired,
                current=current,
                minimum=self._policy.minimum,
                maximum=min(self._policy.maximum, len(self._settings.scaled)),
                steps_max=self._settings.steps_max,
                is_blind=decision.blind,
                is_paused=is_paused,
                is_dry_run=self._settings.dry_run,
            )
        )
        self._note_blindness(seen, is_blind=decision.blind, reason=decision.reason)
        self._metrics.syncs.labels(verdict.result).inc()
        self._troubles.tell("guard", verdict.reason or None)
        self.desired = verdict.desired
        self._metrics.desired.set(verdict.desired)
        if verdict.desired != current:
            self._scale(current, verdict.desired, decision.reason, seen, now_s)

    def _scale(self, current: int, desired: int, reason: str, seen: Observed, now_s: float) -> None:
        at, direction = time.time(), 1 if desired > current else -1
        entry = Entry(
            at=at,
            event="scaled",
            rule=written(self._policy),
            evidence=tuple(Evidence(signal=k, value=v, at=at) for k, v in asdict(seen).items() if v is not None),
            reason=f"{current} to {desired}: {reason}",
        )
        fleet, changes = fleets.steered(self.fleet, desired, self._sights, now_s)
        if not changes or not self._write(entry):
            return
        self._metrics.events.labels("up" if direction > 0 else "down").inc()
        if self._scaled and self._scaled[1] != direction and now_s - self._scaled[0] < self._settings.flap_s:
            self._metrics.flaps.inc()
        self._scaled = (now_s, direction)
        self.fleet = fleet
        self._record(changes)

    def _note_blindness(self, seen: Observed, *, is_blind: bool, reason: str) -> None:
        """Record when the policy lacks values, and when it has them again."""
        self._metrics.blind.set(is_blind)
        if is_blind == self._is_blind:
            return
        facts = f"{reason}; {seen.reporting} of {seen.ready} ready replicas report"
        if self._write(Entry(at=time.time(), event="blind" if is_blind else "sighted", reason=facts)):
            self._is_blind = is_blind

    def _begin(self, act: Act) -> None:
        if not self._write(self._entry("intent", act, act.reason)):
            return  # without its line an act is not allowed. Tried again at the next turn
        self.fleet = fleets.acting(self.fleet, act)
        task = asyncio.create_task(self._do(act))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    async def _do(self, act: Act) -> None:
        begun_s, failure = time.monotonic(), None
        try:
            if act.action == "start":
                await self._docker.act(act.replica, "start")
            else:
                await self._docker.stop(act.replica, _STOP_GRACE_S)
        except AskError as error:
            failure = str(error)
        else:
            self._metrics.cut.inc(act.cut)
        now_s = time.monotonic()
        self.fleet = fleets.acted(self.fleet, act, now_s, self._timing, failed=failure is not None)
        event = "done" if failure is None else "failed"
        self._metrics.acts.labels(act.action, event).inc()
        self._write(self._entry(event, act, failure or f"{act.action} took {now_s - begun_s:.3f} s"))

    def _entry(self, event: str, act: Act, reason: str) -> Entry:
        return Entry(at=time.time(), event=event, service=act.replica, action=act.action, reason=reason)

    def _record(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self._metrics.cut.inc(change.cut)
            self._write(Entry(at=time.time(), event=change.phase, service=change.replica, reason=change.reason))

    def _is_paused(self) -> bool:
        """True while the hold file exists, or cannot be looked for."""
        try:
            self._settings.hold_file.stat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _write(self, entry: Entry) -> bool:
        try:
            self._audit.write(entry)
        except AuditError as error:
            self._troubles.tell("audit", str(error))
            return False
        self._troubles.tell("audit", None)
        return True
