"""Continuous batching, one function call per step."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from lab_common.values import InvalidValueError
from lab_engine.blocks import BlockPool
from lab_engine.stats import Stats
from lab_engine.work import Limits, Sequence, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab_engine.speed import Speed


class Scheduler:
    """First come, first served, with running sequences before waiting ones.

    The youngest is preempted when blocks run out. vLLM documents this policy for its V1
    scheduler, including chunked prefill. `begin` decides a step and `finish` books it.
    """

    def __init__(
        self, *, speed: Speed, limits: Limits, seed: int = 0, bounds: Mapping[str, tuple[float, ...]] | None = None
    ) -> None:
        self.speed = speed
        self.limits = limits
        self.pool = BlockPool(limits.blocks)
        self.stats = Stats(bounds or {})
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._frontend: deque[Sequence] = deque()
        self._random = random.Random(seed)  # noqa: S311 - timing, not secrets

    @property
    def unfinished(self) -> int:
        return len(self._frontend) + len(self.waiting) + len(self.running)

    @property
    def next_ready_s(self) -> float | None:
        """Time at which the next request leaves the front end, or None."""
        return self._frontend[0].arrived_s + self.speed.frontend_s if self._frontend else None

    def all_unfinished(self) -> list[Sequence]:
        return [*self.running, *self.waiting, *self._frontend]

    def add(self, sequence: Sequence) -> None:
        """Add a request. Requests come in order of arrival."""
        total = sequence.prompt_tokens + sequence.answer_tokens
        if total > self.limits.max_model_tokens:
            raise InvalidValueError(
                f"{sequence.name}: {total} tokens exceed max_model_tokens {self.limits.max_model_tokens}"
            )
        self._frontend.append(sequence)

    def abort(self, sequence: Sequence, reason: str = "abort") -> bool:
        """Remove a request and its blocks. False if it has finished already."""
        if sequence.state == "finished":
            return False
        place = {"frontend": self._frontend, "waiting": self.waiting, "running": self.running}[sequence.state]
        place.remove(sequence)
        self._release(sequence)
        sequence.state = "finished"
        self.stats.finished[reason] += 1
        return True

    def begin(self, now_s: float, *, slowdown: float = 1.0) -> Step | None:
        """The next step, or None if no sequence can run."""
        self._admit(now_s)
        sequences: list[Sequence] = []
        advances: list[int] = []
        budget, preempted = self._choose_running(sequences, advances)
        if not (preempted and sequences):
            self._choose_waiting(now_s, budget, sequences, advances)
        if not sequences:
            return None
        duration_s = self._duration_s(sequences, advances) * slowdown
        return Step(start_s=now_s, end_s=now_s + duration_s, sequences=sequences, advances=advances)

    def finish(self, step: Step) -> list[Sequence]:
        """Book the step.

        Returns the sequences that got a token, in the order of the batch. A finished
        one has that state.
        """
        stats, now_s = self.stats, step.end_s
        emitted: list[Sequence] = []
        prompt_tokens = 0
        for sequence, advance in zip(step.sequences, step.advances, strict=True):
            if sequence.state != "running":
                continue  # aborted while the step ran
            sequence.computed += advance
            if sequence.published < len(sequence.prefix):
                self._publish(sequence)
            if advance > 1 or not sequence.generated:
                stats.prefill_tokens += advance
            if sequence.computed < sequence.prompt_tokens + sequence.generated:
                continue  # the rest of its prompt follows
            sequence.generated += 1
            if sequence.generated == 1:
                prompt_tokens += sequence.prompt_tokens
                stats.computed_prompt_tokens += sequence.prompt_tokens - sequence.cached
                sequence.first_token_s = now_s
                stats.first_token_s.observe(now_s - sequence.arrived_s)
                stats.prefill_s.observe(now_s - (sequence.scheduled_s or 0.0))
            else:
                stats.token_gap_s.observe(now_s - sequence.last_token_s)
            sequence.last_token_s = now_s
            emitted.append(sequence)
            if sequence.generated >= sequence.answer_tokens:
                self._finish(sequence)
        stats.steps += 1
        stats.prefill_steps += prompt_tokens > 0
        stats.step_s = step.end_s - step.start_s
        stats.busy_s += stats.step_s
        stats.prompt_tokens += prompt_tokens
        stats.generated_tokens += len(emitted)
        stats.step_tokens.observe(prompt_tokens + len(emitted))
        if any(sequence.state == "finished" for sequence in emitted):
            self.running = [sequence for sequence in self.running if sequence.state == "running"]
        return emitted

    def _admit(self, now_s: float) -> None:
        while self._frontend and self._frontend[0].arrived_s + self.speed.frontend_s <= now_s:
            sequence = self._frontend.popleft()
            sequence.queued_s = sequence.arrived_s + self.speed.frontend_s
            sequence.state = "waiting"
            self.waiting.append(sequence)

    def _choose_running(self, sequences: list[Sequence], advances: list[int]) -> tuple[int, bool]:
        """Tokens left in the step's budget, and True after a preemption."""
        budget, preempted = self.limits.batch_tokens, False
        block_tokens, running = self.limits.block_tokens, self.running
        index = 0
        while index < len(running) and budget > 0:
            sequence = running[index]
            advance = sequence.prompt_tokens + sequence.generated - sequence.computed
            advance = min(advance, budget)
            missing = -(-(sequence.computed + advance) // block_tokens) - len(sequence.blocks)
            if missing > 0:
                fresh = self.pool.take(missing)
                while fresh is None and len(running) > index:
                    self._preempt(running.pop())
                    preempted = True
                    fresh = self.pool.take(missing) if len(running) > index else None
                if fresh is None:
                    break  # it was the youngest itself
                sequence.blocks += fresh
            sequences.append(sequence)
            advances.append(advance)
            budget -= advance
            index += 1
        return budget, preempted

    def _choose_waiting(self, now_s: float, budget: int, sequences: list[Sequence], advances: list[int]) -> None:
        block_tokens = self.limits.block_tokens
        while self.waiting and budget > 0 and len(self.running) < self.limits.slots:
            sequence = self.waiting[0]
            total = sequence.prompt_tokens + sequence.generated
            # The last token is always computed: its logits give the next token.
            cached = self.pool.lookup(sequence.prefix[: (total - 1) // block_tokens])
            hit = len(cached) * block_tokens
            advance = min(total - hit, budget)
            fresh = self.pool.take(-(-(hit + advance) // block_tokens) - len(cached), cached)
            if fresh is None:
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.blocks, sequence.computed, sequence.published = fresh, hit, len(cached)
            sequence.state = "running"
            if sequence.scheduled_s is None:
                sequence.scheduled_s, sequence.cached = now_s, hit
                self.stats.queue_s.observe(now_s - sequence.queued_s)
                self.stats.prefix_queries += sequence.prompt_tokens
                self.stats.prefix_hits += hit
            sequences.append(sequence)
            advances.append(advance)
            budget -= advance

    def _duration_s(self, sequences: list[Sequence], advances: list[int]) -> float:
        tokens = context = 0
        pairs = 0.0
        for sequence, advance in zip(sequences, advances, strict=True):
            reached = sequence.computed + advance
            tokens += advance
            context += reached
            pairs += advance * (reached - (advance - 1) / 2)
        duration_s = self.speed.duration_s(sequences=len(sequences), tokens=tokens, context_tokens=context, pairs=pairs)
        if self.limits.jitter:
            duration_s *= max(0.1, self._random.gauss(1, self.limits.jitter))
        return duration_s

    def _preempt(self, sequence: Sequence) -> None:
        """Drop its cache for later recomputation, which is vLLM's only policy."""
        self._release(sequence)
        sequence.computed = sequence.published = 0
        sequence.preemptions += 1
        sequence.state = "waiting"
        self.waiting.appendleft(sequence)
        self.stats.preemptions += 1

    def _publish(self, sequence: Sequence) -> None:
        ready = min(sequence.computed // self.limits.block_tokens, len(sequence.prefix))
        for index in range(sequence.published, ready):
            self.pool.publish(sequence.blocks[index], sequence.prefix[index])
        sequence.published = max(sequence.published, ready)

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []

    def _finish(self, sequence: Sequence) -> None:
        stats, now_s = self.stats, sequence.last_token_s
        scheduled_s = sequence.scheduled_s or 0.0
        self._release(sequence)
        sequence.state = "finished"
        stats.finished[sequence.finish_reason] += 1
        stats.request_s.observe(now_s - sequence.arrived_s)
        stats.inference_s.observe(now_s - scheduled_s)
        stats.decode_s.observe(now_s - sequence.first_token_s)
        stats.request_prompt_tokens.observe(sequence.prompt_tokens)
        stats.request_generated_tokens.observe(sequence.generated)
        stats.request_cached_tokens.observe(sequence.cached)
        stats.mean_token_with_prefill_s.observe((now_s - scheduled_s) / sequence.generated)
        if sequence.generated > 1:
            stats.mean_token_s.observe((now_s - sequence.first_token_s) / (sequence.generated - 1))
