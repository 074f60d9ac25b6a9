"""Waits of the lab: for times, conditions, a steady service and the blast radius."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from support.clock import Clock
from support.fake_lab import fake_lab, load_of

from pytest_llmchaos import faults
from pytest_llmchaos.errors import (
    Aborted,
    InvalidExperiment,
    LoadNotHeld,
    NotReady,
    NotSteady,
    PartialScrape,
    PrometheusUnreachable,
)
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.kill import Kill
from pytest_llmchaos.lab import injector, reasons
from pytest_llmchaos.lab import lab as lab_module
from pytest_llmchaos.model import Injection
from pytest_llmchaos.runtime import undo as heal


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (lab_module, reasons, injector, heal):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def said():
    return []


@pytest.fixture
def lab(tmp_path, clock, said):
    with fake_lab(tmp_path, clock, say=lambda _lab, what, left_s: said.append((what, left_s))) as made:
        yield made


class TestATime:
    """`hold`: a wait for seconds."""

    def test_a_hold_passes_in_tenths_of_a_second(self, lab, clock):
        lab.hold(2.0)

        assert clock.passed_s == pytest.approx(2.0, abs=0.11)
        assert set(clock.sleeps) == {0.1}

    def test_a_hold_ends_on_time(self, lab, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.5)

        lab.hold(1.0)

        assert said == [("hold", 1.0), ("hold", 0.5)]

    def test_a_hold_ends_early_if_the_load_died(self, lab):
        def died():
            raise LoadNotHeld("the load generator ended")

        lab.running_load = load_of(check_alive=died)

        with pytest.raises(LoadNotHeld):
            lab.hold(1.0)

    def test_a_hold_has_a_reading_of_the_wall_clock_at_each_look(self, lab, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.5)

        with lab.recording() as record:
            lab.hold(1.0)

        assert [reading.clock for reading in record.clocks] == ["this machine's wall clock"] * 2


class TestAnInstant:
    """`_hold_to`: a wait for an instant."""

    def test_an_instant_is_met_to_the_millisecond(self, lab, clock, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.125)

        lab._hold_to(clock.monotonic() + 0.505)

        assert clock.passed_s == pytest.approx(0.505, abs=1e-9)
        assert [what for what, _ in said] == ["fault"] * 3
        assert [left_s for _, left_s in said] == pytest.approx([0.505, 0.38, 0.255])
        assert max(clock.sleeps[3:]) == 0.01

    def test_an_instant_is_not_looked_for_in_steps_that_could_miss_it(self, lab, clock, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.125)

        lab._hold_to(clock.monotonic() + 0.25)

        assert said == []
        assert clock.passed_s == pytest.approx(0.25, abs=1e-9)

    @pytest.mark.parametrize("ago_s", [0.0, 0.5])
    def test_an_instant_that_is_past_is_not_waited_for(self, lab, clock, ago_s):
        lab._hold_to(clock.monotonic() - ago_s)

        assert clock.sleeps == []


class TestACondition:
    """`hold_until`: a wait for a condition."""

    def test_a_condition_that_holds_needs_no_wait(self, lab, clock):
        assert lab.hold_until(lambda: True, deadline_s=1.0, what="it") is True
        assert clock.sleeps == []

    def test_a_condition_ends_the_wait(self, lab, clock, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.5)

        assert lab.hold_until(lambda: clock.passed_s >= 1.0, deadline_s=9.0, what="it") is True
        assert said == [("it", 9.0), ("it", 8.5)]

    def test_a_condition_has_its_last_look_after_the_deadline(self, lab, clock, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.5)

        assert lab.hold_until(lambda: False, deadline_s=1.0, what="it") is False
        assert said == [("it", 1.0), ("it", 0.5), ("it", 0.0)]


class TestASteadyService:
    """`hold_steady`: a wait for the steady state."""

    def test_a_steady_service_is_awaited_for_three_times_its_seconds_and_20_s(self, lab, clock):
        lab.running_load = load_of(not_steady=lambda _: "too few answers")

        with pytest.raises(NotSteady, match=r"good for 5 s in a row within 35 s: too few answers$"):
            lab.hold_steady(5.0)

        assert 35 < clock.passed_s < 35.2

    def test_a_steady_service_is_waited_for_until_the_deadline_that_is_given(self, lab, clock):
        lab.running_load = load_of(not_steady=lambda _: "too few answers")

        with pytest.raises(NotSteady, match="within 7 s"):
            lab.hold_steady(5.0, deadline_s=7.0)

        assert 7 < clock.passed_s < 7.2

    def test_a_steady_service_is_good_to_clients_and_to_prometheus(self, lab, clock):
        asked = []
        lab.running_load = load_of(not_steady=asked.append)
        lab.firing = lambda: ["ServiceDown", "ServiceFlapping"] if clock.passed_s < 2 else []

        lab.hold_steady(5.0)

        assert clock.passed_s == pytest.approx(2, abs=0.11)
        assert set(asked) == {5.0}

    @pytest.mark.parametrize("error", [None, PrometheusUnreachable("no answer to ALERTS")], ids=["alerts", "silence"])
    def test_a_steady_service_needs_an_answer_of_prometheus(self, lab, error):
        def firing():
            if error is not None:
                raise error
            return ["ServiceDown", "ServiceFlapping"]

        lab.running_load, lab.firing = load_of(), firing
        said = str(error or "alerts fire: ServiceDown, ServiceFlapping")

        with pytest.raises(NotSteady, match=rf"within 3 s: {said}$"):
            lab.hold_steady(1.0, deadline_s=3.0)

    def test_a_steady_service_routes_requests_to_each_replica(self, lab, clock):
        """A fault on one that is out of rotation would show nothing."""

        def vector(query, at_unix_s, *, may_be_empty=False):
            if query != lab.subject.rotation_query:
                return {}
            return {(("service", "model-1"),): float(clock.passed_s >= 2), (("service", "gone"),): 0.0}

        lab.running_load, lab.prometheus.vector = load_of(), vector
        with pytest.raises(NotSteady, match=r"the service routes no requests to model-1, by its rotation_query$"):
            lab.hold_steady(1.0, deadline_s=1.0)

        lab.hold_steady(1.0)

        assert clock.passed_s == pytest.approx(2, abs=0.21)

    def test_a_steady_service_without_a_rotation_is_taken_at_its_word(self, lab):
        asked = []
        lab.subject = replace(lab.subject, rotation_query=None)
        lab.running_load = load_of()
        lab.prometheus.vector = lambda query, *_, **__: asked.append(query) or {}

        lab.hold_steady(1.0)

        assert len(asked) == 1

    @pytest.mark.parametrize(("reason", "explained"), [("half were refused", True), (None, False)], ids=["bad", "good"])
    def test_an_unsteady_service_had_reason_to_page_if_clients_suffered(self, lab, clock, reason, explained):
        """An alert while clients were served well explains nothing."""
        begun_s = clock.time()
        lab.running_load = load_of(t0_unix_s=begun_s, not_steady=lambda _: reason)
        lab.firing = lambda: ["ServiceDown"]

        with pytest.raises(NotSteady):
            lab.hold_steady(1.0, deadline_s=3.0)

        ended_s = clock.time()
        seen = [lab.reasons.explains_alert(at_s) for at_s in (begun_s - 1, begun_s, ended_s + 9.9, ended_s + 10.1)]
        assert seen == [False, explained, explained, False]
        assert not lab.reasons.explains_action(begun_s + 1)

    def test_a_service_has_reason_to_page_until_its_good_seconds_begin(self, lab, clock):
        """And for ten seconds more, because the slowest alert looks back so far."""
        lab.running_load = load_of(t0_unix_s=clock.time())
        begun_s = clock.time()
        clock.advance(40)

        lab.hold_steady(5.0)

        explained = [lab.reasons.explains_alert(begun_s + after_s) for after_s in (-1, 0, 44.9, 45.1)]
        assert explained == [False, True, True, False]
        assert not lab.reasons.explains_action(begun_s)

    def test_a_steady_service_needs_a_load(self, lab):
        with pytest.raises(InvalidExperiment, match="no load is running"):
            lab.hold_steady(5.0)


def acts(after_s=0.5):
    return [
        Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="api"),
        Injection(after_s=after_s, fault=faults.kill("model-1").primitive, victim="model-1"),
    ]


class TestRoom:
    """The wait of an injection for the blast radius."""

    def test_room_for_an_act_is_waited_for_from_the_acts_own_time_on(self, lab, clock):
        begun_s = []
        lab.runtime.kill = lambda service, kill=lab.runtime.kill: (begun_s.append(clock.passed_s), kill(service))

        with (
            lab.recording(),
            pytest.raises(Aborted, match=r"kill model-1 .*: api, model-1 would be hit at once, blast_radius=1 allows"),
            lab.inject(acts(2.0), blast_radius=1),
        ):
            pytest.fail("the block must not be entered")

        assert begun_s == [0.0]
        assert 42 < clock.passed_s < 42.2, "40 s after the act was due"

    def test_room_for_an_act_is_waited_for_as_long_as_is_given(self, lab, clock, said):
        with lab.recording(), pytest.raises(Aborted), lab.inject(acts(2.0), blast_radius=1, patience_s=3.0):
            pytest.fail("the block must not be entered")

        assert 5 < clock.passed_s < 5.2
        assert max(left_s for _, left_s in said) == pytest.approx(3.0, abs=0.01)

    def test_room_for_an_act_is_waited_for_anew_after_each_slow_return(self, lab, clock, monkeypatch):
        """Back 2 s after each kill. The third is due at 1 s, and begins at 4 s."""
        killed_s, tick = [], lab._tick

        def kill(service, kill=lab.runtime.kill):
            killed_s.append(clock.passed_s)
            kill(service)

        def back(*about):
            if not lab.runtime.state("api").running and clock.passed_s >= killed_s[-1] + 2:
                lab.runtime.start("api")
            tick(*about)

        lab.runtime.kill = kill
        monkeypatch.setattr(lab, "_tick", back)
        again = [replace(acts()[0], after_s=after_s) for after_s in (0.0, 0.5, 1.0)]
        with lab.recording(), lab.inject(again, blast_radius=1, patience_s=2.5):
            assert killed_s == [pytest.approx(at_s, abs=0.25) for at_s in (0, 2, 4)]

    def test_room_for_an_act_is_not_waited_for_after_the_load_s_end(self, lab, clock, monkeypatch):
        monkeypatch.setattr(lab, "running_load", object())
        monkeypatch.setattr(lab, "_load_ends_s", clock.monotonic() + 5.0)
        monkeypatch.setattr(lab, "_tick", lambda *_: clock.advance(0.1))
        with lab.recording(), pytest.raises(Aborted), lab.inject(acts(2.0), blast_radius=1):
            pytest.fail("the block must not be entered")

        assert 5 < clock.passed_s < 5.2

    def test_room_for_an_act_has_its_last_look_after_the_deadline(self, lab, clock, said, monkeypatch):
        monkeypatch.setattr(lab_module, "TICK_S", 0.5)
        full = SimpleNamespace(still_hit=lambda: {"api", "model-1"})

        with pytest.raises(Aborted, match=r"kill api .* was not injected: api, model-1 would be hit"):
            lab._await_room(acts()[0], full, 1, clock.monotonic() + 1.0)

        assert said == [("fault", 1.0), ("fault", 0.5), ("fault", 0.0)]

    @pytest.mark.parametrize(("hit", "limit"), [({"api"}, 2), ({"model-1"}, 2), (set(), 1), ({"api"}, 3)])
    def test_room_for_an_act_is_there_within_the_blast_radius(self, lab, clock, hit, limit):
        lab._await_room(acts()[1], SimpleNamespace(still_hit=lambda: hit), limit, clock.monotonic() + 1.0)

        assert clock.sleeps == []

    def test_room_for_an_act_is_not_there_while_the_victim_is_down(self, lab, clock):
        lab.runtime.kill("model-1")

        with pytest.raises(Aborted):
            lab._await_room(acts()[1], SimpleNamespace(still_hit=set), 1, clock.monotonic() + 1.0)

    def test_room_for_an_act_is_not_waited_for_by_the_first_act(self, lab, clock):
        lab.runtime.kill("api")

        with lab.recording(), lab.inject(acts()[:1], blast_radius=1):
            assert clock.sleeps == []

    def test_room_for_an_act_is_not_needed_by_acts_without_a_limit(self, lab, clock):
        with lab.recording(), lab.inject(acts(2.0)) as injected:
            assert clock.passed_s == pytest.approx(2.0, abs=1e-6)

        assert injected.victims == ("api", "model-1")


class TestReasons:
    """Periods that explain alerts and repairs."""

    def test_reasons_begin_with_a_fault_and_end_half_a_minute_after_it(self, lab, clock):
        begun_s = clock.time()

        with lab.recording(), lab.inject(acts()[:1]):
            clock.advance(100)

        explained = [lab.reasons.explains_action(begun_s + after_s) for after_s in (-1, 0, 129.9, 130.1)]
        assert explained == [False, True, True, False]

    def test_reasons_are_absent_without_a_fault(self, lab, clock):
        with lab.recording(), lab.inject([]):
            clock.advance(100)

        assert not lab.reasons.explains_action(clock.time())

    @pytest.mark.parametrize("error", [LoadNotHeld("late"), PartialScrape("a hole")])
    def test_reasons_come_from_a_machine_too_busy_to_measure(self, lab, clock, error):
        begun_s = clock.time()

        def measure():
            clock.advance(100)
            raise error

        with pytest.raises(type(error)), lab.reasons.unless_measured():
            measure()

        explained = [lab.reasons.explains_action(begun_s + after_s) for after_s in (-1, 0, 129.9, 130.1)]
        assert explained == [False, True, True, False]

    def test_reasons_do_not_come_from_other_invalid_trials(self, lab, clock):
        with pytest.raises(NotSteady), lab.reasons.unless_measured():
            raise NotSteady("no answer came")
        with lab.reasons.unless_measured():
            pass

        assert not lab.reasons.explains_alert(clock.time())


@dataclass(frozen=True, kw_only=True)
class Leased(OnTarget):
    """A kill that keeps its lease."""

    asked: list

    def with_lease(self, for_s):
        self.asked.append(for_s)
        return self


class TestALease:
    """The lease of a fault."""

    def leases(self, lab):
        fault = Leased(primitive=Kill(), target="api", asked=[])
        with lab.recording(), lab.inject(fault):
            pass
        return fault.asked

    def test_a_lease_outlasts_the_load_by_a_minute(self, lab, clock):
        lab._load_ends_s = clock.monotonic() + 100

        assert self.leases(lab) == [160.0]

    def test_a_lease_is_a_minute_without_a_load(self, lab, clock):
        first = self.leases(lab)
        clock.advance(50)

        assert first == self.leases(lab) == [60.0]


class TestClocks:
    """Offsets of other clocks."""

    @pytest.fixture
    def readings(self, lab, clock):
        """The clock readings if each answer takes `took_s`."""

        def read(took_s=0.0, offset_s=0.01, error=None):
            def answer():
                clock.advance(took_s)
                if error is not None:
                    raise error
                return offset_s

            clock.advance(-clock.monotonic())  # from 0 on, 0.2 s later is exactly 0.2
            lab.prometheus.clock_offset_s = lab.runtime.clock_offset_s = answer
            with lab.recording() as record:
                lab.read_clocks()
            return [(reading.clock, reading.offset_s) for reading in record.clocks[1:]]

        return read

    BOTH = [("Prometheus' clock", 0.01), ("the clock of the fake runtime", 0.01)]  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(("took_s", "is_read"), [(0.0, True), (0.2, True), (0.21, False), (2.0, False)])
    def test_clocks_that_answer_within_a_fifth_of_a_second_are_read(self, readings, took_s, is_read):
        assert readings(took_s) == (self.BOTH if is_read else [])

    def test_clocks_that_are_not_known_are_not_read(self, readings):
        assert readings(offset_s=None) == []

    @pytest.mark.parametrize("error", [NotReady("the daemon restarts"), OSError("no answer")], ids=repr)
    def test_clocks_that_do_not_answer_are_left_out(self, readings, error):
        assert readings(error=error) == []
