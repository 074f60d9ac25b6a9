"""Loads: steady, random, ramping, bursting or recorded requests, and tasks.

All loads are open loops: requests leave on schedule whatever the answers do. A closed
loop waits for answers, which hides an outage (coordinated omission).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads import conversations, files, traces
from pytest_llmchaos.loads.agent_tasks import AgentTasks, parse_plan, parse_reads
from pytest_llmchaos.loads.arrivals import Arrival, FirstToken, Impatience, Load, PatientFrom, Spacing, require_number
from pytest_llmchaos.loads.headers import check_headers
from pytest_llmchaos.loads.prompts import BUILT_IN, PromptSet, from_lines
from pytest_llmchaos.loads.shapes import Burst, Constant, Ramp, Shape, Sine
from pytest_llmchaos.stats.windows import DEFAULT_TARGETS, LatencyTargets

__all__ = ["Arrival", "LatencyTargets", "Load", "burst", "open_loop", "poisson", "ramp", "sine", "tasks", "trace"]

MAX_RPS = 100_000.0
MAX_TOKENS = 1_000_000


def open_loop(
    *,
    rate_rps: float = 8,
    prompts: str | Path = "short-chat",
    max_tokens: int | None = None,
    arrivals: Spacing = "constant",
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load with a constant rate.

    Args:
        rate_rps: Requests per second, above 0, at most 100,000.
        prompts: `short-chat`, `long-prompt`, or the path of a file, relative to the
            calling file: one prompt a line, or conversations as JSON, whose answers
            have the recorded length.
        max_tokens: Longest answer in tokens, 1 to 1,000,000. None draws 8 to 16 per
            request, which a small model on two cores can serve.
        arrivals: `constant` (evenly spaced) or `poisson` (independent of each other).
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the prompt file is missing or
            empty.
    """
    who = "loads.poisson" if arrivals == "poisson" else "loads.open_loop"
    shape = Constant(rate_rps=require_number(who, "rate_rps", rate_rps, above=0, at_most=MAX_RPS))
    return _load(
        who,
        shape,
        arrivals=arrivals,
        prompts=prompts,
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
    )


