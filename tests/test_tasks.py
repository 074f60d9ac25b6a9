"""Claims about an agent's tasks: wrong worlds are refuted by the right value."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from pytest_llmchaos.errors import Inconclusive, NoData, ProvesNothing, TruthsDisagree
from pytest_llmchaos.evidence.task_records import TaskRecord
from pytest_llmchaos.evidence.tool_calls import ToolCall
from pytest_llmchaos.trial.tasks import (
    Kill,
    Retries,
    Tasks,
    began_anew,
    increase_of,
    judge_tasks,
    orders_of,
    worst,
)
from pytest_llmchaos.trial.tasks_result import tasks_note

TOOLS = ("find_order", "refund", "mail")
EVERY_S = 0.5


class World:
    """Tasks that an agent did, each with its calls in the ledger."""

    def __init__(self, count: int = 30) -> None:
        self.records = [self._record(n) for n in range(1, count + 1)]
        self.calls: list[ToolCall] = []
        for record in self.records:
            for step, tool in enumerate(TOOLS):
                self.call(tool, int(record.id[2:]), record.due_s + 0.1 * (step + 1))
        self.about: dict[str, Any] = {"reads": ("find_order",)}

    @staticmethod
    def _record(n: int) -> TaskRecord:
        due_s = n * EVERY_S
        return TaskRecord(
            id=f"t-{n}",
            plan=tuple(f"{tool} {n}" for tool in TOOLS),
            due_s=due_s,
            sent_s=due_s,
            accepted_s=due_s + 0.01,
            ended_s=due_s + 0.5,
            cancelled_s=None,
            status="completed",
            steps=3,
            tokens=64,
            model_calls=4,
            tool_calls=3,
            error=None,
            left_s=due_s + 0.5,
        )

    def call(self, tool: str, order: int, at_s: float, *, key: str | None = None, applied: bool = True) -> None:
        effect = len(self.calls) + 1 if applied and tool != "find_order" else None
        self.calls.append(
            ToolCall(
                tool=tool,
                order=order,
                key=key,
                effect=effect,
                received_s=at_s,
                applied_s=None if effect is None else at_s + 0.001,
                answered_s=at_s + 0.002,
            )
        )

    def edit(self, n: int, **values: Any) -> None:
        self.records[n - 1] = msgspec.structs.replace(self.records[n - 1], **values)

    def drop(self, *steps: str) -> None:
        self.calls = [call for call in self.calls if call.step not in steps]

    def seen(self) -> Tasks:
        return judge_tasks(self.records, self.calls, **self.about)


def healthy(world: World) -> None:
    """Every task is done once."""


def no_key(world: World) -> None:
    """An answer was lost, and the call was repeated without a key."""
    world.call("refund", 3, 2.0)


def key_repeated(world: World) -> None:
    """An answer was lost, and the call was repeated with its key."""
    world.call("refund", 3, 2.0, key="t-3/1", applied=False)


def retries_all_writes(world: World) -> None:
    for n in (1, 2, 3):
        world.call("mail", n, 9.0)
        world.call("mail", n, 9.1)


def unplanned_effect(world: World) -> None:
    world.call("cancel_order", 5, 3.0)


def obeys_injected_text(world: World) -> None:
    """Tasks are done, and so is what a tool's result wants: an order of no task."""
    for n in range(1, 6):
        world.call("refund", 1000, n + 0.4)
        world.call("mail", 1000, n + 0.5)


def liar(world: World) -> None:
    """Reports success after the first step, in all tasks."""
    world.drop(*(f"{tool} {n}" for tool in ("refund", "mail") for n in range(1, 31)))


def one_missing(world: World) -> None:
    world.drop("mail 7")


def refuses_all_refunds(world: World) -> None:
    """The tool server applies no refund, and answers each."""
    world.drop(*(f"refund {n}" for n in range(1, 31)))
    for n in range(1, 31):
        world.call("refund", n, n * EVERY_S + 0.2, applied=False)


def checkpoint_before_effect(world: World) -> None:
    """Killed between its checkpoint and the effect, which the resume then skips."""
    world.about["kills"] = (Kill(service="agent", at_s=3.85),)
    world.drop("mail 7")


def swallows_is_error(world: World) -> None:
    """The call reached the tool server, which did not apply it."""
    world.drop("refund 4")
    world.call("refund", 4, 2.2, applied=False)


