"""Acts of an autoscaler by independent evidence."""

import math

import pytest

from pytest_llmchaos import BadScenario
from pytest_llmchaos.errors import Inconclusive, NoData, OpenRequests, TruthsDisagree, VacuousClaim
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.lab.injector import Injected, OwnAct
from pytest_llmchaos.model import RuntimeEvent, Sample, ServiceState
from pytest_llmchaos.trial.scaling import (
    FLAP_S,
    Scaling,
    acts_of,
    disagreement,
    spans_of,
    touched_by,
)

REPLICAS = ("model-1", "model-2", "model-3")
ENDED_S = 100.0


@pytest.fixture
def record(tmp_path):
    made = Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path)
    made.anchor(0.0, 0.0)
    return made


def event(at_s, action, service="model-3"):
    return RuntimeEvent(at_unix_s=at_s, service=service, action=action)


def stopped(at_s, service="model-3"):
    """A stop as Docker and supervisord report it: the signal, then the end."""
    return [event(at_s - 0.1, "kill", service), event(at_s, "die", service)]


def scaling(record, events, *, injected=None, audit=(), states=None, samples=()):
    acts = acts_of(record, REPLICAS, events, injected or Injected(), audit)
    return Scaling(
        replicas=REPLICAS,
        spans=spans_of(record, REPLICAS, events, states or {}, ENDED_S),
        acts=acts,
        ended_s=ENDED_S,
        samples=touched_by(acts, samples),
    )


def up_then_down(gap_s, *, up_s=20.0):
    return [event(up_s, "start"), *stopped(up_s + gap_s)]


RUNS = {"model-1": ServiceState(service="model-1", running=True)}


class TestRunningTimes:
    def test_a_replica_costs_from_its_start_to_its_end(self, record):
        seen = scaling(record, up_then_down(36.0), states=RUNS)

        assert 136 / 3600 - 1e-9 <= seen.replica_hours <= 136 / 3600 + 1e-9
        assert seen.max_replicas == 2

    def test_one_that_ran_before_the_load_costs_from_the_loads_start(self, record):
        assert float(scaling(record, stopped(36.0)).replica_hours) == pytest.approx(36 / 3600)

    def test_one_that_is_restarted_costs_its_two_times(self, record):
        events = [*stopped(30.0), event(40.0, "start")]

        assert float(scaling(record, events).replica_hours) == pytest.approx(90 / 3600)

    def test_a_second_start_or_end_in_a_row_changes_nothing(self, record):
        events = [event(10.0, "start"), event(20.0, "start"), *stopped(30.0), event(50.0, "die")]

        assert float(scaling(record, events).replica_hours) == pytest.approx(20 / 3600)

    def test_what_begins_after_the_end_costs_nothing(self, record):
        seen = scaling(record, [event(ENDED_S + 1, "start")], states=RUNS)

        assert float(seen.replica_hours) == pytest.approx(100 / 3600)
        assert seen.max_replicas == 1

    def test_a_replacement_at_once_is_no_further_replica(self, record):
        events = [*stopped(30.0, "model-1"), event(30.0, "start", "model-2")]

        assert scaling(record, events).max_replicas == 1

    @pytest.mark.parametrize(
        "claim",
        [
            lambda seen: seen.replica_hours >= 0,
            lambda seen: seen.replica_hours <= 300 / 3600,
            lambda seen: seen.max_replicas <= 3,
            lambda seen: seen.flaps >= 0,
        ],
    )
    def test_a_claim_that_cannot_fail_is_refused(self, record, claim):
        with pytest.raises(VacuousClaim):
            claim(scaling(record, up_then_down(10.0)))


def own(*services):
    found = Injected()
    found.own = [OwnAct(service=name, from_unix_s=19.0, to_unix_s=21.0) for name in services]
    return found


def repair(begin, end="done", service="model-3", reason=""):
    lines = [{"at": begin, "event": "intent", "service": service, "incident": "i1"}]
    return [*lines, {"at": begin + 1, "event": end, "service": service, "incident": "i1", "reason": reason}]


