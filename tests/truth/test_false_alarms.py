"""Healthy trials in a row, one for each seed, all of which must hold.

They may be invalid only if the machine was too busy. A trial takes about 10 s, all on
one stack. `LLMCHAOS_HEALTHY_TRIALS` is their number, 200 in `make test-all`.
`LLMCHAOS_HEALTHY_TRIALS=10 pytest tests/truth/test_false_alarms.py -s` prints a table
of ten. A tenth as many have 50 tasks of an agent each, by the three agents in turn.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.hiccups import HICCUPS

from pytest_llmchaos import arm, experiment, faults, loads
from pytest_llmchaos.errors import NotReady, verdict_of
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.plan.experiment import Experiment
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.trial.perform import Performed, perform
from pytest_llmchaos.trial.trial import Trial

COUNT = os.environ.get("LLMCHAOS_HEALTHY_TRIALS", "")
MOST_HICCUPS = 0.1
HEALTHY = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=16), fault=faults.none(), steady_s=2, stable_s=2
).kwargs["experiment"]
TASKS = 50
HEALTHY_TASKS = experiment(
    load=loads.tasks(rate_rps=2.5, plan="find_order; refund; mail", reads=["find_order"]),
    fault=faults.none(),
    steady_s=TASKS / 2.5 - 2,
    stable_s=2,
    arms={name: arm(environment={"agent": {"LAB_AGENT": name}}) for name in ("naive", "checkpointed", "durable")},
).kwargs["experiment"]

pytestmark = [
    pytest.mark.stack,
    pytest.mark.nightly("a control arm of tests/stack/test_trials.py, and promtool's healthy soak"),
    pytest.mark.skipif(not COUNT, reason="takes half an hour: LLMCHAOS_HEALTHY_TRIALS=200 asks for it"),
]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Result of one healthy trial: `held`, or its failure and the message."""

    seed: int
    what: str
    why: str = ""


def seen(seed: int, performed: Performed) -> Seen:
    error, trial = performed.error, performed.trial
    if trial is None:
        is_hiccup = isinstance(error, HICCUPS)
        what = f"hiccup: {type(error).__name__}" if is_hiccup else verdict_of(error or NotReady("no trial"))
        return Seen(seed=seed, what=what, why=f"{type(error).__name__}: {error}")
    with_tasks = trial.agent_tasks is not None
    alarms = (
        ("alert", trial.alerts),
        ("action", trial.actions),
        ("finding", trial.findings),
        ("failed", (trial.whole,) if trial.failed else ()),
        # An agent's answers do not name the replicas of its model.
        ("replicas", () if with_tasks or trial.replicas.all_serve else (trial.replicas,)),
        ("tasks", tuple(wrong_tasks(trial)) if with_tasks else ()),
    )
    return next((Seen(seed=seed, what=what, why=str(why)) for what, why in alarms if why), Seen(seed=seed, what="held"))


def wrong_tasks(trial: Trial) -> Iterator[str]:
    """Differences from a ledger that equals the plans."""
    tasks = trial.tasks
    if tasks.offered < TASKS or tasks.completed < tasks.offered:
        yield f"{tasks!r} of {TASKS} or more"
    wanted = {"duplicate_effects": 0, "missing_effects": 0, "false_success": 0, "model_calls_repeated": 0}
    for name, expected in {**wanted, "tool_amplification": 1}.items():
        if getattr(tasks, name) != expected:
            yield f"{name} is {getattr(tasks, name)}"


@contextmanager
def healthy_lab(tmp_path: Path, *, agents: bool = False) -> Iterator[Lab]:
    try:
        prerequisites.require_packages("sim")
        for program in ("prometheus", "prometheus-pushgateway"):
            prerequisites.server(program)
    except NotReady as error:
        pytest.skip(str(error))
    settings = Settings(
        run="false-alarms",
        seed=1,
        runtime="local",
        backend="sim",
        agents=agents,
        reports=Path(os.environ.get("LLMCHAOS_HEALTHY_REPORTS", tmp_path)),
        repeat=1,
        worker="",
        replay_line="pytest",
    )
    run = Run(settings, Progress(None, tty=False))
    run.preflight()
    run.announce([])
    try:
        yield run.lab()
    finally:
        run.close(0)


def require_silence(lab: Lab, count: int, experiment: Experiment, arm_of: Callable[[int], str]) -> None:
    found: list[Seen] = []
    for seed in range(1, count + 1):
        plan = plan_trial(
            scenario="healthy",
            hypothesis="Nothing happens.",
            experiment=experiment,
            fault=experiment.faults[0],
            repeat=0,
            seed=seed,
            services=lab.subject.targets,
            arm=arm_of(seed),
        )
        found.append(seen(seed, perform(lab, plan)))
    counts = Counter(one.what for one in found)
    odd = [one for one in found if one.what != "held"]
    lines = [f"{len(found)} healthy trials, seeds 1 to {count}"]
    lines += [f"{many:>5}  {what}" for what, many in counts.most_common()]
    lines += [f"seed {one.seed}: {one.what}: {one.why}" for one in odd]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")

    hiccups = sum(many for what, many in counts.items() if what.startswith("hiccup"))
    assert [one for one in odd if not one.what.startswith("hiccup")] == []
    assert hiccups <= MOST_HICCUPS * len(found)


def test_healthy_trials_raise_no_alarm(tmp_path: Path) -> None:
    with healthy_lab(tmp_path) as lab:
        require_silence(lab, int(COUNT), HEALTHY, lambda _: "")


def test_healthy_tasks_raise_no_alarm_and_the_ledger_equals_their_plans(tmp_path: Path) -> None:
    arms = list(HEALTHY_TASKS.arms)
    with healthy_lab(tmp_path, agents=True) as lab:
        require_silence(lab, -(-int(COUNT) // 10), HEALTHY_TASKS, lambda seed: arms[seed % len(arms)])
