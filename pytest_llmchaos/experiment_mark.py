"""The mark that makes a test file a scenario."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec

import pytest

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.base import victims_of
from pytest_llmchaos.plan import experiment as plan
from pytest_llmchaos.plan.experiment import Experiment

if TYPE_CHECKING:
    from pytest_llmchaos.model import Fault

P = ParamSpec("P")
WIRE_MARK = "llmchaos_wire"


def _as_mark(make: Callable[P, Experiment]) -> Callable[P, pytest.MarkDecorator]:
    """Return the function with the same signature, its result inside pytest's mark."""

    @functools.wraps(make)
    def make_mark(*args: P.args, **kwargs: P.kwargs) -> pytest.MarkDecorator:
        return pytest.mark.llmchaos(experiment=make(*args, **kwargs))

    return make_mark


# `pytestmark = experiment(...)` for a file, `@experiment(...)` for one test.
experiment = _as_mark(plan.experiment)


def experiment_of(node: pytest.Item) -> Experiment:
    """Return the experiment of the closest node: a test's own mark, then its file's.

    Raises:
        UsageError: The item has no mark, a mark that `experiment(...)` did not make, or
            two on one node.
    """
    marked = list(node.iter_markers_with_node("llmchaos"))
    if not marked:
        raise pytest.UsageError(
            f"{node.nodeid} uses `trial` but lacks an experiment: add `pytestmark = pytest_llmchaos.experiment(load=..., fault=...)`"
        )
    closest, _ = marked[0]
    found = {_experiment_in(node, mark) for owner, mark in marked if owner is closest}
    if len(found) > 1:
        raise pytest.UsageError(
            f"{node.nodeid} has {len(found)} experiments, and one trial performs one: "
            "give one experiment fault=[...] for several faults, or each experiment its own test"
        )
    return found.pop()


def _experiment_in(node: pytest.Item, mark: pytest.Mark) -> Experiment:
    found: object = mark.kwargs.get("experiment", *mark.args[:1])
    if mark.args or not isinstance(found, Experiment):
        raise pytest.UsageError(
            f"{node.nodeid}: pytest.mark.llmchaos takes an experiment, got {found!r}; "
            "write `pytestmark = pytest_llmchaos.experiment(load=..., fault=...)`"
        )
    return found


def wire_of(node: pytest.Item, services: Sequence[str]) -> frozenset[str]:
    """Return the services that an item's `llmchaos_wire` marks name.

    Raises:
        BadScenario: A mark has another argument than names of services.
        NoVictim: A name or pattern matches no service that faults may hit.
    """
    found: set[str] = set()
    for mark in node.iter_markers(WIRE_MARK):
        if mark.kwargs or not mark.args or not all(isinstance(target, str) for target in mark.args):
            raise BadScenario(
                f"pytest.mark.{WIRE_MARK} takes names of services, got {mark.kwargs or mark.args!r:.80}; "
                f'write `@pytest.mark.{WIRE_MARK}("model-1")`'
            )
        for target in mark.args:
            try:
                found.update(victims_of(target, services))
            except NoVictim as error:
                raise NoVictim(f"pytest.mark.{WIRE_MARK}: {error}") from None
    return frozenset(found)


def cases_of(node: pytest.Item, repeats: int) -> dict[str, tuple[Fault, int]]:
    """Return each fault and repeat of an item's experiment, by its id."""
    return {
        f"{fault}" + (f" #{repeat + 1}" if repeats > 1 else ""): (fault, repeat)
        for fault in experiment_of(node).faults
        for repeat in range(repeats)
    }
