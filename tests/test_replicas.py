"""The replicas' state after a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_runtime import FakeRuntime

from pytest_llmchaos.errors import NoData
from pytest_llmchaos.evidence.samples_file import Samples
from pytest_llmchaos.evidence.trial_record import PhaseBounds
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import replicas
from pytest_llmchaos.trial.replicas import Replica, judge_replicas, least_answers, served_again_s

SUBJECT = lab_subject("sim")
REST_DEADLINE_S = replicas.REST_DEADLINE_S
PHASES = (("fault", 8.0), ("recovery", 20.0), ("steady", 1.0))


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "REST_DEADLINE_S", 0.0)


def answers(names: Sequence[str], outcome: str = "ok") -> Samples:
    made = Samples()
    made.take(
        [
            (float(i), float(i), i + 0.1, i + 0.2, 0.0, 8, outcome, name, f"r-{i}", 200, None)  # type: ignore[list-item]
            for i, name in enumerate(names)
        ]
    )
    return made


def lab(runtime: Any = None, busy: Any = 0.0, routed: Any = 1.0, **subject: Any) -> Any:
    def vector(query: str, _at: float, *, may_be_empty: bool) -> Any:
        assert may_be_empty  # without a taken slot there is no series
        is_busy = query == SUBJECT.busy_query
        value = busy if is_busy else routed
        values = value if isinstance(value, dict) else {"model-1": 0.0 if is_busy else 1.0, "model-2": value}
        return {frozenset({("service", name)}): one for name, one in values.items()}

    return SimpleNamespace(
        subject=replace(SUBJECT, **subject),
        runtime=runtime or FakeRuntime(),
        prometheus=SimpleNamespace(vector=vector),
    )


BOTH = ["model-1", "model-2"] * 8


def test_replicas_that_answer_are_healthy_and_have_free_slots_serve() -> None:
    found = judge_replicas(lab(), answers(BOTH), 0.0)

    assert found is not None
    assert found.all_serve
    assert found.serving == ("model-1", "model-2")
    assert repr(found) == ("<replicas after the fault: model-1 gave 8 of 16 answers; model-2 gave 8 of 16 answers>")


@pytest.mark.parametrize(
    ("world", "names", "said"),
    [
        ({}, ["model-1"] * 16, "model-2 gave 0 of 16 answers, gets no requests"),
        ({"busy": 3.0}, BOTH, "model-2 gave 8 of 16 answers, 3 of its slots are still taken 0 s after the load"),
        ({"routed": 0.0}, BOTH, "model-2 gave 8 of 16 answers, the service routes no requests to it"),
        ({"routed": 2.0}, BOTH, "model-2 gave 8 of 16 answers, the service routes no requests to it"),
        ({}, ["model-1"] * 10, "model-2 gave 0 of 10 answers, gets no requests"),
    ],
    ids=["share", "slots", "rotation", "an odd rotation", "the least number of answers"],
)
def test_a_replica_that_does_not_serve_is_named_with_the_reason(world: Any, names: list[str], said: str) -> None:
    found = judge_replicas(lab(**world), answers(names), 0.0)

    assert found is not None
    assert not found.all_serve
    assert found.serving == ("model-1",)
    assert said in repr(found)


@pytest.mark.parametrize(
    ("break_", "said"),
    [("kill", "does not run"), ("pause", "is paused")],
)
def test_a_replica_that_is_down_does_not_serve(break_: str, said: str) -> None:
    runtime = FakeRuntime()
    getattr(runtime, break_)("model-2")

    found = judge_replicas(lab(runtime), answers(BOTH), 0.0)

    assert found is not None
    assert found.serving == ("model-1",)
    assert said in repr(found)


def test_a_replica_that_fails_its_own_health_check_does_not_serve() -> None:
    runtime = FakeRuntime()
    runtime._states["model-2"] = replace(runtime._states["model-2"], healthy=False)

    found = judge_replicas(lab(runtime), answers(BOTH), 0.0)

    assert found is not None
    assert "fails its health check" in repr(found)


def test_only_whole_answers_after_the_fault_count() -> None:
    before = judge_replicas(lab(), answers([*BOTH, *["model-1"] * 16]), 16.0)
    failed = judge_replicas(lab(), answers(BOTH, "cut"), 0.0)

    assert before is not None
    assert before.serving == ("model-1",)
    assert failed is not None
    with pytest.raises(NoData, match="0 answers after the fault are too few to show that it gets none, 10 needed"):
        _ = failed.all_serve


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ({"replica_header": None}, "model-1: no response header names the replica"),
        ({"busy_query": None}, "model-1: no metric shows how many of its slots are taken"),
        ({"attach": True}, "model-1: no metric shows how many of its slots are taken"),
    ],
)
def test_an_unknown_check_does_not_pass(subject: dict[str, Any], said: str) -> None:
    found = judge_replicas(lab(**subject), answers(BOTH), 0.0)

    assert found is not None
    with pytest.raises(NoData, match=said):
        _ = found.all_serve
    answered = 0 if "replica_header" in subject else 8
    assert f"model-1 gave {answered} of {2 * answered} answers" in repr(found)


def test_one_answer_fewer_than_needed_is_unknown() -> None:
    found = judge_replicas(lab(), answers(["model-1"] * 9), 0.0)

    assert found is not None
    assert found.serving == ("model-1", "model-2")
    with pytest.raises(
        NoData, match="model-2: 9 answers after the fault are too few to show that it gets none, 10 needed"
    ):
        _ = found.all_serve


def test_a_replica_without_a_health_check_is_not_unhealthy() -> None:
    runtime = FakeRuntime()
    runtime._states["model-2"] = replace(runtime._states["model-2"], healthy=None)

    found = judge_replicas(lab(runtime), answers(BOTH), 0.0)

    assert found is not None
    assert found.all_serve


def test_a_paused_replica_is_paused_whatever_its_health() -> None:
    runtime = FakeRuntime()
    runtime._states["model-2"] = replace(runtime._states["model-2"], healthy=False, paused=True)

    found = judge_replicas(lab(runtime), answers(BOTH), 0.0)

    assert found is not None
    assert [one.trouble for one in found.replicas] == [(), ("is paused",)]


def test_a_gateway_without_a_rotation_is_no_trouble() -> None:
    for world in (lab(rotation_query=None), lab(routed={}, rotation_query=None)):
        found = judge_replicas(world, answers(BOTH), 0.0)

        assert found is not None
        assert found.all_serve


def test_trouble_of_a_replica_comes_before_what_is_unknown_of_it() -> None:
    known = Replica(name="model-1", answered=1, of=2)

    assert str(known) == "model-1 gave 1 of 2 answers"
    assert str(replace(known, unknown=("a", "b"))) == "model-1 gave 1 of 2 answers, unknown: a, unknown: b"
    assert str(replace(known, trouble=("c",), unknown=("a",))) == "model-1 gave 1 of 2 answers, c"


class TestRest:
    """Slots and rotation are polled until they are good, for at most 6 s."""

    @pytest.fixture
    def looked(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Return replicas and number of looks for a query with these values."""
        now = [0.0]
        clock = SimpleNamespace(
            monotonic=lambda: now[0], time=lambda: 1000.0, sleep=lambda by_s: now.__setitem__(0, now[0] + by_s)
        )
        monkeypatch.setattr(replicas, "time", clock)
        monkeypatch.setattr(replicas, "REST_DEADLINE_S", 6.0)
        monkeypatch.setattr(replicas, "POLL_S", 1.0)

        def judged(query: str | None, values: Sequence[float | None]) -> tuple[Any, int]:
            world, looks = lab(), [0]
            plain = world.prometheus.vector

            def vector(asked: str, at: float, *, may_be_empty: bool) -> Any:
                if asked != query:
                    return plain(asked, at, may_be_empty=may_be_empty)
                value = values[min(looks[0], len(values) - 1)]
                looks[0] += 1
                if value is None:
                    raise NoData("no answer")
                return {frozenset({("service", name)}): value for name in ("model-1", "model-2")}

            world.prometheus.vector = vector
            return judge_replicas(world, answers(BOTH), 0.0), looks[0]

        return judged

    @pytest.mark.parametrize("busy", [3.0, None])
    def test_slots_are_free_once_a_look_finds_them_free(self, looked: Any, busy: float | None) -> None:
        found, looks = looked(SUBJECT.busy_query, [busy, busy, 0.0])

        assert found.all_serve
        assert looks == 3

    def test_a_replica_is_routed_to_once_a_look_finds_it_so(self, looked: Any) -> None:
        for odd in (0.0, 2.0):
            found, looks = looked(SUBJECT.rotation_query, [odd, 1.0])

            assert found.all_serve
            assert looks == 2

    def test_slots_that_stay_taken_are_looked_at_to_the_deadline(self, looked: Any) -> None:
        found, looks = looked(SUBJECT.busy_query, [2.0])

        assert "2 of its slots are still taken 6 s after the load" in repr(found)
        assert looks == 8  # the last of them past the deadline

    def test_slots_without_a_metric_are_unknown(self, looked: Any) -> None:
        found, looks = looked(SUBJECT.busy_query, [None])

        with pytest.raises(NoData, match="no metric shows how many of its slots"):
            _ = found.all_serve
        assert looks == 8


