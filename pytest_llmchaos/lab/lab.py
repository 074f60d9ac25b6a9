"""The `lab` fixture's object: load, faults and waiting on the running stack."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from pytest_llmchaos.errors import Aborted, InvalidExperiment, LlmchaosError, NotSteady, ProvesNothing
from pytest_llmchaos.evidence.trial_record import UNPLANNED, Record
from pytest_llmchaos.evidence.trial_result import Planned, PlanNote
from pytest_llmchaos.faults.compositions import check_fault
from pytest_llmchaos.host import identity, measurement_lock
from pytest_llmchaos.lab import gates
from pytest_llmchaos.lab.current_test import CurrentTest
from pytest_llmchaos.lab.injector import Injected, Injector, merged
from pytest_llmchaos.lab.live_load import RunningLoad
from pytest_llmchaos.lab.overload import ProcessFlood
from pytest_llmchaos.lab.reasons import FAULT_TAIL_S, WARM_UP_TAIL_S, Reasons
from pytest_llmchaos.lab.variables import prepare, steer
from pytest_llmchaos.lab.views import RemediatorView, ServiceView
from pytest_llmchaos.lab.wiring import Wiring
from pytest_llmchaos.model import Injection, replica_name
from pytest_llmchaos.plan.arms import NO_VARIABLES, check_policy
from pytest_llmchaos.plan.experiment import LEASE_MARGIN_S, check_abort_if, check_blast_radius, check_seconds
from pytest_llmchaos.plan.schedule import most_at_once, numbers_of, require_blast_radius
from pytest_llmchaos.prometheus.annotations import Signals
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.slo.openslo import slos_of
from pytest_llmchaos.subject.headers import PROMETHEUS_KEY, resolve

if TYPE_CHECKING:
    from pytest_llmchaos.evidence.journal import Journal
    from pytest_llmchaos.evidence.trial_result import TrialResult
    from pytest_llmchaos.lab.live_load import RunningLoad
    from pytest_llmchaos.loads import Arrival, Load
    from pytest_llmchaos.model import Environment, Fault, Runtime
    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.stats.windows import Window
    from pytest_llmchaos.subject.lab import Subject

    Say = Callable[["Lab", str, float | None], None]
    Judge = Callable[["Lab", Record, RunningLoad, Injected], TrialResult]

TICK_S = 0.1
# A clock's reading is uncertain by half of the time that the response took.
CLOCK_ANSWER_S = 0.2


class Lab:
    """The running stack of this session. Not thread-safe: one load at a time.

    Attributes:
        runtime: starts, stops and inspects the services.
        subject: the services of the stack, and which of them faults may hit.
        journal: the run's journal.
        directory: the run's folder under `reports/`.
        seed: the run's seed.
        running_load: the load at work, or None.
        environment: environment variables that services run with on top of their own,
            by service. None after an attempt to change them that failed.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        subject: Subject,
        journal: Journal,
        directory: Path,
        seed: int,
        say: Say,
        judge: Judge,
        worker: str = "",
        test: CurrentTest | None = None,
    ) -> None:
        """Created by the session. Tests use the fixture `lab`.

        `judge` computes the result of a load outside a trial. `worker` is the name of
        the pytest-xdist worker. `test` is the test that uses the lab now.
        """
        self.runtime = runtime
        self.subject = self._stack = subject
        self.journal = journal
        self.directory = directory
        self.seed = seed
        self.test = test or CurrentTest(seed)
        self._say = say
        self._prometheus: Prometheus | None = None
        self._slos: tuple[Slo, ...] | None = None
        self.trials = 0  # records opened so far
        self.newest_trial = ""  # the name of the newest one
        self.record: Record | None = None
        self._judge = judge
        self._worker = worker
        self._load_ends_s = time.monotonic()
        self._faults: list[Fault | Sequence[Injection]] = []  # of the load outside a trial that runs
        self._injected: list[Injected] = []
        self.reasons = Reasons()
        self.running_load: RunningLoad | None = None
        self.environment: Environment | None = NO_VARIABLES
        self._wiring = Wiring(runtime)
        self.orders: set[int] = set()  # first order numbers of loads of tasks
        self.has_left_tasks = False  # by the last load of tasks. They may still call tools
        self._not_entered: dict[object, str] = {}  # blocks of `inject` that no `with` has entered yet
        self.signals = Signals(runtime.url(subject.pushgateway) if subject.pushgateway else None)

    def __repr__(self) -> str:
        return f"<lab on {self.runtime!r}>"

    @property
    def prometheus(self) -> Prometheus:
        """Queries the stack's Prometheus."""
        if self._prometheus is None:
            self._prometheus = Prometheus(self.runtime.url(self.subject.prometheus), also=self._their_prometheus)
        return self._prometheus

    @functools.cached_property
    def _their_prometheus(self) -> Prometheus | None:
        """The user's own Prometheus, read for its alerts."""
        theirs = self.subject.alerts
        if theirs is None:
            return None
        headers = resolve(self.subject.prometheus_headers, os.environ, PROMETHEUS_KEY)
        return Prometheus(self.runtime.url(theirs.service) + theirs.path, headers=headers)

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The objectives of the stack's OpenSLO file."""
        if self._slos is None:
            self._slos = slos_of(self.subject.slo_file)
        return self._slos

    def service(self, name: str) -> ServiceView:
        """Return a service's state and address.

        Args:
            name: the service's name in the stack, such as "api".
        """
        return ServiceView(self.runtime, name)

    @property
    def remediator(self) -> RemediatorView:
        """The service that repairs the stack, and its audit log."""
        return RemediatorView(self.runtime, self.subject.remediator)

    @contextmanager
    def recording(self, planned: Planned = UNPLANNED) -> Iterator[Record]:
        """Record what happens inside the block.

        Workers of one run share its folder, so their records' names differ.

        Args:
            planned: what the block is to do.
        """
        self.trials += 1
        self.newest_trial = name = f"{self._worker}-{self.trials:03d}" if self._worker else f"{self.trials:03d}"
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
            raise InvalidExperiment("this needs a load: put it inside `with lab.load(...) as load:`")
        return self.record

    def say(self, what: str, *, deadline_s: float | None = None) -> None:
        """Update the progress line.

        Args:
            what: what the lab waits for.
            deadline_s: seconds left, or None without a deadline.
        """
        self._say(self, what, deadline_s)

    def require_clean(self) -> None:
        """Wait until the stack is clean, and start stopped targets of our own stack.

        Clean means that every target is healthy, every job is scraped, no fault is open
        and no alert on a service fires.

        Raises:
            InvalidExperiment: the stack did not become clean in time.
        """
        gates.require_clean(self)

    def firing(self, *, of_services: bool = False) -> list[str]:
        """Return the names of firing alerts with `severity="page"`, sorted.

        Args:
            of_services: leave out alerts with `signal="slo"`, which burning budgets
                cause.

        Raises:
            Inconclusive: Prometheus does not respond or its answer is unusable.
        """
        chosen = 'alertstate="firing",severity="page"' + (',signal!="slo"' if of_services else "")
        servers = [self.prometheus, *([self._their_prometheus] if self._their_prometheus else [])]
        found = [one.vector(f"ALERTS{{{chosen}}}", time.time(), may_be_empty=True) for one in servers]
        return sorted(f"{dict(labels).get('alertname')}" for labels in chain.from_iterable(found))

    @contextmanager
    def entered(self, planned: Planned) -> Iterator[Record]:
        """Take the machine's measurement lock and open a record.

        Every trial, and every load outside a trial, starts here.

        Args:
            planned: what the block is to do.

        Raises:
            InvalidExperiment: a record is open, for example by a load in a fixture.
        """
        if self.record is not None:
            raise InvalidExperiment(
                f"{self.record.planned.scenario} still runs on this stack, and two loads at once disturb each other: "
                "end its load first"
            )
        with measurement_lock.measuring(say=self.say, waiting=self._waiting), self.recording(planned) as record:
            yield record

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Pause the stack while another process measures."""
        with self.test.waiting(), gates.at_rest(self):
            yield

    @contextmanager
    def serving(self, load: Load) -> Iterator[None]:
        """See the stack as the clients of a load do: an agent takes tasks.

        Args:
            load: the load that runs in the block.

        Raises:
            Unsupported: the load has tasks, and the model cannot call tools.
            BadScenario: the load has tasks, and the stack has no agent.
        """
        self._stack = self.subject
        if load.tasks is not None:
            self.subject = self._stack.for_tasks()
        try:
            yield
        finally:
            self.subject = self._stack

    @contextmanager
    def load(
        self,
        load: Load,
        *,
        arrivals: Sequence[Arrival] | None = None,
        longest_s: float = 300.0,
        remediator: bool = True,
        autoscaler: str | None = None,
        wire: Sequence[str] | None = None,
        read: Sequence[str] = (),
    ) -> Iterator[RunningLoad]:
        """Send requests to the stack while the `with` block runs.

        Compute results after the block, when all answers are in. Outside a trial the
        load passes the same gates as a trial: it waits for the machine's measurement
        lock and for a clean stack, and its recordings must support a claim.

        Args:
            load: rate and kind of the requests, from `pytest_llmchaos.loads`.
            arrivals: the requests to send. Default: drawn from `load` by seed and test.
            longest_s: seconds after which the load ends even if the block goes on.
            remediator: False stops the remediator for this load.
            autoscaler: policy by which the lab's autoscaler works during this load,
                such as `slo`. Default: it keeps the first replicas.
            wire: names or patterns of the services that faults on the wire may hit. A
                fault agent stands in their way from before the first request until
                after the last. Default: those of the test's mark `llmchaos_wire`, which
                the local runtime needs. A trial does this by itself.
            read: names of those whose requests faults will have to read. The load does
                not start if one of them takes TLS or HTTP/2 only.

        Yields:
            The running load.

        Raises:
            BadScenario: `wire` is not a list of names, or `autoscaler` is no policy.
            NoVictim: `wire` names no service that may be hit.
            Unsupported: the runtime has no fault agent.
            NotReady: a fault agent cannot enter the way of a service.
            HealFailed: a fault agent could not be removed.
            InvalidExperiment: the stack is not clean, a load is running already, or a
                fault agent cannot read the requests of a service.
            LoadNotHeld: the load generator ran late or sent too few requests.
            ProvesNothing: the recordings support no claim for another reason. An error
                of the block becomes the cause of this one.
        """
        if self.running_load is not None:
            raise InvalidExperiment(
                "a load is running already, and two would write into one folder: use one load with both parts"
            )
        wired = self._wiring.services_of(self.test.wire if wire is None else wire, self.subject.may_hit)
        requests = _Requests(
            load=load,
            arrivals=arrivals,
            longest_s=longest_s,
            wire=wired,
            read=tuple(read),
            remediator=remediator,
            autoscaler=check_policy("lab.load", autoscaler),
        )
        if self.record is None:
            with self._judged_by_its_test(requests) as running:
                yield running
            return
        with self._running(requests) as running:
            yield running

    @contextmanager
    def _running(self, requests: _Requests) -> Iterator[RunningLoad]:
        """Run the clients.

        The stack is checked while the generator starts, which takes a second.
        The first request leaves when both are done.
        """
        record, load = self._current_record(), requests.load
        planned = requests.arrivals
        if planned is None:
            what = f"load {load}"
            planned = load.schedule(self.test.rng(what, self.test.number(what)), requests.longest_s)
        planned = load.with_orders(planned, self.test.rng_of(record.planned, _orders_of(record.planned)), self.orders)
        running = RunningLoad(load, planned, runtime=self.runtime, subject=self.subject, directory=record.directory)
        running.launch()
        record.process(running.pid, identity.process_started(running.pid))
        try:
            self.require_clean()
            self._wiring.arm(requests.wire, requests.read)
            if requests.autoscaler is not None:  # its new connections go through the fault agents
                steer(self, requests.autoscaler)
            self.remediator.ensure(requests.remediator)
            running.start()
            record.anchor(running.t0_unix_s, running.t0_monotonic_s)
            self.running_load, self._load_ends_s = running, time.monotonic() + requests.longest_s
            self.read_clocks()
            yield running
            self.read_clocks()
        except BaseException as error:
            self.running_load = None
            running.stop(drain=_leaves_evidence(error))
            raise
        finally:
            self.running_load = None
            try:
                summary = running.stop()
                if load.tasks is not None:
                    self.has_left_tasks = summary.uncancelled > 0
            finally:
                self._wiring.disarm()

    @contextmanager
    def _judged_by_its_test(self, requests: _Requests) -> Iterator[RunningLoad]:
        """Run and judge a load outside a trial.

        It holds unless it breaks off, a gate refuses it, or a claim of its test fails.
        """
        test = self.test
        planned = Planned(
            scenario=test.name,
            hypothesis=test.hypothesis,
            fault="none",
            remediator=requests.remediator,
            autoscaler=requests.autoscaler,
            repeat=test.number("load"),
            plan=PlanNote(load=str(requests.load)),
        )
        self._faults.clear()
        self._injected.clear()
        self._not_entered.clear()
        running: RunningLoad | None = None
        own: BaseException | None = None
        excused = self.reasons.unless_measured()
        serving = self.serving(requests.load)
        with excused, serving, self.entered(planned) as record, test.owning(record), record.judged_by_its_test():
            try:
                prepare(self, NO_VARIABLES, scales=requests.autoscaler is not None)
                with self._running(requests) as running:
                    yield running
                    self._require_entered()
            except BaseException as error:
                if running is None or not _leaves_evidence(error):
                    raise
                own = error
            try:
                record.outcome = self._judge(self, record, running, merged(self._injected))
            except LlmchaosError as error:
                raise error from own or error.__cause__
            if own is not None:
                raise own

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the block as a phase, which gets a window of its own in the report.

        Args:
            name: the phase's name.

        Raises:
            InvalidExperiment: no load is running.
        """
        self._load()
        with self._current_record().phase(name):
            yield

    @property
    def clocks(self) -> Mapping[str, Callable[[], float | None]]:
        """Foreign clocks whose times a verdict may contain, by name.

        Each function returns the offset to this machine's clock in seconds, or None if
        it is the same clock.
        """
        return {
            "Prometheus' clock": self.prometheus.clock_offset_s,
            f"the clock of the {self.runtime.name} runtime": self.runtime.clock_offset_s,
        }

    def read_clocks(self) -> None:
        """Record the offset of each clock.

        One that does not respond at once is left out.
        """
        record = self._current_record()
        record.read_wall_clock()
        for name, read in self.clocks.items():
            begun_s = time.monotonic()
            with suppress(LlmchaosError, OSError):
                offset_s = read()
                if offset_s is not None and time.monotonic() - begun_s <= CLOCK_ANSWER_S:
                    record.read_clock(name, offset_s)

    def hold(self, seconds: float) -> None:
        """Let the load run.

        Args:
            seconds: length of the wait, in seconds.

        Raises:
            LoadNotHeld: the load generator ended.
        """
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
        """Wait until a condition is true, while the load runs.

        Args:
            condition: called every 0.1 s.
            deadline_s: seconds to wait at most.
            what: what to print as progress.

        Returns:
            True if the condition became true, False if the deadline passed first.

        Raises:
            LoadNotHeld: the load generator ended.
        """
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
        if self.record is not None:
            self.record.read_wall_clock()
        self.say(what, deadline_s=left_s)
        time.sleep(TICK_S)

    def hold_steady(self, steady_s: float, *, deadline_s: float | None = None) -> None:
        """Wait for the steady state.

        It is good for clients, every replica receives requests by the subject's
        `rotation_query`, and no alert fires.

        Args:
            steady_s: seconds in a row for which every request must be good.
            deadline_s: seconds to wait at most. Default: 3 * `steady_s` + 20.

        Raises:
            NotSteady: the deadline passed. The message has the last reason.
            InvalidExperiment: no load is running.
            LoadNotHeld: the load generator ended.
        """
        load = self._load()
        limit_s = deadline_s if deadline_s is not None else 3 * steady_s + 20
        last = "no request has been answered yet"
        is_served = False

        def steady() -> bool:
            nonlocal last, is_served
            reason = load.not_steady(steady_s)
            is_served = reason is None
            if is_served:
                try:
                    alerts, out = self.firing(), gates.not_routed(self)
                except ProvesNothing as error:
                    reason = str(error)
                else:
                    reason = f"alerts fire: {', '.join(alerts)}" if alerts else None
                    if out:  # a fault on it would show nothing
                        reason = f"the service routes no requests to {', '.join(out)}, by its rotation_query"
            last = reason or ""
            return reason is None

        if not self.hold_until(steady, deadline_s=limit_s, what="steady"):
            if not is_served:  # an alert on what clients saw was right and refutes no later control arm
                self.reasons.add(load.t0_unix_s, time.time() + WARM_UP_TAIL_S, alerts_alone=True)
            raise NotSteady(f"the service was not good for {steady_s:g} s in a row within {limit_s:g} s: {last}")
        # Before that, clients may have waited for a cold model, a reason to alert.
        self.reasons.add(load.t0_unix_s, time.time() - steady_s + WARM_UP_TAIL_S, alerts_alone=True)

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
        """Inject a fault for the length of the `with` block, and revert it after.

        The fault is journalled, injected and proven by an independent witness. At the
        end of the block it is reverted, and the revert is proven as well. A block
        inside another one shares its flood of requests.

        Args:
            fault: the fault, from `pytest_llmchaos.faults`. A target such as `model-*`
                is drawn by seed and test. A sequence of planned injections keeps its
                victims.
            abort_if: called with the window of the last 5 s. True ends the block and
                reverts the fault.
            blast_radius: most services that may be hit at once. An injection beyond it
                waits until an earlier victim is back. Default: the fault's own.
            patience_s: seconds for which an injection that is due waits for earlier
                victims, at most until the load's end.

        Returns:
            A context manager that yields the injected faults.

        Raises:
            BadScenario: a wrong argument.
            InvalidExperiment: no load is running, a victim is not among the targets, or
                `lab.load(wire=...)` lacks the victim of a fault on the wire.
            Unsupported: the runtime lacks an ability that the fault needs.
            FaultNotObserved: no witness saw the fault within 5 s (10 s for an overload
                or a fault on the wire), or it ended early.
            Aborted: `abort_if` returned True, or an injection waited too long.
            NoVictim: the target matches no service, or its victim was removed.
            HealFailed: the fault could not be reverted.
        """
        limit = _check_inject(fault, abort_if, blast_radius, patience_s)
        block = object()
        self._not_entered[block] = _shown(fault)
        return self._injecting(block, fault, abort_if, limit, patience_s)

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
        acts = self._aim(self._acts(fault, blast_radius))
        self._faults.append(fault)
        record.planned = _with_faults(record.planned, self._faults)
        stack = self._stack
        lent = self.runtime.flood
        self.runtime.flood = lent or ProcessFlood(stack, self.runtime.url(stack.api), record, lambda: self.prometheus)
        injector = Injector(self.runtime, record, self.signals)
        self._injected.append(injector.injected)
        self.read_clocks()
        begin_unix_s = time.time()
        try:
            begin = time.monotonic()
            # After its end no client meets a fault.
            load_ends_s = math.inf if self.running_load is None else self._load_ends_s
            for act in acts:
                due = max(begin + act.after_s, time.monotonic())  # earlier ones may have taken longer
                self._hold_to(due)
                if blast_radius is not None and injector.injected.proven:
                    self._await_room(act, injector, blast_radius, min(due + patience_s, load_ends_s))
                injector.act(act)
                self.abort_check(abort_if)
            yield injector.injected
            injector.require_lasted()
        finally:
            try:
                injector.revert()
                self.read_clocks()
            finally:
                self.runtime.flood = lent
                if acts:
                    self.reasons.add(begin_unix_s, time.time() + FAULT_TAIL_S)

    def _require_entered(self) -> None:
        """Raises InvalidExperiment for `inject` without `with`, which does nothing."""
        if self._not_entered:
            raise InvalidExperiment(
                f"{', '.join(self._not_entered.values())} was not injected: lab.inject(...) was called without `with`; "
                "write `with lab.inject(...):` around what happens during the fault"
            )

    def _await_room(self, act: Injection, injector: Injector, blast_radius: int, deadline_s: float) -> None:
        """Wait until the victim runs, and hitting it stays within the blast radius."""
        while True:
            hit = injector.still_hit() | {act.victim}
            if len(hit) <= blast_radius and self.runtime.state(act.victim).running:
                return
            if time.monotonic() > deadline_s:
                raise Aborted(
                    f"{act} was not injected: {', '.join(sorted(hit))} would be hit at once, blast_radius={blast_radius} "
                    "allows fewer, and the earlier victims are not back in time; all faults were reverted"
                )
            self._tick("fault", deadline_s - time.monotonic())

    def abort_check(self, abort_if: Callable[[Window], bool] | None) -> None:
        """Check an abort condition on the last 5 s of the running load.

        Args:
            abort_if: a function of the window, or None for no check.

        Raises:
            Aborted: the condition is met.
        """
        if abort_if is not None and self.running_load is not None:
            live = self.running_load.live_window(5.0)
            if live.offered and abort_if(live):
                raise Aborted(f"the abort condition was met: {live!r}; the fault was reverted")

    def _aim(self, acts: Sequence[Injection]) -> Sequence[Injection]:
        """Return the acts with the number of each victim's container.

        One load hits one container of a service: events and states are about it.
        """
        record = self._current_record()
        for service, number in numbers_of("lab.inject", acts).items():
            known = record.replicas.get(service, number)
            if known != number:
                raise InvalidExperiment(
                    f"{replica_name(service, number)} cannot be hit: a load hits one container of a service, and this one "
                    f"hit {replica_name(service, known)}; use a load for each"
                )
            record.replicas[service] = number
        for service in dict.fromkeys(act.victim for act in acts):
            draw = self.test.rng_of(record.planned, f"replica of {service}")
            chosen = self.runtime.aim(service, draw, record.replicas.pop(service, None))
            if chosen is not None:
                record.replicas[service] = chosen
        return [replace(act, replica=record.replicas.get(act.victim)) for act in acts]

    def _acts(self, fault: Fault | Sequence[Injection], blast_radius: int | None) -> Sequence[Injection]:
        if isinstance(fault, Sequence):
            acts = fault
        else:
            what = str(fault)
            left_s = max(0.0, self._load_ends_s - time.monotonic())  # as long as a client can be hit
            leased = fault.with_lease(left_s + LEASE_MARGIN_S)
            acts = leased.plan(self.test.rng(what, self.test.number(what)), self.subject.may_hit)
        if blast_radius is not None:
            require_blast_radius("lab.inject", _shown(fault), acts, blast_radius)
        grant(self.runtime, {need for act in acts for need in act.fault.needs}, "this fault")
        strangers = sorted({act.victim for act in acts} - set(self.subject.may_hit))
        if strangers:
            raise InvalidExperiment(
                f"{', '.join(strangers)} may not be hit; targets are {', '.join(self.subject.may_hit)}"
            )
        self._wiring.require(acts, _shown(fault))
        return acts