def poisson(
    *,
    rate_rps: float = 8,
    prompts: str | Path = "short-chat",
    max_tokens: int | None = None,
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load with independent arrivals (a Poisson process).

    Args:
        rate_rps: Mean requests per second, above 0, at most 100,000.
        prompts: `short-chat`, `long-prompt`, or the path of a file, relative to the
            calling file: one prompt a line, or conversations as JSON, whose answers
            have the recorded length.
        max_tokens: Longest answer in tokens, 1 to 1,000,000. None draws 8 to 16 per
            request, which a small model on two cores can serve.
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the prompt file is missing or
            empty.
    """
    return open_loop(
        rate_rps=rate_rps,
        prompts=prompts,
        max_tokens=max_tokens,
        arrivals="poisson",
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
    )


def ramp(
    *,
    from_rps: float,
    to_rps: float,
    over_s: float,
    prompts: str | Path = "short-chat",
    max_tokens: int | None = None,
    arrivals: Spacing = "constant",
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load whose rate changes linearly, then stays constant.

    Args:
        from_rps: Requests per second at the start, 0 to 100,000.
        to_rps: Requests per second from `over_s` on, above 0, at most 100,000.
        over_s: Seconds that the change takes, above 0.
        prompts: `short-chat`, `long-prompt`, or the path of a file, relative to the
            calling file: one prompt a line, or conversations as JSON, whose answers
            have the recorded length.
        max_tokens: Longest answer in tokens, 1 to 1,000,000. None draws 8 to 16 per
            request, which a small model on two cores can serve.
        arrivals: `constant` (evenly spaced) or `poisson` (independent of each other).
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the prompt file is missing or
            empty.
    """
    who = "loads.ramp"
    shape = Ramp(
        from_rps=require_number(who, "from_rps", from_rps, at_least=0, at_most=MAX_RPS),
        to_rps=require_number(who, "to_rps", to_rps, above=0, at_most=MAX_RPS),
        over_s=require_number(who, "over_s", over_s, above=0),
    )
    return _load(
        who,
        shape,
        arrivals=arrivals,
        prompts=prompts,
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
    )


def burst(
    *,
    base_rps: float,
    burst_rps: float,
    after_s: float,
    burst_s: float,
    prompts: str | Path = "short-chat",
    max_tokens: int | None = None,
    arrivals: Spacing = "constant",
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load with a constant rate and one burst.

    Args:
        base_rps: Requests per second outside the burst, above 0, at most 100,000.
        burst_rps: Requests per second in the burst, above 0, at most 100,000.
        after_s: Seconds from the load's start to the burst, at least 0.
        burst_s: Seconds that the burst lasts, above 0.
        prompts: `short-chat`, `long-prompt`, or the path of a file, relative to the
            calling file: one prompt a line, or conversations as JSON, whose answers
            have the recorded length.
        max_tokens: Longest answer in tokens, 1 to 1,000,000. None draws 8 to 16 per
            request, which a small model on two cores can serve.
        arrivals: `constant` (evenly spaced) or `poisson` (independent of each other).
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the prompt file is missing or
            empty.
    """
    who = "loads.burst"
    shape = Burst(
        base_rps=require_number(who, "base_rps", base_rps, above=0, at_most=MAX_RPS),
        burst_rps=require_number(who, "burst_rps", burst_rps, above=0, at_most=MAX_RPS),
        after_s=require_number(who, "after_s", after_s, at_least=0),
        burst_s=require_number(who, "burst_s", burst_s, above=0),
    )
    return _load(
        who,
        shape,
        arrivals=arrivals,
        prompts=prompts,
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
    )


def sine(
    *,
    mean_rps: float,
    amplitude_rps: float,
    period_s: float,
    prompts: str | Path = "short-chat",
    max_tokens: int | None = None,
    arrivals: Spacing = "constant",
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load whose rate oscillates around its mean.

    Args:
        mean_rps: Mean requests per second, above 0, at most 100,000.
        amplitude_rps: Largest distance from the mean, in requests per second, at least
            0, at most `mean_rps`.
        period_s: Seconds of one oscillation, above 0.
        prompts: `short-chat`, `long-prompt`, or the path of a file, relative to the
            calling file: one prompt a line, or conversations as JSON, whose answers
            have the recorded length.
        max_tokens: Longest answer in tokens, 1 to 1,000,000. None draws 8 to 16 per
            request, which a small model on two cores can serve.
        arrivals: `constant` (evenly spaced) or `poisson` (independent of each other).
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the prompt file is missing or
            empty.
    """
    who = "loads.sine"
    mean = require_number(who, "mean_rps", mean_rps, above=0, at_most=MAX_RPS)
    shape = Sine(
        mean_rps=mean,
        amplitude_rps=require_number(who, "amplitude_rps", amplitude_rps, at_least=0, at_most=mean),
        period_s=require_number(who, "period_s", period_s, above=0),
    )
    return _load(
        who,
        shape,
        arrivals=arrivals,
        prompts=prompts,
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
    )


def trace(
    path: str | Path,
    *,
    speed: float = 1.0,
    columns: Mapping[str, str] | None = None,
    unit: traces.Unit | None = None,
    max_tokens: int | None = None,
    latency_targets: LatencyTargets = DEFAULT_TARGETS,
    timeout_s: float = 10,
    idle_timeout_s: float | None = None,
    first_token: FirstToken = "any",
    patience_s: float | None = None,
    patient_from: PatientFrom = "end",
    impatient_ratio: float = 1,
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load that replays a recorded trace.

    Formats: Azure LLM inference and BurstGPT CSV, Mooncake and Qwen-Bailian JSONL
    (docs/load.md has the sources), or named columns. A prompt has as many words as the
    record has tokens, at most 1024, because the lab's models have contexts of 2,048
    tokens.

    Args:
        path: Path of the trace file, relative to the calling file. It may be gzipped.
        speed: Factor by which the replay is faster, above 0.
        columns: Columns of another format, such as `{"time": "ts", "prompt": "in",
            "answer": "out"}`.
        unit: Unit of times that are numbers: `s`, `ms`, `us` or `ns`. None: determined
            by the format, or refused.
        max_tokens: Length of every answer in tokens, 1 to 1,000,000. None uses the
            recorded lengths.
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up, above 0, at most
            3600.
        idle_timeout_s: Seconds without a byte from the service, after which a client
            gives up, above 0, at most `timeout_s`. Proxies and HTTP libraries have such
            a bound. None: only `timeout_s` ends a silence.
        first_token: `any` counts reasoning, a tool call or a refusal as the first
            token. `content` counts only the answer's own text.
        patience_s: Seconds from the due time after which an impatient client closes its
            connection, above 0, at most `timeout_s`. None: clients wait for
            `timeout_s`.
        patient_from: `end`: impatient clients leave unless the answer is complete.
            `first_token`: a client that received a token stays.
        impatient_ratio: Ratio of impatient clients to all, above 0, at most 1, spread
            evenly.
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request, such as `{"x-priority": "high"}`. They
            replace those of `llmchaos_headers` with the same name. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds, or the file is missing or not a
            trace, or its unit is not certain.
    """
    who = "loads.trace"
    file = _file(who, "path", path)
    rate = require_number(who, "speed", speed, above=0)
    if unit is not None and unit not in traces.UNITS:
        raise BadScenario(f"{who}: unit must be one of {', '.join(traces.UNITS)}, got {unit!r}")
    if columns is not None and not isinstance(columns, Mapping):
        raise BadScenario(
            f'{who}: columns must be such as {{"time": "ts", "prompt": "in", "answer": "out"}}, got {columns!r}'
        )
    shape = traces.parse(file.name, io.StringIO(files.text_of(file)), columns=columns, unit=unit)
    return _load(
        who,
        shape,
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token=first_token,
        patience_s=patience_s,
        patient_from=patient_from,
        impatient_ratio=impatient_ratio,
        beyond_capacity=beyond_capacity,
        headers=headers,
        speed=rate,
    )


def tasks(
    *,
    rate_rps: float = 2,
    plan: str = "find_order; refund; mail",
    reads: Sequence[str] | None = None,
    task_s: float = 20,
    good_s: float | None = None,
    cancel_share: float = 0,
    cancel_after_s: float | None = None,
    arrivals: Spacing = "constant",
    beyond_capacity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Return a load of an agent's tasks with a constant rate.

    Each arrival is one task: its caller sends it, waits for its end by long polls, and
    repeats a request whose connection fails. docs/load.md has the contract.

    Args:
        rate_rps: Tasks per second, above 0, at most 100,000.
        plan: Tools of a task's steps, separated by semicolons. Each step gets the
            task's own order number as its argument.
        reads: Tools of the plan that have no effect. Each step of another tool must
            have one in the effect ledger. None means `find_order`, if the plan has it.
        task_s: Seconds from the due time until the caller gives a task up, above 0, at
            most 3600.
        good_s: Seconds from the due time in which a good task is completed, above 0, at
            most `task_s`. None: `task_s`.
        cancel_share: Share of the tasks that their callers cancel, 0 to 1, spread
            evenly.
        cancel_after_s: Seconds from the due time to the cancellation, at least 0, below
            `task_s`. Required with `cancel_share`.
        arrivals: `constant` (evenly spaced) or `poisson` (independent of each other).
        beyond_capacity: True for a load that is meant to saturate the backend. Other
            loads beyond the backend's declared capacity are refused.
        headers: Further headers of each request to the agent, such as `{"x-tenant":
            "a"}`. Reports show them.

    Returns:
        A load for `experiment(load=...)` and `lab.load`.

    Raises:
        BadScenario: An argument is outside its bounds.
    """
    who = "loads.tasks"
    limit_s = require_number(who, "task_s", task_s, above=0, at_most=3600)
    good = limit_s if good_s is None else require_number(who, "good_s", good_s, above=0, at_most=limit_s)
    share = require_number(who, "cancel_share", cancel_share, at_least=0, at_most=1)
    if (cancel_after_s is None) == bool(share):
        raise BadScenario(
            f"{who}: cancel_share and cancel_after_s need each other, got {cancel_share!r} and {cancel_after_s!r}: try "
            "cancel_share=0.1, cancel_after_s=1"
        )
    after_s = 0.0 if cancel_after_s is None else require_number(who, "cancel_after_s", cancel_after_s, at_least=0)
    if after_s >= limit_s:
        raise BadScenario(f"{who}: cancel_after_s must be below task_s={limit_s:g}, got {cancel_after_s!r}: lower it")
    load = _load(
        who,
        Constant(rate_rps=require_number(who, "rate_rps", rate_rps, above=0, at_most=MAX_RPS)),
        latency_targets=LatencyTargets(ttft_s=math.inf, e2e_s=good),
        timeout_s=limit_s,
        beyond_capacity=beyond_capacity,
        headers=headers,
        arrivals=arrivals,
    )
    tools = parse_plan(who, plan)
    made = AgentTasks(
        tools=tools,
        task_s=limit_s,
        cancel_share=share,
        cancel_after_s=after_s,
        reads=parse_reads(who, reads, tools),
    )
    return replace(load, tasks=made)


def _load(
    who: str,
    shape: Shape | traces.Trace,
    *,
    latency_targets: object,
    timeout_s: object,
    beyond_capacity: object,
    headers: object,
    max_tokens: object = None,
    idle_timeout_s: object = None,
    first_token: object = "any",
    patience_s: object = None,
    patient_from: object = "end",
    impatient_ratio: object = 1,
    arrivals: object = "constant",
    prompts: object = "short-chat",
    speed: float = 1.0,
) -> Load:
    if arrivals not in ("constant", "poisson"):
        raise BadScenario(f'{who}: arrivals must be "constant" or "poisson", got {arrivals!r}')
    if max_tokens is not None and (
        not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or not 1 <= max_tokens <= MAX_TOKENS
    ):
        raise BadScenario(f"{who}: max_tokens must be a whole number from 1 to {MAX_TOKENS:,}, got {max_tokens!r}")
    if not isinstance(latency_targets, LatencyTargets):
        raise BadScenario(
            f"{who}: latency_targets must be bounds such as loads.LatencyTargets(ttft_s=2, e2e_s=10), got {latency_targets!r}"
        )
    if first_token not in ("any", "content"):
        raise BadScenario(f'{who}: first_token must be "any" or "content", got {first_token!r}')
    if not isinstance(beyond_capacity, bool):
        raise BadScenario(f"{who}: beyond_capacity must be True or False, got {beyond_capacity!r}")
    limit_s = require_number(who, "timeout_s", timeout_s, above=0, at_most=3600)
    return Load(
        shape=shape,
        spacing="poisson" if arrivals == "poisson" else "constant",
        prompts=_prompts(who, prompts),
        max_tokens=max_tokens,
        latency_targets=latency_targets,
        timeout_s=limit_s,
        idle_timeout_s=None
        if idle_timeout_s is None
        else require_number(who, "idle_timeout_s", idle_timeout_s, above=0, at_most=limit_s),
        first_token="content" if first_token == "content" else "any",
        impatience=_impatience(who, patience_s, patient_from, impatient_ratio, limit_s=limit_s),
        speed=speed,
        beyond_capacity=beyond_capacity,
        headers=check_headers(who, headers),
    )


def _impatience(
    who: str, patience_s: object, patient_from: object, impatient_ratio: object, *, limit_s: float
) -> Impatience | None:
    if patient_from not in ("end", "first_token"):
        raise BadScenario(f'{who}: patient_from must be "end" or "first_token", got {patient_from!r}')
    ratio = require_number(who, "impatient_ratio", impatient_ratio, above=0, at_most=1)
    if patience_s is None:
        if patient_from != "end" or ratio != 1:
            raise BadScenario(f"{who}: patient_from and impatient_ratio need patience_s: try patience_s=1")
        return None
    return Impatience(
        after_s=require_number(who, "patience_s", patience_s, above=0, at_most=limit_s),
        until="first_token" if patient_from == "first_token" else "end",
        ratio=ratio,
    )


def _prompts(who: str, prompts: object) -> PromptSet:
    if isinstance(prompts, str) and prompts in BUILT_IN:
        return BUILT_IN[prompts]
    file = _file(who, "prompts", prompts, besides=f" or one of {', '.join(BUILT_IN)}")
    text = files.text_of(file)
    if {".json", ".jsonl"} & set(file.suffixes):
        return conversations.parse(file.name, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadScenario(f"{who}: the prompt file {str(file)!r} is empty: write one prompt per line")
    return from_lines(file.name, lines)


def _file(who: str, name: str, path: object, besides: str = "") -> Path:
    if not isinstance(path, str | Path):
        raise BadScenario(f"{who}: {name} must be a file{besides}, got {path!r}")
    file = files.beside_caller(path)
    if not file.is_file():
        raise BadScenario(f"{who}: {name} must be a file{besides}; there is no file {str(file)!r}")
    return file
