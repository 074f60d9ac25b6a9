"""The autoscaler around a load."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from support.clock import Clock
from support.fake_lab import ClockedRuntime, fake_lab, scraped

from lab_autoscaler.fleet import Sight, observed, taken_up, wanted
from lab_autoscaler.settings import Settings as AutoscalerSettings
from lab_autoscaler.written import parse
from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import BadScenario, Inconclusive, InvalidExperiment, NoData, NotReady, TruthsDisagree
from pytest_llmchaos.evidence.trial_record import PhaseBounds
from pytest_llmchaos.evidence.trial_result import Planned
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.lab import gates
from pytest_llmchaos.lab import lab as lab_module
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.lab.variables import at_rest, prepare, steer
from pytest_llmchaos.model import Injection, RuntimeEvent, ServiceState
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial.seen_scaling import scaling_of

SCALES = replace(lab_subject("sim", scales=True), pushgateway=None)


class Scaled(ClockedRuntime):
    """The fake with replicas to start, an autoscaler and its log."""

    def __init__(self, clock, log=""):
        super().__init__(clock)
        self.log = log
        for name in ("model-3", "model-4", "autoscaler"):
            self._states[name] = ServiceState(service=name, running=True)

    def logs(self, *, tail=200):
        return self.log


@pytest.fixture
def runtime():
    return Scaled(Clock())


@pytest.fixture
def lab(tmp_path, runtime, monkeypatch):
    with fake_lab(tmp_path, Clock(), runtime) as made:
        made.subject = made._stack = SCALES
        made.given = []
        monkeypatch.setattr(runtime, "configure", made.given.append)
        yield made


def test_it_keeps_the_first_replicas_until_a_load_has_a_policy(lab):
    lab.runtime.kill("autoscaler")
    prepare(lab, {"autoscaler": {"LAB_DRAIN_S": "0"}, "api": {"A": "1"}}, scales=True)
    assert lab.runtime.state("autoscaler").running
    steer(lab, "slo()")

    resting, working = lab.given
    assert resting == {"autoscaler": {"LAB_DRAIN_S": "0", "LAB_POLICY": "fixed(2)"}, "api": {"A": "1"}}
    assert working == {"autoscaler": {"LAB_DRAIN_S": "0", "LAB_POLICY": "slo()"}, "api": {"A": "1"}}
    assert at_rest(lab_subject("sim"), {"api": {"A": "1"}}, scales=False) == {"api": {"A": "1"}}


def test_for_a_load_without_a_policy_it_repairs_and_replaces_nothing():
    """No fault of a trial lasts until one may take over a replica."""
    found = at_rest(SCALES, {"autoscaler": {"LAB_REPAIR_S": "2"}, "api": {"A": "1"}}, scales=False)
    about = {"LAB_SCALED": ",".join(SCALES.scaled), "LAB_PROJECT": "p"}
    settings = AutoscalerSettings.from_env({**about, **found["autoscaler"]})

    assert found["api"] == {"A": "1"}
    assert (settings.policy, settings.dry_run) == (parse("fixed(2)"), False)
    assert min(settings.phases.repair_s, settings.phases.cold_s) >= 3600
    good = Sight(is_running=True, is_healthy=True, in_flight=0)
    sights = dict.fromkeys(SCALES.scaled, replace(good, is_running=False)) | {"model-1": good, "model-2": good}
    fleet = taken_up(SCALES.scaled, sights, 0.0)
    for now_s in (5.0, 900.0):
        dead = {**sights, "model-1": replace(good, is_running=False)}
        fleet, changes = observed(fleet, dead, now_s, settings.phases.timing(1.0))
        assert (changes, wanted(fleet)) == ((), 2)


def test_a_load_outside_of_a_trial_prepares_the_stack_for_its_own_policy(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(measurement_lock, "slot_file", lambda name: tmp_path / f"{name}.lock")

    def refuse(_):
        raise NotReady("stop here")

    monkeypatch.setattr(lab_module.RunningLoad, "launch", refuse)
    for policy in (None, "slo()"):
        with pytest.raises(NotReady, match="stop here"), lab.load(loads.open_loop(), autoscaler=policy):
            pass

    assert ["LAB_REPAIR_S" in one["autoscaler"] for one in lab.given] == [True, False]


def test_a_stack_without_one_cannot_start_it(tmp_path):
    with (
        fake_lab(tmp_path, Clock()) as plain,
        pytest.raises(InvalidExperiment, match="needs the lab's autoscaler: the lab has one if"),
    ):
        steer(plain, "slo()")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("api | ready\nautoscaler | LAB_POLICY: expected a policy, got 'sl()'\nmodel-1 | up\n", "LAB_POLICY: expected"),
        ("autoscaler-1  | 2026-11-30T16:00:00.1Z LAB_POLICY: expected\n", "LAB_POLICY: expected"),
        ("", "its log is empty, see logs/autoscaler"),
    ],
)
def test_what_it_refuses_is_the_error(lab, monkeypatch, log, line):
    def refuse(*_):
        lab.runtime.kill("autoscaler")
        raise NotReady("autoscaler did not become healthy")

    lab.runtime.log = log
    monkeypatch.setattr(lab.runtime, "configure", refuse)

    with pytest.raises(BadScenario, match=f"^the autoscaler refuses its settings: {line}"):
        steer(lab, "sl()")


def test_one_that_runs_and_is_never_healthy_is_not_ready(lab, monkeypatch):
    def late(*_):
        raise NotReady("autoscaler did not become healthy")

    monkeypatch.setattr(lab.runtime, "configure", late)

    with pytest.raises(NotReady, match="did not become healthy"):
        steer(lab, "slo()")


def test_a_load_waits_until_replicas_rest_that_only_it_starts(lab, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(gates, "time", clock)
    with pytest.raises(InvalidExperiment, match=r"model-3, model-4 runs: see the log of autoscaler \(waited 60 s\)"):
        gates.require_clean(lab)

    for name in ("model-3", "model-4"):
        lab.runtime.kill(name)
    gates.require_clean(lab)


def test_replicas_that_rest_need_not_be_up(lab):
    targets = [scraped(job, at_unix_s=9.0) for job in SCALES.scrape_jobs]
    resting = replace(scraped("model", at_unix_s=9.0, up=False), service="model-3")
    lab._prometheus.targets = lambda: (*targets, resting)

    assert gates.is_scraped(lab, 0.0)
    targets[SCALES.scrape_jobs.index("model")] = replace(resting, service="model-1")
    assert not gates.is_scraped(lab, 0.0)
    assert gates.is_scraped(lab, 0.0, resting=SCALES.scaled)
    lab.subject = lab_subject("sim")
    assert not gates.is_scraped(lab, 0.0)


def test_a_load_of_a_stack_without_one_is_refused(tmp_path):
    with (
        fake_lab(tmp_path, Clock()) as plain,
        pytest.raises(BadScenario, match=r"lab\.load\(autoscaler=\.\.\.\) must be"),
        plain.load(loads.open_loop(), autoscaler="no policy"),
    ):
        pass


EVENTS = ((20.0, "start", "model-3"), (49.9, "kill", "model-3"), (50.0, "die", "model-3"))


class TestEvidence:
    """A load of 60 s in which model-3 was started and stopped."""

    @pytest.fixture
    def read(self, lab):
        def read(
            events=EVENTS,
            *,
            counts=(("start", 1.0), ("stop", 1.0)),
            before=(),
            injected=None,
            policy="slo()",
            decided=(60.0,),
        ):
            with lab.recording(Planned(autoscaler=policy)) as record:
                begin = time.time() - 70
                record.anchor(begin, time.monotonic() - 70)
                record.phases = [PhaseBounds(name="steady", from_s=0.0, to_s=60.0)]
                lab.runtime._events = [
                    RuntimeEvent(at_unix_s=begin + at_s, service=name, action=action) for at_s, action, name in events
                ]
                lab.runtime._states["model-3"] = ServiceState(service="model-3", running=False)

                def vector(query, at_unix_s, *, may_be_empty=False):
                    if "lab_autoscaler_syncs_total" in query:
                        assert query.endswith("[60s]))")
                        if isinstance(decided, Exception):
                            raise decided
                        return dict.fromkeys([()] * len(decided), *decided)
                    assert 'lab_autoscaler_acts_total{result="done"}' in query
                    found = dict(before if at_unix_s < begin + 1 else counts)
                    if not found and not may_be_empty:
                        raise NoData("no series")
                    return {(("action", action),): count for action, count in found.items()}

                lab._prometheus.vector = vector
                return scaling_of(lab, record, injected or Injected(), (), []), record

        return read

    def test_the_acts_and_the_times_are_read(self, read):
        seen, record = read()

        assert [str(act) for act in seen.acts] == ["model-3 up at 20.0 s", "model-3 down at 50.0 s"]
        assert float(seen.replica_hours) == pytest.approx((3 * 60 + 30) / 3600, abs=1e-4)
        assert seen.flaps == 1
        assert record.findings == []

    def test_a_counter_that_an_earlier_process_left_is_subtracted(self, read):
        seen, _ = read(counts=(("start", 4.0), ("stop", 3.0)), before=(("start", 3.0), ("stop", 2.0)))

        assert seen.unknown is None

    def test_without_an_autoscaler_nothing_is_read(self, read):
        assert read(policy=None)[0] is None

    def test_counters_that_contradict_the_events_leave_its_acts_unknown(self, read):
        seen, record = read(counts=(("start", 1.0), ("stop", 0.0)))

        assert isinstance(seen.unknown, TruthsDisagree)
        assert record.findings == [str(seen.unknown)]
        assert seen.max_replicas == 4
        with pytest.raises(TruthsDisagree, match="the autoscaler counted 0 replicas down"):
            _ = seen.flaps

    @pytest.mark.parametrize(("counts", "before"), [((), ()), ((("start", 0.0),), (("start", 2.0),))])
    def test_counters_that_are_missing_or_began_anew_are_a_finding(self, read, counts, before):
        seen, record = read(counts=counts, before=before)

        assert seen.flaps == 1
        assert len(record.findings) == 1
        assert record.findings[0].startswith("the autoscaler's acts cannot be compared with its own counters")

    def test_one_that_ended_by_itself_proves_nothing(self, read):
        ended = (*EVENTS, (55.0, "die", "autoscaler"))
        seen, record = read(ended)
        with pytest.raises(Inconclusive, match="autoscaler had ended at the trial's end, so what it did not do"):
            _ = seen.flaps
        assert len(record.findings) == 1

        assert read((*ended, (56.0, "start", "autoscaler")))[0].flaps == 1

    @pytest.mark.parametrize(("action", "why"), [("die", "had ended"), ("pause", "was paused")])
    def test_one_that_a_fault_keeps_from_acting_until_the_end_proves_nothing(self, read, action, why):
        hit = Injected()
        hit.acts = [Injection(after_s=0.0, fault=faults.kill("autoscaler").primitive, victim="autoscaler")]
        ended = (*EVENTS, (55.0, action, "autoscaler"), (55.1, "kill", "autoscaler"), (55.1, "pause", "model-1"))

        with pytest.raises(NoData, match=f"autoscaler {why} at the trial's end"):
            _ = read(ended, injected=hit)[0].flaps
        assert read((*ended, (56.0, "unpause", "autoscaler")), injected=hit)[0].flaps == 1

    def test_one_that_is_held_proves_nothing(self, read):
        with pytest.raises(NoData, match=r"autoscaler decided nothing in the trial \(hold file or dry run\)"):
            _ = read(events=(), decided=(0.0,))[0].flaps

    @pytest.mark.parametrize("decided", [(), NoData("Prometheus does not respond")])
    def test_without_its_metrics_the_events_count(self, read, decided):
        assert read(decided=decided)[0].flaps == 1