@dataclass(frozen=True, kw_only=True)
class _Requests:
    """The arguments of `Lab.load`."""

    load: Load
    arrivals: Sequence[Arrival] | None
    longest_s: float
    wire: tuple[str, ...]
    read: tuple[str, ...]
    remediator: bool
    autoscaler: str | None


def _leaves_evidence(error: BaseException) -> bool:
    """True for an error of the test itself, after which the load is still judged."""
    if isinstance(error, AssertionError):
        return True
    return not isinstance(error, LlmchaosError | KeyboardInterrupt | SystemExit | GeneratorExit)


def _shown(fault: Fault | Sequence[Injection]) -> str:
    return ", ".join(map(str, fault)) if isinstance(fault, Sequence) else str(fault)


def _orders_of(planned: Planned) -> str:
    """The draw of a load's order numbers, which the arms of a trial do not share."""
    return f"orders of {planned.fault}, arm {planned.arm or ''}"


def _with_faults(planned: Planned, faults: Sequence[Fault | Sequence[Injection]]) -> Planned:
    """The plan of a load outside a trial, with its faults so far.

    A trial's plan is kept.
    """
    if planned.lifetime is not None:
        return planned
    named = structs.replace(planned, fault=", ".join(map(_shown, faults)))
    match faults:
        case [only] if not isinstance(only, Sequence):
            return structs.replace(named, target=only.target, fidelity=only.fidelity)
    return named


def _check_inject(fault: object, abort_if: object, blast_radius: object, patience_s: object) -> int | None:
    """The blast radius, or None for injections without one.

    Raises BadScenario for the arguments that `experiment` refuses, too.
    """
    where = "lab.inject"
    check_seconds(where, "patience_s", patience_s, 0, 3600)
    if abort_if is not None:
        check_abort_if(where, abort_if)
    if isinstance(fault, Sequence) and not isinstance(fault, str):
        return (
            None
            if blast_radius is None
            else check_blast_radius(where, {_shown(fault): most_at_once(fault)}, blast_radius)
        )
    checked = check_fault(f"{where}(...)", fault)
    return check_blast_radius(where, {str(checked): checked.blast_radius}, blast_radius)
