"""Which replicas serve after a fault: what speaks against one, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_runtime import FakeRuntime

from pytest_llmchaos.errors import NoData
from pytest_llmchaos.evidence.samples_file import Samples
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial import replicas
from pytest_llmchaos.trial.replicas import judge_replicas, least_answers

SUBJECT = lab_subject("sim")


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
    ],
    ids=["share", "slots", "rotation"],
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
    with pytest.raises(NoData, match="0 answers after the fault are too few to miss one, 10 needed"):
        _ = failed.all_serve


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ({"replica_header": None}, "model-1: no header names the replica of an answer"),
        ({"busy_query": None}, "model-1: no metric tells its slots that are taken"),
        ({"attach": True}, "model-1: no metric tells its slots that are taken"),
    ],
)
def test_what_is_not_known_is_no_pass(subject: dict[str, Any], said: str) -> None:
    found = judge_replicas(lab(**subject), answers(BOTH), 0.0)

    assert found is not None
    with pytest.raises(NoData, match=said):
        _ = found.all_serve


def test_a_replica_without_a_series_is_not_known() -> None:
    found = judge_replicas(lab(busy={"model-1": 0.0}), answers(BOTH), 0.0)

    assert found is not None
    with pytest.raises(NoData, match="model-2: no metric tells"):
        _ = found.all_serve


def test_a_stack_whose_replicas_are_not_named_has_none_to_judge() -> None:
    assert judge_replicas(lab(replicas=()), answers(BOTH), 0.0) is None


@pytest.mark.parametrize(("count", "least"), [(1, 1), (2, 10), (3, 18), (8, 52)])
def test_so_few_answers_miss_a_replica_by_chance(count: int, least: int) -> None:
    assert least_answers(count) == least
