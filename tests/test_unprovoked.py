"""Repairs and alerts outside of any fault."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import Clock
from support.judged_world import KILLED_S, Performed, judge

from pytest_llmchaos import faults
from pytest_llmchaos.errors import Inconclusive, Refuted, UnprovokedReaction, verdict_of
from pytest_llmchaos.lab import gates, injector
from pytest_llmchaos.lab import reasons as reasons_module
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.lab.reasons import FAULT_TAIL_S, Reasons
from pytest_llmchaos.lab.views import RemediatorView
from pytest_llmchaos.model import ServiceState
from pytest_llmchaos.prometheus.queries import FiredAlert, Prometheus
from pytest_llmchaos.trial import judge as judging
from pytest_llmchaos.trial import unprovoked as unprovoking
from pytest_llmchaos.trial.trial import Trial
from pytest_llmchaos.trial.unprovoked import unexplained_actions, unprovoked

World = tuple[Prometheus, float]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A trial in which ServiceDown pages for the api, 1 s after the api was killed."""
    with judge(tmp_path_factory.mktemp("unprovoked")) as served:
        yield served


@pytest.fixture
def performed(world: World, tmp_path: Path) -> Performed:
    """A stack up 30 s before the load, with an empty audit log."""
    made = Performed(tmp_path, *world)
    made.lab.subject = replace(made.lab.subject, remediator="remediator")
    made.runtime._states["remediator"] = ServiceState(service="remediator", running=True, identity="r")
    made.lab.reasons.unjudged_unix_s = made.t0_unix_s - 30
    return made


def test_a_repair_that_the_remediator_refused_does_not_count(performed: Performed) -> None:
    lines = acted(performed, 2.0)
    refused = [{**one, "event": "failed", "reason": "not done: the autoscaler owns api"} for one in lines[2:3]]

    assert len(unexplained_actions(lines, performed.lab.reasons)) == 1
    assert unexplained_actions([*lines[:2], *refused], performed.lab.reasons) == []


def acted(performed: Performed, at_s: float, *, incident: str = "i1", **more: Any) -> list[dict[str, object]]:
    """Let the remediator restart the api at that second of the trial."""
    line = {"incident": incident, "service": "api", "action": "restart", "rule": "absent-api", **more}
    at = performed.t0_unix_s + at_s
    return [
        {**line, "event": "detected", "at": at - 0.5},
        {**line, "event": "intent", "at": at},
        {**line, "event": "done", "at": at + 0.2},
        {**line, "event": "recovered", "at": at + 0.3},  # a trial does not wait for the end of a closed incident
    ]


def judged(performed: Performed, audit: list[dict[str, object]] | None, *, fault: bool = True) -> Trial:
    performed.runtime.audit = lambda: audit  # type: ignore[method-assign]
    if fault:
        begin, end = performed.t0_unix_s + KILLED_S - 0.1, performed.t0_unix_s + KILLED_S + 4
        performed.lab.reasons.add(begin, end + FAULT_TAIL_S)
    else:
        performed.plan = replace(performed.plan, fault=faults.none(), injections=())
        performed.injected = Injected()
        performed.lab.subject = replace(performed.lab.subject, scrape_jobs=("model",))
    with performed.load() as (record, running):
        return judging.judge(performed.lab, performed.plan, record, running, performed.injected)


def test_a_fault_explains_its_alert_and_its_repair(performed: Performed) -> None:
    assert judged(performed, acted(performed, KILLED_S + 0.4)).findings == ()


@pytest.mark.parametrize(
    ("at_s", "when"), [(-12.0, r"12\.0 s before the trial's load"), (3.0, r"3\.0 s into the trial")]
)
def test_an_action_outside_of_faults_is_a_finding_of_the_next_trial(
    performed: Performed, at_s: float, when: str
) -> None:
    (finding,) = judged(performed, acted(performed, at_s)).findings

    assert finding.startswith("outside of any fault the remediator did restart api by rule absent-api ")
    assert when.replace("\\", "") in finding


def test_an_unprovoked_reaction_is_reported_once(performed: Performed) -> None:
    audit = acted(performed, -12.0)

    assert len(judged(performed, audit).findings) == 1
    assert judged(performed, audit).findings == ()


def test_reactions_before_the_stack_was_up_are_not_reported(performed: Performed) -> None:
    assert judged(performed, acted(performed, -31.0)).findings == ()