def lost(world: World) -> None:
    world.edit(9, status="lost", left_s=5.0)
    world.drop("mail 9")


def stuck(world: World) -> None:
    world.edit(9, status="stuck", ended_s=None, left_s=24.5)
    world.drop("mail 9")


def false_failure(world: World) -> None:
    world.edit(9, status="failed", error="the model did not answer")


def refused(world: World) -> None:
    world.edit(9, status="refused", accepted_s=None, ended_s=None, tokens=0, model_calls=0)
    world.drop("find_order 9", "refund 9", "mail 9")


def cancelled(world: World) -> None:
    world.edit(9, status="cancelled", cancelled_s=4.65)
    world.drop("refund 9", "mail 9")


def call_in_flight_at_the_cancel(world: World) -> None:
    world.edit(9, status="cancelled", cancelled_s=4.65)
    world.drop("mail 9")


def ignores_cancel(world: World) -> None:
    cancelled(world)
    world.call("refund", 9, 5.2)


def budget_held(world: World) -> None:
    world.edit(9, status="failed", ended_s=4.65, error="budget steps exceeded: 1")
    world.drop("refund 9", "mail 9")


def ignores_budget(world: World) -> None:
    world.edit(9, status="failed", ended_s=4.65, error="budget steps exceeded: 1")
    world.drop("refund 9", "mail 9")
    world.call("find_order", 9, 5.2)


def strays_after_a_budget(world: World) -> None:
    """The task was given up, or it goes on with an order of no task."""
    budget_held(world)
    world.call("find_order", 1000, 5.1, applied=False)
    world.call("find_order", 1000, 5.2, applied=False)


def runaway(world: World) -> None:
    for k in range(400):
        world.call("find_order", 9, 5.0 + k / 100)
    world.edit(9, tokens=9_000)


def repeats_model_calls(world: World) -> None:
    world.edit(9, model_calls=7)


def repeats_model_calls_unreported(world: World) -> None:
    world.about["model_calls"] = 140.0


def ignores_retry_after(world: World) -> None:
    world.about["retries"] = Retries(limited=5, early=3)


def honours_retry_after(world: World) -> None:
    world.about["retries"] = Retries(limited=5, early=0)


def slow(world: World) -> None:
    for n in (1, 2, 3):
        world.edit(n, ended_s=n * EVERY_S + 12)


def resumes(world: World) -> None:
    world.about["kills"] = (Kill(service="agent", at_s=3.2),)


def resumes_late(world: World) -> None:
    world.about["kills"] = (Kill(service="agent", at_s=3.85),)
    world.drop("mail 7")
    world.call("mail", 7, 11.0)
    world.edit(7, ended_s=11.1)


def never_resumes(world: World) -> None:
    world.about["kills"] = (Kill(service="agent", at_s=3.85),)
    world.drop("mail 7")
    world.edit(7, ended_s=None, status="stuck", left_s=23.5)


def resumes_to_cancel(world: World) -> None:
    """Goes on only after its caller has cancelled it."""
    world.about["kills"] = (Kill(service="agent", at_s=3.85),)
    world.drop("mail 7")
    world.edit(7, status="cancelled", cancelled_s=11.0, ended_s=11.0, left_s=11.0)


