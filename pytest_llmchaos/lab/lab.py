"""The running stack, as a test sees it: load, faults, waiting, the judge. `trial` is built on this and on nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Aborted, InvalidExperiment, NotSteady, ProvesNothing
from pytest_llmchaos.evidence.trial_record import UNPLANNED, Record
from pytest_llmchaos.evidence.trial_result import Planned, PlanNote
from pytest_llmchaos.host import identity
from pytest_llmchaos.lab.injector import Injected, Injector
from pytest_llmchaos.lab.live_load import RunningLoad
from pytest_llmchaos.lab.overload import ProcessFlood
from pytest_llmchaos.lab.views import RemediatorView, ServiceView
from pytest_llmchaos.model import Injection, Undo
from pytest_llmchaos.plan.seeds import rng_for
from pytest_llmchaos.prometheus.annotations import Signals
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.slo.openslo import slos_of

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.journal import Journal
    from pytest_llmchaos.lab.live_load import RunningLoad
    from pytest_llmchaos.loads import Arrival, Load
    from pytest_llmchaos.model import Fault, Runtime
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.subject.lab import Subject

    Say = Callable[["Lab", str, float | None], None]

TICK_S = 0.1
QUIET_DEADLINE_S = 150.0  # what counts restarts looks back for two minutes


class Lab:
    """The stack of this run. Not thread-safe: one trial at a time."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        subject: Subject,
        journal: Journal,
        directory: Path,
        seed: int,
        say: Say,
        opened: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`opened` is given the name of each record that `load` opens outside a trial."""
        self.runtime = runtime
        self.subject = subject
        self.journal = journal
        self.directory = directory
        self.seed = seed
        self._say = say
        self._prometheus: Prometheus | None = None
        self._slos: tuple[Slo, ...] | None = None
        self._trials = 0
        self.record: Record | None = None
        self._opened = opened
        self.running_load: RunningLoad | None = None
        self._not_entered: dict[object, str] = {}  # blocks of `inject` that no `with` has entered yet
        self.signals = Signals(runtime.url(subject.pushgateway) if subject.pushgateway else None)

    def __repr__(self) -> str:
        return f"<lab on {self.runtime!r}>"

    @property
    def prometheus(self) -> Prometheus:
        if self._prometheus is None:
            self._prometheus = Prometheus(self.runtime.url(self.subject.prometheus))
        return self._prometheus

    @property
    def slos(self) -> tuple[Slo, ...]:
        if self._slos is None:
            self._slos = slos_of(self.subject.slo_file)
        return self._slos

    def service(self, name: str) -> ServiceView:
        return ServiceView(self.runtime, name)

    @property
    def remediator(self) -> RemediatorView:
        return RemediatorView(self.runtime, self.subject.remediator)

    @contextmanager
    def recording(self, planned: Planned = UNPLANNED, *, worker: str = "") -> Iterator[Record]:
        """A record of its own for what happens inside the block."""
        self._trials += 1
        name = f"{worker}-{self._trials:03d}" if worker else f"{self._trials:03d}"
        directory = self.directory / "trials" / name
        directory.mkdir(parents=True, exist_ok=True)
        record = Record(self.journal, name, directory, planned)
        record.begin(f"trials/{name}/samples.jsonl")
        self.record = record
        try:
            yield record
        finally:
            self.record = None

    def _current_record(self) -> Record:
        if self.record is None:
            raise InvalidExperiment("this needs a load around it: put it inside `with lab.load(...) as load:`")
        return self.record

    def say(self, what: str, *, deadline_s: float | None = None) -> None:
        self._say(self, what, deadline_s)

    def require_clean(self) -> None:
        """Every service that faults may hit runs, is healthy and thawed; if not, it is put right first.

        Raises InvalidExperiment if that does not work, or where it is not ours to do: in a stack that somebody else started.
        """
        gone = sorted(set(self.subject.targets) - set(self.runtime.states()))
        if gone:
            raise InvalidExperiment(f"{', '.join(gone)} was removed by somebody else: this stack is no longer whole")
        for service in self.subject.targets:
            state = self.runtime.state(service)
            if self.subject.attach and (state.paused or not state.running):
                how, mend = ("is paused", "unpause") if state.paused else ("does not run", "start")
                raise InvalidExperiment(
                    f"{service} {how}, and a stack that is not ours is not changed: {mend} it yourself"
                )
            if state.paused:
                self.runtime.undo(Undo(op="ensure_unpaused", service=service))
            if not state.running:
                self.runtime.undo(Undo(op="ensure_running", service=service))
        self.runtime.wait_healthy(self.subject.targets, 60.0)
        self._until(self.prometheus.ready, 20.0, "Prometheus is not ready")
        self._until(self._is_scraped, 20.0, "Prometheus does not scrape every job yet")
        self._until(self._quiet, QUIET_DEADLINE_S, "an alert from before the trial is still firing")

    def _is_scraped(self) -> bool:
        """Whether every target was scraped, and was up. The first scrape comes 5 s after Prometheus' start, whoever asks."""
        targets = self.prometheus.targets()
        jobs = {target.job for target in targets if target.up and target.last_scrape_unix_s > 0}
        return jobs >= set(self.subject.scrape_jobs) and all(t.up for t in targets if t.job in self.subject.scrape_jobs)

    def _quiet(self) -> bool:
        """Callers' burning budgets are left to the steady gate: with new callers they end in seconds, and it waits for that."""
        alerts = self.firing(of_services=True)
        if alerts:
            self.say(f"waiting for the end of {', '.join(alerts)}")
        return not alerts

    def firing(self, *, of_services: bool = False) -> list[str]:
        """Names of the alerts that page and are firing now; `of_services`: without those on what callers were promised."""
        chosen = 'alertstate="firing",severity="page"' + (',signal!="slo"' if of_services else "")
        found = self.prometheus.vector(f"ALERTS{{{chosen}}}", time.time(), may_be_empty=True)
        return sorted(f"{dict(labels).get('alertname')}" for labels in found)

    def _until(self, condition: Callable[[], bool], deadline_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + deadline_s
        reason = otherwise
        while True:
            try:
                if condition():
                    return
                reason = otherwise
            except ProvesNothing as error:
                reason = f"{otherwise}: {error}"
            if time.monotonic() > deadline:
                raise InvalidExperiment(f"{reason} (waited {deadline_s:g} s)")
            time.sleep(TICK_S)

    @contextmanager
    def load(
        self,
        load: Load,
        *,
        arrivals: Sequence[Arrival] | None = None,
        longest_s: float = 300.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Iterator[RunningLoad]:
        """Callers at work for the length of the block. Opens a record if none is open. Judge after the block, not in it.

        `meanwhile` is called while the generator's program starts, which takes a second; the first request leaves after it.
        """
        if self.record is None:
            with (
                self.recording(Planned(scenario="lab", fault="", plan=PlanNote(load=str(load)))) as record,
                record.judged_by_its_test(),
                self.load(load, longest_s=longest_s, meanwhile=meanwhile) as running,
            ):
                self._opened(record.trial)
                self._not_entered.clear()
                yield running
                self._require_entered()
            return
        rng: Random = rng_for(self.seed, "lab", str(load), self._trials)
        planned = arrivals if arrivals is not None else load.schedule(rng, longest_s)
        running = RunningLoad(
            load, planned, runtime=self.runtime, subject=self.subject, directory=self.record.directory
        )
        running.launch()
        self.record.process(running.pid, identity.process_started(running.pid))
        try:
            if meanwhile is not None:
                meanwhile()
            running.start()
            self.record.anchor(running.t0_unix_s, running.t0_monotonic_s)
            self.running_load = running
            yield running
        finally:
            self.running_load = None
            running.stop()

    def hold(self, seconds: float) -> None:
        """Let the load run for this long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick("hold", end - time.monotonic())

    def _hold_to(self, monotonic_s: float) -> None:
        """Wait for an instant, to the millisecond."""
        while (left_s := monotonic_s - time.monotonic()) > 0:
            if left_s > 2 * TICK_S:
                self._tick("fault", left_s)
            else:
                time.sleep(min(left_s, 0.01))

    def hold_until(self, condition: Callable[[], bool], *, deadline_s: float, what: str) -> bool:
        """Wait until the condition holds. False if the deadline passed first."""
        end = time.monotonic() + deadline_s
        while True:
            if condition():
                return True
            if time.monotonic() > end:
                return False
            self._tick(what, end - time.monotonic())

    def _tick(self, what: str, left_s: float) -> None:
        load = self.running_load
        if load is not None:
            load.check_alive()
        self.say(what, deadline_s=left_s)
        time.sleep(TICK_S)

    def hold_steady(self, steady_s: float, *, deadline_s: float | None = None) -> None:
        """Wait until the service has been good for `steady_s` seconds in a row, to its callers and to Prometheus.

        Raises NotSteady, saying what was seen, if that does not happen by the deadline (3 * steady_s + 20 s).
        """
        load = self._load()
        limit_s = deadline_s if deadline_s is not None else 3 * steady_s + 20
        last = "no request has been answered yet"

        def steady() -> bool:
            nonlocal last
            reason = load.not_steady(steady_s)
            if reason is None:
                try:
                    alerts = self.firing()
                except ProvesNothing as error:
                    reason = str(error)
                else:
                    reason = f"alerts fire: {', '.join(alerts)}" if alerts else None
            last = reason or ""
            return reason is None

        if not self.hold_until(steady, deadline_s=limit_s, what="steady"):
            raise NotSteady(f"the service was not good for {steady_s:g} s in a row within {limit_s:g} s: {last}")

    def _load(self) -> RunningLoad:
        if self.running_load is None:
            raise InvalidExperiment("no load is running: put this inside `with lab.load(...) as load:`")
        return self.running_load

    def inject(
        self,
        fault: Fault | Sequence[Injection],
        *,
        abort_if: Callable[[Window], bool] | None = None,
        blast_radius: int | None = None,
        patience_s: float = 40.0,
    ) -> AbstractContextManager[Injected]:
        """The fault, for the length of the `with` block: written down, injected, proven; undone and proven healed at its end.

        An act that would leave more than `blast_radius` services hit at once waits, all acts together for `patience_s`.
        A block inside another one has the same callers to overload with.
        Raises Unsupported (a need the runtime lacks), FaultNotObserved, HealFailed, Aborted (an act waited in vain).
        """
        block = object()
        self._not_entered[block] = ", ".join(map(str, fault)) if isinstance(fault, Sequence) else str(fault)
        return self._injecting(block, fault, abort_if, blast_radius, patience_s)

    @contextmanager
    def _injecting(
        self,
        block: object,
        fault: Fault | Sequence[Injection],
        abort_if: Callable[[Window], bool] | None,
        blast_radius: int | None,
        patience_s: float,
    ) -> Iterator[Injected]:
        self._not_entered.pop(block, None)
        record = self._current_record()
        acts = self._acts(fault)
        url = self.runtime.url(self.subject.api)
        lent = self.runtime.flood
        self.runtime.flood = lent or ProcessFlood(self.subject, url, record, lambda: self.prometheus)
        injector = Injector(self.runtime, record, self.signals)
        try:
            begin = time.monotonic()
            for act in acts:
                self._hold_to(begin + act.after_s)
                if blast_radius is not None and injector.injected.proven:
                    self._await_room(act, injector, blast_radius, begin + act.after_s + patience_s)
                injector.act(act)
                self.abort_check(abort_if)
            yield injector.injected
        finally:
            try:
                injector.revert()
            finally:
                self.runtime.flood = lent

    def _require_entered(self) -> None:
        """A call of `inject` without `with` injects nothing: a test that goes on would pass on no fault."""
        if self._not_entered:
            raise InvalidExperiment(
                f"nothing injected {', '.join(self._not_entered.values())}: lab.inject(...) was called without `with`; "
                "write `with lab.inject(...):` around what has to hold meanwhile"
            )

    def _await_room(self, act: Injection, injector: Injector, blast_radius: int, deadline_s: float) -> None:
        """Wait until the services that are still hit and this victim are within the blast radius, and it can be hit at all."""
        while True:
            hit = injector.still_hit() | {act.victim}
            if len(hit) <= blast_radius and self.runtime.state(act.victim).running:
                return
            if time.monotonic() > deadline_s:
                raise Aborted(
                    f"{act} was not done: {', '.join(sorted(hit))} would be hit at once, blast_radius={blast_radius} allows fewer, "
                    "and the earlier ones are not back; all were reverted"
                )
            self._tick("fault", deadline_s - time.monotonic())

    def abort_check(self, abort_if: Callable[[Window], bool] | None) -> None:
        if abort_if is not None and self.running_load is not None:
            live = self.running_load.live_window(5.0)
            if live.offered and abort_if(live):
                raise Aborted(f"the abort condition was met: {live!r}; the fault was reverted")

    def _acts(self, fault: Fault | Sequence[Injection]) -> Sequence[Injection]:
        if isinstance(fault, Sequence):
            acts = fault
        else:
            acts = fault.plan(rng_for(self.seed, "lab", str(fault), self._trials), self.subject.targets)
        grant(self.runtime, {need for act in acts for need in act.fault.needs}, "this fault")
        strangers = sorted({act.victim for act in acts} - set(self.subject.targets))
        if strangers:
            raise InvalidExperiment(
                f"{', '.join(strangers)} may not be hit; targets are {', '.join(self.subject.targets)}"
            )
        return acts