def test_a_lab_has_six_seconds_of_rest_with_five_looks_a_second() -> None:
    assert (REST_DEADLINE_S, replicas.POLL_S) == (6.0, 0.2)


@pytest.mark.parametrize(("is_lasting", "at_s"), [(True, 16.0), (False, 20.0)], ids=["lasting", "passing"])
def test_clients_were_served_again_before_a_lasting_faults_phase_ended(is_lasting: bool, at_s: float) -> None:
    phases = [PhaseBounds(name="".join([*name]), from_s=from_s, to_s=30.0) for name, from_s in PHASES]
    plan: Any = SimpleNamespace(is_lasting=is_lasting, experiment=SimpleNamespace(stable_s=4.0))

    assert served_again_s(SimpleNamespace(phases=phases), plan) == at_s  # type: ignore[arg-type]


def test_a_trial_without_a_recovery_phase_is_looked_at_from_its_start() -> None:
    plan: Any = SimpleNamespace(is_lasting=False, experiment=SimpleNamespace(stable_s=4.0))

    assert served_again_s(SimpleNamespace(phases=[]), plan) == 0.0  # type: ignore[arg-type]


def test_a_replica_without_a_series_is_unknown() -> None:
    found = judge_replicas(lab(busy={"model-1": 0.0}), answers(BOTH), 0.0)

    assert found is not None
    with pytest.raises(NoData, match="model-2: no metric shows"):
        _ = found.all_serve


