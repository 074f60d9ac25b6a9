"""Preconditions of a load, their deadlines, and a stack at rest."""

from dataclasses import replace

import pytest
from support.clock import Clock
from support.fake_lab import fake_lab, scraped

from pytest_llmchaos.errors import InvalidExperiment, PrometheusUnreachable
from pytest_llmchaos.lab import gates, reasons
from pytest_llmchaos.model import ABILITIES, Undo


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (gates, reasons):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def lab(tmp_path, clock):
    with fake_lab(tmp_path, clock) as made:
        made.undone = []
        undo = made.runtime.undo
        made.runtime.undo = lambda one: (made.undone.append(one), undo(one))
        yield made


class TestACleanStack:
    """A stack before the first load."""

    def test_a_clean_stack_that_is_healthy_is_accepted_without_a_wait(self, lab, clock):
        healthy = []
        lab.runtime.wait_healthy = lambda *asked: healthy.append(asked)

        lab.require_clean()

        assert clock.sleeps == []
        assert lab.runtime.touched == []
        assert healthy == [(lab.subject.targets, 60.0)]

    def test_a_stack_that_just_came_up_explains_its_alerts(self, lab, clock):
        begun_s = clock.time()
        clock.advance(60)

        lab.require_clean()

        assert lab.reasons.explains_alert(begun_s)
        assert lab.reasons.explains_alert(clock.time() + 10)
        assert not lab.reasons.explains_alert(clock.time() + 10.1)
        assert not lab.reasons.explains_action(begun_s)

    def test_a_clean_stack_lacks_no_service(self, lab):
        lab.runtime.remove("model-2")
        lab.runtime.remove("model-1")

        with pytest.raises(InvalidExperiment, match=r"^model-1, model-2 was removed by another process"):
            lab.require_clean()

    @pytest.mark.parametrize(("status", "attach", "is_clean"), [(0, False, True), (1, False, False), (137, True, True)])
    def test_a_clean_stack_has_no_job_that_failed(self, lab, monkeypatch, status, attach, is_clean):
        job = replace(lab.runtime.state("api"), service="pull", running=False, exit_code=status)
        states = {**lab.runtime.states(), "pull": job}
        monkeypatch.setattr(lab.runtime, "states", lambda: states)
        lab.subject = replace(lab.subject, attach=attach)

        if is_clean:
            lab.require_clean()
            return
        with pytest.raises(InvalidExperiment, match=r"^pull ended with status 1, though no fault hit it"):
            lab.require_clean()

    def test_a_clean_stack_may_have_a_stopped_remediator(self, lab, monkeypatch):
        """A control arm stops it."""
        stopped = replace(lab.runtime.state("remediator"), running=False, exit_code=143)
        states = {**lab.runtime.states(), "remediator": stopped}
        monkeypatch.setattr(lab.runtime, "states", lambda: states)

        lab.require_clean()

    def test_a_clean_stack_has_no_fault_with_an_unreadable_undo(self, lab):
        with lab.recording() as record:
            record.intent("pause", "model-1", Undo(op="ensure_unpaused", service="model-1"))
        intent = b'{"kind":"intent","trial":"001","id":"001#9","fault":"kill","victim":"api","undo":{}}\n'

        with lab.journal.path.open("ab") as file:
            file.write(intent)
        with pytest.raises(
            InvalidExperiment, match=r"not reverted \(ensure_unpaused model-1, line \d+ .*'kill api'.*`llmchaos heal`"
        ):
            lab.require_clean()

        lab.journal.path.write_bytes(intent)
        with pytest.raises(InvalidExperiment, match="announces 'kill api'"):
            lab.require_clean()

    @pytest.mark.parametrize(
        ("stop", "undone"),
        [("pause", Undo(op="ensure_unpaused", service="api")), ("kill", Undo(op="ensure_running", service="api"))],
    )
    def test_an_own_stack_is_repaired_first_which_explains_its_actions(self, lab, clock, stop, undone):
        getattr(lab.runtime, stop)("api")

        lab.require_clean()

        assert lab.undone == [undone]
        assert lab.runtime.state("api").running
        assert not lab.runtime.state("api").paused
        assert lab.reasons.explains_action(clock.time())

    def test_an_attached_stack_is_accepted_if_it_is_healthy(self, lab):
        lab.subject = replace(lab.subject, attach=True)

        lab.require_clean()

        assert lab.runtime.touched == []


