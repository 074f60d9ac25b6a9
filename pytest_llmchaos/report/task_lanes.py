"""Lanes of an agent's tasks as SVG: life, tool calls, effects and kills."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup

from pytest_llmchaos.evidence.tool_calls import ToolCall
from pytest_llmchaos.evidence.trial_result import TaskNote, TasksResult
from pytest_llmchaos.report import svg
from pytest_llmchaos.report.formatting import count, figure, one_line, percent, seconds

WIDTH, LEFT, RIGHT = 1040, 130, 12
HEAD, ROW, FOOT = 34, 32, 36  # pixels above the tasks, of one task, and below all
LABEL = 18  # characters that fit to the left of a lane
PLAIN = {"completed", "failed", "cancelled", "lost", "stuck", "refused", "unfinished"}


def task_rows(tasks: TasksResult) -> list[tuple[str, str, str]]:
    """Return (name, value, explanation) of the values that the evidence has."""
    known = (
        ("duplicate effects", tasks.duplicate_effects, "beyond those of the plans"),
        ("missing effects", tasks.missing_effects, "of completed tasks"),
        ("false success", tasks.false_success, "reported completed, an effect is missing"),
        ("false failure", tasks.false_failure, "not reported completed, all effects exist"),
        (
            "effects after a cancellation",
            tasks.effects_after_cancel,
            "of calls that came 0.5 s after it was confirmed, or later",
        ),
        ("calls after a budget", tasks.calls_after_budget, "0.5 s after the task was reported failed for it, or later"),
        ("repeated model calls", tasks.model_calls_repeated, "beyond steps + 1 for each task"),
        ("tool amplification", tasks.tool_amplification, "calls received per planned call"),
        ("most tokens of a task", tasks.tokens_max, "as the agent reported them"),
    )
    times = (
        ("latency p50", tasks.latency_p50_s, "from the due time to the completion"),
        ("latency p95", tasks.latency_p95_s, "from the due time to the completion"),
        ("longest resume", tasks.resume_max_s, "from a kill to the first progress of an open task"),
    )
    found = [
        (one_line(status, 30), figure(n, 9), percent(n / tasks.offered) if tasks.offered else "")
        for status, n in tasks.statuses.items()
    ]
    found += [(name, figure(value, 4), how) for name, value, how in known if value is not None]
    found += [(name, seconds(value), how) for name, value, how in times if value is not None]
    if tasks.retry_after_honoured is not None:
        found.append(("Retry-After honoured", "yes" if tasks.retry_after_honoured else "no", "by all calls"))
    return found


def task_lanes(tasks: TasksResult) -> Markup | None:
    """Return the worst tasks on the trial's clock, None without tasks."""
    shown = tasks.worst
    if not shown:
        return None
    moments = [at_s for task in shown for at_s in _moments(task)]
    low, high = min(moments), max(moments)
    kills = [kill for kill in tasks.kills if low <= kill.at_s <= high]
    x = svg.Scale(low=low, high=max(high, low + 1e-3), start=LEFT, end=WIDTH - RIGHT)
    bottom = HEAD + ROW * len(shown)
    keys = [("task-life", "task"), ("task-call", "tool call"), ("task-effect", "effect"), ("task-surplus", "duplicate")]
    drawn = [
        svg.text(LEFT, 13, "the worst tasks, their tool calls and effects", "lane"),
        svg.keys(WIDTH - RIGHT, 13, keys),
    ]
    for place, task in enumerate(shown):
        drawn.append(_lane(task, x, HEAD + ROW * place, high))
    for kill in kills:
        at_x = x(kill.at_s)
        drawn.append(svg.line(at_x, HEAD - 6, at_x, bottom, "mark m-fault"))
        drawn.append(svg.text(at_x + 4, HEAD - 8, f"kill of {one_line(kill.service, 40)}", "label t-fault"))
    for tick in svg.ticks(high - low, 12, (1, 2, 5, 10, 20)):
        at_x = x(low + tick)
        drawn.append(svg.line(at_x, bottom, at_x, bottom + 4, "floor"))
        drawn.append(svg.text(at_x, bottom + 17, figure(low + tick), "time"))
    drawn.append(svg.text(WIDTH - RIGHT, bottom + 32, "seconds since the load began", "tick"))
    about = Markup.escape(describe(tasks))
    return Markup(  # noqa: S704  svg.text and escape escaped all untrusted text
        f'<svg viewBox="0 0 {WIDTH} {bottom + FOOT}" role="img" aria-label="{about}">{"".join(drawn)}</svg>'
    )


