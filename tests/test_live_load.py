"""The running load: its plan, its live window, steady and dead loads."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.clock import Clock
from support.fake_lab import ClockedRuntime

from pytest_llmchaos import loads
from pytest_llmchaos.errors import EvidenceLost, LoadNotHeld, TooFewSamples, VacuousClaim
from pytest_llmchaos.lab import live_load
from pytest_llmchaos.lab.live_load import RunningLoad
from pytest_llmchaos.loadgen.status import LoadStatus, LoadSummary
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.windows import LatencyTargets
from pytest_llmchaos.subject.headers import Header
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.subject.requests import Requests

LOAD = loads.open_loop(rate_rps=2)
ARRIVALS = [Arrival(due_s=i / 2, prompt="hi", max_tokens=8) for i in range(40)]
SUMMARY = LoadSummary(
    offered=40,
    sent=40,
    done=40,
    shed=0,
    offered_rps=2.0,
    achieved_ratio=1.0,
    lateness_p99_s=0.004,
    generator_cpu=0.2,
    push_failures=0,
    ended="stopped",
)


class Generator:
    """A load generator without a process."""

    pid, t0_unix_s, t0_monotonic_s = 4711, 1_700_000_000.0, 1024.0
    alive = has_all_summaries = True

    def __init__(self, plan, directory):
        self.plan, self.directory = plan, directory
        self.second, self.samples, self.calls = 0.0, [], []
        self.latest = LoadStatus(outcomes={})

    def launch(self):
        self.calls.append("launch")

    def start(self, deadline_s):
        self.calls.append(("start", deadline_s))

    def now_s(self):
        return self.second

    def status(self):
        return self.latest

    def recent(self, since_s):
        return [sample for sample in self.samples if sample.due_s >= since_s]

    def ended(self, since_s):
        return [sample for sample in self.samples if sample.end_s >= since_s]

    def stop(self, *, drain):
        self.calls.append(("stop", drain))
        return SUMMARY


@pytest.fixture
def load_of(tmp_path, monkeypatch):
    """A load at second `now_s` with these ended requests."""
    clock = Clock(unix_s=1_700_000_000.25)
    monkeypatch.setattr(live_load, "LoadProcess", Generator)
    monkeypatch.setattr(live_load, "time", clock)

    def make(load=LOAD, *, now_s=0.0, answered=(), status=None, **subject):
        running = RunningLoad(
            load,
            ARRIVALS,
            runtime=ClockedRuntime(clock),
            subject=replace(lab_subject("sim"), **subject),
            directory=tmp_path,
        )
        running._process.second, running._process.samples = now_s, list(answered)
        running._process.latest = status or LoadStatus(at_s=now_s, begun_s=now_s, settled_s=now_s, outcomes={}, done=7)
        return running

    return make


def sample(due_s, outcome="ok", *, took_s=0.1, replica="model-1"):
    return Sample(due_s, due_s, due_s + took_s / 2, due_s + took_s, 0.0, 8, outcome, replica, f"r-{due_s}")


def answered(until_s, **about):
    return [sample(arrival.due_s, **about) for arrival in ARRIVALS if arrival.due_s < until_s]


class TestWhatIsSent:
    """The plan for the load generator."""

    def test_the_load_goes_to_the_subjects_gateway(self, load_of, tmp_path):
        impatient = loads.open_loop(
            rate_rps=2,
            latency_targets=LatencyTargets(ttft_s=0.5, e2e_s=3.0),
            timeout_s=4.0,
            first_token="content",
        )
        running = load_of(impatient, replica_header="x-replica", ready_path="/ready")
        plan = running._process.plan

        assert (plan.url, plan.model, plan.arrivals) == (
            "http://127.0.0.1:9/api",
            lab_subject("sim").model,
            tuple(ARRIVALS),
        )
        assert (plan.timeout_s, plan.first_token, plan.good_ttft_s, plan.good_e2e_s) == (4.0, "content", 0.5, 3.0)
        assert (plan.replica_header, plan.ready_path, plan.check) == ("x-replica", "/ready", lab_subject("sim").check)
        assert plan.name == f"{tmp_path.name}-1700000000.250"
        assert running._process.directory == tmp_path

    def test_headers_of_the_load_are_added_to_those_of_the_subject(self, load_of):
        subject = Requests(headers=(Header("X-Team", "a"), Header("X-Class", "low")))
        plan = load_of(loads.open_loop(headers={"x-class": "high"}), requests=subject)._process.plan

        assert plan.requests.headers == (Header("X-Team", "a"), Header("x-class", "high"))

    def test_a_users_own_requests_go_to_a_port_with_tls(self, load_of):
        requests = Requests(dialect="ollama", tls="unverified")
        plan = load_of(requests=requests, check=None)._process.plan

        assert (plan.requests, plan.url) == (requests, "https://127.0.0.1:9/api")

    def test_the_load_is_counted_at_the_subjects_pushgateway_if_it_has_one(self, load_of):
        assert load_of(pushgateway="pushgateway")._process.plan.push_url == "http://127.0.0.1:9/pushgateway"
        assert load_of(pushgateway=None)._process.plan.push_url is None

    def test_the_load_begins_within_twenty_seconds(self, load_of):
        running = load_of()

        running.launch()
        running.start()

        assert running._process.calls == ["launch", ("start", 20.0)]

    def test_the_load_has_the_process_and_the_second_zero_of_its_generator(self, load_of):
        running = load_of()

        assert (running.pid, running.t0_unix_s, running.t0_monotonic_s) == (4711, 1_700_000_000.0, 1024.0)
        assert repr(running) == f"<load {LOAD}: 7 answered>"


class TestOpenRequests:
    """Open requests in a live window."""

    def of(self, load_of, overdue, *, now_s=8.0, ended=()):
        status = LoadStatus(at_s=now_s, begun_s=now_s, settled_s=now_s, outcomes={}, overdue=overdue)
        return load_of(now_s=now_s, answered=[*answered(6.0), *ended], status=status)

    def test_a_live_window_counts_a_request_that_is_open_and_too_old_as_failed(self, load_of):
        hung = {f"h-{due_s}": due_s for due_s in (6.0, 6.5, 7.0, 7.5)}
        window = self.of(load_of, hung).live_window(4.0)

        assert (window.offered, window.failed, dict(window.outcomes)) == (8, 4, {"ok": 4, "unfinished": 4})
        assert window.availability == 0.5

    def test_a_live_window_counts_it_once_if_it_has_ended_since(self, load_of):
        late = sample(6.0, took_s=1.9)

        assert self.of(load_of, {late.request_id: 6.0}, ended=[late]).live_window(4.0).failed == 0

    def test_a_live_window_leaves_out_what_was_due_before_it(self, load_of):
        assert self.of(load_of, {"h": 3.9}).live_window(4.0).failed == 0

    def test_a_live_window_after_the_load_is_that_of_its_last_seconds(self, load_of):
        running = self.of(load_of, {})
        running.stop()
        running._process.second = 60.0  # while the trial is judged
        window = running.live_window(4.0)

        assert (window.offered, window.to_s, running.now_s()) == (4, 8.0, 8.0)
        with pytest.raises(TooFewSamples):
            assert window.availability >= 0.99
        with pytest.raises(VacuousClaim):
            assert window.failed <= 4

    def test_a_live_window_of_a_load_that_never_started_has_no_end(self, load_of):
        running = load_of()

        def unstarted():
            raise LoadNotHeld("the load has not started: call start() first")

        running._process.now_s = unstarted
        assert running.stop() is SUMMARY


class TestNow:
    """The time of a load."""

    @pytest.mark.parametrize(("generators_s", "now_s"), [(-0.2, 0.0), (0.0, 0.0), (0.5, 0.5), (7.0, 7.0)])
    def test_now_is_never_before_second_zero(self, load_of, generators_s, now_s):
        assert load_of(now_s=generators_s).now_s() == now_s

    def test_the_rate_is_that_around_now(self, load_of):
        assert load_of(now_s=10.0).offered_rps() == 2.0
        assert load_of(now_s=2.0).offered_rps() == 2.0
        assert load_of(now_s=0.0).offered_rps() == 0.0
        assert load_of(now_s=0.05).offered_rps() == pytest.approx(10.0)

    def test_the_rate_of_a_changing_load_is_that_within_5_s_of_now(self, load_of):
        running = load_of(now_s=20.0)
        running._due_s = [2.0, 14.5, 15.0, 19.0, 19.5]

        assert running.offered_rps() == 3 / 5


class TestLiveWindow:
    """The live window."""

    def test_a_live_window_has_what_was_due_in_the_last_seconds(self, load_of):
        window = load_of(now_s=8.0, answered=answered(8.0)).live_window(3.0)

        assert (window.name, window.from_s, window.to_s, window.offered) == ("in the last 3 s", 5.0, 8.0, 6)

    def test_a_live_window_begins_with_the_load(self, load_of):
        window = load_of(now_s=2.0, answered=answered(2.0)).live_window(5.0)

        assert (window.name, window.from_s, window.to_s, window.offered) == ("in the last 2 s", 0.0, 2.0, 4)

    def test_a_live_window_counts_by_the_loads_own_limits(self, load_of):
        quick = loads.open_loop(rate_rps=2, latency_targets=LatencyTargets(ttft_s=0.5, e2e_s=1.0))
        window = load_of(quick, now_s=8.0, answered=answered(8.0, took_s=1.1)).live_window(3.0)

        assert (window.ok, window.good) == (6, 0)

    def test_what_ended_lately_may_have_been_due_long_ago(self, load_of):
        late = load_of(now_s=8.0, answered=answered(8.0, took_s=5.0))

        assert {sample.end_s >= 6.0 for sample in late.ended(6.0)} == {True}
        assert min(sample.due_s for sample in late.ended(6.0)) < 2.0


class TestSteady:
    """The reasons against a steady state."""

    def test_the_steady_state_counts_from_its_first_second(self, load_of):
        assert load_of(now_s=4.0, answered=answered(4.0)).not_steady(4.0) is None
        assert load_of(now_s=3.9, answered=answered(3.9)).not_steady(4.0) == "only 3.9 s of load so far"

    @pytest.mark.parametrize(("answers", "reason"), [(4, None), (3, "3 answers in 4 s, at least 4 expected")])
    def test_the_steady_state_needs_half_of_the_answers(self, load_of, answers, reason):
        """Eight requests are due in four seconds."""
        assert load_of(now_s=8.0, answered=answered(8.0)[-answers:]).not_steady(4.0) == reason

    def test_the_steady_state_needs_half_of_the_answers_of_patient_clients(self, load_of):
        """Impatient clients left two of eight requests, which do not count."""
        left = [sample(4.0, "left"), sample(4.5, "left")]

        assert load_of(now_s=8.0, answered=[*left, *answered(8.0)[-3:]]).not_steady(4.0) is None
        assert load_of(now_s=8.0, answered=[*left, *answered(8.0)[-2:]]).not_steady(4.0) == (
            "2 answers in 4 s, at least 3 expected"
        )

    @pytest.mark.parametrize(("answers", "reason"), [(2, None), (1, "1 answers in 1 s, at least 2 expected")])
    def test_the_steady_state_needs_two_answers_at_least(self, load_of, answers, reason):
        assert load_of(now_s=8.0, answered=answered(8.0)[-answers:]).not_steady(1.0) == reason

    def test_the_steady_state_counts_the_outcomes_of_bad_requests(self, load_of):
        bad = [*answered(5.5), *(sample(at_s, "refused") for at_s in (5.5, 6.0, 6.5, 7.0)), sample(7.5, took_s=11.0)]

        assert load_of(now_s=8.0, answered=bad).not_steady(4.0) == (
            "5 of 8 requests of the last 4 s were bad ({'ok': 4, 'refused': 4})"
        )

    @pytest.mark.parametrize(("now_s", "reason"), [(10.0, "3 answers in 4 s, at least 4 expected"), (10.5, None)])
    def test_the_steady_state_is_reached_by_answers_that_take_longer_than_its_window(self, load_of, now_s, reason):
        slow = [replace(one, end_s=one.due_s + 9) for one in answered(20.0) if one.due_s + 9 <= now_s]

        assert load_of(now_s=now_s, answered=slow).not_steady(4.0) == reason

    def test_the_reason_counts_the_open_requests(self, load_of):
        status = LoadStatus(at_s=8.0, begun_s=8.0, settled_s=0.0, inflight=16, outcomes={})

        assert load_of(now_s=8.0, answered=[], status=status).not_steady(4.0) == (
            "0 answers in 4 s, at least 4 expected (16 requests are open)"
        )

    @pytest.mark.parametrize(
        ("begun_s", "settled_s", "reason"),
        [
            (6.0, 0.0, None),
            (5.9, 0.0, "a request has waited 2.1 s for its first token, at most 2 s are good"),
            (6.0, -2.1, "a request has waited 10.1 s for the end of its answer, at most 10 s are good"),
            (6.0, -2.0, None),
        ],
    )
    def test_the_steady_state_has_no_request_that_waits_for_longer_than_a_good_one(
        self, load_of, begun_s, settled_s, reason
    ):
        status = LoadStatus(at_s=8.0, begun_s=begun_s, settled_s=settled_s, outcomes={})

        assert load_of(now_s=8.0, answered=answered(8.0), status=status).not_steady(4.0) == reason


class TestSchedule:
    """Scheduled requests."""

    @pytest.mark.parametrize(
        ("from_s", "to_s", "due"), [(0.0, 4.0, 8), (1.0, 4.0, 6), (1.1, 1.4, 0), (-3.0, 1.0, 2), (19.0, 99.0, 2)]
    )
    def test_the_schedule_has_arrivals_from_the_first_instant_until_before_the_last(self, load_of, from_s, to_s, due):
        assert load_of().due_between(from_s, to_s) == due


class TestRecovery:
    """Recovery of the service."""

    def test_recovery_is_the_first_good_request_after_the_last_bad_one(self, load_of):
        seen = [*answered(3.0), sample(3.0, "refused"), *answered(8.0)[7:]]

        assert load_of(now_s=8.0, answered=seen).recovery_s(2.0, stable_s=2.0) == 3.5
        assert load_of(now_s=8.0, answered=seen).recovery_s(2.0, stable_s=6.0) is None

    def test_recovery_is_not_known_beyond_the_oldest_open_request(self, load_of):
        seen = [*answered(3.0), sample(3.0, "refused"), *answered(8.0)[7:]]
        status = LoadStatus(at_s=8.0, settled_s=5.0, outcomes={})

        assert load_of(now_s=8.0, answered=seen, status=status).recovery_s(2.0, stable_s=2.0) is None

    def test_recovery_of_a_replica_is_a_whole_answer_of_its_own(self, load_of):
        ok = "".join(list("ok"))  # an equal text that is another object, as read from a file
        seen = [
            sample(1.0, replica="model-1"),
            sample(3.0, ok, replica="model-2"),
            sample(4.0, "truncated", replica="model-3"),
            sample(5.0, "cut", replica="model-4"),
        ]

        assert load_of(now_s=8.0, answered=seen).replicas_answering(2.0) == {"model-2"}


class TestEnd:
    """The end of a load."""

    def test_the_end_is_requested_once_and_waits_for_open_requests(self, load_of):
        running = load_of()

        assert running.stop() is running.stop(drain=False) is SUMMARY
        assert running._process.calls == [("stop", True)]

    def test_the_end_in_a_hurry_waits_for_no_request(self, load_of):
        running = load_of()
        running.stop(drain=False)

        assert running._process.calls == [("stop", False)]

    def test_the_death_of_a_generator_counts_only_during_the_load(self, load_of):
        running = load_of()
        running.check_alive()

        running._process.alive = False
        with pytest.raises(LoadNotHeld, match=r"ended before the trial did; see load\.log"):
            running.check_alive()
        running.stop()
        running.check_alive()

    @pytest.mark.parametrize(("free", "error"), [(0, EvidenceLost), (1, LoadNotHeld), (9999, LoadNotHeld)])
    def test_the_end_by_a_full_disk_is_lost_evidence(self, load_of, monkeypatch, free, error):
        monkeypatch.setattr(live_load.os, "statvfs", lambda _: SimpleNamespace(f_bavail=free))
        dead, silent = load_of(), load_of()
        dead._process.alive = silent._process.has_all_summaries = False

        with pytest.raises(error):
            dead.check_alive()
        with pytest.raises(error):
            silent.require_held()

    def test_the_end_of_a_load_that_was_held_has_its_figures(self, load_of):
        held = load_of().require_held()

        assert (held.offered_rps, held.achieved_ratio, held.lateness_p99_s, held.generator_cpu, held.reconnected) == (
            2.0,
            1.0,
            0.004,
            0.2,
            0,
        )
