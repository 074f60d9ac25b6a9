"""The remediator at work: asks, decides, writes down, acts. Everything that can be decided without I/O is decided elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from lab_remediator.audit import Audit, AuditError, Entry
from lab_remediator.clients import AskError, Docker, Prometheus
from lab_remediator.decide import decide, finished
from lab_remediator.model import Container, Decision, Observations, Reading
from lab_remediator.replay import Intent, replayed
from lab_remediator.restarts import EXTERNAL, Restarts

if TYPE_CHECKING:
    from pathlib import Path

    from lab_remediator.metrics import Metrics
    from lab_remediator.model import Action
    from lab_remediator.rules import Policy, Signal

_LIVE_S = 5.0  # a loop that has not turned for so long is stuck


class Remediator:
    """Owns the memory; one task asks each signal and each container, one decides whenever an answer came."""

    def __init__(  # noqa: PLR0913 - the parts it is made of, each used here
        self,
        *,
        policy: Policy,
        prometheus: Prometheus,
        docker: Docker,
        audit: Audit,
        metrics: Metrics,
        hold_file: Path,
        poll_s: float,
    ) -> None:
        self._policy, self._prometheus, self._docker = policy, prometheus, docker
        self._audit, self._metrics, self._hold_file, self._poll_s = audit, metrics, hold_file, poll_s
        self._state, self._interrupted = replayed(audit.entries(), policy)
        self._restarts = Restarts()
        self._readings: dict[tuple[str, str], Reading] = {}
        self._containers: dict[str, Container] = {}
        self._news = asyncio.Event()
        self._answered_at: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._turned_at = time.monotonic()
        self._actions: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Prometheus and the proxy have each answered at least once."""
        return {"prometheus", "docker"} <= self._answered_at.keys()

    @property
    def live(self) -> bool:
        """The deciding loop turns."""
        return time.monotonic() - self._turned_at < _LIVE_S

    def answered_s_ago(self) -> dict[str, float]:
        """Seconds since each source's last usable answer."""
        now = time.monotonic()
        return {source: round(now - at, 3) for source, at in self._answered_at.items()}

    async def run(self) -> None:
        """Until cancelled. An action under way is then waited for: its end belongs into the log."""
        self._write(Entry(at=time.time(), event="started", reason=self._first_words()))
        try:
            async with asyncio.TaskGroup() as group:
                for signal in self._policy.signals.values():
                    group.create_task(self._ask_signal(signal))
                for service in self._policy.services:
                    group.create_task(self._ask_container(service))
                group.create_task(self._decide())
        finally:
            if self._actions:
                await asyncio.wait(self._actions, timeout=1.5)

    def _first_words(self) -> str:
        rules = ", ".join(rule.name for rule in self._policy.rules)
        mode = "dry run" if self._policy.dry_run else "acting"
        return f"{mode} on {', '.join(self._policy.services)} with {rules}"

    async def _ask_signal(self, signal: Signal) -> None:
        while True:
            due = time.monotonic() + max(signal.every_s, self._poll_s)
            try:
                found = await self._prometheus.readings(signal, self._policy)
            except AskError as error:
                self._answer("prometheus", signal.name, error)
            else:
                self._answer("prometheus", signal.name, None)
                self._readings.update({(signal.name, service): reading for service, reading in found.items()})
                self._news.set()
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask_container(self, service: str) -> None:
        while True:
            due = time.monotonic() + self._poll_s
            try:
                await self._look_at(service)
            except AskError as error:
                self._answer("docker", service, error)
            else:
                self._answer("docker", service, None)
                self._news.set()
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _look_at(self, service: str) -> None:
        container = await self._docker.inspect(service)
        if container is None:
            self._containers.pop(service, None)
            return
        self._containers[service] = container
        for intent in (one for one in self._interrupted if one.service == service):
            self._settle(intent, container)
        for restart in self._restarts.seen(service, container):
            self._metrics.restarts.labels(service, restart.reason).inc(restart.count)
            if restart.reason == EXTERNAL:
                reason = f"started by somebody else at {restart.started_at:.3f}"
                self._write(Entry(at=time.time(), event="external_restart", service=service, reason=reason))

    def _settle(self, intent: Intent, container: Container) -> None:
        """An intent of an earlier life: the container itself says whether it was carried out."""
        done = container.started_at >= intent.at and container.state == "running"
        reason = "found done after a restart of the remediator" if done else "interrupted before it took effect"
        self._interrupted = tuple(one for one in self._interrupted if one != intent)
        self._ended(intent.service, intent.incident, intent.rule, intent.action, None if done else reason, reason)

    async def _decide(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            unsettled = {intent.service for intent in self._interrupted}
            observed = Observations(
                readings={key: value for key, value in self._readings.items() if key[1] not in unsettled},
                containers={name: value for name, value in self._containers.items() if name not in unsettled},
                held=self._held(),
            )
            decisions, self._state = decide(self._policy, observed, self._state, time.time())
            for decision in decisions:
                self._carry_out(decision)
            for service in self._policy.services:
                self._metrics.quarantined.labels(service).set(self._state.of(service).quarantined)
            try:
                await asyncio.wait_for(self._news.wait(), 1.0)
            except TimeoutError:
                continue
            self._news.clear()

    def _carry_out(self, decision: Decision) -> None:
        now = time.time()
        entry = Entry(
            at=now,
            event="intent" if decision.event == "act" else decision.event,
            incident=decision.incident,
            rule=decision.rule,
            service=decision.service,
            action=decision.action,
            evidence=decision.evidence,
            reason=decision.reason,
        )
        written = self._write(entry)
        if decision.event == "act":
            if not written:
                # Without its line an action could be done twice; it is tried again after the cooldown.
                self._state = finished(self._state, decision.service, now)
                self._metrics.actions.labels(decision.action, decision.service, "failed").inc()
                return
            task = asyncio.create_task(self._act(decision))
            self._actions.add(task)
            task.add_done_callback(self._actions.discard)
        elif decision.event == "recovered" and decision.took_s is not None:
            self._metrics.time_to_recover.observe(decision.took_s)
        elif decision.result and decision.result != "no_evidence":
            self._metrics.actions.labels(decision.action, decision.service, decision.result).inc()

    async def _act(self, decision: Decision) -> None:
        service, rule = decision.service, decision.rule or ""
        action: Action = decision.action  # type: ignore[assignment]  # an act carries one of the three
        begun = time.monotonic()
        self._restarts.expect(service, rule, time.time())
        failure: str | None = None
        try:
            await self._docker.act(service, action)
            await self._look_at(service)
        except AskError as error:
            failure = str(error)
        if failure:
            self._restarts.forget(service)
        done = f"{action} took {time.monotonic() - begun:.3f} s"
        self._ended(service, decision.incident, rule, action, failure, failure or done)

    def _ended(  # noqa: PLR0913 - the columns of the log
        self, service: str, incident: str, rule: str, action: Action, failure: str | None, reason: str
    ) -> None:
        result = "failed" if failure else "done"
        self._state = finished(self._state, service, time.time())
        self._metrics.actions.labels(action, service, result).inc()
        self._write(
            Entry(
                at=time.time(),
                event=result,
                incident=incident,
                rule=rule,
                service=service,
                action=action,
                reason=reason,
            )
        )
        self._news.set()

    def _held(self) -> frozenset[str]:
        """Services named in the hold file, one a line; an empty file holds all."""
        try:
            names = self._hold_file.read_text().split()
        except FileNotFoundError:
            return frozenset()
        except (OSError, UnicodeDecodeError):
            return frozenset({"*"})  # a hold that cannot be read is still a hold
        return frozenset(names or {"*"})

    def _write(self, entry: Entry) -> bool:
        try:
            self._audit.write(entry)
        except AuditError as error:
            self._tell("audit", str(error))
            return False
        self._tell("audit", None)
        return True

    def _answer(self, source: str, what: str, error: AskError | None) -> None:
        self._metrics.answers.labels(source, "failed" if error else "ok").inc()
        if error is None:
            self._answered_at[source] = time.monotonic()
        self._tell(f"{source} {what}", str(error) if error else None)

    def _tell(self, what: str, trouble: str | None) -> None:
        """One line when a trouble begins or changes and one when it ends, not one a poll."""
        if self._troubles.get(what) == trouble:
            return
        if trouble is None:
            del self._troubles[what]
        else:
            self._troubles[what] = trouble
        line = {"at": time.time(), "level": "warning" if trouble else "info", "what": what, "trouble": trouble}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