def describe(tasks: TasksResult) -> str:
    """Return the text alternative of the lanes."""
    troubled = [
        f"{one_line(task.id, 40)} {one_line(', '.join(task.troubles), 80)}" for task in tasks.worst if task.troubles
    ]
    return "; ".join([f"{count(len(tasks.worst), 'task')} of {tasks.offered}", *troubled]) + "."


def _moments(task: TaskNote) -> Iterator[float]:
    yield task.due_s
    yield from (at_s for at_s in (task.ended_s, task.cancelled_s) if at_s is not None)
    for call in task.calls:
        yield from (at_s for at_s in (call.received_s, call.applied_s, call.answered_s) if at_s is not None)


def _label(name: str) -> str:
    """Return a task's id, or the end of a long one: ids of a load begin alike."""
    text = one_line(name)
    return text if len(text) <= LABEL else f"…{text[1 - LABEL :]}"


def _lane(task: TaskNote, x: svg.Scale, top: float, until_s: float) -> str:
    """Draw one task: its life as a bar, its calls inside, its troubles below."""
    status = task.status if task.status in PLAIN else "other"
    end_s = until_s if task.ended_s is None else task.ended_s
    low, high = top + 3, top + 15
    what = (
        f"{one_line(task.status, 20)}: {one_line('; '.join(task.troubles), 110)}"
        if task.troubles
        else one_line(task.status, 20)
    )
    drawn = [
        svg.text(LEFT - 7, high - 2, _label(task.id), "tick"),
        svg.rect(x(task.due_s), low, x(end_s), high, f"task-life task-{status}"),
        svg.text(min(x(task.due_s), WIDTH - 400), high + 12, what, "none"),
    ]
    if task.cancelled_s is not None:
        drawn.append(svg.line(x(task.cancelled_s), low - 2, x(task.cancelled_s), high + 2, "task-cancel"))
    done: dict[tuple[str, int | None], bool] = {}  # each effect, and if it is a duplicate
    for call in task.calls:
        effect = (call.step, call.effect)
        if call.effect is not None and effect not in done:
            done[effect] = [step for step, _ in done].count(call.step) >= task.plan.count(call.step)
        drawn.append(_call(task, call, x, low, high, is_surplus=done.get(effect, False)))
    return "".join(drawn)


def _call(task: TaskNote, call: ToolCall, x: svg.Scale, low: float, high: float, *, is_surplus: bool) -> str:
    end_s = call.received_s if call.answered_s is None else call.answered_s
    key = f", key {call.key}" if call.key is not None else ""
    answer = "no answer" if call.answered_s is None else f"answered {call.answered_s:.3f} s"
    effect = "no effect" if call.applied_s is None else f"effect {call.effect} at {call.applied_s:.3f} s"
    words = one_line(f"{task.id}: {call.step} received {call.received_s:.3f} s, {effect}, {answer}{key}", 200)
    title = f"<title>{Markup.escape(words)}</title>"
    a, b = x(call.received_s), x(end_s)
    drawn = (
        f'<rect x="{a:.1f}" y="{low + 2:.1f}" width="{max(b - a, 1.5):.1f}" height="8" class="task-call">{title}</rect>'
    )
    if call.applied_s is not None and math.isfinite(call.applied_s):
        css = "task-surplus" if is_surplus else "task-effect"
        drawn += (
            f'<circle cx="{x(call.applied_s):.1f}" cy="{(low + high) / 2:.1f}" r="3.5" class="{css}">{title}</circle>'
        )
    return drawn
