"""The deciding loop: observe, decide, record, act."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, cast

from lab_remediator.audit import Audit, AuditError, Entry
from lab_remediator.clients import AskError, Docker, Prober, Prometheus
from lab_remediator.decide import decide, finished
from lab_remediator.replay import Intent, replayed
from lab_remediator.restarts import NOT_OURS, RUNTIME, Restarts
from lab_remediator.watch import Troubles, Watch

if TYPE_CHECKING:
    from pathlib import Path

    from lab_remediator.metrics import Metrics
    from lab_remediator.model import Action, Container, Decision
    from lab_remediator.owners import Owners
    from lab_remediator.rules import Policy

_LIVE_S = 5.0  # a loop without a turn for this long is stuck
_LAST_ACTION_S = 0.8  # of the 1 s between SIGTERM and SIGKILL


class Remediator:
    """Owner of the memory. It decides after each answer, and at least once a second."""

    def __init__(
        self,
        *,
        policy: Policy,
        prometheus: Prometheus,
        docker: Docker,
        prober: Prober,
        owners: Owners,
        audit: Audit,
        metrics: Metrics,
        hold_file: Path,
        poll_s: float,
    ) -> None:
        self._policy, self._docker, self._audit = policy, docker, audit
        self._owners = owners
        self._metrics, self._hold_file = metrics, hold_file
        self._state, self._interrupted = replayed(audit.entries(), policy)
        self._restarts = Restarts()
        self._troubles = Troubles()
        self._turned_at = time.monotonic()
        self._actions: set[asyncio.Task[None]] = set()
        self.acting: set[str] = set()  # services with an act under way, for the autoscaler
        self._silent: set[str] = set()  # sources without an answer for too long
        self.watch = Watch(
            policy=policy,
            prometheus=prometheus,
            docker=docker,
            prober=prober,
            metrics=metrics,
            troubles=self._troubles,
            poll_s=poll_s,
            on_container=self._on_container,
        )

    @property
    def live(self) -> bool:
        """True while the deciding loop runs."""
        return time.monotonic() - self._turned_at < _LIVE_S

    async def run(self) -> None:
        """Decide until cancelled.

        An action under way is then waited for: its end belongs in the log.
        """
        self._write(Entry(at=time.time(), event="started", reason=self._first_words()))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.watch.run())
                group.create_task(self._owners.run())
                group.create_task(self._decide())
        finally:
            if self._actions:
                await asyncio.wait(self._actions, timeout=_LAST_ACTION_S)

    def _first_words(self) -> str:
        rules = ", ".join(rule.name for rule in self._policy.rules)
        mode = "dry run" if self._policy.dry_run else "acting"
        return f"{mode} on {', '.join(self._policy.services)} with {rules}"

    async def _decide(self) -> None:
        news = self.watch.news
        while True:
            self._turned_at = time.monotonic()
            self._note_silence()
            unsettled = frozenset(intent.service for intent in self._interrupted)
            elsewhere = self._owners.word.elsewhere()  # a replica that was stopped on purpose is no incident
            observed = self.watch.observations(self._held(), unsettled=unsettled, elsewhere=elsewhere)
            decisions, self._state = decide(self._policy, observed, self._state, time.time())
            for decision in decisions:
                self._carry_out(decision)
            for service in self._policy.services:
                self._metrics.quarantined.labels(service).set(self._state.of(service).quarantined)
            # Not wait_for: before Python 3.12 it can lose a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await news.wait()
            news.clear()

    def _note_silence(self) -> None:
        """Record when a source stops to answer, and when it answers again.

        Its last answers have expired by then, so no rule acts on them.
        """
        for source, age_s in (self.watch.answered_s_ago() | self._owners.silent_s()).items():
            is_silent = age_s > self._policy.guards.stale_s
            if is_silent == (source in self._silent):
                continue
            event, reason = "sighted", f"{source} answers again"
            if is_silent:
                event, reason = "blind", f"{source} has not answered for {age_s:.1f} s: no repair until it does"
            if self._write(Entry(at=time.time(), event=event, reason=reason)):
                self._silent ^= {source}

    def _carry_out(self, decision: Decision) -> None:
        now = time.time()
        written = self._write(
            Entry(
                at=now,
                event="intent" if decision.event == "act" else decision.event,
                incident=decision.incident,
                rule=decision.rule,
                service=decision.service,
                action=decision.action,
                evidence=decision.evidence,
                reason=decision.reason,
            )
        )
        if decision.event == "act" and not written:
            # Without its line an action could be done twice. Retried later.
            self._state = finished(self._state, decision.service, now)
            self._metrics.actions.labels(decision.action, decision.service, "failed").inc()
        elif decision.event == "act":
            task = asyncio.create_task(self._act(decision))
            self._actions.add(task)
            task.add_done_callback(self._actions.discard)
        elif decision.event == "recovered" and decision.took_s is not None:
            self._metrics.time_to_recover.observe(decision.took_s)
        elif decision.result and decision.result != "no_evidence":
            self._metrics.actions.labels(decision.action, decision.service, decision.result).inc()

    async def _act(self, decision: Decision) -> None:
        # Shown before the owner is read, so that of two programs one sees the other.
        self.acting.add(decision.service)
        try:
            await self._act_alone(decision)
        finally:
            self.acting.discard(decision.service)

    async def _act_alone(self, decision: Decision) -> None:
        service, action = decision.service, cast("Action", decision.action)
        intent = Intent(
            at=time.time(), incident=decision.incident, rule=decision.rule or "", service=service, action=action
        )
        if (why := (await self._owners.ask()).refusal(service)) is not None:
            self._ended(intent, failed=True, reason=f"not done: {why}")
            return
        begun = time.monotonic()
        self._restarts.expect(service, intent.rule, intent.at)
        try:
            started = await self._docker.act(service, action)
        except AskError as error:
            self._restarts.forget(service)
            self._ended(intent, failed=True, reason=str(error))
            return
        if not started:
            self._restarts.forget(service)
        await self.watch.look_at(service)
        self._ended(intent, failed=False, reason=f"{action} took {time.monotonic() - begun:.3f} s")

    def _ended(self, intent: Intent, *, failed: bool, reason: str) -> None:
        now, result = time.time(), "failed" if failed else "done"
        self._state = finished(self._state, intent.service, now)
        self._metrics.actions.labels(intent.action, intent.service, result).inc()
        self._write(
            Entry(
                at=now,
                event=result,
                incident=intent.incident,
                rule=intent.rule,
                service=intent.service,
                action=intent.action,
                reason=reason,
            )
        )
        self.watch.news.set()

    def _on_container(self, service: str, container: Container) -> None:
        if container.state == "running":
            self._owners.saw_running(service)
        for intent in (one for one in self._interrupted if one.service == service):
            self._settle(intent, container)
        for restart in self._restarts.seen(service, container):
            self._metrics.restarts.labels(service, restart.reason).inc(restart.count)
            if restart.reason in NOT_OURS:
                who = "its restart policy" if restart.reason == RUNTIME else "another program"
                reason = f"started by {who} at {restart.started_at:.3f}"
                self._write(Entry(at=time.time(), event="external_restart", service=service, reason=reason))

    def _settle(self, intent: Intent, container: Container) -> None:
        """Close an intent of an earlier process.

        The container's state shows if it was carried out.
        """
        done = container.started_at >= intent.at and container.state == "running"
        reason = "found done after a restart of the remediator" if done else "interrupted before it took effect"
        self._interrupted = tuple(one for one in self._interrupted if one != intent)
        self._ended(intent, failed=not done, reason=reason)

    def _held(self) -> frozenset[str]:
        """Services in the hold file, one a line. An empty file holds all."""
        try:
            names = self._hold_file.read_text().split()
        except FileNotFoundError:
            return frozenset()
        except (OSError, UnicodeDecodeError):
            return frozenset({"*"})  # an unreadable hold file still holds
        return frozenset(names or {"*"})

    def _write(self, entry: Entry) -> bool:
        try:
            self._audit.write(entry)
        except AuditError as error:
            self._troubles.tell("audit", str(error))
            return False
        self._troubles.tell("audit", None)
        return True
