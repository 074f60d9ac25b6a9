"""The gates of validity: each one stops a trial that it must stop."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from support.judged_world import END_S, GOOD_S, KILLED_S, RATE_RPS, REVERTED_S, Performed, judge
from support.prometheus_server import history

from pytest_llmchaos import faults, loads
from pytest_llmchaos.errors import (
    FaultNotObserved,
    HealFailed,
    Inconclusive,
    InvalidExperiment,
    LoadNotHeld,
    NoData,
    NotRecovered,
    NotSteady,
    PartialScrape,
    ProvesNothing,
    StaleData,
    TooFewSamples,
    TruthsDisagree,
    VacuousClaim,
)
from pytest_llmchaos.lab import gates, injector, lab
from pytest_llmchaos.loadgen.status import LoadStatus
from pytest_llmchaos.runtime import undo as heal
from pytest_llmchaos.trial import agreement
from pytest_llmchaos.trial import judge as judging


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with judge(tmp_path_factory.mktemp("gates")) as served:
        yield served


@pytest.fixture
def performed(world, tmp_path):
    return Performed(tmp_path, *world)


def clock(now_unix_s):
    """Set the lab's clock only."""
    return SimpleNamespace(time=now_unix_s, monotonic=time.monotonic, sleep=time.sleep)


def judged(performed):
    with performed.load() as (record, running):
        return judging.judge(performed.lab, performed.plan, record, running, performed.injected)


def test_a_trial_that_no_gate_stops_is_judged(performed):
    trial = judged(performed)

    assert trial.time_to_detect_s == pytest.approx(1.3, abs=0.01)
    # Clients were served after 0.6 s. Prometheus scrapes once a second and saw the
    # victim take part again after 3.3 s.
    assert trial.time_to_recover_s == pytest.approx(3.3, abs=0.01)
    assert trial.time_to_recover_s.resolution_s == pytest.approx(1.0, abs=0.01)
    assert trial.detected_by == "alert ServiceDown"
    assert trial.slo("availability").value < 0.995
    # Requests that ended between a scrape and the fault fall on either side of it.
    assert [one for one in trial.findings if "requests apart" not in one] == []