class TestActs:
    def test_starts_and_stops_are_acts(self, record):
        seen = scaling(record, up_then_down(10.0))

        assert repr(seen) == "<scaling: model-3 up at 20.0 s; model-3 down at 30.0 s>"
        assert repr(scaling(record, [])) == "<scaling: none>"

    def test_events_of_other_services_do_not_count(self, record):
        assert scaling(record, [event(20.0, "start", "api"), event(20.0, "pause")]).acts == ()

    def test_a_death_without_a_signal_does_not_count(self, record):
        assert scaling(record, [event(20.0, "die")]).acts == ()
        later = [*stopped(20.0), event(20.1, "stop"), event(30.0, "start"), event(40.0, "die")]
        assert len(scaling(record, later).acts) == 2

    def test_a_death_by_a_fault_and_its_revert_do_not_count(self, record):
        events = [event(19.5, "kill"), event(19.6, "die"), event(20.9, "start")]

        assert scaling(record, events, injected=own("model-3")).acts == ()

    def test_a_death_after_a_faults_signal_does_not_count(self, record):
        assert scaling(record, [event(20.9, "kill"), event(25.0, "die")], injected=own("model-3")).acts == ()

    def test_acts_of_the_remediator_do_not_count(self, record):
        events = [*stopped(20.0), event(20.5, "start")]

        assert scaling(record, events, audit=repair(19.8)).acts == ()
        assert len(scaling(record, events, audit=repair(19.8, service="api")).acts) == 2

    def test_a_failed_act_of_the_remediator_leaves_doubt(self, record):
        (act,) = scaling(record, [event(20.0, "start")], audit=repair(19.5, "failed")).acts

        assert str(act) == "model-3 up at 20.0 s (perhaps)"

    def test_one_that_the_remediator_refused_leaves_none(self, record):
        refused = repair(19.5, "failed", reason="not done: the autoscaler owns model-3")
        (act,) = scaling(record, [event(20.0, "start")], audit=refused).acts

        assert str(act) == "model-3 up at 20.0 s"

    def test_after_a_stop_only_the_dead_replicas_own_start_certainly_replaces_it(self, record):
        reverses = [event(5.0, "die", "model-1"), *stopped(10.2), event(12.0, "start")]
        acts = scaling(record, [*reverses, event(20.0, "start", "model-1"), event(21.0, "start", "model-2")]).acts

        assert [(act.is_replacement, act.may_replace) for act in acts] == [
            (False, False),
            (False, True),
            (True, False),
            (False, False),
        ]

    def test_a_stop_before_a_death_does_not_matter(self, record):
        events = [
            *stopped(4.0, "model-2"),
            event(5.0, "die", "model-1"),
            event(7.0, "start"),
            event(9.0, "start", "model-1"),
        ]

        assert [act.is_replacement for act in scaling(record, events).acts] == [False, True, False]

    def test_a_replica_that_another_program_starts_again_is_not_replaced(self, record):
        events = [event(20.0, "die"), event(20.9, "start"), event(30.0, "start", "model-1")]

        assert [act.is_replacement for act in scaling(record, events, injected=own("model-3")).acts] == [False]

    def test_a_start_for_a_replica_that_died_replaces_it(self, record):
        events = [event(20.0, "die", "model-1"), event(22.0, "start"), event(30.0, "start", "model-2")]

        assert [act.is_replacement for act in scaling(record, events).acts] == [True, False]


class TestFlaps:
    @pytest.mark.parametrize(("gap_s", "flaps"), [(FLAP_S, 1), (FLAP_S + 0.1, 0)])
    def test_an_act_that_is_reversed_within_the_time_is_one(self, record, gap_s, flaps):
        assert scaling(record, up_then_down(gap_s)).flaps == flaps

    def test_acts_in_one_direction_do_not_count(self, record):
        assert scaling(record, [event(20.0, "start"), event(21.0, "start", "model-2")]).flaps == 0

    def test_they_are_printed(self, record):
        seen = scaling(record, up_then_down(10.0))

        assert repr(seen.flaps) == "1 (model-3 up at 20.0 s, model-3 down at 30.0 s)"
        assert repr(scaling(record, []).flaps) == "0"

    def test_a_replacement_does_not_count(self, record):
        events = [*stopped(15.0, "model-2"), event(20.0, "die", "model-1"), event(22.0, "start")]

        assert scaling(record, events).flaps == 0

    def test_a_start_that_may_replace_a_dead_one_leaves_the_value_open(self, record):
        seen = scaling(record, [event(5.0, "die", "model-1"), *stopped(10.2), event(12.0, "start")])

        assert seen.flaps <= 1
        with pytest.raises(OpenRequests, match=r"between 0 and 1, because a start after a death and a stop either"):
            assert seen.flaps == 0

    def test_perhaps_the_remediators_act_leaves_the_value_open(self, record):
        seen = scaling(record, up_then_down(10.0), audit=repair(19.5, "failed"))

        assert seen.flaps <= 1
        with pytest.raises(OpenRequests, match=r"lies between 0 and 1, because the remediator may have done"):
            assert seen.flaps == 0


def sample(end_s, outcome="ok", replica="model-3"):
    return Sample(end_s - 1, end_s - 1, None, end_s, 0.0, 8, outcome, replica, f"r-{end_s:g}")


