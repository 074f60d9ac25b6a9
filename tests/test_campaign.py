"""A campaign's trials after their claims: verdicts and the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import BadScenario, NoVictim
from pytest_llmchaos.loads.arrivals import Load
from pytest_llmchaos.model import Fault
from pytest_llmchaos.plan.experiment import TrialPlan
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.session.campaign import NOT_PERFORMED, Campaign
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.trial.perform import Performed
from pytest_llmchaos.trial.slo_result import SloResult

SLO = Slo(name="availability", objective=0.995, window_days=30, description="d", good="g", total="t")
RESULT = SloResult(slo=SLO, good=490, total=500, window_s=60, rate_rps=8, query="q")


@pytest.fixture
def plan() -> TrialPlan:
    made = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("api")).kwargs["experiment"]
    about: dict[str, Any] = {"scenario": "kill_api", "hypothesis": "", "fault": made.faults[0], "repeat": 0, "seed": 1}
    return plan_trial(**about, experiment=made, services=("api",))


@pytest.fixture
def campaign(tmp_path: Path, plan: TrialPlan) -> Any:
    """A campaign with one performed trial, and a list as its journal."""
    settings = Settings(
        run="r", seed=1, runtime="local", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    made = Campaign(settings, lambda: Progress(None, tty=False))
    made.take({"test_x.py::test_a": [plan], "test_x.py::test_b": [plan]})
    noted: list[Any] = []
    run = SimpleNamespace(
        opened=True, journal=SimpleNamespace(note=noted.append), close=lambda status, problems: problems
    )
    trial = SimpleNamespace(name="001", plan=plan, slos={"availability": RESULT})
    made._run = run  # type: ignore[assignment]
    made._performed[plan.key] = Performed(name="001", trial=trial)  # type: ignore[arg-type]
    return SimpleNamespace(campaign=made, noted=noted, plan=plan, ledger=tmp_path / "ledger.jsonl")


def end(world: Any, name: str, outcome: Any) -> None:
    world.campaign.note_claim(["001"], f"test_x.py::{name}", outcome, None)
    world.campaign.end_claim(f"test_x.py::{name}", world.plan)


def verdicts(path: Path) -> list[str]:
    return [json.loads(line)["verdict"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (("passed", "passed"), "held"),
        (("passed", "failed"), "refuted"),
        (("passed", "error"), "invalid"),
        (("skipped", "passed"), "invalid"),
    ],
)
def test_the_ledger_has_the_verdict_after_the_last_claim(
    campaign: Any, outcomes: tuple[str, str], verdict: str
) -> None:
    end(campaign, "test_a", outcomes[0])
    assert not campaign.ledger.exists()

    end(campaign, "test_b", outcomes[1])

    assert verdicts(campaign.ledger) == [verdict]
    assert json.loads(campaign.ledger.read_text())["arm"] == ""
    assert campaign.campaign.close(0) == []
    assert len(campaign.noted) == 2


def test_a_trial_of_which_no_claim_passed_did_not_hold(campaign: Any) -> None:
    for name in ("test_a", "test_b"):
        campaign.campaign.end_claim(f"test_x.py::{name}", campaign.plan)

    assert verdicts(campaign.ledger) == ["invalid"]


@pytest.mark.parametrize("performed", [(), ("test_a",)], ids=["none", "one of two"])
def test_claims_that_the_session_never_came_to_are_written_down_and_the_trial_did_not_hold(
    campaign: Any, performed: tuple[str, ...]
) -> None:
    """Ctrl-C, `--maxfail` and `-x` end a session between two claims of one trial."""
    for name in performed:
        end(campaign, name, "passed")

    assert campaign.campaign.close(2) == []

    missing = [claim for claim in campaign.noted if claim.message == NOT_PERFORMED]
    assert {claim.nodeid for claim in missing} == {"test_x.py::test_a", "test_x.py::test_b"} - {
        f"test_x.py::{name}" for name in performed
    }
    assert {claim.outcome for claim in missing} == {"skipped"}
    assert verdicts(campaign.ledger) == ["invalid"]


def test_claims_that_another_process_may_have_performed_are_not_journalled(campaign: Any) -> None:
    end(campaign, "test_a", "passed")

    campaign.campaign.close(0, whole_files=False)

    assert len(campaign.noted) == 1
    assert verdicts(campaign.ledger) == ["held"]


def test_a_ledger_that_cannot_be_written_is_a_problem_of_the_session(campaign: Any) -> None:
    campaign.ledger.mkdir()
    end(campaign, "test_a", "passed")
    end(campaign, "test_b", "passed")

    (problem,) = campaign.campaign.close(0)

    assert problem.startswith(f"the ledger {campaign.ledger} cannot be written: ")


def test_an_slo_whose_month_is_not_known_costs_nothing_of_it(campaign: Any) -> None:
    performed = campaign.campaign._performed[campaign.plan.key]
    performed.trial.slos["availability"] = replace(RESULT, rate_rps=None)
    end(campaign, "test_a", "passed")
    end(campaign, "test_b", "passed")

    assert not campaign.ledger.exists()


def planned(campaign: Campaign, load: Load, fault: Fault, **more: Any) -> TrialPlan:
    made = experiment(load=load, fault=fault, **more).kwargs["experiment"]
    about: dict[str, Any] = {"scenario": "tasks", "hypothesis": "", "repeat": 0, "seed": 1}
    return plan_trial(**about, experiment=made, fault=made.faults[0], services=campaign.services_of(made))


@pytest.mark.parametrize("backend", ["sim", "llamacpp"])
def test_a_session_with_tasks_has_agents_if_its_model_calls_tools(tmp_path: Path, backend: str) -> None:
    settings = Settings(
        run="r", seed=1, runtime="local", backend=backend, reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    campaign = Campaign(settings, lambda: Progress(None, tty=False))
    before = campaign.services
    tasks = planned(campaign, loads.tasks(), faults.kill("agent"))
    with pytest.raises(NoVictim):
        planned(campaign, loads.open_loop(), faults.kill("agent"))

    campaign.take({"a": [planned(campaign, loads.open_loop(rate_rps=2), faults.kill("api"))]})
    assert (campaign.services, campaign.settings) == (before, settings)
    campaign.take({"a": [tasks]})

    is_able = backend == "sim"
    assert campaign.lacking(tasks) == ([] if is_able else ["a model that calls tools"])
    assert campaign.settings.agents is is_able
    assert (set(campaign.services) - set(before)) == ({"agent", "desk"} if is_able else set())
    campaign.require_met(tasks)


def test_a_session_has_an_autoscaler_if_an_experiment_has_one(tmp_path: Path) -> None:
    settings = Settings(
        run="r", seed=1, runtime="local", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    campaign = Campaign(settings, lambda: Progress(None, tty=False))
    scaled = planned(campaign, loads.open_loop(rate_rps=2), faults.kill("autoscaler"), autoscaler="slo")

    campaign.take({"a": [planned(campaign, loads.open_loop(rate_rps=2), faults.kill("api"))]})
    assert not campaign.settings.scales
    campaign.take({"a": [scaled]})
    assert campaign.settings.scales
    assert "autoscaler" in campaign.services


def test_an_autoscaler_for_a_user_s_stack_is_refused(tmp_path: Path) -> None:
    settings = Settings(
        run="r",
        seed=1,
        runtime="compose",
        backend="own",
        reports=tmp_path,
        repeat=1,
        worker="",
        replay_line="",
        own=subject_of(make_folder(tmp_path)),
    )
    campaign = Campaign(settings, lambda: Progress(None, tty=False))
    load, target = loads.open_loop(rate_rps=2), campaign.services[0]

    with pytest.raises(BadScenario, match="llmchaos reads no autoscaler of a stack of one's own"):
        campaign.take({"a": [planned(campaign, load, faults.kill(target), autoscaler="slo")]})


def test_faults_of_tools_are_planned_before_the_session_has_its_agents(tmp_path: Path) -> None:
    settings = Settings(
        run="r", seed=1, runtime="local", backend="sim", reports=tmp_path, repeat=1, worker="", replay_line=""
    )
    campaign = Campaign(settings, lambda: Progress(None, tty=False))
    tasks = planned(campaign, loads.tasks(), faults.tool("desk.refund", how="lost_answer"), fault_s=5)
    campaign.require_readable(tasks.experiment)
    with pytest.raises(NoVictim):
        campaign.require_readable(replace(tasks.experiment, load=loads.open_loop()))

    campaign.take({"a": [tasks], "b": [planned(campaign, loads.open_loop(rate_rps=2), faults.kill("api"))]})
    assert campaign.wire() == {"desk"}


def test_tasks_for_a_user_s_stack_without_an_agent_are_refused(tmp_path: Path) -> None:
    own = subject_of(make_folder(tmp_path))
    settings = Settings(
        run="r",
        seed=1,
        runtime="compose",
        backend="own",
        reports=tmp_path,
        repeat=1,
        worker="",
        replay_line="",
        own=own,
    )
    campaign = Campaign(settings, lambda: Progress(None, tty=False))
    plan = planned(campaign, loads.tasks(), faults.kill("web"))

    with pytest.raises(BadScenario, match="the stack lacks one: set llmchaos_agent to its service, such as agent:8200"):
        campaign.take({"a": [plan]})