class TestLoadOnTime:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"achieved_ratio": 0.979}, r"the load sent 97\.9% of its schedule, expected at least 98%: lower rate_rps"),
            ({"lateness_p99_s": 0.051}, r"the load ran late: p99 0\.051 s, expected at most 0\.05 s: lower rate_rps"),
            ({"shed": 1}, "1 requests were not sent, because too many were open at once: lower rate_rps"),
            ({"generator_cpu": 0.91}, "the load generator used 91% of its core, expected at most 90%"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_load_beyond_a_bound_is_not_held(self, performed, changed, said):
        performed.summary = replace(performed.summary, **changed)

        with pytest.raises(LoadNotHeld, match=said):
            judged(performed)

    def test_a_load_without_a_summary_of_the_generator_is_not_held(self, performed):
        with performed.load() as (record, running):
            (record.directory / "summary.json").unlink()

            with pytest.raises(LoadNotHeld, match="left no summary, so it died"):
                running.require_held()

    def test_a_load_at_every_bound_is_held(self, performed):
        bounds = {"achieved_ratio": 0.98, "lateness_p99_s": 0.05, "generator_cpu": 0.9}
        performed.summary = replace(performed.summary, **bounds)

        assert judged(performed).load.lateness_p99_s == 0.05

    def test_a_load_without_a_single_answer_is_invalid(self, performed):
        performed.seen = []

        with pytest.raises(InvalidExperiment, match="no request was answered in the whole trial"):
            judged(performed)

    def test_the_whole_window_is_from_the_first_request_to_the_last(self, performed):
        trial = judged(performed)

        assert trial.whole.offered == len(performed.seen)
        assert (trial.whole.from_s, trial.whole.to_s) == (0.0, END_S)
        assert trial.whole.offered_rps == pytest.approx(RATE_RPS)

    def test_a_load_that_ends_with_an_open_request_shows_no_recovery(self, performed):
        """The claim needs 4 good seconds, and a request in them is still open."""
        performed.seen = [replace(s, outcome="cancelled") if s.due_s == 12.0 else s for s in performed.seen]

        with pytest.raises(NotRecovered, match="clients never had 4 s without a bad request"):
            _ = judged(performed).time_to_recover_s


class TestTwoTruths:
    def test_truths_whose_shares_differ_disagree(self, performed):
        performed.seen[5] = replace(performed.seen[5], outcome="truncated")

        with pytest.raises(TruthsDisagree, match=r"clients counted 0\.9594, Prometheus 0\.9625"):
            judged(performed)

    def test_truths_whose_counts_never_meet_raise_no_data(self, performed, monkeypatch):
        monkeypatch.setattr(judging, "LAST_PUSH_DEADLINE_S", 0.2)
        performed.summary = replace(performed.summary, done=performed.summary.done + 1)

        with pytest.raises(NoData, match=r"Prometheus has 320\.0 of the clients' 321 answers"):
            judged(performed)

    @pytest.fixture
    def slowed(self, performed):
        """Delay every tenth answer for clients only. Prometheus has 50 ms."""

        def judged_with(late_s):
            for i, one in enumerate(performed.seen):
                if i % 10 == 0 and one.outcome == "ok":
                    performed.seen[i] = replace(one, end_s=one.due_s + late_s)
            return [one for one in judged(performed).findings if "p95" in one]

        return judged_with

    @pytest.mark.parametrize("late_s", [0.041, 0.079])
    def test_truths_agree_where_p95_lies_in_the_histograms_bucket(self, slowed, late_s):
        assert slowed(late_s) == []

    def test_truths_whose_p95_lies_in_the_next_bucket_are_a_finding(self, slowed):
        assert slowed(0.12) == ["p95: clients measured 0.120 s, Prometheus' histogram 0.04 to 0.08 s"]

    def test_truths_whose_p95_lies_farther_away_disagree(self, slowed):
        with pytest.raises(
            TruthsDisagree, match=r"p95: clients measured 0\.170 s, .* 0\.04 to 0\.08 s, more than one bucket"
        ):
            slowed(0.17)

    def test_truths_without_a_histogram_raise_no_data(self, performed):
        whole = judging.windows(performed.seen, [("whole", 0, 99)])[0]
        with performed.load() as (record, _), pytest.raises(NoData, match="llmchaos_client_request_duration"):
            agreement._compare_p95(performed.lab, record, whole, performed.t0_unix_s - 60)

    @pytest.mark.parametrize("offset_s", [0.26, -0.26, float("nan")])
    def test_truths_on_two_clocks_disagree(self, performed, monkeypatch, offset_s):
        monkeypatch.setattr(performed.lab.prometheus, "clock_offset_s", lambda: offset_s)

        with pytest.raises(TruthsDisagree, match=r"Prometheus' clock is .* s off ours, at most 0\.25 s allowed"):
            judged(performed)

    def test_truths_on_two_clocks_disagree_even_without_a_pushgateway(self, performed, monkeypatch):
        monkeypatch.setattr(performed.lab.prometheus, "clock_offset_s", lambda: 3.0)
        performed.lab.subject = replace(performed.lab.subject, pushgateway=None)

        with pytest.raises(TruthsDisagree, match=r"clock is \+3\.000 s off"):
            judged(performed)


class TestClocks:
    @pytest.mark.parametrize(("by_s", "by"), [(3.0, r"\+3\.000"), (-3.0, r"-3\.000")], ids=["forwards", "backwards"])
    @pytest.mark.parametrize("clock", ["this machine's wall clock", "the clock of the compose runtime"])
    def test_clocks_that_are_set_during_the_trial_are_inconclusive(self, performed, clock, by_s, by):
        performed.clocks = [(clock, 1.0, 0.01), (clock, 9.0, -0.02), (clock, 12.0, 0.01 + by_s)]

        with pytest.raises(
            Inconclusive,
            match=rf"{clock} was set by {by} s between 9\.0 s and 12\.0 s of the trial",
        ):
            judged(performed)

    def test_clocks_that_are_set_and_set_back_are_inconclusive(self, performed):
        performed.clocks = [("Docker's", at_s, 0.5 * (at_s == 2.0)) for at_s in (1.0, 2.0, 3.0)]

        with pytest.raises(Inconclusive, match=r"set by \+0\.500 s between 1\.0 s and 2\.0 s"):
            judged(performed)

    def test_clocks_that_are_apart_all_along_disagree(self, performed):
        performed.clocks = [("the clock of the compose runtime", at_s, -2.0) for at_s in (1.0, 12.0)]

        with pytest.raises(TruthsDisagree, match=r"the clock of the compose runtime is -2\.000 s off ours"):
            judged(performed)

    def test_clocks_are_read_at_every_turn_of_a_trial(self, performed):
        performed.runtime.clock_offset_s = lambda: 0.002
        with performed.load() as (record, _):
            performed.lab.read_clocks()

            assert [reading.clock for reading in record.clocks] == [
                "this machine's wall clock",
                "Prometheus' clock",
                "the clock of the fake runtime",
            ]
            assert all(abs(reading.offset_s) < 0.1 for reading in record.clocks)

    def test_clocks_that_answer_slowly_are_inconclusive(self, performed, monkeypatch):
        monkeypatch.setattr(lab, "CLOCK_ANSWER_S", -1.0)
        with performed.load() as (record, _):
            performed.lab.read_clocks()

            assert [reading.clock for reading in record.clocks] == ["this machine's wall clock"]

    def test_clocks_that_could_not_be_read_compare_no_times(self, performed, monkeypatch):
        asked = []
        monkeypatch.setattr(agreement, "CLOCK_ANSWER_S", -1.0)
        performed.runtime.clock_offset_s = lambda: asked.append("runtime")

        with pytest.raises(Inconclusive, match=r"Prometheus' clock did not answer within -1 s in 10 tries"):
            judged(performed)
        assert asked == []

    def test_clocks_of_a_runtime_that_never_answered_are_inconclusive(self, performed):
        tries = []

        def gone():
            tries.append("asked")
            raise OSError("no route to host")

        performed.runtime.clock_offset_s = gone

        with pytest.raises(Inconclusive, match=r"the clock of the fake runtime did not answer .*: no route to host"):
            judged(performed)
        assert len(tries) == 10

    def test_clocks_that_answer_slowly_were_not_set(self, performed, monkeypatch):
        took_s = iter((0.54, 0.1))
        now_s = 0.0

        class Slow:
            """A clock on which each query of Prometheus takes time."""

            def monotonic(self):
                return now_s

        def offset_s():
            nonlocal now_s
            took = next(took_s)
            now_s += took
            return took / 2

        with performed.load() as (record, _):
            monkeypatch.setattr(agreement, "time", Slow())
            monkeypatch.setattr(performed.lab.prometheus, "clock_offset_s", offset_s)
            agreement.require_one_clock(performed.lab, record)

            assert [one.offset_s for one in record.clocks if one.clock == "Prometheus' clock"] == [0.05]

    def test_clocks_that_answer_at_another_try_are_compared(self, performed):
        answers = [OSError("busy"), 3.0]

        def busy():
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

        performed.runtime.clock_offset_s = busy

        with pytest.raises(TruthsDisagree, match=r"the clock of the fake runtime is \+3\.000 s off ours"):
            judged(performed)


class TestScrapes:
    def test_scrapes_missing_for_a_service_that_was_no_victim_are_partial(self, performed):
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("api", "gap"))

        with pytest.raises(PartialScrape, match=r"gap was not scraped for 5\.0 s"):
            judged(performed)

    def test_scrapes_that_failed_on_a_service_that_was_not_hit_are_partial(self, performed):
        performed.runtime._events = []
        performed.injected.acts = [replace(performed.injected.acts[0], victim="model-1")]

        with pytest.raises(PartialScrape, match=r"api was not scraped .* and it was not a victim"):
            judged(performed)

    def test_scrapes_of_the_last_counts_are_waited_for(self, performed, monkeypatch):
        def late(*_):
            raise StaleData("api was not scraped since the load")

        monkeypatch.setattr(judging, "await_scrapes", late)

        with pytest.raises(StaleData, match="api was not scraped since the load"):
            judged(performed)

    def test_scrapes_of_a_missing_job_raise_no_data(self, performed):
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("api", "engine"))

        with pytest.raises(NoData, match="job engine has no scrape"):
            judged(performed)


