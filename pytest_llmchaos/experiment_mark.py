"""The mark that makes a test file a scenario."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, ParamSpec

import pytest

from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.faults.base import victims_of
from pytest_llmchaos.plan import experiment as plan
from pytest_llmchaos.plan.arms import NO_VARIABLES, with_fewest_changes
from pytest_llmchaos.plan.experiment import Experiment

if TYPE_CHECKING:
    from pytest_llmchaos.model import Environment, Fault

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


class Case(NamedTuple):
    """The trials of one test: a fault, a repeat, and one arm or all of them.

    An experiment without arms has the arm with the empty name.
    """

    fault: Fault
    repeat: int
    arms: tuple[str, ...]


def cases_of(node: pytest.Item, fixture: str, repeats: int) -> dict[str, Case]:
    """Return the cases of an item with `trial` or `arms`, by their ids.

    The arms of one fault and repeat stand together, ordered as in the schedule.

    Raises:
        UsageError: The item lacks an experiment, or `arms` of it.
    """
    experiment = experiment_of(node)
    names = tuple(experiment.arms)
    if fixture == "arms" and not names:
        raise pytest.UsageError(
            f"{node.nodeid} uses `arms`, and its experiment lacks arms: give experiment(arms={{...}}) two or more, "
            "or take `trial`"
        )
    pairs = {
        f"{fault}" + (f" #{repeat + 1}" if repeats > 1 else ""): (fault, repeat)
        for fault in experiment.faults
        for repeat in range(repeats)
    }
    if fixture == "arms" or not names:
        return {name: Case(*pair, names or ("",)) for name, pair in pairs.items()}
    environments = [one.environment for one in experiment.arms.values()]
    cases: dict[str, Case] = {}
    present: Environment = NO_VARIABLES
    for pair, (fault, repeat) in pairs.items():
        in_order = with_fewest_changes(names, environments, present)
        present = experiment.arms[in_order[-1]].environment
        cases |= {name if len(pairs) == 1 else f"{pair}-{name}": Case(fault, repeat, (name,)) for name in in_order}
    return cases


def case_alone(node: pytest.Item) -> Case:
    """Return the only case of an item that is not parametrized by cases."""
    experiment = experiment_of(node)
    return Case(experiment.faults[0], 0, tuple(experiment.arms) or ("",))
