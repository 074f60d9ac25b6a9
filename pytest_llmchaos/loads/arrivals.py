"""A load as a value: the schedule of its requests as a function of a seed."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads import prompts as prompt_sets
from pytest_llmchaos.loads import traces
from pytest_llmchaos.loads.agent_tasks import MAX_TASKS, AgentTasks, first_order
from pytest_llmchaos.loads.prompts import PromptSet
from pytest_llmchaos.loads.shapes import Shape
from pytest_llmchaos.stats.windows import DEFAULT_TARGETS, LatencyTargets

Spacing = Literal["constant", "poisson"]
FirstToken = Literal["any", "content"]
PatientFrom = Literal["end", "first_token"]
# Longest prompt of a trace: the lab's models have contexts of 2,048 tokens,
# answers included.
TRACE_PROMPT_TOKENS = 1024
# A schedule is held in memory and recorded before anything starts.
MAX_ARRIVALS = 2_000_000
LARGEST = sys.float_info.max  # a larger int has no float


def require_number(
    who: str,
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> float:
    """Return `value` as a number inside the bounds.

    Raises:
        BadScenario: It is not. The message has the value and what was expected.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    if number and above < value <= at_most and at_least <= value:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    low = f" above {above:g}" if above > -math.inf else f" of at least {at_least:g}" if at_least > -math.inf else ""
    high = f" and at most {at_most:g}" if at_most < math.inf else ""
    raise BadScenario(f"{who}: {name} must be a number{low}{high}, got {value!r}: try {name}={max(1.0, above):g}")