def test_a_quantile_of_too_few_samples_makes_the_claim_an_error_and_no_pass(performed):
    trial = judged(performed)

    assert trial.before_fault.e2e_s.p99 < 0.1
    with pytest.raises(TooFewSamples, match="p99 of e2e_s needs 100 requests, during the fault has 67: raise rate_rps"):
        _ = trial.during_fault.e2e_s.p99
    assert issubclass(TooFewSamples, ProvesNothing)


class TestWindowsAroundTheFault:
    def test_windows_hold_each_request_once(self, performed):
        trial = judged(performed)
        parts = (trial.before_fault, trial.during_fault, trial.after_fault)

        assert sum(window.offered for window in parts) == trial.whole.offered
        assert trial.during_fault.from_s == KILLED_S
        assert trial.after_fault.from_s == pytest.approx(KILLED_S + trial.time_to_recover_s)

    def test_windows_count_requests_in_flight_at_the_fault_as_during_it(self, performed):
        """One request was due 50 ms before the fault and ended with it."""
        trial = judged(performed)

        assert trial.before_fault.offered == KILLED_S * RATE_RPS - 1
        assert (trial.during_fault.offered, trial.during_fault.failed) == (67, 12)

    def test_windows_have_the_stable_seconds_of_a_repair_after_the_fault(self, performed):
        """The fault phase ends after them, so its end would leave an empty window."""
        trial = judged(performed)

        assert trial.after_fault.seconds >= performed.plan.experiment.stable_s
        assert trial.after_fault.availability >= 0.95

    def test_windows_end_with_our_revert_without_a_repair(self, performed):
        performed.runtime._events = performed.runtime._events[:1]
        trial = judged(performed)

        assert (trial.during_fault.to_s, trial.after_fault.from_s) == (
            pytest.approx(REVERTED_S),
            pytest.approx(REVERTED_S),
        )


