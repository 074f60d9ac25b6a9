"""Readings of Prometheus and the gateway: values, or unknown."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_autoscaler.clients import gateway_sights
from lab_autoscaler.eyes import (
    FIRST_TOKEN,
    QUEUE,
    RATE,
    RUNNING,
    TOKEN_GAP,
    WAITING,
    Eyes,
    Samples,
    observed_of,
    queries,
)
from lab_autoscaler.fleet import Sight
from lab_autoscaler.settings import Settings, Sights
from lab_common.settings import SettingsError
from lab_remediator.clients import AskError, Sample

if TYPE_CHECKING:
    from lab_autoscaler.seen import Observed

SIGHTS = Sights.from_env({})
READY = ("model-1", "model-2")


def sample(value: float, service: str = "") -> Sample:
    return Sample(labels={"service": service} if service else {}, at=5.0, value=value)


def by_replica(**values: float) -> list[Sample]:
    return [sample(value, name.replace("_", "-")) for name, value in values.items()]


ANSWERS = {
    RUNNING: by_replica(model_1=4, model_2=2, model_3=0),
    WAITING: by_replica(model_1=1, model_2=0),
    QUEUE: [sample(5)],
    RATE: [sample(2.5)],
    FIRST_TOKEN: [sample(0.9)],
    TOKEN_GAP: [sample(1)],
}


def seen(sights: Sights = SIGHTS, ready: tuple[str, ...] = READY, **answers: list[Sample]) -> Observed:
    found = {name: answers.get(name.replace(" ", "_"), answer) for name, answer in ANSWERS.items()}
    return observed_of(Samples(found=found), sights, now_s=7, replicas=3, ready=ready)


def test_an_observation_sums_the_ready_replicas_and_the_gateways_queue() -> None:
    got = seen()

    assert (got.now_s, got.replicas, got.ready, got.reporting, got.slots) == (7, 3, 2, 2, 8)
    assert (got.waiting, got.running, got.rate_rps, got.utilisation) == (6, 6, 2.5, 6 / 16)
    assert (got.first_token_attained, got.token_gap_attained) == (0.9, 1)


def test_a_ready_replica_that_does_not_report_makes_the_sums_unknown() -> None:
    got = seen(running=by_replica(model_1=4))
    assert (got.running, got.utilisation, got.reporting, got.waiting) == (None, None, 1, 6)

    assert seen(waiting=by_replica(model_2=4)).waiting is None


def test_without_the_gateways_fresh_queue_the_waiting_requests_are_unknown() -> None:
    assert seen(queue=[]).waiting is None
    assert seen(queue=[sample(1), sample(2)]).waiting is None


def test_an_engine_without_a_queue_of_its_own_leaves_that_of_the_gateway() -> None:
    got = seen(replace(SIGHTS, engine_queue=False), waiting=[])

    assert got.waiting == 5


def test_without_a_ready_replica_nothing_is_in_use_or_free() -> None:
    got = seen(ready=())

    assert (got.running, got.utilisation, got.reporting) == (None, None, 0)
    assert got.waiting == 5


def test_no_answer_at_all_is_unknown_and_never_zero() -> None:
    got = observed_of(Samples(), SIGHTS, now_s=0, replicas=2, ready=READY)

    values = (got.waiting, got.running, got.rate_rps, got.utilisation, got.first_token_attained, got.token_gap_attained)
    assert values == (None,) * 6
    assert got.reporting == 0


class Answers:
    """Prometheus with one answer to every query."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def data(self, query: str, name: str) -> object:
        assert query, name
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def looked(answer: object) -> Samples:
    return asyncio.run(Eyes(Answers(answer), SIGHTS).look())  # type: ignore[arg-type]


def vector(value: str, late_s: float = 0.0) -> dict[str, Any]:
    at = time.time() - late_s
    return {"resultType": "vector", "result": [{"metric": {"service": "model-1"}, "value": [at, value]}]}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1"])
