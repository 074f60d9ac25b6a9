"""The whole autoscaler against made-up Docker, Prometheus and gateway."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.sidecar_world import NAMES, PROJECT, Fakes, Running, at_work, story

from lab_autoscaler.fleet import steered
from lab_autoscaler.written import parse
from lab_remediator.audit import Audit
from lab_remediator.clients import Docker, Prober, Prometheus
from lab_remediator.load import load_policy
from lab_remediator.loop import Remediator
from lab_remediator.metrics import Metrics
from lab_remediator.owners import Owners, Word

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

QUICK = (
    "queue(maximum=3, scale_up_window_s=0, scale_down_window_s=1, scale_up_period_s=0.2, scale_down_period_s=0.2, "
    "scale_up_pods=1, scale_down_pods=1)"
)


def test_the_fleet_follows_the_load_from_1_to_3_replicas_and_back(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY=QUICK) as it:
            await it.until(lambda: it.phases() == "rsss")
            fakes.waiting = 50.0
            await it.until(lambda: it.phases() == "rrrs")
            await it.syncs(3, "held")
            fakes.waiting = 0.0
            await it.until(lambda: it.phases() == "rsss")

            assert fakes.acts() == ["start model-2", "start model-3", "stop model-3", "stop model-2"]
            assert fakes.stopped_before_drained == []
            assert it.value("lab_autoscaler_scale_events_total", direction="up") == 2
            assert it.value("lab_autoscaler_scale_events_total", direction="down") == 2
            assert it.value("lab_autoscaler_flaps_total") == 1
            assert it.value("lab_autoscaler_cut_requests_total") == 0
            assert (it.value("lab_autoscaler_replica_seconds_total") or 0) > 1
            await it.until(lambda: it.value("lab_autoscaler_replicas", state="stopped") == 3)

    story(live, tmp_path, 1)


def test_the_intent_is_on_disk_before_the_act_and_the_log_has_every_step(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it:
            await it.until(lambda: fakes.events()[-1:] == ["stopped"])

            assert fakes.intents_at_call == [1]
            assert fakes.events() == ["started", "taken_up", "scaled", "draining", "intent", "done", "stopped"]
            scaled = fakes.entries()[2]
            assert scaled["rule"] == "fixed(1)"
            assert scaled["reason"].startswith("2 to 1: ")
            assert {"replicas": 2, "ready": 2}.items() <= {
                one["signal"]: one["value"] for one in scaled["evidence"]
            }.items()
            text = await (await it.http.get(f"{it.url}/audit")).text()
            assert len(text.splitlines()) == 7

    story(live, tmp_path, 2)


def test_requests_in_flight_are_waited_for_and_cut_when_the_drains_time_is_over(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].in_flight = 2
        async with at_work(fakes, LAB_POLICY="fixed(1)", LAB_DRAIN_S="1.5") as it:
            await it.until(lambda: it.phases() == "rdss")
            await it.until(lambda: fakes.acts() == ["stop model-2"])
            await it.until(lambda: it.phases() == "rsss")

            assert it.value("lab_autoscaler_cut_requests_total") == 2

    story(live, tmp_path, 2)


def test_without_prometheus_the_count_is_held_and_the_outage_recorded(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.waiting = None
        async with at_work(fakes, LAB_POLICY=QUICK) as it:
            await it.syncs(15, "blind")

            assert fakes.calls == []
            assert it.value("lab_autoscaler_is_blind") == 1
            assert fakes.events()[-1] == "blind"
            fakes.waiting = 0.0
            await it.until(lambda: fakes.acts() == ["stop model-3", "stop model-2"])
            assert it.value("lab_autoscaler_is_blind") == 0
            assert "sighted" in fakes.events()

    story(live, tmp_path, 3)


def test_without_the_gateway_nothing_is_taken_up_and_the_health_check_is_red(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.gateway_is_up = False
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it:
            await it.until(lambda: "gateway" in it.autoscaler.troubles)
            async with it.http.get(f"{it.url}/healthz") as health, it.http.get(f"{it.url}/replicas") as replicas:
                assert (health.status, replicas.status) == (503, 503)

            fakes.gateway_is_up = True
            await it.until(lambda: it.autoscaler.ready)
            async with it.http.get(f"{it.url}/healthz") as health:
                assert health.status == 200

    story(live, tmp_path, 2)


def test_the_hold_file_stops_every_act_until_it_is_removed(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        hold = tmp_path / "autoscaler-hold"
        hold.touch()
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it:
            await it.syncs(15, "paused")
            assert (fakes.calls, it.phases()) == ([], "rrss")

            hold.unlink()
            await it.until(lambda: it.phases() == "rsss")

    story(live, tmp_path, 2)


def test_the_hold_file_stops_a_drain_that_has_begun(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].in_flight = 1
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it:
            await it.until(lambda: it.phases() == "rdss")
            (tmp_path / "autoscaler-hold").touch()
            await it.syncs(1, "paused")
            fakes.replicas["model-2"].in_flight = 0
            await it.syncs(12, "paused")
            assert (fakes.calls, it.phases()) == ([], "rdss")

    story(live, tmp_path, 2)


def test_a_dry_run_shows_its_wish_and_touches_nothing(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY="fixed(1)", LAB_DRY_RUN="1") as it:
            await it.syncs(15, "dry_run")

            assert (fakes.calls, it.phases()) == ([], "rrss")
            assert it.autoscaler.troubles["guard"] == "dry run: would have 1 replicas"

    story(live, tmp_path, 2)


def test_a_dry_run_leaves_slow_and_missing_replicas_to_the_remediator(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-1"].is_running = False
        fakes.replicas["model-2"].is_cold = True
        async with at_work(fakes, LAB_POLICY="fixed(2)", LAB_DRY_RUN="1", LAB_COLD_S="1") as it:
            await it.syncs(15, "dry_run")

            assert it.phases() == "scss"
            assert await it.published() == {"model-1": "rr", "model-2": "rr", "model-3": "as", "model-4": "as"}

    story(live, tmp_path, 2)


def test_a_hold_takes_no_slow_replica_out(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].is_cold = True
        hold = tmp_path / "autoscaler-hold"
        hold.touch()
        async with at_work(fakes, LAB_POLICY="fixed(2)", LAB_COLD_S="1") as it:
            await it.syncs(15, "paused")
            assert it.phases() == "rcss"

            hold.unlink()
            await it.until(lambda: it.phases() != "rcss")

    story(live, tmp_path, 2)


def test_a_decision_that_changes_nothing_is_no_scale_event(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.stop_s = 1.0
        async with at_work(fakes, LAB_POLICY="fixed(3)") as it:
            await it.until(lambda: it.phases() == "rrrs")
            it.autoscaler._policy = parse("fixed(2)")
            await it.until(lambda: fakes.acts()[-1:] == ["stop model-3"])
            fakes.replicas["model-3"].is_running = True
            it.autoscaler._policy = parse("fixed(4)")
            await it.until(lambda: fakes.acts()[-1:] == ["start model-4"])
            await it.syncs(4, "acted")  # nothing is left to start: the stop of model-3 is under way
            assert it.value("lab_autoscaler_scale_events_total", direction="up") == 2

    story(live, tmp_path, 2)


def test_nothing_is_done_when_the_intent_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY="fixed(2)", LAB_REPAIR_S="2") as it:
            await it.until(lambda: it.autoscaler.ready)
            monkeypatch.setattr(os, "fsync", full)
            fakes.replicas["model-2"].is_running = False
            await it.until(lambda: "audit" in it.autoscaler.troubles)
            await asyncio.sleep(0)
            assert fakes.calls == []

            monkeypatch.undo()
            await it.until(lambda: fakes.acts() == ["start model-2"])

    story(live, tmp_path, 2)


def test_an_act_that_docker_refuses_is_failed_and_repeated_after_a_pause(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].refuses = True
        async with at_work(fakes, LAB_POLICY="fixed(2)") as it:
            await it.until(lambda: fakes.events().count("failed") == 1)
            fakes.replicas["model-2"].refuses = False
            await it.until(lambda: it.phases() == "rrss")

            assert fakes.acts() == ["start model-2"] * 2
            assert it.value("lab_autoscaler_acts_total", action="start", result="failed") == 1

    story(live, tmp_path, 1)


def test_a_new_process_takes_up_what_runs_and_ends_the_drain_of_an_earlier_one(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].in_flight = 1
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it:
            await it.until(lambda: it.phases() == "rdss")
        async with at_work(fakes, LAB_POLICY="fixed(2)") as it:
            await it.syncs(5, "held")

            assert it.phases() == "rrss"
            assert fakes.calls == [], "the new process wants it"

    story(live, tmp_path, 2)


RULES = """
schema: llmlab-remediation/1
replicas: [model-1, model-2, model-3, model-4]
guards: {startup_grace_s: 1, cooldown_s: 0.1, glitch_s: 0, recovered_s: 0.1, stale_s: 3, verify_s: 0.1}
signals:
  scrape: {query: 'up{job="model"}', fires: "< 1", every_s: 0.1}