class TestBudget:
    def test_the_budget_is_scaled_by_the_slos_own_events_and_not_by_our_load(self, performed):
        """The world's Prometheus counts 20 events a second at any rate of the load."""
        load = loads.open_loop(rate_rps=RATE_RPS)
        spent = []
        for said in (load, replace(load, shape=replace(load.shape, rate_rps=1))):
            performed.plan = replace(performed.plan, experiment=replace(performed.plan.experiment, load=said))
            spent.append(float(judged(performed).slo("availability").budget_spent))

        assert spent[0] == spent[1] == pytest.approx(12 / (0.005 * RATE_RPS * 30 * 86_400), rel=0.15)

    def test_the_budget_of_a_month_cannot_bound_what_clients_suffered(self, performed):
        found = judged(performed).slo("availability")

        assert found.bad_s == pytest.approx(GOOD_S - KILLED_S, abs=0.1)
        assert found.bad_s <= 1
        with pytest.raises(VacuousClaim, match=r"budget_spent of availability <= 0\.02 cannot fail: even if every one"):
            assert found.budget_spent <= 0.02


class TestSteadyState:
    """The last 3 s before the fault, as `hold_steady` requires them."""

    @pytest.fixture
    def steady(self, performed):
        """Return why the service is not steady at second 7, with changed samples."""

        def asked(change=lambda seen: seen, *, now_s=7.0, begun_s=6.9, settled_s=6.9):
            status = LoadStatus(at_s=6.95, begun_s=begun_s, settled_s=settled_s, outcomes={})
            with performed.load() as (_, running):
                seen = change([one for one in performed.seen if one.end_s <= now_s])
                running._process = SimpleNamespace(
                    now_s=lambda: now_s,
                    ended=lambda since_s: [one for one in seen if one.end_s >= since_s],
                    status=lambda: status,
                )
                return running.not_steady(3.0)

        return asked

    def test_the_steady_state_needs_only_good_answers(self, steady):
        assert steady() is None

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda seen: [*seen[:-3], replace(seen[-3], outcome="http_5xx"), *seen[-2:]], "1 of 61 requests"),
            (lambda seen: [*seen[:-3], replace(seen[-3], end_s=99.0), *seen[-2:]], "1 of 61 requests"),
            (lambda seen: [one for one in seen if one.due_s < 4.5], "answers in 3 s, at least 30 expected"),
            (lambda seen: [], "0 answers in 3 s, at least 30 expected"),
        ],
        ids=["one failed", "one was slow", "half are silent", "all are silent"],
    )
    def test_the_steady_state_is_absent_with_a_reason(self, steady, change, said):
        assert said in steady(change)

    def test_the_steady_state_is_not_there_while_a_request_waits_for_longer_than_a_good_one_does(self, steady):
        hung = "a request has waited 2.0 s for its first token, at most 2 s are good"

        assert steady(begun_s=4.949) == hung
        assert steady(begun_s=4.951) is None
        assert "for the end of its answer, at most 10 s are good" in steady(settled_s=-3.1)

    def test_the_steady_state_needs_its_seconds_to_have_passed(self, steady):
        assert steady(now_s=2.9) == "only 2.9 s of load so far"

    def test_the_steady_state_that_never_comes_is_an_error_with_the_reason(self, performed, monkeypatch):
        monkeypatch.setattr(lab, "TICK_S", 0.001)
        with performed.load() as (_, running):
            running.not_steady = lambda _: "1 of 60 requests of the last 3 s were bad"
            running.check_alive = lambda: None
            running._process._started = {"t0_unix_s": performed.t0_unix_s}
            performed.lab.running_load = running

            with pytest.raises(NotSteady, match="not good for 3 s in a row within 0 s: 1 of 60 requests"):
                performed.lab.hold_steady(3.0, deadline_s=0.0)

    def test_the_steady_state_is_not_there_while_an_alert_fires(self, performed, monkeypatch):
        monkeypatch.setattr(lab, "time", clock(lambda: performed.t0_unix_s + KILLED_S + 2))
        with performed.load() as (_, running):
            running.not_steady = lambda _: None
            performed.lab.running_load = running

            with pytest.raises(NotSteady, match="alerts fire: ServiceDown"):
                performed.lab.hold_steady(3.0, deadline_s=0.0)

    def test_only_alerts_of_services_are_waited_for_before_the_steady_state(self, performed, tmp_path):
        page = 'alertstate="firing",severity="page"'
        series = {
            f'ALERTS{{alertname="AvailabilityFastBurn",signal="slo",{page}}}': {time.time(): 1.0},
            f'ALERTS{{alertname="ServiceFlapping",signal="restarts",{page}}}': {time.time(): 1.0},
            f'ALERTS{{alertname="OfSomebodyElse",{page}}}': {time.time(): 1.0},
        }
        (tmp_path / "after").mkdir()
        with history(tmp_path / "after", series) as performed.lab._prometheus:
            assert performed.lab.firing() == ["AvailabilityFastBurn", "OfSomebodyElse", "ServiceFlapping"]
            assert performed.lab.firing(of_services=True) == ["OfSomebodyElse", "ServiceFlapping"]

    @pytest.mark.parametrize(("signal", "waited_for"), [("slo", False), ("restarts", True)])
    def test_quiet_services_are_awaited_before_the_load(self, performed, tmp_path, signal, waited_for):
        series = f'ALERTS{{alertname="Earlier",signal="{signal}",alertstate="firing",severity="page"}}'
        (tmp_path / "after").mkdir()
        with history(tmp_path / "after", {series: {time.time(): 1.0}}) as performed.lab._prometheus:
            assert gates.is_quiet(performed.lab) is not waited_for

    def test_the_steady_state_of_a_dead_load_is_not_awaited(self, performed):
        with performed.load() as (_, running):
            running.summary = None
            running._process = SimpleNamespace(alive=False, now_s=lambda: 1.0)
            performed.lab.running_load = running

            with pytest.raises(LoadNotHeld, match="ended before the trial did"):
                performed.lab.hold_steady(3.0, deadline_s=1.0)
            performed.lab.running_load = None