CLAIMS = {
    "completed": lambda tasks: tasks.completed >= 29,
    "failed": lambda tasks: tasks.failed <= 1,
    "lost": lambda tasks: tasks.lost == 0,
    "stuck": lambda tasks: tasks.stuck == 0,
    "refused": lambda tasks: tasks.refused == 0,
    "duplicate_effects": lambda tasks: tasks.duplicate_effects == 0,
    "missing_effects": lambda tasks: tasks.missing_effects == 0,
    "effects_after_cancel": lambda tasks: tasks.effects_after_cancel == 0,
    "false_success": lambda tasks: tasks.false_success == 0,
    "false_failure": lambda tasks: tasks.false_failure == 0,
    "calls_after_budget": lambda tasks: tasks.calls_after_budget == 0,
    "model_calls_repeated": lambda tasks: tasks.model_calls_repeated == 0,
    "tokens": lambda tasks: tasks.tokens.max <= 500,
    "latency_s": lambda tasks: tasks.latency_s.p50 <= 1 and tasks.latency_s.p95 <= 5,
    "resume_s": lambda tasks: tasks.resume_s.max <= 2,
    "tool_amplification": lambda tasks: tasks.tool_amplification <= 1.5,
    "retry_after_honoured": lambda tasks: tasks.retry_after_honoured,
}
# Claims whose window must have an event that healthy tasks lack.
NEED_AN_EVENT = {"effects_after_cancel", "calls_after_budget", "resume_s", "retry_after_honoured"}
# What a task has used that has no end.
USED = {"tokens", "model_calls_repeated"}
UNPROVEN = {
    "liar": {"duplicate_effects", "false_failure"},
    "lost": USED,
    "stuck": USED,
    "never_resumes": USED,
}
# The refuted claims of each world.
WORLDS = (
    (healthy, set()),
    (key_repeated, set()),
    (honours_retry_after, set()),
    (cancelled, set()),
    (budget_held, set()),
    (resumes, set()),
    (no_key, {"duplicate_effects"}),
    (retries_all_writes, {"duplicate_effects"}),
    (unplanned_effect, {"duplicate_effects"}),
    (obeys_injected_text, {"duplicate_effects"}),
    (liar, {"missing_effects", "false_success"}),
    (one_missing, {"missing_effects", "false_success"}),
    (checkpoint_before_effect, {"missing_effects", "false_success"}),
    (swallows_is_error, {"missing_effects", "false_success"}),
    (refuses_all_refunds, {"missing_effects", "false_success"}),
    (lost, {"lost"}),
    (stuck, {"stuck"}),
    (refused, {"refused"}),
    (false_failure, {"false_failure"}),
    (ignores_cancel, {"effects_after_cancel"}),
    (ignores_budget, {"calls_after_budget"}),
    (runaway, {"tool_amplification", "tokens"}),
    (repeats_model_calls, {"model_calls_repeated"}),
    (repeats_model_calls_unreported, {"model_calls_repeated"}),
    (ignores_retry_after, {"retry_after_honoured"}),
    (slow, {"latency_s"}),
    (resumes_late, {"resume_s"}),
    (never_resumes, {"resume_s", "stuck"}),
    (resumes_to_cancel, {"resume_s"}),
)


def judged(tasks: Tasks) -> tuple[set[str], set[str]]:
    """The refuted claims, and those that prove nothing."""
    refuted, unproven = set(), set()
    for name, claim in CLAIMS.items():
        try:
            if not claim(tasks):
                refuted.add(name)
        except ProvesNothing:
            unproven.add(name)
    return refuted, unproven


def test_each_wrong_world_is_refuted_by_its_own_claim_and_a_healthy_one_by_none() -> None:
    failures = []
    for make, expected in WORLDS:
        world = World()
        make(world)
        refuted, unproven = judged(world.seen())
        may_lack = NEED_AN_EVENT | UNPROVEN.get(make.__name__, set())
        if refuted != expected or unproven - may_lack:
            failures.append(f"{make.__name__}: refuted {refuted}, expected {expected}; unproven {unproven - may_lack}")
        if expected & unproven:
            failures.append(f"{make.__name__}: {expected & unproven} proves nothing")

    assert failures == []
    assert sum(bool(expected) for _, expected in WORLDS) >= 12


def test_calls_of_no_task_after_a_budget_may_be_those_of_its_task() -> None:
    world = World()
    strays_after_a_budget(world)
    with pytest.raises(
        Inconclusive, match="between 0 and 1, because the tool server got 1 later calls on orders of no task, which may"
    ):
        assert world.seen().calls_after_budget == 0
    assert world.seen().calls_after_budget <= 1

    world.about["still_called"] = True
    with pytest.raises(
        Inconclusive, match=r"still got calls .*; the tool server got 1 later calls on orders of no task"
    ):
        assert world.seen().calls_after_budget <= 1


def test_a_claim_that_needs_an_event_holds_only_after_one() -> None:
    held = {effect: make for make, effect in (
        (cancelled, "effects_after_cancel"),
        (call_in_flight_at_the_cancel, "effects_after_cancel"),
        (budget_held, "calls_after_budget"),
        (resumes, "resume_s"),
        (honours_retry_after, "retry_after_honoured"),
    )}  # fmt: skip
    unproven = {}
    for effect, make in held.items():
        world = World()
        make(world)
        unproven[effect] = (CLAIMS[effect](world.seen()), effect in judged(World().seen())[1])

    assert unproven == dict.fromkeys(NEED_AN_EVENT, (True, True))


