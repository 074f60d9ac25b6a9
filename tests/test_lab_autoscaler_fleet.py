"""Phases, owners and acts of the autoscaler's replicas, on a clock of the test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab_autoscaler import fleet as fleets
from lab_autoscaler.fleet import Act, Change, Sight, Timing
from lab_autoscaler.guards import Verdict, Wish, permitted

NAMES = ("model-1", "model-2", "model-3", "model-4")
GOOD = Sight(is_running=True, is_healthy=True, in_flight=0)
DOWN = Sight(is_running=False, is_healthy=False, in_flight=0)
STARTING = replace(GOOD, is_healthy=False)
TIMING = Timing(settle_s=1, drain_s=30, repair_s=10, cold_s=120, pause_s=2)


class World:
    """Replicas on a clock. `sights` is what runtime and gateway report."""

    def __init__(self, **sights: Sight) -> None:
        self.now_s = 100.0
        self.sights = dict.fromkeys(NAMES, DOWN) | {name.replace("_", "-"): one for name, one in sights.items()}
        fleet = fleets.taken_up(NAMES, self.sights, self.now_s)
        assert fleet is not None
        self.fleet = fleet
        self.reasons: list[str] = []
        self.changes: tuple[Change, ...] = ()  # of the last look

    def after(self, seconds: float, **sights: Sight) -> World:
        self.now_s += seconds
        self.sights |= {name.replace("_", "-"): one for name, one in sights.items()}
        self.fleet, self.changes = fleets.observed(self.fleet, self.sights, self.now_s, TIMING)
        self.reasons += [f"{one.replica} {one.phase}: {one.reason}" for one in self.changes]
        return self

    def looks(self, seconds: float, **sights: Sight) -> World:
        """Look at once, every second, and at the end of this time."""
        until_s = self.now_s + seconds
        self.after(0, **sights)
        while until_s - self.now_s > 1:
            self.after(1)
        return self.after(until_s - self.now_s)

    def steer(self, desired: int) -> World:
        self.fleet, _ = fleets.steered(self.fleet, desired, self.sights, self.now_s)
        return self

    def ends(self, act: Act, *, failed: bool = False) -> World:
        self.fleet = fleets.acted(fleets.acting(self.fleet, act), act, self.now_s, TIMING, failed=failed)
        return self

    @property
    def due(self) -> list[tuple[str, str]]:
        return [(one.replica, one.action) for one in self.acts]

    @property
    def acts(self) -> tuple[Act, ...]:
        return fleets.due(self.fleet, self.sights, self.now_s, TIMING)

    @property
    def phases(self) -> str:
        """First letters of the phases: cold, ready, draining, stopped."""
        return "".join(one.phase[0] for one in self.fleet)

    @property
    def owners(self) -> str:
        return "".join(one.owner[0] for one in self.fleet)


def two() -> World:
    return World(model_1=GOOD, model_2=GOOD)


def test_a_start_takes_up_what_runs_and_stops_nothing() -> None:
    world = World(model_1=GOOD, model_2=STARTING, model_4=GOOD)

    assert (world.phases, world.owners) == ("rcsr", "raar")
    assert fleets.wanted(world.fleet) == 3
    assert world.after(5).due == []


@pytest.mark.parametrize("unknown", [Sight(), replace(GOOD, is_healthy=None), replace(DOWN, is_running=None)], ids=str)
def test_a_start_waits_for_every_report(unknown: Sight) -> None:
    assert fleets.taken_up(NAMES, dict.fromkeys(NAMES, GOOD) | {"model-3": unknown}, 0) is None


def test_more_replicas_start_in_the_order_of_the_list_and_are_ready_by_the_gateways_probe() -> None:
    world = two().after(2).steer(4)
    assert (world.phases, world.due) == ("rrcc", [("model-3", "start"), ("model-4", "start")])

    world.ends(world.acts[0]).ends(world.acts[0]).after(1, model_3=STARTING, model_4=GOOD)
    assert (world.phases, world.owners, world.due) == ("rrcr", "rrar", [])
    assert world.after(1, model_3=GOOD).phases == "rrrr"


def test_fewer_replicas_drain_from_the_end_of_the_list_and_stop_only_when_empty() -> None:
    busy = replace(GOOD, in_flight=2)
    world = World(model_1=GOOD, model_2=GOOD, model_3=busy).steer(2)
    assert (world.phases, world.owners) == ("rrds", "rraa")

    assert world.after(5, model_3=GOOD).due == [], "the gateway does not drain it yet"
    assert world.after(1, model_3=replace(busy, is_draining=True)).due == [], "two requests are in flight"
    assert world.after(1, model_3=replace(GOOD, is_draining=True)).due == [("model-3", "stop")]
    world.ends(world.acts[0])
    assert world.after(1, model_3=DOWN).phases == "rrss"


def test_an_empty_replica_is_not_stopped_before_its_readers_had_two_polls() -> None:
    world = two().steer(1)

    assert world.after(0.9, model_2=replace(GOOD, is_draining=True)).due == []
    assert world.after(0.1).due == [("model-2", "stop")]


def test_a_replica_on_which_the_remediator_still_acts_waits() -> None:
    world = two().steer(1)
    ends = replace(GOOD, is_draining=True)

    assert world.after(5, model_2=replace(DOWN, is_repaired=True)).phases == "rdss"
    assert world.after(5, model_2=replace(ends, is_repaired=True)).due == []
    assert world.after(0.1, model_2=ends).due == [("model-2", "stop")]


BUSY = replace(GOOD, is_draining=True, in_flight=3)
SILENT_GATEWAY = Sight(is_running=True)


def test_a_drain_ends_with_its_time_and_counts_the_cut_requests() -> None:
    world = two().steer(1).looks(29.9, model_2=BUSY)
    assert world.due == []

    (act,) = world.after(0.1).acts
    assert (act.action, act.cut, act.reason) == ("stop", 3, "3 requests in flight after 30 s")


@pytest.mark.parametrize("sight", [replace(BUSY, is_draining=False), SILENT_GATEWAY], ids=["not drained", "unknown"])
def test_the_time_of_a_drain_counts_only_while_the_gateway_drains(sight: Sight) -> None:
    world = two().steer(1).looks(20, model_2=BUSY).looks(100, model_2=sight)
    assert world.due == []

    assert world.looks(9.9, model_2=BUSY).due == []
    world.looks(20.2)
    assert world.due == [("model-2", "stop")]


def test_a_drain_whose_autoscaler_stood_still_begins_again() -> None:
    world = two().steer(1).looks(10, model_2=BUSY)
    world.now_s += TIMING.silent_s + 0.1
    assert world.due == [], "its last look is too old"

    assert world.after(25).due == []
    assert world.looks(29.9).due == []
    assert world.after(0.1).due == [("model-2", "stop")]


def test_an_empty_replica_is_not_stopped_on_a_look_from_before_a_standstill() -> None:
    world = two().steer(1).after(2, model_2=replace(GOOD, is_draining=True))
    assert world.due == [("model-2", "stop")]

    world.now_s += TIMING.silent_s + 0.1
    assert world.due == []
    assert world.after(0).due == [], "the gateway may have given it requests"
    assert world.after(1).due == [("model-2", "stop")]


def test_requests_are_cut_when_the_replica_has_ended_even_if_the_call_failed() -> None:
    world = two().steer(1).looks(30, model_2=BUSY)
    world.ends(world.acts[0], failed=True).after(1, model_2=DOWN)

    assert [(one.replica, one.phase, one.cut) for one in world.changes] == [("model-2", "stopped", 3)]


def test_requests_of_a_failed_stop_are_not_cut_when_the_replica_returns_to_service() -> None:
    world = two().steer(1).looks(30, model_2=BUSY)
    world.ends(world.acts[0], failed=True).steer(2).steer(1).after(1, model_2=DOWN)

    assert [(one.replica, one.phase, one.cut) for one in world.changes] == [("model-2", "stopped", 0)]


def test_at_the_end_what_runs_is_in_service_but_for_a_stop_under_way() -> None:
    world = World(model_1=GOOD, model_2=GOOD, model_3=GOOD).steer(1).looks(30, model_2=BUSY, model_3=BUSY)
    world.fleet = fleets.acting(world.fleet, world.acts[1])

    left = fleets.left(world.fleet, world.sights)
    assert [one.phase for one in left] == ["ready", "ready", "draining", "stopped"]
    assert fleets.stopping(left) == 3


def test_an_autoscaler_that_does_nothing_owns_only_what_is_not_missed() -> None:
    world = World(model_2=GOOD, model_3=STARTING)

    def phases(minimum: int) -> list[str]:
        return [one.phase[0] for one in fleets.unowned(world.fleet, minimum)]

    assert [phases(minimum) for minimum in (0, 2, 3, 4)] == [list("srrs"), list("srrs"), list("rrrs"), list("rrrr")]


def test_a_wish_for_more_takes_a_draining_replica_back_before_it_starts_another() -> None:
    world = World(model_1=GOOD, model_2=GOOD, model_3=GOOD).steer(1)
    assert world.phases == "rdds"

    assert world.after(1).steer(3).phases == "rrrs"
    assert world.owners == "rrra"


def test_a_replica_whose_stop_is_under_way_is_not_taken_back() -> None:
    world = two().steer(1).after(1, model_2=replace(GOOD, is_draining=True))
    world.fleet = fleets.acting(world.fleet, world.acts[0])

    assert world.steer(2).phases == "rdcs"


def test_the_first_to_go_is_a_dead_or_a_failing_one() -> None:
    world = two().after(2).steer(3)
    world.ends(world.acts[0]).after(0, model_3=STARTING).after(121).after(1, model_3=DOWN)
    world.steer(4).after(1)
    assert (world.phases, [one.failures for one in world.fleet]) == ("rrcc", [0, 0, 1, 0])
    assert world.after(0, model_3=STARTING, model_4=STARTING).steer(3).phases == "rrdc"
    assert World(model_1=GOOD, model_2=GOOD, model_3=GOOD).after(1, model_2=STARTING).steer(2).phases == "rdrs"
    assert World(model_1=GOOD, model_2=GOOD, model_3=GOOD).after(1, model_1=DOWN).steer(2).phases == "drrs"


def test_a_first_replica_that_another_program_starts_stays_and_the_last_one_goes() -> None:
    world = World(model_2=GOOD, model_3=GOOD).after(1, model_1=STARTING)
    assert world.phases == "crrs"

    assert world.steer(2).phases == "crds"


def test_a_dead_replica_is_the_remediators_first_and_then_the_autoscalers() -> None:
    world = two().after(1, model_2=DOWN)
    assert (world.after(9.9).phases, world.owners) == ("rrss", "rraa"), "the remediator may repair it"

    assert (world.after(0.1).phases, world.owners, world.due) == ("rcss", "raaa", []), "published, not yet acted on"
    assert world.after(0.9).due == []
    assert world.after(0.1).due == [("model-2", "start")]


def test_a_repair_by_the_remediator_ends_the_wait() -> None:
    world = two().after(1, model_2=DOWN).after(9).after(0.5, model_2=STARTING).after(20, model_2=DOWN)

    assert world.after(9.9).phases == "rrss"


def test_a_replica_that_does_not_come_back_is_replaced_by_a_spare() -> None:
    world = two().after(1, model_2=DOWN).after(10).after(1)
    world.ends(world.acts[0])
    assert world.after(11).phases == "rcss"
    assert world.after(0.1).phases == "rsss"
    assert world.reasons[-1] == "model-2 stopped: not running 11.1 s after its start"

    assert world.steer(2).phases == "rscs", "model-2 has failed, model-3 has not"


def test_a_replica_that_stays_cold_is_replaced_by_a_spare() -> None:
    world = two().after(2).steer(3)
    world.ends(world.acts[0]).after(0, model_3=STARTING).after(120)
    assert world.phases == "rrcs"

    assert world.after(0.1).phases == "rrds"
    assert world.steer(3).phases == "rrdc", "the one that failed is not taken back"


@pytest.mark.parametrize("unknown", [SILENT_GATEWAY, replace(STARTING, is_running=None)], ids=["gateway", "runtime"])
def test_unknown_time_does_not_count_as_cold(unknown: Sight) -> None:
    world = two().after(2).steer(3)
    world.ends(world.acts[0]).looks(60, model_3=STARTING).looks(500, model_3=unknown)
    assert world.phases == "rrcs"

    assert world.looks(60, model_3=STARTING).phases == "rrcs"
    assert world.looks(1.1).phases == "rrds"


def test_a_failed_call_is_repeated_after_a_pause() -> None:
    world = two().after(2).steer(3)
    world.ends(world.acts[0], failed=True)

    assert world.after(1.9).due == []
    assert world.after(0.1).due == [("model-3", "start")]


def test_a_stopped_replica_that_another_program_starts_is_taken_up() -> None:
    world = two().after(1, model_3=STARTING)
    assert world.phases == "rrcs"
    assert world.reasons == ["model-3 cold: another program started it"]

    assert world.after(1, model_3=GOOD).phases == "rrrs"


def test_unknown_reports_change_nothing() -> None:
    world = World(model_1=GOOD, model_2=GOOD, model_3=STARTING).steer(2).after(1).steer(1)
    before = world.phases
    assert before == "rdds"

    world.steer(2).after(10_000, **dict.fromkeys(("model_1", "model_2", "model_3", "model_4"), Sight()))
    assert (world.phases, world.due) == ("rrds", [])


def test_serving_are_the_ready_ones_that_no_report_contradicts() -> None:
    world = World(model_1=GOOD, model_2=GOOD, model_3=GOOD, model_4=STARTING)
    world.sights |= {"model-2": STARTING, "model-3": Sight()}

    assert fleets.serving(world.fleet, world.sights) == ("model-1", "model-3")


WISH = Wish(desired=3, current=2, minimum=1, maximum=4, steps_max=4, is_blind=False, is_paused=False, is_dry_run=False)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict(desired=3, result="acted")),
        ({"desired": 2}, Verdict(desired=2, result="held")),
        ({"desired": 2, "is_blind": True}, Verdict(desired=2, result="blind")),
        ({"desired": 0}, Verdict(desired=1, result="acted", reason="0 wanted, 1 permitted")),
        ({"desired": 9}, Verdict(desired=4, result="acted", reason="9 wanted, 4 permitted")),
        ({"desired": 4, "steps_max": 1}, Verdict(desired=3, result="acted", reason="4 wanted, 3 permitted")),
        ({"desired": 1, "current": 4, "steps_max": 2}, Verdict(desired=2, result="acted", reason="1 wanted, 2 permitted")),
        ({"current": 0, "desired": 0, "is_blind": True}, Verdict(desired=1, result="acted", reason="0 wanted, 1 permitted")),
        ({"is_dry_run": True}, Verdict(desired=2, result="dry_run", reason="dry run: would have 3 replicas")),
        ({"is_dry_run": True, "desired": 2}, Verdict(desired=2, result="dry_run")),
        ({"is_paused": True, "is_dry_run": True}, Verdict(desired=2, result="paused", reason="operator hold: remove the hold file")),
    ],
    ids=str,
)  # fmt: skip
def test_a_wish_is_bounded_or_refused(changes: dict[str, int], verdict: Verdict) -> None:
    assert permitted(replace(WISH, **changes)) == verdict  # type: ignore[arg-type]