class TestFault:
    @pytest.fixture
    def inject(self, performed, monkeypatch):
        monkeypatch.setattr(injector, "PROOF_DEADLINE_S", 0.0)
        monkeypatch.setattr(injector, "prove_reverted", partial(heal.prove_reverted, deadline_s=0.0))
        monkeypatch.setattr(injector, "revert_until_done", lambda runtime, undo: runtime.undo(undo))
        monkeypatch.setattr(injector, "time", clock(performed.runtime.now))

        def acted(**runtime):
            for name, value in runtime.items():
                setattr(performed.runtime, name, value)
            with performed.lab.recording() as record:
                performed.lab.signals = SimpleNamespace(fault=lambda *_, **__: None)
                with performed.lab.inject(faults.kill("api")):
                    return record

        return acted

    def test_a_fault_with_a_witness_of_its_start_and_end_passes(self, inject):
        record = inject()

        assert [proof.step for proof in record.proofs] == ["injected", "healed"]
        assert record.healed

    def test_a_fault_that_no_witness_saw_is_not_observed_and_is_reverted(self, inject, performed):
        with pytest.raises(FaultNotObserved, match="kill api: no witness saw it within 0 s"):
            inject(deaf=True)

        assert performed.runtime.state("api").running

    def test_a_fault_whose_undo_fails_stops_the_session(self, inject):
        with pytest.raises(HealFailed, match="the fake refuses ensure_running api"):
            inject(broken=True)

    def test_a_fault_that_is_not_seen_to_be_gone_stops_the_session(self, inject, performed):
        with pytest.raises(HealFailed, match="kill on api is still in force 0 s after its revert; run `llmchaos heal`"):
            inject(undo=lambda undo: None)

        assert not performed.runtime.state("api").running


def test_a_trial_names_its_signals_and_attempts_per_request(performed):
    performed.lab.subject = replace(
        performed.lab.subject,
        attempts_counters=('llmchaos_client_requests_total{outcome="ok"}', "llmchaos_client_requests_total"),
    )

    trial = judged(performed)

    assert trial.alert("ServiceDown", "api").after_s == pytest.approx(1.3, abs=0.01)
    assert trial.attempts_per_request == pytest.approx(1 - 12 / 320, abs=0.005)


def test_without_counters_of_attempts_their_number_is_inconclusive(performed):
    performed.lab.subject = replace(performed.lab.subject, attempts_counters=("sent_total", "taken_total"))

    with pytest.raises(NoData, match="sent_total"):
        _ = judged(performed).attempts_per_request
