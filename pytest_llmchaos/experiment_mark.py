"""The mark that makes a test file a scenario."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import pytest

from pytest_llmchaos.plan import experiment as plan
from pytest_llmchaos.plan.experiment import Experiment

P = ParamSpec("P")


def _as_mark(make: Callable[P, Experiment]) -> Callable[P, pytest.MarkDecorator]:
    """The same signature, with the experiment inside pytest's mark."""

    @functools.wraps(make)
    def marked(*args: P.args, **kwargs: P.kwargs) -> pytest.MarkDecorator:
        return pytest.mark.llmchaos(experiment=make(*args, **kwargs))

    return marked


# `pytestmark = experiment(...)` for a file, `@experiment(...)` for one test.
experiment = _as_mark(plan.experiment)
