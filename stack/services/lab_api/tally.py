"""Times and tokens of each replica's attempts."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Self

from lab_api.outcomes import ATTEMPT_FAILURES, Outcome

# OpenTelemetry's GenAI buckets, with tails and the lab's objectives (0.5 s and 2 s).
DURATION_BUCKETS_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68),
)
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2, 2.5, 5, 7.5, 10),
    *(20, 40, 80, 160),
)
# The same with edges between, so that providers that differ by a third differ here.
PROVIDER_TTFT_BUCKETS_S = tuple(sorted((*TTFT_BUCKETS_S, 0.03, 0.05, 0.125, 0.15, 0.2, 0.3, 0.4, 0.625, 1.5, 3, 4)))
# OpenTelemetry's first bound is 0.01 s, which most servers are below.
PER_TOKEN_BUCKETS_S = (
    *(0.001, 0.0025, 0.004, 0.005, 0.0065, 0.008, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.065, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 20, 40, 80),
)

# Ends of an attempt that a replica was involved in.
ENDS: tuple[Outcome, ...] = (
    *(Outcome.OK, Outcome.UPSTREAM_4XX, Outcome.CLIENT_CANCELLED),
    *(one for one in Outcome if one in ATTEMPT_FAILURES),
)


class Seconds:
    """A histogram for the one thread of the event loop, without a lock."""

    __slots__ = ("_counts", "_edges_s", "sum_s")

    def __init__(self, edges_s: tuple[float, ...]) -> None:
        self._edges_s = edges_s
        self._counts = [0] * (len(edges_s) + 1)
        self.sum_s = 0.0

    def observe(self, value_s: float) -> None:
        self._counts[bisect_left(self._edges_s, value_s)] += 1
        self.sum_s += value_s

    def buckets(self, infinite: int = 0) -> list[tuple[str, float]]:
        """Cumulative counts by upper edge, with so many more infinite values."""
        total, found = 0, []
        for edge_s, count in zip((*map(str, map(float, self._edges_s)), "+Inf"), self._counts, strict=True):
            total += count
            found.append((edge_s, float(total)))
        found[-1] = ("+Inf", float(total + infinite))
        return found


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one answer as its server counted them."""

    prompt: int
    output: int

    @classmethod
    def of(cls, said: object) -> Self | None:
        """The usage of an OpenAI API, None if it is not one."""
        if not isinstance(said, dict):
            return None
        prompt, output = _count(said, "prompt_tokens"), _count(said, "completion_tokens")
        return None if prompt is None or output is None else cls(prompt=prompt, output=output)


def _count(said: dict[str, Any], name: str) -> int | None:
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at a replica that has ended. Times count from its admission there.

    Attributes:
        streaming: a stream was requested.
        first_token_s: seconds to the first token, None without one.
        last_s: seconds to the last event, for a whole answer to its end.
        events: events with text or another token.
        usage: what the server counted, None if it did not report that.
    """

    streaming: bool
    first_token_s: float | None
    last_s: float
    events: int
    usage: Usage | None


def _by_source() -> dict[tuple[str, str], int]:
    return {("input", "usage"): 0, ("output", "usage"): 0, ("output", "events"): 0}


@dataclass(kw_only=True)
class Tally:
    """Counters of one replica, the same definition for each."""

    ended: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    first_token: Seconds = field(default_factory=lambda: Seconds(PROVIDER_TTFT_BUCKETS_S))
    per_token: Seconds = field(default_factory=lambda: Seconds(PER_TOKEN_BUCKETS_S))
    duration: Seconds = field(default_factory=lambda: Seconds(DURATION_BUCKETS_S))
    without_token: int = 0  # streams that failed before their first token
    tokens: dict[tuple[str, str], int] = field(default_factory=_by_source)  # by direction and source
    prompts: dict[str, int] = field(default_factory=lambda: {"usage": 0, "missing": 0})  # by source of their tokens

    def add(self, outcome: Outcome, attempt: Attempt) -> None:
        """Count one attempt. A cut answer's tokens count too: its server made them."""
        self.ended[outcome] = self.ended.get(outcome, 0) + 1
        first_s, usage, tokens = attempt.first_token_s, attempt.usage, self.tokens
        output = attempt.events if usage is None else usage.output
        if first_s is not None:
            self.first_token.observe(first_s)
        elif attempt.streaming and outcome in ATTEMPT_FAILURES:
            self.without_token += 1
        if usage is not None:
            tokens["input", "usage"] += usage.prompt
            tokens["output", "usage"] += output
            self.prompts["usage"] += 1
        elif outcome is Outcome.OK or output:
            tokens["output", "events"] += output
            self.prompts["missing"] += 1
        if outcome is Outcome.OK:
            self.duration.observe(attempt.last_s)
            if first_s is not None and output > 1:
                self.per_token.observe((attempt.last_s - first_s) / (output - 1))