class Arrival(NamedTuple):
    """One request of a schedule.

    Attributes:
        due_s: Seconds from the load's start at which the request leaves.
        prompt: Text of the request.
        max_tokens: Longest answer, in tokens.
    """

    due_s: float
    prompt: str
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Impatience:
    """The moment at which impatient clients leave.

    Attributes:
        after_s: Seconds from the due time.
        until: What keeps a client: the answer's `end` or its `first_token`.
        ratio: Ratio of impatient clients to all.
    """

    after_s: float
    until: PatientFrom = "end"
    ratio: float = 1.0

    def __str__(self) -> str:
        unless = "a first token" if self.until == "first_token" else "the end"
        who = "" if self.ratio == 1 else f"{self.ratio:g} of the "
        return f"{who}clients wait {self.after_s:g} s for {unless}"

    def takes(self, index: int) -> bool:
        """True if the client at this place of the schedule is impatient."""
        return math.floor((index + 1) * self.ratio) > math.floor(index * self.ratio)


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load, as `open_loop`, `trace` and the others return it.

    `str(load)` is its identity in reports and seeds.

    Attributes:
        shape: Rate over time, or a recorded trace.
        spacing: `constant` or `poisson`.
        prompts: Prompts to draw from.
        max_tokens: Longest answer in tokens. None draws 8 to 16 per request, or uses
            the lengths of the trace.
        latency_targets: Bounds in seconds that a good answer meets.
        timeout_s: Seconds from the due time until a client gives up.
        idle_timeout_s: Seconds without a byte after which it gives up, or None.
        first_token: Kind of token that counts as the first.
        impatience: The moment at which impatient clients leave. None: all wait.
        speed: Factor by which a trace is replayed faster.
        beyond_capacity: True if the load is meant to saturate the backend.
        headers: Names and values of further headers of each request.
        tasks: Tasks of an agent in place of chat requests, or None.
    """

    shape: Shape | traces.Trace
    spacing: Spacing = "constant"
    prompts: PromptSet
    max_tokens: int | None = None
    latency_targets: LatencyTargets = DEFAULT_TARGETS
    timeout_s: float = 10.0
    idle_timeout_s: float | None = None
    first_token: FirstToken = "any"
    impatience: Impatience | None = None
    speed: float = 1.0
    beyond_capacity: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    tasks: AgentTasks | None = None

    def __str__(self) -> str:
        if isinstance(self.shape, traces.Trace):
            what = f"{self.shape} at speed {self.speed:g}"
        else:
            what = f"{self.spacing} {self.shape} {self.tasks or self.prompts}"
        tokens = f", {self.max_tokens} tokens" if self.max_tokens is not None else ""
        first = ", first token of content" if self.first_token == "content" else ""
        idle = "" if self.idle_timeout_s is None else f", idle timeout {self.idle_timeout_s:g} s"
        leave = "" if self.impatience is None else f", {self.impatience}"
        headers = "".join(f", {name}: {value}" for name, value in self.headers)
        return f"{what}{tokens}{first}{idle}{leave}{headers}"

    @property
    def peak_rps(self) -> float:
        """Highest rate, in requests per second."""
        if isinstance(self.shape, traces.Trace):
            return self.shape.peak_rps() * self.speed
        return self.shape.peak_rps

    @property
    def mean_rps(self) -> float:
        """Long-run rate, in requests per second: a ramp's end, the base of a burst."""
        if isinstance(self.shape, traces.Trace):
            return self.shape.mean_rps() * self.speed
        return self.shape.mean_rps

    @property
    def tokens_per_s(self) -> float:
        """Long-run answer tokens per second. The healthy backend must serve as many."""
        if self.tasks is not None:
            return self.mean_rps * self.tasks.tokens
        if self.max_tokens is not None:
            return self.mean_rps * self.max_tokens
        if isinstance(self.shape, traces.Trace):
            total = sum(max(1, row.answer_tokens) for row in self.shape.rows)
            return self.mean_rps * total / len(self.shape.rows)
        return self.mean_rps * self.prompts.mean_tokens

    def with_orders(self, arrivals: Sequence[Arrival], rng: Random, taken: set[int]) -> tuple[Arrival, ...]:
        """Return tasks with order numbers that no other load of the run has.

        A schedule counts orders from 1, so that all arms have the same bytes.

        Args:
            arrivals: The schedule. Requests that are no tasks stay as they are.
            rng: Source of the first number.
            taken: First numbers of the run's earlier loads. This one's is added.
        """
        if self.tasks is None:
            return tuple(arrivals)
        first = first_order(rng, taken)
        return tuple(one._replace(prompt=self.tasks.text(first + place)) for place, one in enumerate(arrivals))

    def schedule(self, rng: Random, duration_s: float) -> tuple[Arrival, ...]:
        """Return all requests of the first `duration_s` seconds, in order.

        The same generator state gives the same bytes on every machine. A longer
        duration only adds requests at the end.

        Args:
            rng: Source of the random draws.
            duration_s: Seconds from the load's start.

        Raises:
            BadScenario: That is no request, more than 2 million, more than 100,000
                tasks, or more than a cut trace has.
        """
        require_number("load.schedule", "duration_s", duration_s, above=0)
        if isinstance(self.shape, traces.Trace):
            source = self._replay(rng)
        else:
            source = self._draw(rng, self.shape) if self.tasks is None else self._number(rng, self.shape, self.tasks)
        most = MAX_ARRIVALS if self.tasks is None else MAX_TASKS
        arrivals: list[Arrival] = []
        for arrival in source:
            if arrival.due_s >= duration_s:
                break
            if len(arrivals) == most:
                raise BadScenario(f"{self} sends more than {most:,} requests in {duration_s:g} s: lower its rate")
            arrivals.append(arrival)
        else:
            if isinstance(self.shape, traces.Trace) and self.shape.cut:
                raise BadScenario(
                    f"{self}: the first {len(self.shape.rows)} requests of the trace last {arrivals[-1].due_s:g} s, "
                    f"{duration_s:g} s are needed: cut the file to the part you need, or lower speed"
                )
        if not arrivals:
            raise BadScenario(f"{self} sends no request in {duration_s:g} s: raise its rate or the duration")
        return tuple(arrivals)

    def _draw(self, rng: Random, shape: Shape) -> Iterator[Arrival]:
        draw, draw_tokens, tokens = self.prompts.draw, self.prompts.draw_tokens, self.max_tokens
        answers = dict(zip(self.prompts.lines, self.prompts.answers, strict=False))

        def arrival(after_s: float) -> Arrival:
            prompt = draw(rng)
            return Arrival(after_s, prompt, tokens or answers.get(prompt) or draw_tokens(rng))

        return map(arrival, self._times(rng, shape))

    def _number(self, rng: Random, shape: Shape, tasks: AgentTasks) -> Iterator[Arrival]:
        def arrival(order: int, after_s: float) -> Arrival:
            return Arrival(after_s, tasks.text(order), tasks.tokens)

        return map(arrival, itertools.count(1), self._times(rng, shape))

    def _times(self, rng: Random, shape: Shape) -> Iterator[float]:
        poisson = self.spacing == "poisson"
        count, after_s = -math.log(1 - rng.random()) if poisson else 0.0, 0.0
        while True:
            after_s = shape.when(count, after_s)
            # Whole microseconds, so that platforms whose logarithm differs in the last
            # bit give the same bytes.
            yield round(after_s, 6)
            count += -math.log(1 - rng.random()) if poisson else 1.0

    def _replay(self, rng: Random) -> Iterator[Arrival]:
        assert isinstance(self.shape, traces.Trace)  # noqa: S101 - for the type checker: `schedule` has checked
        for row in self.shape.rows:
            # One common English word is close to one token.
            text = prompt_sets.words(rng, max(1, min(row.prompt_tokens, TRACE_PROMPT_TOKENS)))
            # BurstGPT keeps failed requests as answers of 0 tokens. They were sent, so
            # they are replayed.
            yield Arrival(round(row.at_s / self.speed, 6), text, self.max_tokens or max(1, row.answer_tokens))