@pytest.mark.parametrize("at_s", [-12.0, 3.0])
def test_an_unprovoked_reaction_refutes_a_control_arm(performed: Performed, at_s: float) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)

    with pytest.raises(UnprovokedReaction, match="the remediator did restart api by rule absent-api"):
        judged(performed, acted(performed, at_s), fault=False)


def test_a_page_outside_of_faults_refutes_a_control_arm_as_well(performed: Performed) -> None:
    with pytest.raises(UnprovokedReaction, match=r"outside of any fault alert ServiceDown fired for api 9\.3 s into"):
        judged(performed, [], fault=False)


def test_a_control_arm_is_not_held_by_a_log_that_is_not_there(performed: Performed) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)

    with pytest.raises(Inconclusive, match=r"has no audit log at /audit/audit\.jsonl"):
        judged(performed, None, fault=False)


@pytest.mark.parametrize("changes", [{"running": False}, {"paused": True}], ids=["stopped", "paused"])
def test_a_remediator_that_could_not_act_refutes_nothing(performed: Performed, changes: dict[str, bool]) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)
    found = performed.runtime._states["remediator"]
    performed.runtime._states["remediator"] = replace(found, **changes)

    with pytest.raises(Inconclusive, match="after the trial, so its silence proves nothing"):
        judged(performed, [], fault=False)


def test_a_page_refutes_a_control_arm_even_if_silence_proves_nothing(performed: Performed) -> None:
    with pytest.raises(UnprovokedReaction, match="alert ServiceDown fired for api"):
        judged(performed, None, fault=False)


def test_a_control_arm_needs_no_log_of_a_remediator_that_was_stopped(performed: Performed) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)
    performed.plan = replace(performed.plan, experiment=replace(performed.plan.experiment, remediator=False))

    assert judged(performed, None, fault=False).actions == ()


def test_a_control_arm_needs_no_remediator(performed: Performed) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)
    performed.lab.subject = replace(performed.lab.subject, remediator=None)

    assert judged(performed, None, fault=False).is_control


def test_a_page_during_warm_up_refutes_nothing(performed: Performed) -> None:
    performed.lab.reasons.add(performed.t0_unix_s, performed.t0_unix_s + 99, alerts_alone=True)

    trial = judged(performed, [], fault=False)

    assert trial.findings == ()
    assert "ServiceDown" in trial.alerts  # a claim may still refute it


def test_an_unprovoked_reaction_is_a_refutation_and_no_error() -> None:
    assert issubclass(UnprovokedReaction, Refuted)
    assert verdict_of(UnprovokedReaction("the remediator did restart api")) == "refuted"


def test_a_repair_that_began_with_the_fault_may_end_late() -> None:
    reasons = Reasons()
    reasons.add(100.0, 110.0)
    line = {"incident": "i1", "service": "api", "action": "restart"}
    noticed = {**line, "event": "detected", "at": 109.0}
    late = {**line, "event": "intent", "at": 140.0}

    assert unexplained_actions([noticed, late], reasons) == []
    assert unexplained_actions([late], reasons) == [late]
    for other in ("acted", "done", "intent"):
        assert unexplained_actions([{**noticed, "event": other}, late], reasons) == [late]


@pytest.mark.parametrize(("fault", "what"), [(False, 1), (True, 0)])
def test_a_repair_without_an_incident_is_explained_by_its_own_time_only(fault: bool, what: int) -> None:
    reasons = Reasons()
    reasons.add(100.0, 110.0)
    noticed = {"event": "detected", "at": 109.0, "service": "api"}
    repair = {"event": "intent", "at": 105.0 if fault else 140.0, "service": "api"}

    assert len(unexplained_actions([noticed, repair], reasons)) == what