rules:
  - {name: replica-exited, services: [model-1, model-2, model-3, model-4], signal: [{signal: scrape}],
     evidence: [{container: [exited, dead]}], action: start}
"""


@asynccontextmanager
async def repairing(it: Running, path: Path, owners: Owners | None = None) -> AsyncIterator[Audit]:
    """A real remediator in the autoscaler's world, and its log."""
    audit, policy = Audit(path / "remediator.jsonl"), load_policy(RULES, NAMES)
    remediator = Remediator(
        policy=policy,
        prometheus=Prometheus(it.http, it.lab_url),
        docker=Docker(it.http, it.lab_url, PROJECT),
        prober=Prober(it.http, "/health", {}),
        owners=owners or Owners(it.http, it.url, policy.replicas),
        audit=audit,
        metrics=Metrics(policy),
        hold_file=path / "no-hold",
        poll_s=0.05,
    )
    it.fakes.repaired = remediator.acting
    work = asyncio.create_task(remediator.run())
    try:
        await it.until(lambda: remediator.watch.ready)
        yield audit
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        audit.close()


def test_a_replica_that_was_stopped_on_purpose_is_no_incident(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it, repairing(it, tmp_path) as audit:
            await it.until(lambda: it.phases() == "rsss")
            await it.syncs(20, "held")

            assert [entry["event"] for entry in audit.entries()] == ["started"]
            assert sorted(fakes.acts()) == ["stop model-2", "stop model-3"]

    story(live, tmp_path, 3)


def test_a_dead_ready_replica_is_repaired_by_the_remediator_alone(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY="fixed(3)") as it, repairing(it, tmp_path) as audit:
            await it.until(lambda: it.phases() == "rrrs")
            fakes.replicas["model-3"].is_running = False
            await it.until(lambda: fakes.replicas["model-3"].is_running)
            await it.until(lambda: "recovered" in [entry["event"] for entry in audit.entries()])

            assert fakes.acts() == ["start model-3"]
            assert "intent" not in fakes.events()

    story(live, tmp_path, 3)


class Changed(Owners):
    """Owners of which one changes between the decision and the act."""

    async def run(self) -> None:
        """Poll nothing."""

    async def ask(self) -> Word:
        return Word(owners={"model-2": "autoscaler"}, is_new=True)


def test_what_runs_at_the_end_of_the_autoscaler_is_the_remediators_at_once(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].in_flight = 1
        async with at_work(fakes, LAB_POLICY="fixed(1)") as it, repairing(it, tmp_path) as audit:
            await it.until(lambda: it.phases() == "rdss")
            it.stop()
            await it.until(lambda: fakes.events()[-1] == "ended")
            assert fakes.entries()[-1]["reason"] == "model-1 ready, model-2 ready, model-3 stopped, model-4 stopped"
            fakes.replicas["model-2"].is_running = False
            await it.until(lambda: fakes.replicas["model-2"].is_running)

            assert fakes.acts() == ["start model-2"]
            assert {entry["service"] for entry in audit.entries()} == {None, "model-2"}

    story(live, tmp_path, 2)


def test_a_stop_under_way_at_the_end_is_counted_and_stays_the_autoscalers(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.replicas["model-2"].in_flight, fakes.stop_s = 2, 30.0
        async with at_work(fakes, LAB_POLICY="fixed(1)", LAB_DRAIN_S="1.5") as it:
            await it.until(lambda: fakes.acts() == ["stop model-2"])
            it.stop()
            await it.until(lambda: fakes.events()[-1] == "ended")

            assert await it.published() == {"model-1": "rr", "model-2": "ad", "model-3": "as", "model-4": "as"}
            assert it.value("lab_autoscaler_cut_requests_total") == 2

    story(live, tmp_path, 2)


def test_the_remediator_reads_the_owner_right_before_it_acts(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        world = at_work(fakes, LAB_POLICY="fixed(2)", LAB_REPAIR_S="60")
        async with world as it, repairing(it, tmp_path, Changed(it.http, it.url, ())) as audit:
            fakes.replicas["model-2"].is_running = False
            await it.until(lambda: "failed" in [entry["event"] for entry in audit.entries()])

            refused = next(entry for entry in audit.entries() if entry["event"] == "failed")
            assert refused["reason"] == "not done: the autoscaler owns model-2"
            assert "start model-2" not in fakes.acts()

    story(live, tmp_path, 2)


def test_a_drain_waits_for_a_slow_repair_of_the_same_replica(tmp_path: Path) -> None:
    async def live(fakes: Fakes) -> None:
        fakes.start_s = 2.5
        async with at_work(fakes, LAB_POLICY="fixed(2)") as it, repairing(it, tmp_path) as audit:
            await it.until(lambda: it.phases() == "rrss")
            fakes.replicas["model-2"].is_running = False
            await it.until(lambda: fakes.acts() == ["start model-2"])
            fakes.replicas["model-2"].is_running = True  # Docker shows it before its start has ended
            await it.until(lambda: it.autoscaler._sights["model-2"].is_running is True)
            it.autoscaler.fleet, _ = steered(it.autoscaler.fleet, 1, {}, time.monotonic())
            it.autoscaler._policy = parse("fixed(1)")
            await it.until(lambda: it.phases() == "rsss")
            ours, theirs = acts_of(fakes.entries()), acts_of(audit.entries())

        assert [name for name, _, _ in (*ours, *theirs)] == ["model-2", "model-2"]
        assert ours[0][1] >= theirs[0][2]

    story(live, tmp_path, 2)


def acts_of(entries: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Service, begin and end of each act that was really done or tried."""
    found, open_at = [], {}
    for entry in entries:
        if entry["event"] == "intent":
            open_at[entry["service"]] = entry["at"]
        elif entry["event"] in ("done", "failed") and not entry["reason"].startswith("not done"):
            found.append((entry["service"], open_at.pop(entry["service"]), entry["at"]))
    return found


def test_remediator_and_autoscaler_never_act_on_one_replica_at_the_same_time(tmp_path: Path) -> None:
    rng = random.Random(7)

    async def live(fakes: Fakes) -> None:
        async with at_work(fakes, LAB_POLICY=QUICK, LAB_REPAIR_S="1") as it, repairing(it, tmp_path) as audit:
            for _ in range(2):
                fakes.waiting = 50.0
                await it.until(lambda: it.phases() == "rrrs")
                victim = fakes.replicas[rng.choice(["model-2", "model-3"])]
                fakes.waiting, victim.is_running = 0.0, False  # a repair next to a wish for fewer
                await it.until(lambda: it.phases() == "rsss")
            ours, theirs = acts_of(fakes.entries()), acts_of(audit.entries())

        assert len(ours) >= 6, "the autoscaler acted"
        assert theirs, "the remediator acted"
        both = [(a, b) for a in ours for b in theirs if a[0] == b[0] and a[1] <= b[2] and b[1] <= a[2]]
        assert both == []

    story(live, tmp_path, 2)
