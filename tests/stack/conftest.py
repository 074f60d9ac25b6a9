"""Stacks for the tests that need Docker, started once per session.

Without Docker these tests are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from pathlib import Path

import pytest
from support.hiccups import PERFORMANCES, perform_measured
from support.stacks import require

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings

# A background job of a shell ignores SIGINT, and so would sessions that tests
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_NUMBERS = itertools.count()


def open_run(directory: Path, backend: str = "sim", seed: int = 42) -> Run:
    settings = Settings(
        run=f"test-{next(_NUMBERS)}",
        seed=seed,
        runtime="compose",
        backend=backend,
        reports=directory,
        repeat=1,
        worker="",
        replay_line="pytest",
    )
    run = Run(settings, Progress(None, tty=False))
    run.preflight()
    run.announce([])
    return run


@contextlib.contextmanager
def running(directory: Path, backend: str = "sim"):
    run = open_run(directory, backend)
    try:
        yield run
    finally:
        run.close(0)


@pytest.fixture(scope="session")
def local_programs():
    """Programs of the local runtime. Skips with what is missing."""
    try:
        prerequisites.require_packages("sim")
        for program in ("prometheus", "prometheus-pushgateway"):
            prerequisites.server(program)
    except NotReady as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def sim_run(tmp_path_factory):
    """One stack with the simulated engine for all tests of the session."""
    require("sim")
    with running(tmp_path_factory.mktemp("sim-run")) as run:
        yield run


@pytest.fixture
def stack_lab(sim_run):
    return sim_run.lab()


@pytest.fixture
def trial_of(stack_lab):
    """Perform one experiment, and again if the machine was too busy."""

    def performed(fault=None, *, load=None, seed=42, scenario="test", performances=PERFORMANCES, **arguments):
        chosen = fault if fault is not None else faults.kill("api")
        made = experiment(
            **{"load": load or loads.open_loop(rate_rps=20, max_tokens=8), "fault": chosen, "steady_s": 3, **arguments}
        ).kwargs["experiment"]
        plan = plan_trial(
            scenario=scenario,
            hypothesis="",
            experiment=made,
            fault=chosen,
            repeat=0,
            seed=seed,
            services=stack_lab.subject.targets,
        )
        return perform_measured(stack_lab, plan, performances=performances)

    return performed