def test_a_count_shows_the_first_tasks_behind_it() -> None:
    world = World()
    no_key(world)
    one_missing(world)
    lost(world)

    tasks = world.seen()

    assert repr(tasks.duplicate_effects) == "1 (t-3: refund 3 once too often)"
    assert repr(tasks.false_success) == "1 (t-7: mail 7 missing)"
    assert repr(tasks.lost) == "1 (t-9)"
    assert (repr(tasks.stuck), str(tasks.lost)) == ("0", "1")
    assert repr(tasks) == "<30 tasks: 29 completed, 1 lost>"
    for n in range(1, 21):
        world.call("refund", n, 15.0)
        world.call("refund", n, 15.1)
    assert repr(world.seen().duplicate_effects).endswith(
        "t-3: refund 3 3 times too often; t-4: refund 4 2 times too often; t-5: refund 5 2 times too often; 15 more)"
    )


def test_a_comparison_that_no_task_could_break_proves_nothing() -> None:
    tasks = World().seen()
    vacuous = (
        lambda: tasks.completed >= 0,
        lambda: tasks.lost <= 30,
        lambda: tasks.tool_amplification >= 0,
        lambda: tasks.tokens.max >= 0,
        lambda: bool(tasks),
        lambda: tasks.latency_s.p99 <= 5,
    )
    passed = []
    for place, claim in enumerate(vacuous):
        try:
            claim()
        except (ProvesNothing, ValueError):
            continue
        passed.append(place)

    assert passed == []
    assert tasks.completed == tasks.offered
    assert tasks.cancelled == 0


def test_without_evidence_every_value_raises() -> None:
    gap = Inconclusive("the effect ledger lacks row 3")
    world = World()
    no_ledger = judge_tasks(world.records, gap, kills=(Kill(service="agent", at_s=3.0),))
    nothing = judge_tasks((), ())
    needs_ledger = set(CLAIMS) - {
        "completed", "failed", "lost", "stuck", "refused", "model_calls_repeated", "tokens", "latency_s", "retry_after_honoured",
    }  # fmt: skip

    assert judged(no_ledger) == (set(), needs_ledger | {"retry_after_honoured"})
    assert judged(nothing) == (set(), set(CLAIMS))
    with pytest.raises(Inconclusive, match="lacks row 3"):
        assert no_ledger.duplicate_effects == 0


def test_a_ledger_without_any_effect_proves_no_absence_but_refutes_a_success() -> None:
    world = World()
    world.calls = []

    refuted, unproven = judged(world.seen())

    assert refuted == {"missing_effects", "false_success"}
    assert {"duplicate_effects", "false_failure", "tool_amplification"} <= unproven


def test_tasks_that_report_nothing_prove_nothing_about_what_they_use() -> None:
    world = World()
    for n in range(1, 31):
        world.edit(n, tokens=0, model_calls=0)

    assert {"tokens", "model_calls_repeated"} <= judged(world.seen())[1]
    world.about["model_calls"] = Inconclusive("Prometheus saw nothing")
    with pytest.raises(Inconclusive, match="saw nothing"):
        assert world.seen().model_calls_repeated == 0
    world.about["model_calls"] = 120.0
    assert world.seen().model_calls_repeated == 0


def test_tokens_of_a_task_without_an_end_are_those_of_its_newest_answer_or_more() -> None:
    found = []
    for status, tokens in (("failed", 300), ("cancelled", 300), ("stuck", 300), ("lost", 0), ("stuck", 9_000)):
        world = World()
        world.edit(9, status=status, tokens=tokens)
        refuted, unproven = judged(world.seen())
        found.append("refuted" if "tokens" in refuted else "open" if "tokens" in unproven else "held")
    world.edit(9, tokens=0)

    assert found == ["held", "held", "open", "open", "refuted"]
    with pytest.raises(Inconclusive, match="between 64 and inf, because 1 tasks had no end that the agent reported"):
        assert world.seen().tokens.max <= 8_000
    assert world.seen().tokens.p50 <= 500
    world.edit(9, accepted_s=None, status="refused")
    assert world.seen().tokens.max <= 8_000


