"""Readers of `/replicas`: the gateway's duties and the remediator's owners."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.lab_api_world import World, in_world

from lab_api.breaker import Cause, Circuit
from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Pool
from lab_api.replica import Duty, Probed, Replica
from lab_api.scaling import SILENT_S, Duties, states_of
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding
from lab_remediator.owners import EXPIRES_S, FRESH_S, Word, owners_of

ANSWER = {
    "replicas": [
        {"name": "model-1", "owner": "remediator", "state": "ready"},
        {"name": "model-2", "owner": "autoscaler", "state": "draining"},
    ],
    "desired": 1,
}


def test_both_readers_read_the_same_answer() -> None:
    assert states_of(ANSWER) == {"model-1": "ready", "model-2": "draining"}
    assert owners_of(ANSWER) == {"model-1": "remediator", "model-2": "autoscaler"}


@pytest.mark.parametrize(
    "body", [None, [], {}, {"replicas": {}}, {"replicas": [1]}, {"replicas": [{"name": 1, "state": "odd"}]}]
)
def test_an_answer_of_another_shape_is_no_answer(body: Any) -> None:
    assert states_of(body) is None
    assert owners_of(body) is None


OWNERS = {"model-1": "remediator", "model-2": "autoscaler"}


@pytest.mark.parametrize(
    ("word", "refused"),
    [
        (Word(), ""),
        (Word(owners=OWNERS, replicas=OWNERS, is_new=True), "model-2"),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=EXPIRES_S - 0.1), "model-1 model-2"),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=EXPIRES_S), "model-2"),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=EXPIRES_S, running_s={"model-2": EXPIRES_S}), ""),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=EXPIRES_S, running_s={"model-2": 5}), "model-2"),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=1, has_ended=True), "model-2"),
        (Word(owners=OWNERS, replicas=OWNERS, silent_s=1, has_ended=True, running_s={"model-2": 0}), ""),
        (Word(owners=OWNERS, replicas=OWNERS, is_new=True, running_s={"model-2": 0}), "model-2"),
        (Word(replicas=OWNERS, silent_s=5), "model-1 model-2"),
        (Word(replicas=OWNERS, silent_s=5, running_s={"model-1": 0}), "model-2"),
    ],
    ids=[
        *("no autoscaler", "fresh", "silent", "expired", "expired, started by another", "expired, ran before"),
        *("ended", "ended, started by another", "fresh, runs", "never heard", "never heard, runs"),
    ],
)
def test_the_remediator_acts_on_what_it_owns(word: Word, refused: str) -> None:
    assert " ".join(name for name in OWNERS if word.refusal(name)) == refused
    assert word.refusal("api") is None


def test_a_replica_that_is_not_scaled_is_the_remediators() -> None:
    replicas = (*OWNERS, "model-9")
    for word in (
        Word(owners=OWNERS, replicas=replicas, is_new=True),
        Word(owners=OWNERS, replicas=replicas, silent_s=5),
    ):
        assert word.refusal("model-9") is None
        assert "model-9" not in word.elsewhere()
    assert Word(replicas=replicas).refusal("model-9") == "model-9 was never seen running"


def test_a_replica_of_the_autoscaler_is_not_looked_at() -> None:
    assert Word(owners=OWNERS, replicas=OWNERS, silent_s=1e6).elsewhere() == {"model-2"}
    assert Word(owners=OWNERS, replicas=OWNERS, silent_s=FRESH_S - 0.1).elsewhere() == {"model-2"}, "one lost answer"
    assert Word(owners=OWNERS, replicas=OWNERS, silent_s=FRESH_S).elsewhere() == set(OWNERS)
    assert Word(replicas=OWNERS).elsewhere() == set(OWNERS), "nothing is known yet"
    assert Word(owners=OWNERS, replicas=OWNERS, has_ended=True).elsewhere() == {"model-2"}
    assert Word().elsewhere() == set()


class Lab:
    """A gateway's pool of three replicas. The test sends the autoscaler's answers."""

    def __init__(self, **patterns: bool) -> None:
        self.now_s = 0.0
        self.pool = Pool(
            {name: f"http://{name}" for name in ("model-1", "model-2", "model-3")},
            admission=Admission(concurrency=8),
            shedding=Shedding(),
            probing=Probing(),
            ejection=Ejection(slow_start_s=0),
            patterns=Patterns(**patterns),
            clock=lambda: self.now_s,
        )
        self.duties = Duties(self.pool)
        for name in ("model-1", "model-2"):
            self[name].probed(Probed.GOOD, 0, took_s=0)

    def __getitem__(self, name: str) -> Replica:
        return next(one for one in self.pool.replicas if one.name == name)

    def hear(self, **states: str) -> None:
        self.duties.heard({name.replace("_", "-"): state for name, state in states.items()})

    def given(self, count: int = 4) -> list[str]:
        """Replicas of that many new requests."""
        leases = [lease for _ in range(count) if (lease := self.pool._take(())) is not None]
        names = sorted({lease.replica.name for lease in leases})
        for lease in leases:
            lease.end(Outcome.OK)
        return names


def test_a_draining_replica_gets_nothing_new_and_finishes_what_it_has() -> None:
    lab = Lab()
    held = [lease for _ in range(2) if (lease := lab.pool._take(())) is not None]
    lab.hear(model_1="ready", model_2="draining")

    assert lab.given() == ["model-1"]
    assert lab["model-2"].in_flight == 1
    for lease in held:
        lease.end(Outcome.OK)
    assert lab["model-2"].in_flight == 0
    lab.hear(model_1="ready", model_2="ready")
    assert lab.given() == ["model-1", "model-2"]


def test_even_a_last_attempt_goes_to_no_draining_replica() -> None:
    lab = Lab()
    lab.hear(model_1="ready", model_2="draining")
    for _ in range(2):
        lab["model-1"].probed(Probed.BAD, 0, took_s=0)

    assert lab.given() == ["model-1", "model-3"], "it fails open"
    for name in ("model-1", "model-3"):
        lab[name].probed(Probed.REFUSED, 0, took_s=0)
    with pytest.raises(GatewayError, match="no replica is ready"):
        lab.pool._require_candidate(())


def test_a_stopped_replica_is_no_missing_one_and_a_dead_one_is() -> None:
    lab = Lab()
    lab.hear(model_1="ready", model_2="stopped", model_3="ready")
    assert (lab["model-1"].is_spare, lab["model-2"].is_spare, lab["model-3"].is_spare) == (False, True, False)
    assert lab.pool.ready

    lab["model-1"].probed(Probed.REFUSED, 0, took_s=0)
    lab.hear(model_1="cold", model_2="cold", model_3="ready")
    assert not lab["model-1"].is_spare, "it was in service and is missed"
    assert lab["model-2"].is_spare, "it is on its way"
    lab["model-2"].probed(Probed.GOOD, 0, took_s=0)
    assert not lab["model-2"].is_spare


def test_a_draining_replica_that_refuses_is_no_missing_one() -> None:
    lab = Lab()
    lab.hear(model_1="draining", model_2="ready", model_3="ready")
    for name in ("model-1", "model-2"):
        lab[name].probed(Probed.REFUSED, 0, took_s=0)
    assert (lab["model-1"].is_spare, lab["model-2"].is_spare) == (True, False)

    lab.hear(model_1="ready", model_2="ready", model_3="ready")
    assert not lab["model-1"].is_spare, "it returned to service, and is missed"


def test_what_a_replica_did_before_it_was_stopped_is_forgotten() -> None:
    lab = Lab()
    lab["model-2"].breaker.eject(0)
    lab.hear(model_1="ready", model_2="draining")
    assert lab["model-2"].breaker.state(0) is Circuit.OPEN
    lab.hear(model_1="ready", model_2="stopped")

    assert lab["model-2"].breaker.state(0) is Circuit.CLOSED
    assert lab["model-2"].breaker.ejections[Cause.LATENCY] == 1


def test_a_silent_autoscalers_last_answer_holds_and_then_the_probe_decides() -> None:
    lab = Lab()
    lab.hear(model_1="ready", model_2="draining", model_3="stopped")
    lab.now_s = SILENT_S
    lab.duties.heard(None)
    assert lab.given() == ["model-1"]

    lab.now_s = SILENT_S + 0.1
    lab.duties.heard(None)
    assert lab.given() == ["model-1", "model-2"]
    assert lab["model-3"].duty is Duty.SERVING, "it is probed again"
    assert lab["model-3"].is_spare
    lab.hear(model_1="ready", model_2="draining", model_3="stopped")
    assert lab.given() == ["model-1"]


@in_world(LAB_AUTOSCALER_URL="http://127.0.0.1:1")
async def test_the_gateway_shows_drain_and_requests_in_flight_in_its_metrics_and_readiness(it: World) -> None:
    assert await it.metric("llmlab_replica_draining", replica="model-2") == 0
    it.gateway.scaling.duties.heard({"model-1": "ready", "model-2": "draining"})  # type: ignore[union-attr]

    assert await it.metric("llmlab_replica_draining", replica="model-2") == 1
    assert await it.metric("llmlab_upstream_health", replica="model-2", probe="shallow") == 1
    text = (await it.get("/metrics")).body.decode()
    assert 'llmlab_upstream_health{probe="passive",replica="model-1"}' in text
    assert 'llmlab_upstream_health{probe="passive",replica="model-2"}' not in text
    ready = await it.get("/readyz")
    assert ready.status == 200
    assert {name: one["draining"] for name, one in json.loads(ready.body)["replicas"].items()} == {
        "model-1": False,
        "model-2": True,
    }
    assert [(await it.chat()).headers["x-llmlab-replica"] for _ in range(4)] == ["model-1"] * 4


@in_world(LAB_AUTOSCALER_URL="http://127.0.0.1:1", LAB_PROBE_INTERVAL_S="0.01")
async def test_a_stopped_replica_has_no_health_that_an_alert_could_read(it: World) -> None:
    it.gateway.scaling.duties.heard({"model-1": "ready", "model-2": "stopped"})  # type: ignore[union-attr]
    await it.models[1].stop()
    text = (await it.get("/metrics")).body.decode()

    assert 'llmlab_upstream_health{probe="shallow",replica="model-1"} 1.0' in text
    assert 'replica="model-2"} 0.0' not in "\n".join(line for line in text.splitlines() if "upstream_health" in line)
    assert (await it.get("/readyz")).status == 200
