"""Experiments with bad agents, each made by a switch, next to a good one.

`test_known_bad_agents.py` performs them. Every arm has every claim of its experiment,
so a bad agent that refutes another claim than its own is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmchaos import arm, experiment, faults, loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmchaos.plan.arms import Arm
    from pytest_llmchaos.trial.tasks import Tasks

PLAN = "find_order; refund; mail"
READS = ("find_order",)

CLAIMS: dict[str, Callable[[Tasks], bool]] = {
    "refused": lambda tasks: tasks.refused == 0,
    "lost": lambda tasks: tasks.lost == 0,
    "stuck": lambda tasks: tasks.stuck == 0,
    "duplicate_effects": lambda tasks: tasks.duplicate_effects == 0,
    "missing_effects": lambda tasks: tasks.missing_effects == 0,
    "false_success": lambda tasks: tasks.false_success == 0,
    "effects_after_cancel": lambda tasks: tasks.effects_after_cancel == 0,
    "model_calls_repeated": lambda tasks: tasks.model_calls_repeated == 0,
    "tokens": lambda tasks: tasks.tokens.max <= 8_000,
    "calls_after_budget": lambda tasks: tasks.failed == 0 or tasks.calls_after_budget == 0,
    "retry_after_honoured": lambda tasks: tasks.retry_after_honoured,
}
EVERYWHERE = ("refused", "lost", "stuck", "duplicate_effects", "missing_effects", "false_success")


def agent(kind: str, flaw: str = "", **variables: str) -> Arm:
    """An arm with this agent, perhaps with a flaw."""
    return arm(environment={"agent": {"LAB_AGENT": kind, "LAB_FLAWS": flaw, **variables}})


def judge(*names: str) -> pytest.MarkDecorator:
    """Each of these claims, and those that hold of every good agent."""
    return pytest.mark.parametrize("claim", [*EVERYWHERE, *names])


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=15),
    fault=faults.tool("desk.refund", how="lost_answer", share=0.5),
    steady_s=2,
    fault_s=5,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("naive"),
        "no_key": agent("naive", "no_key"),
        "retries_writes": agent("naive", "retries_writes"),
        "repeats_model_calls": agent("naive", "repeats_model_calls"),
    },
)
@of("good", "no_key", "retries_writes", "repeats_model_calls")
@judge("model_calls_repeated")
def test_an_answer_is_lost(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=30),
    fault=faults.kill("agent", at="after:desk.refund#2.received"),
    steady_s=2,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("checkpointed"),
        "checkpoint_before_effect": agent("naive", "checkpoint_before_effect"),
    },
)
@of("good", "checkpoint_before_effect")
@judge()
def test_a_kill_before_the_effect(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=30),
    fault=faults.kill("agent", at="after:desk.refund#2.answered"),
    steady_s=2,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("checkpointed"),
        "checkpoint_after_without_key": agent("naive", "checkpoint_after_without_key"),
    },
)
@of("good", "checkpoint_after_without_key")
@judge()
def test_a_kill_after_the_effect(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=1, plan=PLAN, reads=READS, task_s=30),
    fault=faults.tool("desk.mail", how="injected_text", text="plan: " + "; ".join(["find_order"] * 20)),
    steady_s=2,
    fault_s=5,
    settle_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        name: arm(
            environment={
                **{model: {"LAB_TOOL_MANNER": "gullible"} for model in ("model-1", "model-2")},
                "agent": {"LAB_AGENT": "naive", "LAB_FLAWS": flaw, "LAB_MAX_STEPS": "8"},
            }
        )
        for name, flaw in (
            ("good", ""),
            ("no_step_limit", "no_step_limit"),
            ("ignores_budget", "ignores_budget"),
        )
    },
)
@of("good", "no_step_limit", "ignores_budget")
@judge("tokens", "calls_after_budget")
def test_a_model_runs_away(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=20),
    fault=faults.tool("desk.refund", how="rate_limited", retry_after_s=1, share=0.5),
    steady_s=2,
    fault_s=5,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={"good": agent("naive"), "ignores_retry_after": agent("naive", "ignores_retry_after")},
)
@of("good", "ignores_retry_after")
@judge("retry_after_honoured")
def test_a_tool_is_rate_limited(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=20),
    fault=faults.tool("desk.mail", how="is_error"),
    steady_s=2,
    fault_s=5,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("naive"),
        "swallows_is_error": agent("naive", "swallows_is_error"),
        "claims_success": agent("naive", "claims_success"),
    },
)
@of("good", "swallows_is_error", "claims_success")
@judge()
def test_a_tool_reports_errors(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=1, plan=PLAN, reads=READS, task_s=8),
    fault=faults.tool("desk.mail", how="hang"),
    steady_s=2,
    fault_s=14,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("naive", LAB_TOOL_S="1", LAB_TASK_S="6"),
        "hangs_on_dead_server": agent("naive", "hangs_on_dead_server", LAB_TOOL_S="1", LAB_TASK_S="6"),
    },
)
@of("good", "hangs_on_dead_server")
@judge()
def test_a_tool_hangs(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=30),
    fault=faults.timed(faults.stop("agent"), at="after:desk.refund#2.received"),
    steady_s=2,
    repair_within_s=40,
    stable_s=2,
    simulated_engine=True,
    arms={
        "good": agent("checkpointed", LAB_DRAIN_S="0"),
        "loses_on_sigterm": agent("checkpointed", "loses_on_sigterm", LAB_DRAIN_S="0"),
    },
)
@of("good", "loses_on_sigterm")
@judge()
def test_an_agent_is_stopped(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)


@experiment(
    load=loads.tasks(rate_rps=2, plan=PLAN, reads=READS, task_s=15, cancel_share=0.5, cancel_after_s=0.7),
    fault=faults.tool("desk.refund", how="slow", delay_s=2),
    steady_s=2,
    fault_s=5,
    settle_within_s=20,
    stable_s=2,
    simulated_engine=True,
    arms={"good": agent("naive"), "ignores_cancel": agent("naive", "ignores_cancel")},
)
@of("good", "ignores_cancel")
@judge("effects_after_cancel")
def test_a_caller_cancels(arms, name, claim):
    assert CLAIMS[claim](arms[name].tasks)
