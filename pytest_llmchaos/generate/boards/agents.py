"""Dashboard of an agent's tasks, its calls, and their effects at the desk."""

from __future__ import annotations

from pytest_llmchaos.generate.boards.panels import Board, Query, optional_panel, quantiles
from pytest_llmchaos.model import CLIENT_DURATION, CLIENT_REQUESTS

_WINDOW = "[$__rate_interval]"
# A lab without agents sends chat requests alone. `up` stays while the agent is killed.
_AGENTS = 'and on () count(up{job="agent"})'
_WRITES = '{tool=~"refund|mail"}'


def _rate(metric: str, by: str, matchers: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{matchers}{_WINDOW}))"


_ENDED = f"(sum(rate(llmlab_agent_tasks_total{_WINDOW})) > 0)"
_CALLERS = f"sum by (le) (rate({CLIENT_DURATION}_bucket{_WINDOW}))"


AGENTS = Board(
    uid="llmchaos-agents",
    title="LLM lab: agents",
    description="An agent's tasks, its calls to model and tools, and their effects at the desk. Empty in a lab without "
    "agents.",
    rows=(
        (
            "Tasks that callers saw",
            (
                optional_panel(
                    "Tasks by how they ended for callers",
                    "Counted by the load generator, so a dead agent cannot hide them. ok: completed. inband_error: failed. "
                    "http_4xx: lost, or refused with such a status. timeout: stuck at its deadline. left: cancelled.",
                    "stacked",
                    "reqps",
                    Query(expr=f"{_rate(f'{CLIENT_REQUESTS}_total', 'outcome')} > 0 {_AGENTS}", legend="{{outcome}}"),
                ),
                optional_panel(
                    "Task latency for callers",
                    "From the due time to the end. A task that was not completed is infinite, so the line is at the "
                    "highest edge while tasks fail.",
                    "lines",
                    "s",
                    *(
                        Query(expr=f"histogram_quantile({q}, {_CALLERS}) {_AGENTS}", legend=f"p{round(100 * q)}")
                        for q in (0.5, 0.95, 0.99)
                    ),
                ),
            ),
        ),
        (
            "Tasks as the agent counts them",
            (
                optional_panel(
                    "Tasks by status",
                    "The agent's own count of ends. A killed agent counts nothing, and a wrong one counts tasks as "
                    "completed that lack an effect: compare it with the callers and the desk.",
                    "stacked",
                    "reqps",
                    Query(expr=_rate("llmlab_agent_tasks_total", "status"), legend="{{status}}"),
                ),
                optional_panel(
                    "Running tasks",
                    "Steady growth: tasks arrive faster than they end, or hang.",
                    "lines",
                    "short",
                    Query(expr="sum(llmlab_agent_tasks_running)", legend="running"),
                ),
                optional_panel(
                    "Task latency",
                    "From a task's acceptance to its end, over restarts. Tasks that are lost or hang are not in it.",
                    "lines",
                    "s",
                    *quantiles("llmlab_agent_task_seconds"),
                ),
                optional_panel(
                    "Resumed tasks",
                    "Tasks of an earlier process that the running one took over. It begins at 0 with each process.",
                    "lines",
                    "short",
                    Query(expr="sum(llmlab_agent_resumed_total)", legend="resumed"),
                    width=6,
                ),
                optional_panel(
                    "Budgets exceeded",
                    "Tasks that a budget ended, since the agent's start. Tokens or steps: the model does not stop. "
                    "Seconds: the model or a tool is slow.",
                    "lines",
                    "short",
                    Query(expr="sum by (budget) (llmlab_agent_budget_exceeded_total)", legend="{{budget}}"),
                    width=6,
                ),
            ),
        ),
        (
            "Calls of a task",
            (
                optional_panel(
                    "Calls for each task that ended",
                    "A task of n steps needs n tool calls that are ok and n + 1 answers of the model. More answers: "
                    "model calls are repeated. Calls with another result: the agent retries.",
                    "lines",
                    "short",
                    Query(expr=f"sum(rate(llmlab_agent_model_calls_total{_WINDOW})) / {_ENDED}", legend="model"),
                    Query(
                        expr=f"{_rate('llmlab_agent_tool_calls_total', 'result')} / on () group_left () {_ENDED}",
                        legend="tools, {{result}}",
                    ),
                ),
                optional_panel(
                    "Tool calls by result",
                    "Requests that the agent sent, every try. failed: no valid answer came. is_error: the tool refused.",
                    "stacked",
                    "reqps",
                    Query(
                        expr=_rate("llmlab_agent_tool_calls_total", "tool, result"),
                        legend="{{tool}} {{result}}",
                    ),
                ),
            ),
        ),
        (
            "The desk",
            (
                optional_panel(
                    "Calls and effects",
                    "What arrived at the desk, and what it applied. find_order has no effect.",
                    "lines",
                    "reqps",
                    Query(expr=_rate("llmlab_desk_calls_total", "tool"), legend="{{tool}} calls"),
                    Query(expr=_rate("llmlab_desk_effects_total", "tool"), legend="{{tool}} effects"),
                ),
                optional_panel(
                    "Tool amplification",
                    "Calls for each effect: above 1, calls were repeated and their keys made them harmless. Effects "
                    "for each task: above the number in its plan, there are duplicate effects.",
                    "lines",
                    "short",
                    Query(
                        expr=f"{_rate('llmlab_desk_calls_total', 'tool', _WRITES)} "
                        f"/ ({_rate('llmlab_desk_effects_total', 'tool', _WRITES)} > 0)",
                        legend="{{tool}} calls for each effect",
                    ),
                    Query(
                        expr=f"{_rate('llmlab_desk_effects_total', 'tool', _WRITES)} / on () group_left () {_ENDED}",
                        legend="{{tool}} effects for each task",
                    ),
                ),
                optional_panel(
                    "Repeated keys",
                    "Calls with an idempotency key that was used before: a retry or a resume. They apply nothing.",
                    "lines",
                    "reqps",
                    Query(expr=f"sum(rate(llmlab_desk_repeated_keys_total{_WINDOW}))", legend="repeated"),
                ),
                optional_panel(
                    "Duration of the desk's calls",
                    "From a call's arrival at the tool to its result, without the network. Low while tasks are slow: "
                    "the time is spent elsewhere.",
                    "lines",
                    "s",
                    *quantiles("llmlab_desk_call_seconds"),
                ),
            ),
        ),
    ),
)