class TestOutsideOfFaults:
    """Stack at 900 s, load at 1000 s, now 1102 s: lines up to 1100 s are written."""

    @pytest.fixture
    def found(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(unprovoking, "time", SimpleNamespace(time=lambda: 1102.0))

        def of(audit: Any = (), fired: Any = (), *, since: float = 900.0, remediator: str | None = "remediator") -> Any:
            audit = json.loads(json.dumps(audit))
            self.reasons = Reasons()
            self.reasons.unjudged_unix_s = since
            self.reasons.add(950.0, 960.0)
            self.asked: list[tuple[float, float]] = []

            def firing_spells(*asked: float) -> Any:
                self.asked.append(asked)  # type: ignore[arg-type]
                return [
                    FiredAlert(
                        name=name,
                        labels=json.loads(json.dumps(labels)),
                        at_unix_s=at,
                        until_unix_s=at + 1,
                        before=before,
                    )
                    for name, at, labels, before in fired
                ]

            lab: Any = SimpleNamespace(
                reasons=self.reasons,
                remediator=RemediatorView(SimpleNamespace(audit=lambda: audit), remediator),  # type: ignore[arg-type]
                prometheus=SimpleNamespace(firing_spells=firing_spells),
            )
            record: Any = SimpleNamespace(at_s=lambda unix_s: unix_s - 1000.0)
            return unprovoked(lab, record)

        return of

    def line(self, at: float | None, **more: Any) -> dict[str, Any]:
        return {"event": "intent", "at": at, "action": "restart", "service": "api", "rule": "slow-api", **more}

    def test_an_unprovoked_reaction_has_its_time(self, found: Any) -> None:
        did = "outside of any fault the remediator did restart api by rule slow-api"
        lines = [self.line(990.0), self.line(999.5), self.line(1000.0), self.line(1003.0)]

        assert found(lines).findings == (
            f"{did} 10.0 s before the trial's load",
            f"{did} 0.5 s before the trial's load",
            f"{did} 0.0 s into the trial",
            f"{did} 3.0 s into the trial",
        )

    def test_unprovoked_reactions_are_those_recorded_since_the_last_look(self, found: Any) -> None:
        ats = (899.9, 900.0, 1100.0, 1100.1)

        begun, ended = found([self.line(at) for at in ats]).findings
        assert begun.endswith(" 100.0 s before the trial's load")
        assert ended.endswith(" 100.0 s into the trial")
        assert self.reasons.unjudged_unix_s == 1100.0
        assert self.asked == [(900.0, 1100.0)]

    @pytest.mark.parametrize("at", [None, "1003.0"])
    def test_the_list_of_reactions_excludes_reactions_without_a_time(self, found: Any, at: Any) -> None:
        assert found([self.line(at)]).findings == ()
        (finding,) = found([self.line(at)], since=0.0).findings
        assert finding.endswith(" 1000.0 s before the trial's load")

    @pytest.mark.parametrize("since", [1100.0, 1100.5])
    def test_unprovoked_reactions_are_not_queried_if_no_time_has_passed(self, found: Any, since: float) -> None:
        assert found(since=since).findings == ()
        assert self.asked == []

    def test_the_list_of_reactions_excludes_reactions_that_our_acts_explain(self, found: Any) -> None:
        assert found([self.line(955.0)], [("Any", 955.0, {}, False)]).findings == ()

    @pytest.mark.parametrize("event", ["detected", "done", "suppressed"])
    def test_only_intents_are_unprovoked_actions(self, found: Any, event: str) -> None:
        assert found([self.line(1003.0, event=event)]).findings == ()

    def test_a_stack_without_a_remediator_has_no_unprovoked_action(self, found: Any) -> None:
        assert found([self.line(1003.0)], remediator=None).findings == ()

    def test_an_unprovoked_action_without_a_rule_is_named_so(self, found: Any) -> None:
        assert found([self.line(1003.0, rule=None)]).findings == (
            "outside of any fault the remediator did restart api by rule no rule 3.0 s into the trial",
        )

    def test_the_list_of_reactions_excludes_alerts_that_were_pending_before(self, found: Any) -> None:
        assert found(fired=[("Old", 1003.0, {"severity": "page"}, True)]) == unprovoking.Unprovoked()

    @pytest.mark.parametrize("severity", ["info", "ticket", None])
    def test_an_action_or_a_page_refutes_and_a_ticket_does_not(self, found: Any, severity: str | None) -> None:
        fired = [
            ("Slow", 1004.0, {"severity": severity} if severity else {}, False),
            ("Down", 1005.0, {"severity": "page", "service": "api"}, False),
        ]
        outside = found([self.line(1003.0)], fired)
        did = "outside of any fault the remediator did restart api by rule slow-api 3.0 s into the trial"
        paged = "outside of any fault alert Down fired for api 5.0 s into the trial"

        assert outside.names == {"Slow", "Down"}
        assert (outside.repairs, outside.pages) == ((did,), (paged,))
        assert outside.findings == (did, paged, "outside of any fault alert Slow fired 4.0 s into the trial")
        with pytest.raises(UnprovokedReaction, match=f"{did}; {paged}"):
            outside.require_none()
        with pytest.raises(UnprovokedReaction, match=f"^{did}$"):
            outside.require_none(may_page=True)
        replace(outside, repairs=()).require_none(may_page=True)
        found(fired=fired[:1]).require_none()


def test_the_first_clean_stack_explains_alerts_of_its_start_and_no_action() -> None:
    reasons = Reasons()
    up = reasons.unjudged_unix_s
    reasons.set_up()

    assert reasons.explains_alert(up)
    assert not reasons.explains_action(up)
    assert not reasons.explains_alert(time.time() + 60)


def test_a_fault_explains_no_action_half_a_minute_later() -> None:
    reasons = Reasons()

    with reasons.during():
        begun_s = time.time()

    assert [reasons.explains_action(begun_s + after_s) for after_s in (1, 29, 45)] == [True, True, False]
    assert [reasons.explains_alert(begun_s + after_s) for after_s in (1, 29, 45)] == [True, True, False]


def test_what_is_done_inside_a_block_explains_what_comes_shortly_after_it() -> None:
    reasons = Reasons()
    with reasons.during(5.0):
        now = time.time()

    assert reasons.explains_action(now + 4)
    assert not reasons.explains_action(now + 6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reasons_module, "time", clock)
    return clock


@pytest.mark.parametrize("alerts_alone", [False, True])
@pytest.mark.parametrize(
    ("at_s", "is_explained"), [(-0.1, False), (0.0, True), (5.0, True), (10.0, True), (10.1, False)]
)
def test_a_reason_holds_from_its_first_instant_to_its_last(alerts_alone: bool, at_s: float, is_explained: bool) -> None:
    reasons = Reasons()
    reasons.add(1000.0, 1010.0, alerts_alone=alerts_alone)
    reasons.add(5000.0, 5010.0)

    assert reasons.explains_alert(1000 + at_s) is is_explained
    assert reasons.explains_action(1000 + at_s) is (is_explained and not alerts_alone)


def test_a_reason_explains_actions_too_by_default(clock: Clock) -> None:
    plain, tail, narrow = Reasons(), Reasons(), Reasons()
    plain.add(0.0, 1.0)
    with tail.during():
        clock.advance(5)
    with narrow.during(7.0, alerts_alone=True):
        clock.advance(5)

    assert plain.explains_action(0.5)
    assert [tail.explains_action(clock.time() - 5 + after_s) for after_s in (29.9, 30.1)] == [True, False]
    assert [narrow.explains_alert(clock.time() + after_s) for after_s in (-5.1, -5, 7, 7.1)] == [
        False,
        True,
        True,
        False,
    ]
    assert not narrow.explains_action(clock.time())


def test_what_fails_inside_a_block_was_a_reason_as_well(clock: Clock) -> None:
    reasons = Reasons()

    with pytest.raises(ValueError, match="it broke"), reasons.during(5.0):
        raise ValueError("it broke")

    assert reasons.explains_action(clock.time())


def test_only_the_first_clean_stack_was_on_its_way_up_and_pages_on_that_end_ten_seconds_later(clock: Clock) -> None:
    reasons = Reasons()
    up_s = reasons.unjudged_unix_s
    assert up_s == clock.time()
    clock.advance(100)
    reasons.set_up()
    clock.advance(500)
    reasons.set_up()

    assert [reasons.explains_alert(up_s + after_s) for after_s in (-1, 0, 110, 110.1)] == [False, True, True, False]
    assert not reasons.explains_alert(clock.time())


class TestLab:
    """The lab's own acts are noted as reasons for reactions."""

    def test_a_fault_is_a_reason_until_a_while_after_its_revert(
        self, performed: Performed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(injector, "time", SimpleNamespace(time=performed.runtime.now, monotonic=time.monotonic))
        performed.lab.signals = SimpleNamespace(fault=lambda *_, **__: None)  # type: ignore[assignment]
        begin = time.time()
        with performed.lab.recording(), performed.lab.inject(faults.kill("api")):
            pass

        reasons = performed.lab.reasons
        assert reasons.explains_action(begin + 1)
        assert reasons.explains_alert(begin + FAULT_TAIL_S - 1)
        assert not reasons.explains_action(begin - 1)
        assert not reasons.explains_action(time.time() + FAULT_TAIL_S + 1)

    def test_what_is_put_right_before_a_load_is_a_reason(self, performed: Performed) -> None:
        performed.runtime.kill("model-1")

        gates._put_right(performed.lab, "model-1")
        gates._put_right(performed.lab, "model-2")

        assert performed.runtime.state("model-1").running
        assert performed.lab.reasons.explains_action(time.time() + 1)

    def test_what_runs_needs_no_reason(self, performed: Performed) -> None:
        gates._put_right(performed.lab, "model-2")

        assert not performed.lab.reasons.explains_action(time.time() + 1)