class TestWait:
    """Waits for conditions of the stack."""

    @pytest.mark.parametrize(
        ("broken", "deadline_s", "said"),
        [
            ({"is_ready": False}, 20, "Prometheus is not ready"),
            (
                {"jobs": ["api", "model", "pushgateway"]},
                20,
                "Prometheus does not scrape every job yet: prometheus has no target",
            ),
            ({"alerts": ["ServiceDown"]}, 150, "an alert from before the trial is still firing"),
        ],
        ids=["Prometheus", "scrapes", "alerts"],
    )
    def test_a_wait_ends_at_its_deadline(self, lab, clock, broken, deadline_s, said):
        for name, value in broken.items():
            setattr(lab.prometheus, name, value)

        with pytest.raises(InvalidExperiment, match=rf"^{said} \(waited {deadline_s} s\)$"):
            lab.require_clean()

        assert deadline_s < clock.passed_s < deadline_s + 0.2
        assert set(clock.sleeps) == {0.1}

    def test_a_job_that_cannot_be_scraped_is_named_with_its_error(self, lab):
        down = replace(scraped("api", at_unix_s=0.0, up=False), last_error="connection refused")
        lab.prometheus.targets = lambda: [down, scraped("model", at_unix_s=0.0)]
        lab.subject = replace(lab.subject, scrape_jobs=("api", "model"), own=True)

        with pytest.raises(
            InvalidExperiment,
            match=r"every job yet: api at http://it \(connection refused\), model at http://it \(not scraped yet\); "
            "check port and path in llmchaos_metrics",
        ):
            lab.require_clean()

    def test_a_wait_makes_its_last_attempt_after_the_deadline(self, clock, monkeypatch):
        monkeypatch.setattr(gates, "TICK_S", 0.5)
        looks = []

        with pytest.raises(InvalidExperiment):
            gates.wait_until(lambda: looks.append(clock.passed_s), 1.0, "no")

        assert looks == [0.0, 0.5, 1.0, 1.5]

    def test_a_wait_ends_with_its_condition(self, clock, monkeypatch):
        monkeypatch.setattr(gates, "TICK_S", 0.5)

        gates.wait_until(lambda: clock.passed_s >= 1.5, 9.0, "no")

        assert clock.passed_s == 1.5

    def test_a_wait_names_the_error_of_its_last_attempt(self, clock):
        def look():
            raise PrometheusUnreachable("no answer")

        with pytest.raises(InvalidExperiment, match=r"^not scraped: no answer \(waited 2 s\)$"):
            gates.wait_until(look, 2.0, "not scraped")

    def test_a_wait_drops_the_error_of_an_earlier_attempt(self, clock):
        def look():
            if clock.passed_s < 1:
                raise PrometheusUnreachable("no answer")

        with pytest.raises(InvalidExperiment, match=r"^not scraped \(waited 2 s\)$"):
            gates.wait_until(look, 2.0, "not scraped")

    def test_a_wait_leaves_every_other_error_alone(self, clock):
        def look():
            raise KeyError("a defect")

        with pytest.raises(KeyError):
            gates.wait_until(look, 2.0, "not scraped")

    def test_a_wait_for_the_end_of_alerts_names_them(self, lab):
        said = []
        lab._say = lambda _lab, what, left_s: said.append(what)

        assert gates.is_quiet(lab)
        assert said == []
        lab.prometheus.alerts = ["ServiceDown", "ServiceFlapping"]
        assert not gates.is_quiet(lab)
        assert said == ["waiting until ServiceDown, ServiceFlapping no longer fires"]


