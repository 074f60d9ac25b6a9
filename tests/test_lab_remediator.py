"""The remediator's decisions and refusals on a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.remediator_world import RULES, SERVICES, START, World, policy, running

from lab_remediator.decide import decide
from lab_remediator.load import load_policy
from lab_remediator.model import Observations, Reading, ServiceState, State

if TYPE_CHECKING:
    pass


def test_a_lab_that_is_well_is_left_alone() -> None:
    world = World()

    assert world.run(60) == []


def test_an_exited_api_is_started_at_the_first_sight_of_both_signals() -> None:
    world = World()
    world.run(1)
    world.dies("api")

    detected, act = world.tick()

    assert (detected.event, detected.rule) == ("detected", "api-exited")
    assert (act.event, act.service, act.action, act.rule) == ("act", "api", "start", "api-exited")
    assert [(fact.signal, fact.value) for fact in act.evidence] == [("scrape", 0.0), ("container", "exited (137)")]
    assert act.incident == detected.incident


def test_an_action_in_flight_is_not_begun_again() -> None:
    world = World()
    world.dies("api")
    world.run(30)

    assert world.acts() == [("api", "start")]


@pytest.mark.parametrize("missing", [("scrape", "api"), "api"], ids=["no reading", "no container"])
def test_half_of_the_evidence_is_no_reason_to_act(missing: tuple[str, str] | str) -> None:
    world = World()
    world.run(1)
    world.dies("api")
    if isinstance(missing, str):
        world.containers[missing] = None
    else:
        world.values[missing] = None
    world.run(60)

    assert world.acts() == []


def test_an_exited_container_whose_signal_is_good_is_left_alone() -> None:
    world = World()
    world.becomes("api", state="exited")
    world.run(30)

    assert world.acts() == []


def test_absent_data_closes_no_incident() -> None:
    world = World(held=frozenset({"*"}))
    world.dies("api")
    world.run(1)
    world.values["scrape", "api"] = None
    world.becomes("api", state="running")
    world.run(60)

    assert [decision.event for decision in world.log] == ["detected", "suppressed"]


def test_an_old_reading_is_an_absent_one() -> None:
    world = World()
    world.dies("api")
    observed = Observations(
        readings={("scrape", "api"): Reading(at=START, value=0.0)},
        containers={"api": replace(running("api"), state="exited", seen_at=START + 3.5)},
    )

    decisions, _ = decide(world.policy, observed, State(), START + 3.5)

    assert decisions == ()


def test_an_old_look_at_the_container_is_no_evidence() -> None:
    observed = Observations(
        readings={("scrape", "api"): Reading(at=START + 3.5, value=0.0)},
        containers={"api": replace(running("api"), state="exited", seen_at=START)},
    )

    decisions, _ = decide(policy(), observed, State(), START + 3.5)

    assert decisions == ()


def test_one_lost_scrape_is_not_an_incident_and_two_are() -> None:
    world = World()
    world.run(1)
    world.values["scrape", "api"] = 0.0
    world.run(1)
    world.values["scrape", "api"] = 1.0
    world.run(5)
    one = list(world.log)
    world.values["scrape", "api"] = 0.0
    world.run(2)

    assert one == []
    assert [decision.event for decision in world.log] == ["detected"]


def test_a_running_service_needs_n_of_m_from_two_signals() -> None:
    world = World()
    world.run(5)
    world.values |= {("scrape", "api"): 0.0, ("second", "api"): 0.0}
    early = world.run(3.5)
    late = world.run(2)

    assert [decision.event for decision in early] == ["detected"]
    assert [(decision.event, decision.action) for decision in late] == [("act", "kill")]


def test_one_lost_scrape_in_ten_does_not_save_a_dead_service_and_five_in_ten_do() -> None:
    def acts_with_good_one_in(n: int) -> int:
        world = World()
        world.values["second", "api"] = 0.0
        for number in range(120):
            world.values["scrape", "api"] = 1.0 if number % n == 0 else 0.0
            world.tick()
        return len(world.acts())

    assert acts_with_good_one_in(10) == 1
    assert acts_with_good_one_in(2) == 0


def test_a_window_with_a_hole_is_not_covered() -> None:
    world = World()
    world.values |= {("scrape", "api"): 0.0, ("second", "api"): 0.0}
    world.run(2)
    world.tick(seconds=3.5)
    world.run(0.5)

    assert world.acts() == []


def test_a_slow_probe_is_not_stale_before_its_next_answer_can_come() -> None:
    text = RULES.replace("second: {query: second,", "second: {probe: 'http://{service}:1/', every_s: 1, timeout_s: 4,")
    world = World(policy=load_policy(text, SERVICES))
    probed_at = START
    for step in range(80):
        now = START + step * 0.25
        probed_at = now if step % 20 == 0 else probed_at
        observed = Observations(
            readings={
                ("scrape", "api"): Reading(at=now, value=0.0),
                ("second", "api"): Reading(at=probed_at, value=0.0),
            },
            containers={"api": replace(running("api"), seen_at=now)},
        )
        decisions, world.state = decide(world.policy, observed, world.state, now)
        world.log.extend(decisions)

    assert world.acts() == [("api", "kill")]


def test_the_same_answer_seen_twice_is_one_observation() -> None:
    state = State()
    reading = Reading(at=START, value=0.0)
    observed = Observations(readings={("scrape", "api"): reading, ("second", "api"): reading})
    for step in range(10):
        _, state = decide(policy(), observed, state, START + step * 0.25)

    assert len(state.marks["scrape", "api"]) == 1


def test_a_busy_engine_that_makes_progress_is_never_killed() -> None:
    world = World()
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): 0.0, ("steps", "model-1"): 3.0}
    world.run(120)

    assert world.acts() == []
    assert world.results() == ["vetoed"]


def test_a_hung_engine_is_killed_although_its_container_runs() -> None:
    world = World()
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): 0.0, ("steps", "model-1"): 0.0}
    world.run(10)

    assert world.acts() == [("model-1", "kill")]


def test_a_container_that_is_still_starting_has_its_grace() -> None:
    world = World()
    world.becomes("model-1", started_at=START)
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): 0.0}
    world.run(19)

    assert world.acts() == []
    assert world.results() == ["suppressed_grace"]

    world.run(2)

    assert world.acts() == [("model-1", "kill")]


def test_a_container_that_exits_while_starting_gets_no_grace() -> None:
    world = World()
    world.becomes("api", started_at=START)
    world.dies("api")
    world.tick()

    assert world.acts() == [("api", "start")]


def test_a_crash_loop_is_repaired_ever_more_slowly_and_then_given_up() -> None:
    world = World()
    world.dies("api")
    begun = []
    for _ in range(400):
        for decision in world.tick():
            if decision.event == "act":
                begun.append(world.now - START)
                world.finish("api")

    assert [round(b - a) for a, b in pairwise(begun)] == [2, 4]
    assert [d.action for d in world.log if d.event == "escalated"] == ["quarantine"]
    assert world.state.of("api").quarantined


def test_a_human_is_paged_at_once_when_no_further_action_comes() -> None:
    world = World()
    world.dies("api")
    while len(world.acts()) < 3:
        if any(decision.event == "act" for decision in world.tick()):
            world.finish("api")
    last = world.now
    world.run(3)

    (told,) = [decision for decision in world.log if decision.event == "escalated"]
    assert "3 actions without 15 healthy seconds (at most 3)" in told.reason
    assert not [decision for decision in world.log if decision.reason.startswith("action 3 is less than")]
    assert world.now - last < 8  # the wait before an action that would not have come


def test_a_quarantine_ends_when_the_service_has_been_healthy_for_a_while() -> None:
    world = World()
    world.dies("api")
    for _ in range(400):
        if any(decision.event == "act" for decision in world.tick()):
            world.finish("api")
    world.lives("api")
    world.run(14)
    still = world.state.of("api").quarantined
    world.run(2)

    assert still
    assert not world.state.of("api").quarantined

    world.dies("api")
    world.tick()

    assert world.log[-1].event == "act"


def test_a_quarantine_remembered_from_before_a_crash_holds() -> None:
    world = World(state=State(services={"api": ServiceState(quarantined=True)}))
    world.dies("api")
    world.run(10)

    assert world.acts() == []
    assert world.results() == ["quarantined"]


def test_a_service_with_an_unknown_container_is_not_repaired_by_any_signal() -> None:
    world = World()
    world.containers["api"] = None
    world.values |= {("scrape", "api"): 0.0, ("second", "api"): 0.0}
    world.run(10)

    assert world.acts() == []
    assert world.results() == ["suppressed_unknown"]


def test_a_service_that_flaps_is_given_up_although_it_is_healthy_in_between() -> None:
    world = World()
    for _ in range(10):
        world.dies("api")
        if any(decision.event == "act" for decision in world.tick()):
            world.finish("api")
            world.lives("api")
        world.run(20)

    assert len(world.acts()) == 6
    assert world.state.of("api").quarantined


def test_evidence_from_before_an_action_does_not_cause_another() -> None:
    world = World()
    world.dies("api")
    world.tick()
    seen_before = replace(world.containers["api"], seen_at=world.now)  # type: ignore[type-var]
    world.now += 0.3
    world.finish("api")
    observed = Observations(
        readings={("scrape", "api"): Reading(at=world.now + 2.5, value=0.0)}, containers={"api": seen_before}
    )
    decisions, _ = decide(world.policy, observed, world.state, world.now + 2.5)

    assert decisions == ()


def test_a_recovery_is_recorded_with_its_time_once_it_is_seen() -> None:
    world = World()
    world.dies("api")
    world.tick()
    detected_at = world.now
    world.run(1)
    world.finish("api")
    world.lives("api")
    recovered = world.run(5)

    assert [(d.event, d.action) for d in recovered] == [("recovered", "start")]
    assert recovered[0].took_s == pytest.approx(1.25)
    assert detected_at + 1.25 <= world.now


def test_a_lull_is_no_recovery() -> None:
    world = World()
    for _ in range(2):
        world.values["scrape", "api"] = 0.0
        world.run(1.75)
        world.values["scrape", "api"] = 1.0
        world.run(0.75)

    assert [decision.event for decision in world.log] == ["detected"]


def test_a_recovery_by_another_program_takes_no_credit() -> None:
    world = World(held=frozenset({"api"}))
    world.dies("api")
    world.tick()
    world.lives("api")
    recovered = world.run(2)

    assert [(d.event, d.action, d.took_s) for d in recovered] == [("recovered", None, None)]


def test_replicas_are_taken_down_one_at_a_time() -> None:
    world = World()
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): 0.0}
    world.run(6)
    world.finish("model-1")
    world.lives("model-1")
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): None}  # killed, and not good again yet
    world.dies("model-2")
    world.run(0.5)

    assert world.acts() == [("model-1", "kill")]
    assert world.results() == ["suppressed_budget"]

    world.values["probe", "model-1"] = 1.0
    world.run(2)

    assert world.acts() == [("model-1", "kill"), ("model-2", "start")]


def test_a_replica_that_never_comes_back_does_not_block_the_other_for_ever() -> None:
    world = World()
    world.values |= {("probe", "model-1"): 0.0, ("second", "model-1"): 0.0}
    world.run(6)
    world.finish("model-1")
    world.becomes("model-1", started_at=world.now)
    world.dies("model-2")
    world.run(16)

    assert world.acts()[:2] == [("model-1", "kill"), ("model-2", "start")]


def test_starting_one_stopped_replica_does_not_hold_up_the_other() -> None:
    world = World()
    world.dies("model-1")
    world.dies("model-2")
    world.tick()
    world.finish("model-1")
    world.tick()

    assert world.acts() == [("model-1", "start"), ("model-2", "start")]


def test_when_every_replica_looks_bad_the_detector_is_suspected_and_nothing_is_done() -> None:
    world = World()
    world.values |= {(signal, name): 0.0 for signal in ("probe", "second") for name in ("model-1", "model-2")}
    world.run(60)

    assert world.acts() == []
    assert [(d.service, d.action, d.result) for d in world.log if d.event == "escalated"] == [
        ("model-1", "page", "suppressed_detector"),
        ("model-2", "page", "suppressed_detector"),
    ]


def test_a_replica_of_the_autoscaler_counts_for_no_detector() -> None:
    rules = RULES.replace("[model-1, model-2]", "[model-1, model-2, model-3]")
    world = World(policy=load_policy(rules, (*SERVICES, "model-3")), elsewhere=frozenset({"model-3"}))
    world.values |= {(signal, name): 0.0 for signal in ("probe", "second") for name in ("model-1", "model-2")}
    world.run(60)

    assert world.acts() == [], "both replicas that are left look bad"


def test_an_operator_hold_stops_everything_on_the_service_it_names_and_nothing_else() -> None:
    world = World(held=frozenset({"api"}))
    world.dies("api")
    world.dies("model-1")
    world.run(30)

    assert world.acts() == [("model-1", "start")]

    world.held = frozenset()
    world.tick()

    assert world.acts()[-1] == ("api", "start")


def test_a_dry_run_records_its_action_once_and_does_nothing() -> None:
    world = World(policy=policy(dry_run=True))
    world.dies("api")
    world.run(30)

    assert world.acts() == []
    assert [(d.result, d.reason) for d in world.log if d.event == "suppressed"] == [
        ("dry_run", "dry run: would start api")
    ]


def test_a_signal_that_stays_without_evidence_is_written_down_once_and_late() -> None:
    world = World()
    world.values["scrape", "api"] = 0.0
    early = world.run(4)
    world.run(30)

    assert [decision.event for decision in early] == ["detected"]
    assert world.results() == ["no_evidence"]
    assert world.acts() == []


def test_a_rule_stopped_by_a_guard_is_not_got_around_by_the_next_rule() -> None:
    world = World(held=frozenset({"api"}))
    world.dies("api")
    world.values["second", "api"] = 0.0
    world.run(30)

    assert {d.rule for d in world.log} == {"api-exited"}


TICKS = st.lists(
    st.fixed_dictionaries(
        {
            "values": st.dictionaries(
                st.tuples(st.sampled_from(["scrape", "probe", "second", "steps"]), st.sampled_from(SERVICES)),
                st.sampled_from([0.0, 1.0, None]),
                max_size=4,
            ),
            "states": st.dictionaries(
                st.sampled_from(SERVICES), st.sampled_from(["running", "exited", "paused", "gone"]), max_size=2
            ),
            "ends": st.sets(st.sampled_from(SERVICES)),
            "held": st.booleans(),
            "ticks": st.integers(1, 24),
        }
    ),
    max_size=12,
)


@given(TICKS)
@settings(max_examples=100, deadline=None, phases=(Phase.explicit, Phase.generate))  # a story shrinks too slowly
def test_whatever_happens_no_action_breaks_a_guard(story: list[dict[str, object]]) -> None:
    world = World()
    for chapter in story:
        world.values |= chapter["values"]  # type: ignore[operator]
        for service, state in chapter["states"].items():  # type: ignore[attr-defined]
            world.containers[service] = None if state == "gone" else replace(running(service), state=state)
        world.held = frozenset({"*"}) if chapter["held"] else frozenset()
        for service in chapter["ends"]:  # type: ignore[attr-defined]
            if world.state.of(service).in_flight:
                world.finish(service)
        for _ in range(chapter["ticks"]):  # type: ignore[call-overload]
            before = world.state
            acts = [decision for decision in world.tick() if decision.event == "act"]
            for act in acts:
                assert not world.held
                assert len({fact.signal for fact in act.evidence}) >= 2
                assert not before.of(act.service).in_flight
                assert world.containers[act.service] is not None
                # An absent answer leaves the last one valid until stale.
                assert world.values["scrape" if act.service == "api" else "probe", act.service] != 1.0
                earlier = before.of(act.service).actions_at
                assert not earlier or world.now - earlier[-1] >= 2
                assert world.state.of(act.service).attempts <= 3
            taken_down = [a for a in acts if a.service != "api" and a.action == "kill"]
            busy = [name for name in ("model-1", "model-2") if world.state.of(name).in_flight]
            assert not taken_down or len(busy) == 1