def test_a_replica_that_the_rotation_does_not_name_is_unknown() -> None:
    found = judge_replicas(lab(routed={"model-1": 1.0}), answers(BOTH), 0.0)

    assert found is not None
    assert found.replicas[0].unknown == ()
    with pytest.raises(NoData, match="model-2: no metric shows whether requests are routed to it"):
        _ = found.all_serve


def test_a_rotation_that_cannot_be_queried_is_unknown() -> None:
    world = lab()
    answer = world.prometheus.vector

    def vector(query: str, at: float, *, may_be_empty: bool) -> Any:
        if query == SUBJECT.rotation_query:
            raise NoData("gone")
        return answer(query, at, may_be_empty=may_be_empty)

    world.prometheus.vector = vector
    found = judge_replicas(world, answers(BOTH), 0.0)

    assert found is not None
    with pytest.raises(NoData, match="model-1: no metric shows whether requests are routed to it"):
        _ = found.all_serve


def test_a_stack_whose_replicas_are_not_named_is_not_judged() -> None:
    assert judge_replicas(lab(replicas=()), answers(BOTH), 0.0) is None


@pytest.mark.parametrize(("count", "least"), [(1, 1), (2, 10), (3, 18), (8, 52)])
def test_so_few_answers_miss_a_replica_by_chance(count: int, least: int) -> None:
    assert least_answers(count) == least