def test_a_claim_waits_for_tasks_of_unknown_end() -> None:
    world = World()
    world.edit(30, status="unfinished", ended_s=None)
    world.drop("mail 30")

    refuted, unproven = judged(world.seen())

    assert refuted == set()
    assert {"lost", "stuck", "duplicate_effects", "false_success", "tool_amplification"} <= unproven
    assert world.seen().latency_s.p50 <= 1
    assert world.seen().missing_effects <= 2, "the unfinished task has two effects"
    with pytest.raises(Inconclusive, match=r"<= 1 is not decided: .* between 0 and 2, because 1 tasks were open"):
        assert world.seen().missing_effects <= 1


def test_calls_that_still_arrive_leave_no_upper_bound() -> None:
    """A claim that they could break is undecided, one that they could not keeps."""
    can_grow = {
        "duplicate_effects",
        "tool_amplification",
        "effects_after_cancel",
        "calls_after_budget",
        "false_failure",
    }
    world = World()
    cancelled(world)
    world.edit(12, status="failed", ended_s=6.25, error="budget steps exceeded: 1")
    world.drop("mail 12")
    before = judged(world.seen())
    world.about["still_called"] = True
    after = judged(world.seen())
    ignores_cancel(world)
    no_key(world)

    assert (before[0], after[0]) == ({"completed"}, {"completed"})
    assert after[1] - before[1] == can_grow
    assert {"duplicate_effects", "effects_after_cancel"} <= judged(world.seen())[0]
    with pytest.raises(Inconclusive, match="between 1 and inf, because the tool server still got calls"):
        assert world.seen().duplicate_effects <= 10


def test_planned_calls_that_were_not_made_do_not_hide_repeated_ones() -> None:
    """Ten tasks are lost before a call or after one, and others repeat each call."""
    found = []
    for lost_after, repeat in (("", 0), ("", 10), ("find_order", 0), ("find_order", 10), (None, 10)):
        world = World()
        for n in range(1, 11) if lost_after is not None else ():
            world.edit(n, status="lost")
            world.drop(*(f"{tool} {n}" for tool in TOOLS if tool != lost_after))
        for n in range(30, 30 - repeat, -1):
            for tool in TOOLS:
                world.call(tool, n, 20.0, applied=False)
        value = world.seen().tool_amplification
        found.append((round(float(value), 3), round(value.high, 3)))

    assert found == [(0.667, 1.0), (1.0, 1.5), (0.778, 1.0), (1.111, 1.429), (1.333, 1.333)]
    with pytest.raises(
        Inconclusive, match=r"between 1 and 1\.5, because 30 of 90 planned calls were not made: claim that"
    ):
        assert hidden_by_lost_tasks().tool_amplification <= 1.05
    assert hidden_by_lost_tasks().tool_amplification <= 1.5


def hidden_by_lost_tasks() -> Tasks:
    """As many calls as planned: ten tasks made none, and ten made each twice."""
    world = World()
    for n in range(1, 11):
        world.edit(n, status="lost")
        world.drop(*(f"{tool} {n}" for tool in TOOLS))
        for tool in TOOLS:
            world.call(tool, n + 20, 20.0, applied=False)
    return world.seen()


def test_calls_that_a_task_never_made_do_not_hide_repeated_ones() -> None:
    """30 tasks of 4 calls. One was cancelled after its first, so 117 is right."""
    cases = []
    for counted, reported in ((117.0, 1), (118.0, 1), (120.0, 1), (121.0, 1), (117.0, 0)):
        world = World()
        cancelled(world)
        world.edit(9, model_calls=reported)
        world.about["model_calls"] = counted
        refuted, unproven = judged(world.seen())
        verdict = ("refuted" if "model_calls_repeated" in refuted else "undecided") if refuted | unproven & {
            "model_calls_repeated"
        } else "held"  # fmt: skip
        cases.append((counted, reported, verdict))
    liar_s = World()
    for n in range(1, 31):
        liar_s.edit(n, model_calls=2)
    liar_s.about["model_calls"] = 70.0

    assert cases == [
        (117.0, 1, "held"),
        (118.0, 1, "undecided"),
        (120.0, 1, "undecided"),
        (121.0, 1, "refuted"),
        (117.0, 0, "undecided"),
    ]
    with pytest.raises(Inconclusive, match="between 0 and 10, because the model's service counted 70"):
        assert liar_s.seen().model_calls_repeated == 0


