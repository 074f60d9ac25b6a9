"""Many decode steps of the simulated engine at once.

A leap has the same result as that many steps of `lab_engine.scheduler`, bit by bit. The
engine's statistics are the exception: they leave most of a leap out.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import TYPE_CHECKING

from lab_engine.work import Step

if TYPE_CHECKING:
    from lab_engine.scheduler import Scheduler
    from lab_engine.speed import Speed
    from lab_engine.work import Sequence


@dataclass(kw_only=True, slots=True)
class Leap:
    """Decode steps of the same sequences, up to the first that can end one of them."""

    start_s: float
    ends: list[float]  # of each step

    @property
    def end_s(self) -> float:
        return self.ends[-1]

    def cut(self, at_s: float) -> bool:
        """Drop the steps that begin at this time or later. False without any."""
        kept = bisect_left(self.ends, at_s) + 1
        if kept >= len(self.ends):
            return False
        del self.ends[kept:]
        return True


def plan(scheduler: Scheduler, now_s: float, slowdown: float) -> Leap | None:
    """The leap from now on. None if the next step has to be decided by itself.

    That is the case where a request may enter, a prompt is computed, the memory is
    nearly full or a step's duration is drawn at random.
    """
    running, limits = scheduler.running, scheduler.limits
    count = len(running)
    if not running or limits.jitter or count > limits.batch_tokens:
        return None
    until_s = None
    if count < limits.slots:
        until_s = scheduler.next_ready_s
        if scheduler.waiting or (until_s is not None and until_s <= now_s):
            return None
    # In that many steps each sequence needs no more than its share of the free blocks.
    steps = scheduler.pool.free // count * limits.block_tokens
    context = 0
    for one in running:
        left = one.answer_tokens - one.generated
        if left < steps:  # noqa: PLR1730 - `min` takes three times as long
            steps = left
        decodes = one.generated and one.prompt_tokens + one.generated - one.computed == 1
        if not decodes or one.published < len(one.prefix):
            return None
        context += one.computed
    if steps <= 0:
        return None
    ends = step_ends(scheduler.speed, now_s, slowdown, count=count, steps=steps, context=context + count)
    leap = Leap(start_s=now_s, ends=ends)
    if until_s is not None:
        leap.cut(until_s)
    return leap


def step_ends(speed: Speed, now_s: float, slowdown: float, *, count: int, steps: int, context: int) -> list[float]:
    """The end of each decode step, by the formula of `lab_engine.speed`.

    Args:
        speed: of the engine.
        now_s: start of the first step, in seconds.
        slowdown: factor of each step's duration.
        count: sequences in the batch.
        steps: number of steps.
        context: cached tokens that the first step reads.
    """
    if not speed.context_token_s and not speed.pair_s:
        each_s = speed.duration_s(sequences=count, tokens=count, context_tokens=0, pairs=0.0) * slowdown
        return list(accumulate(repeat(each_s, steps), initial=now_s))[1:]
    fixed_s = speed.step_s + count * speed.sequence_s
    experts_s = speed.experts_s * (1 - (1 - speed.expert_share) ** count)
    tokens_s = count * speed.token_s
    weights_s, context_token_s, pair_s = speed.weights_s, speed.context_token_s, speed.pair_s
    ends = []
    for _ in range(steps):
        memory_s = weights_s + context * context_token_s + experts_s
        arithmetic_s = tokens_s + context * pair_s
        now_s += (fixed_s + (max(arithmetic_s, memory_s))) * slowdown
        ends.append(now_s)
        context += count
    return ends


def book(scheduler: Scheduler, leap: Leap) -> list[Sequence]:
    """Book all steps of a leap, and return the sequences that it ended."""
    steps, end_s, size = len(leap.ends), leap.end_s, scheduler.limits.block_tokens
    crossings: list[tuple[int, int]] = []  # step at which a sequence needs a block, and its index
    ended: list[Sequence] = []
    for index, one in enumerate(scheduler.running):
        first = len(one.blocks) * size - one.computed + 1
        if first == steps:
            crossings.append((first, index))
        elif first < steps:
            crossings += [(step, index) for step in range(first, steps + 1, size)]
        if one.generated + steps < one.answer_tokens:
            one.computed += steps
            one.generated += steps
            one.last_token_s = end_s
        else:
            one.computed += steps - 1
            one.generated += steps - 1
            ended.append(one)
    if crossings:
        _take_blocks(scheduler, crossings)
    if ended:
        # The last step may end several sequences.
        begin_s = leap.ends[-2] if steps > 1 else leap.start_s
        scheduler.finish(Step(start_s=begin_s, end_s=end_s, sequences=ended, advances=[1] * len(ended)))
    return ended


def _take_blocks(scheduler: Scheduler, crossings: list[tuple[int, int]]) -> None:
    """Take the blocks in the order in which the steps would."""
    fresh = scheduler.pool.take(len(crossings))
    if fresh is None:
        raise RuntimeError(f"expected {len(crossings)} free blocks for a leap, got {scheduler.pool.free}")
    crossings.sort()
    for (_, index), block in zip(crossings, fresh, strict=True):
        scheduler.running[index].blocks.append(block)
