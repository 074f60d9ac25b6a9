"""A batch of the simulated engine in constant time for each step.

The usual case needs no visit to each running sequence: whole prompts enter, one token
a step follows, and the memory suffices. Then sums and the step at which each sequence
ends describe the batch. `Decoding` serves that case with the token times of
`lab_engine.scheduler`, bit by bit, and hands the batch over where it ends.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from lab_autoscaler.leap import Leap, step_ends

if TYPE_CHECKING:
    from lab_engine.scheduler import Scheduler
    from lab_engine.speed import Speed
    from lab_engine.work import Limits, Sequence


class Decoding:
    """The requests of one engine without prefix cache and jitter.

    Sequences have their tokens and times only once they end or are handed over.
    """

    def __init__(self, speed: Speed, limits: Limits) -> None:
        self._speed = speed
        self._limits = limits
        self._frontend: deque[Sequence] = deque()
        self._waiting: deque[Sequence] = deque()
        # By entry, each with the step of its first token. The order is the batch's.
        self._running: dict[int, tuple[Sequence, int]] = {}
        self._due: list[tuple[int, int]] = []  # the step that ends each entry
        self._entries = 0
        self._steps = 0
        self._context = 0  # computed tokens of all running sequences
        self._free = limits.blocks
        # Running sequences by phase: one needs a block at each step whose number, plus
        # its phase, is a multiple of the block's size.
        self._phases = [0] * limits.block_tokens
        self._leap: Leap | None = None
        self._entering: list[Sequence] = []

    @property
    def next_ready_s(self) -> float | None:
        """Time at which the next request leaves the front end, or None."""
        return self._frontend[0].arrived_s + self._speed.frontend_s if self._frontend else None

    def add(self, sequence: Sequence) -> None:
        """Add a request. Requests come in order of arrival."""
        self._frontend.append(sequence)

    def cut(self, at_s: float) -> float | None:
        """Let a request enter at this time. The new end of the leap, if it changed."""
        if self._leap is None or self._entering or not self._leap.cut(at_s):
            return None
        return self._leap.end_s

    @property
    def may_enter(self) -> bool:
        """True if a slot is free."""
        return len(self._running) < self._limits.slots

    def begin(self, now_s: float, slowdown: float) -> float | None:
        """Begin steps and return their end, or None without a request.

        Raises:
            HandOver: the next step is beyond the usual case.
        """
        ready_s = self.next_ready_s
        while ready_s is not None and ready_s <= now_s:
            self._waiting.append(self._frontend.popleft())
            ready_s = self.next_ready_s
        count = len(self._running)
        if self._waiting and count < self._limits.slots:
            self._leap = self._enter(now_s, slowdown)
        elif count:
            # So many that each needs no more than its share of the free blocks.
            steps = min(self._due[0][0] - self._steps, self._free // count * self._limits.block_tokens)
            if steps <= 0 or count > self._limits.batch_tokens:
                raise HandOver
            ends = step_ends(self._speed, now_s, slowdown, count=count, steps=steps, context=self._context + count)
            self._leap = Leap(start_s=now_s, ends=ends)
            if ready_s is not None and count < self._limits.slots:
                self._leap.cut(ready_s)
        else:
            return None
        return self._leap.end_s

    def _enter(self, now_s: float, slowdown: float) -> Leap:
        """A step with all prompts that fit."""
        limits, count, context = self._limits, len(self._running), self._context
        budget, free = limits.batch_tokens - count, self._free - self._crossing(1)
        if free < 0:
            raise HandOver
        pairs = float(context + count)
        tokens, context = count, context + count
        for sequence in self._waiting:
            if count + len(self._entering) >= limits.slots or budget <= 0:
                break
            prompt = sequence.prompt_tokens
            free -= -(-prompt // limits.block_tokens)
            if prompt > budget or free < 0:
                self._entering.clear()
                raise HandOver
            self._entering.append(sequence)
            tokens, context, budget = tokens + prompt, context + prompt, budget - prompt
            pairs += prompt * (prompt - (prompt - 1) / 2)
        if not self._entering:
            raise HandOver
        duration_s = self._speed.duration_s(
            sequences=count + len(self._entering), tokens=tokens, context_tokens=context, pairs=pairs
        )
        return Leap(start_s=now_s, ends=[now_s + duration_s * slowdown])

    def finish(self) -> tuple[list[Sequence], list[Sequence]]:
        """Book the steps that have begun.

        Returns the sequences that entered and got their first token, and those that
        ended, each in the order of the batch.
        """
        leap = self._leap
        if leap is None:
            raise RuntimeError("expected steps to finish, got none")
        steps, count = len(leap.ends), len(self._running)
        self._free -= self._crossing(steps)
        self._steps += steps
        self._context += steps * count
        entered, self._entering, self._leap = self._entering, [], None
        for sequence in entered:
            self._waiting.popleft()
            self._join(sequence, leap.end_s)
        ended = []
        while self._due and self._due[0][0] == self._steps:
            ended.append(self._end(heapq.heappop(self._due)[1], leap.end_s))
        return entered, ended

    def hand_over(self, scheduler: Scheduler, now_s: float) -> None:
        """Move all requests into an empty scheduler, between two steps."""
        for sequence, first in self._running.values():
            sequence.state = "running"
            sequence.generated = self._steps - first + 1
            sequence.computed = sequence.prompt_tokens + sequence.generated - 1
            sequence.last_token_s = now_s
            sequence.scheduled_s = sequence.first_token_s
            blocks = scheduler.pool.take(-(-sequence.computed // self._limits.block_tokens))
            if blocks is None:
                raise RuntimeError(f"expected enough free blocks for {sequence.name}, got {scheduler.pool.free}")
            sequence.blocks = blocks
            scheduler.running.append(sequence)
        for sequence in (*self._waiting, *self._frontend):
            scheduler.add(sequence)

    def take_over(self, scheduler: Scheduler) -> None:
        """Move a decoding batch out of the scheduler, which is empty then."""
        running = list(scheduler.running)
        scheduler.running.clear()
        for sequence in running:
            scheduler.pool.release(sequence.blocks)
            sequence.blocks = []
            self._hold(sequence, 1 - sequence.generated)

    def _join(self, sequence: Sequence, now_s: float) -> None:
        sequence.first_token_s = now_s
        sequence.generated = 1
        self._hold(sequence, self._steps)

    def _hold(self, sequence: Sequence, first: int) -> None:
        """Count a sequence, which has its first token after that step."""
        self._entries += 1
        self._running[self._entries] = sequence, first
        heapq.heappush(self._due, (first + sequence.answer_tokens - 1, self._entries))
        computed = sequence.prompt_tokens + self._steps - first
        self._context += computed
        self._free -= -(-computed // self._limits.block_tokens)
        self._phases[(sequence.prompt_tokens - first) % self._limits.block_tokens] += 1

    def _end(self, entry: int, now_s: float) -> Sequence:
        sequence, first = self._running.pop(entry)
        sequence.state = "finished"
        sequence.generated = sequence.answer_tokens
        sequence.last_token_s = now_s
        computed = sequence.prompt_tokens + sequence.answer_tokens - 1
        self._context -= computed
        self._free += -(-computed // self._limits.block_tokens)
        self._phases[(sequence.prompt_tokens - first) % self._limits.block_tokens] -= 1
        return sequence

    def _crossing(self, steps: int) -> int:
        """Blocks that the running sequences need in these steps."""
        size, done, phases = self._limits.block_tokens, self._steps, self._phases
        whole, rest = divmod(steps, size)
        return whole * len(self._running) + sum([phases[-step % size] for step in range(done, done + rest)])


class HandOver(Exception):
    """The next step needs the scheduler: too little memory, or a prompt in parts."""