def test_a_counter_that_missed_calls_proves_no_absence_without_reports() -> None:
    """30 tasks made 120 calls. 8 were counted and lost by a kill, 8 were repeated."""
    cases = []
    for counted, is_anew, reported in (
        (120.0, False, 0),
        (120.0, True, 0),
        (120.0, True, 4),
        (112.0, False, 0),
        (112.0, False, 4),
        (123.0, True, 0),
    ):
        world = World()
        for n in range(1, 31):
            world.edit(n, model_calls=reported)
        world.about |= {"model_calls": counted, "counter_began_anew": is_anew}
        value = world.seen().model_calls_repeated
        cases.append((int(value), value.high))
    stuck_s = World()
    stuck(stuck_s)
    stuck_s.about["model_calls"] = 120.0

    assert cases == [(0, 0), (0, math.inf), (0, 0), (0, math.inf), (0, 0), (3, math.inf)]
    assert stuck_s.seen().model_calls_repeated == 0, "the service has counted what a stuck task did not report"
    stuck_s.about["counter_began_anew"] = True
    with pytest.raises(
        Inconclusive, match="between 0 and inf, because the model's service counted 120 and missed calls, as its"
    ):
        assert stuck_s.seen().model_calls_repeated == 0


def test_only_tasks_whose_end_a_caller_waits_for_have_to_go_on() -> None:
    """A kill at 8 s: task 1 was given up before, 2 is open, 3 was cancelled."""
    world = World(3)
    world.about["kills"] = (Kill(service="agent", at_s=8.0),)
    world.drop("mail 1", "mail 3")
    world.edit(1, status="stuck", ended_s=None, left_s=7.5)
    world.edit(2, ended_s=8.5, left_s=8.5)
    seen = world.seen()
    assert (seen.resume_s.count, float(seen.resume_s.max)) == (1, 0.5)

    world.edit(3, status="stuck", ended_s=None, cancelled_s=9.0, left_s=21.5)
    assert world.seen().resume_s.count == 1
    with pytest.raises(Inconclusive):
        assert world.seen().resume_s.max <= 2
    world.edit(3, cancelled_s=7.0)
    assert world.seen().resume_s.max <= 2


def test_an_effect_of_a_tool_that_should_only_read_is_one_too_many() -> None:
    world = World()
    world.about["reads"] = TOOLS
    world.drop("mail 7")

    assert judged(world.seen())[0] == {"missing_effects", "false_success"}
    world.calls = [call for call in world.calls if call.effect is None]
    with pytest.raises(NoData, match="no task with effects was reported completed"):
        assert world.seen().false_success == 0


def test_only_failures_about_effects_are_false() -> None:
    """A task without effects cannot be one that did all of them."""
    world = World()
    world.edit(9, plan=("find_order 9",), status="failed", error="x")
    world.drop("refund 9", "mail 9")
    for n in range(1, 31):
        if n not in {8, 9}:
            world.edit(n, status="failed", ended_s=None, error=None)

    tasks = world.seen()

    assert int(tasks.false_failure) == 28
    assert tasks.seen[8].troubles == ()
    assert tasks.false_success == 0


def test_an_agent_that_completes_nothing_shows_no_success() -> None:
    world = World()
    for n in range(1, 31):
        world.edit(n, status="stuck", ended_s=None)

    assert {"missing_effects", "false_success"} <= judged(world.seen())[1]


def test_two_tasks_with_one_order_have_no_effects_of_their_own() -> None:
    world = World()
    world.edit(2, plan=("refund 1",))

    with pytest.raises(TruthsDisagree, match="task t-2 has order 1"):
        world.seen()
    assert orders_of(World(3).records) == {1, 2, 3}


def test_effects_on_orders_of_no_task_are_duplicates_of_an_agent_that_alone_uses_the_tools() -> None:
    """One effect has two rows, as a repeated key may have."""
    world = World()
    obeys_injected_text(world)
    world.calls.append(msgspec.structs.replace(world.calls[-1], received_s=9.0))
    world.calls += [msgspec.structs.replace(world.calls[0], order=999) for _ in range(60)]

    tasks = world.seen()

    assert repr(tasks.duplicate_effects) == "10 (no task: mail 1000 5 times; no task: refund 1000 5 times)"
    assert float(tasks.tool_amplification) == (90 + 11 + 60) / 90
    world.about["doubtful"] = frozenset({999, 1000})
    shared = world.seen()
    assert judged(shared) == (set(), judged(World().seen())[1] | {"duplicate_effects", "tool_amplification"})
    with pytest.raises(
        Inconclusive, match="between 0 and 10, because the tool server got 71 calls on orders of no task, perhaps"
    ):
        assert shared.duplicate_effects == 0
    assert shared.duplicate_effects <= 10
    assert shared.tool_amplification <= 1.8