def test_a_sample_that_is_no_count_is_absent(value: str) -> None:
    assert all(samples == [] for samples in looked(vector(value)).found.values())
    assert looked(vector("2")).by_service(RUNNING) == {"model-1": 2.0}


def test_an_answer_that_is_repeated_is_too_old() -> None:
    assert looked(vector("2", SIGHTS.stale_s - 1)).by_service(RUNNING) == {"model-1": 2.0}
    assert looked(vector("2", SIGHTS.stale_s + 0.1)).by_service(RUNNING) == {}


def test_an_answer_without_use_is_an_error_of_its_query() -> None:
    assert set(looked(AskError("down")).errors.values()) == {"down"}
    assert "unexpected shape" in looked({"resultType": "vector", "result": 5}).errors[RUNNING]
    assert "got a matrix" in looked({"resultType": "matrix", "result": []}).errors[QUEUE]


def test_every_query_drops_what_is_older_than_the_limit() -> None:
    found = queries(replace(SIGHTS, stale_s=3, window_s=9))

    assert all("[3s]" in query for query in found.values())
    assert found[RATE].startswith("sum(rate(llmlab_requests_total[9s]))")
    assert WAITING not in queries(replace(SIGHTS, engine_queue=False))


@pytest.mark.parametrize(("bound", "edge"), [("1", "1|1[.]0"), ("2.0", "2|2[.]0"), ("0.25", "0[.]25")])
def test_a_target_is_the_edge_of_a_bucket(bound: str, edge: str) -> None:
    assert f'le=~"{edge}"' in queries(replace(SIGHTS, first_token_s=bound))[FIRST_TOKEN]


def test_the_gateways_list_is_read() -> None:
    body = {
        "status": "ready",
        "replicas": {"model-1": {"healthy": True, "draining": True, "in_flight": 3, "circuit": "x"}},
    }

    assert gateway_sights(body) == {"model-1": Sight(is_healthy=True, is_draining=True, in_flight=3)}


KEYS = st.sampled_from(["replicas", "model-1", "healthy", "draining", "in_flight"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_any_list_of_the_gateway_is_read_or_of_no_use(body: Any) -> None:
    with suppress(AskError):
        assert all(isinstance(one, Sight) for one in gateway_sights(body).values())


NEEDED = {"LAB_PROJECT": "mylab", "LAB_SCALED": "model-1,model-2,model-3,model-4"}


def test_settings_have_defaults_but_for_the_project_and_the_replicas() -> None:
    settings = Settings.from_env(NEEDED)

    assert settings.scaled == ("model-1", "model-2", "model-3", "model-4")
    assert settings.hold_file == settings.audit_file.parent / "autoscaler-hold"


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("LAB_PROJECT", "", "LAB_PROJECT: expected the name of a compose project"),
        ("LAB_SCALED", "", "LAB_SCALED: expected different services"),
        ("LAB_SCALED", "model-1,model-1", "LAB_SCALED: expected different services"),
        ("LAB_POLICY", "magic()", "LAB_POLICY: expected a policy"),
        ("LAB_POLICY", "fixed(5)", "LAB_POLICY: expected a minimum of at most 4, the replicas of LAB_SCALED, got 5"),
        ("LAB_DRAIN_S", "-1", "LAB_DRAIN_S: expected a number from 0 to 3600"),
        ("LAB_POLL_S", "5", "LAB_POLL_S: expected a number from 0.05 to 2"),
        ("LAB_SLOTS", "0", "LAB_SLOTS: expected a whole number from 1"),
        ("LAB_FIRST_TOKEN_S", "soon", "LAB_FIRST_TOKEN_S: expected seconds"),
        ("LAB_GATEWAY_URL", "api:8000", "LAB_GATEWAY_URL: expected http://HOST:PORT"),
        ("LAB_DRY_RUN", "yes", "LAB_DRY_RUN: expected 0 or 1"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as told:
        Settings.from_env({**NEEDED, variable: value})

    assert str(told.value).startswith(complaint)
    assert len(str(told.value).splitlines()) == 1