@pytest.mark.parametrize(
    ("targets", "is_scraped"),
    [
        pytest.param([("api", 1, True), ("model", 1, True)], True, id="every job"),
        pytest.param([("api", 1, True), ("model", 1, True), ("node", 1, True)], True, id="one more job"),
        pytest.param([("api", 1, True), ("model", 1, True), ("node", 1, False)], True, id="one more job that is down"),
        pytest.param([("api", 1, True)], False, id="a job that is not there"),
        pytest.param([("api", 1, True), ("node", 1, True)], False, id="another job in its stead"),
        pytest.param([("api", 1, True), ("model", 0, True)], False, id="a scrape of that instant"),
        pytest.param([("api", 1, True), ("model", -1, True)], False, id="a scrape of before"),
        pytest.param([("api", 1, True), ("model", 1, False)], False, id="a job that is down"),
        pytest.param(
            [("api", 1, True), ("model", 1, True), ("model", 1, False)], False, id="one of two targets is down"
        ),
        pytest.param(
            [("api", 1, True), ("model", 1, True), ("model", 0, True)], True, id="one of two targets is fresh"
        ),
    ],
)
def test_a_stack_is_scraped_since_a_time_if_every_job_is_up_and_was_scraped_after_it(lab, targets, is_scraped):
    since = 1_700_000_000.0
    lab.subject = replace(lab.subject, scrape_jobs=("api", "model"))
    found = [scraped(job, at_unix_s=since + after_s, up=up) for job, after_s, up in targets]
    lab.prometheus.targets = lambda: found

    assert gates.is_scraped(lab, since) is is_scraped


@pytest.mark.parametrize(("at_unix_s", "is_scraped"), [(0.0, False), (0.5, True)])
def test_a_target_that_was_never_scraped_is_scraped_since_no_time(lab, at_unix_s, is_scraped):
    """Prometheus reports the time 0 for it."""
    found = [scraped(job, at_unix_s=at_unix_s) for job in lab.subject.scrape_jobs]
    lab.prometheus.targets = lambda: found

    if is_scraped:
        lab.require_clean()
    else:
        with pytest.raises(InvalidExperiment, match="does not scrape every job yet"):
            lab.require_clean()


def paused(lab):
    return [service for service, state in lab.runtime.states().items() if state.paused]


class TestAStackAtRest:
    """A stack whose services are paused while another process measures."""

    def test_a_stack_at_rest_continues_when_it_was_scraped_two_seconds_after_its_end(self, lab, clock):
        with gates.at_rest(lab):
            assert paused(lab) == ["remediator", "prometheus"]
            clock.advance(300)

        assert 302 < clock.passed_s < 302.2
        assert paused(lab) == []

    def test_a_stack_at_rest_that_is_not_scraped_again_is_an_error_and_thawed(self, lab, clock):
        lab.prometheus.jobs = []

        with (
            pytest.raises(InvalidExperiment, match=r"does not scrape every job again \(waited 20 s\)"),
            gates.at_rest(lab),
        ):
            pass

        assert paused(lab) == []

    def test_a_stack_at_rest_may_page_until_ten_seconds_after_it_and_may_not_act(self, lab, clock):
        with gates.at_rest(lab):
            begun_s = clock.time()
            clock.advance(300)

        assert lab.reasons.explains_alert(begun_s)
        assert lab.reasons.explains_alert(clock.time() + 9.9)
        assert not lab.reasons.explains_alert(clock.time() + 10.1)
        assert not lab.reasons.explains_action(begun_s)

    @pytest.mark.parametrize(
        ("abilities", "resting"),
        [
            (ABILITIES, ["remediator", "prometheus"]),
            ({"pause", "unpause"}, ["remediator", "prometheus"]),
            ({"pause", "kill", "start"}, []),
            ({"unpause"}, []),
            ({}, []),
        ],
        ids=["all abilities", "those it takes", "no unpause", "no pause", "none"],
    )
    def test_a_stack_rests_if_its_runtime_can_freeze_and_thaw(self, lab, abilities, resting):
        lab.runtime.abilities = frozenset(abilities)

        with gates.at_rest(lab):
            assert paused(lab) == resting

    def test_a_stack_without_a_remediator_rests_its_prometheus(self, lab):
        lab.subject = replace(lab.subject, remediator=None)
        lab.runtime.state = lambda service: lab.runtime.states()[service]  # raises for an unknown service

        with gates.at_rest(lab):
            assert paused(lab) == ["prometheus"]

    def test_an_attached_stack_does_not_rest(self, lab):
        lab.subject = replace(lab.subject, attach=True)

        with gates.at_rest(lab):
            assert paused(lab) == []
        assert lab.undone == []