class TestCuts:
    def cuts(self, record, *samples, audit=()):
        return scaling(record, up_then_down(30.0), samples=samples, audit=audit).cut_by_scale_down

    def test_a_stream_of_the_stopped_replica_that_breaks_at_the_stop_is_cut(self, record):
        found = self.cuts(record, sample(45.0), sample(50.2, "cut"))

        assert found == 1
        assert repr(found) == "1 (r-50.2 cut at 50.2 s)"

    @pytest.mark.parametrize(
        "other", [sample(49.3, "cut"), sample(51.6, "cut"), sample(50.2), sample(50.2, "cut", "model-1")]
    )
    def test_no_other_is(self, record, other):
        assert self.cuts(record, sample(45.0), other) == 0

    def test_one_that_breaks_between_the_signal_and_the_end_is_cut(self, record):
        events = [
            event(20.0, "start"),
            event(50.0, "kill"),
            event(54.9, "kill"),
            event(55.0, "die"),
            event(55.1, "stop"),
        ]

        assert scaling(record, events, samples=[sample(45.0), sample(51.6, "cut")]).cut_by_scale_down == 1

    def test_one_of_an_unknown_replica_may_be(self, record):
        found = self.cuts(record, sample(45.0), sample(50.2, "http_5xx", ""))

        assert found <= 1
        with pytest.raises(
            OpenRequests, match="1 streams broke at a stop, and the replica that served them is unknown"
        ):
            assert found == 0

    def test_without_a_scale_down_nothing_is_shown(self, record):
        with pytest.raises(NoData, match="stopped no replica in this trial"):
            assert scaling(record, [event(20.0, "start")]).cut_by_scale_down == 0

    def test_a_stop_that_may_be_the_remediators_shows_nothing(self, record):
        with pytest.raises(NoData, match=r"may have done each stop \(model-3 down at 50.0 s \(perhaps\)\)"):
            assert self.cuts(record, sample(45.0), audit=repair(49.5, "failed")) == 0

        refused = repair(49.5, "failed", reason="not done: the autoscaler owns model-3")
        assert self.cuts(record, sample(45.0), audit=refused) == 0

    def test_without_streams_of_the_replica_nothing_is_shown(self, record):
        for samples in ((), (sample(19.0),), (sample(45.0, replica="model-1"),)):
            with pytest.raises(NoData, match="gave no client an answer in their last 30 s"):
                assert self.cuts(record, *samples) == 0


def test_what_is_unknown_is_no_claim(record):
    seen = Scaling(replicas=REPLICAS, spans=(), acts=(), ended_s=ENDED_S, unknown=Inconclusive("it died"))

    assert seen.max_replicas == 0
    for claim in (lambda: seen.flaps, lambda: seen.cut_by_scale_down):
        with pytest.raises(Inconclusive, match="it died"):
            claim()
    with pytest.raises(BadScenario, match="neither true nor false"):
        assert seen


class TestCounters:
    @pytest.fixture
    def acts(self, record):
        events = [*up_then_down(10.0), event(50.0, "die", "model-1"), event(51.0, "start", "model-1")]
        return acts_of(record, REPLICAS, events, Injected(), ())

    @pytest.mark.parametrize("counted", [{"up": 1.0, "down": 1.0}, {"up": 2.0, "down": 1.0}])
    def test_those_of_the_events_agree_with_or_without_a_replacement(self, acts, counted):
        assert disagreement(acts, counted) is None

    @pytest.mark.parametrize("counted", [{}, {"up": 1.0}, {"up": 3.0, "down": 1.0}, {"up": 1.0, "down": math.inf}])
    def test_others_disagree(self, acts, counted):
        found = disagreement(acts, counted)

        assert isinstance(found, TruthsDisagree)
        assert "and the runtime's events show model-3" in str(found)

    def test_a_start_that_may_replace_a_dead_one_is_counted(self, record):
        events = [event(5.0, "die", "model-1"), *stopped(10.2), event(12.0, "start")]
        acts = acts_of(record, REPLICAS, events, Injected(), ())

        assert disagreement(acts, {"up": 1.0, "down": 1.0}) is None
        assert isinstance(disagreement(acts, {"down": 1.0}), TruthsDisagree)

    def test_an_act_at_the_edge_may_be_missed(self, acts):
        assert disagreement(acts, {"up": 1.0}, edges=acts[1:2]) is None
        assert disagreement((), {"down": 1.0}, edges=acts[1:2]) is None
        assert "show none" in str(disagreement((), {"up": 1.0}, edges=acts[1:2]))