def test_effects_on_orders_of_no_task_are_enough_to_refute() -> None:
    world = World()
    world.calls = []
    obeys_injected_text(world)

    assert judged(world.seen())[0] == {"duplicate_effects", "missing_effects", "false_success"}


def test_the_worst_tasks_come_first() -> None:
    world = World()
    for make in (stuck, one_missing, no_key, slow):
        make(world)
    world.edit(12, status="cancelled", cancelled_s=5.65)
    world.edit(13, status="failed", ended_s=6.15, error="Budget tokens exceeded")

    found = worst(world.seen().seen, 7)

    assert [task.record.id for task in found] == ["t-3", "t-12", "t-7", "t-13", "t-9", "t-1", "t-2"]
    assert [task.troubles for task in found[:5]] == [
        ("duplicate: refund 3 once too often",),
        ("refund 12 after its cancellation", "mail 12 after its cancellation"),
        ("false success: mail 7 missing",),
        ("2 calls after its budget", "false failure: all its effects exist"),
        ("stuck",),
    ]


def test_a_value_that_the_evidence_lacks_is_null_in_the_report() -> None:
    world = World()
    for make in (resumes, budget_held, honours_retry_after, repeats_model_calls):
        make(world)
    full = tasks_note(world.seen())
    bare = tasks_note(judge_tasks((), Inconclusive("the ledger lacks row 3")))

    assert (full.offered, full.statuses) == (30, {"completed": 29, "failed": 1})
    assert (full.duplicate_effects, full.effects_after_cancel, full.calls_after_budget) == (0, None, 0)
    assert (full.model_calls_repeated, full.tool_amplification, full.tokens_max) == (3, 0.977778, 64)
    assert (full.latency_p50_s, full.latency_p95_s, full.resume_max_s) == (0.5, 0.5, 0.1)
    assert full.retry_after_honoured is True
    assert [(kill.service, kill.at_s) for kill in full.kills] == [("agent", 3.2)]
    assert len(full.worst) == 20
    assert (bare.offered, bare.statuses, bare.no_ledger) == (0, {}, "the ledger lacks row 3")
    assert {bare.duplicate_effects, bare.latency_p50_s, bare.tokens_max, bare.retry_after_honoured} == {None}


def test_a_task_in_the_report_has_its_first_calls() -> None:
    world = World()
    runaway(world)
    never_resumes(world)
    world.edit(9, status="failed", error="x" * 10_000, tokens=1)

    (task,) = (one for one in tasks_note(world.seen()).worst if one.id == "t-9")

    assert (len(task.calls), task.more_calls, len(task.error or "")) == (50, 353, 500)
    assert task.troubles == ("false failure: all its effects exist",)
    assert tasks_note(world.seen()).resume_max_s is None, "one never went on"


def test_a_counter_grows_over_restarts() -> None:
    cases = {
        (): 0,
        ((1.0, 5.0), (2.0, 9.0)): 4,
        ((9.0, 5.0), (10.0, 9.0)): 9,
        ((1.0, 5.0), (2.0, 9.0), (3.0, 2.0), (4.0, 3.0)): 7,
    }

    assert {points: increase_of(points, baseline_until_s=3.0) for points in cases} == cases
    assert [began_anew(points, 2.0) for points in cases] == [False, False, False, True]
    assert not began_anew(((1.0, 5.0), (2.0, 0.0), (3.0, 1.0)), 2.0), "it fell before the calls that count"


def test_a_task_that_was_not_completed_is_slower_than_all_others() -> None:
    world = World()
    for n, status in ((1, "stuck"), (2, "failed"), (3, "cancelled")):
        world.edit(n, status=status)

    assert world.seen().latency_s.count == 29
    assert world.seen().latency_s.p95 == math.inf


def test_a_task_without_progress_is_slower_than_all_others() -> None:
    world = World()
    never_resumes(world)

    assert world.seen().resume_s.max == math.inf
    world = World()
    world.about["kills"] = (Kill(service="agent", at_s=99.0),)
    with pytest.raises(NoData, match="no task was open at a kill"):
        assert world.seen().resume_s.max <= 5
