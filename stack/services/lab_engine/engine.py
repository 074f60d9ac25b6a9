"""The machine in real time: the clock drives the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lab_engine.answers import Answer, RefusedError, Sink
from lab_engine.gpu import Gpu, Reading
from lab_engine.leases import Faults
from lab_engine.names import SERVERS
from lab_engine.scheduler import Scheduler
from lab_engine.stats import STEP_LATE_S, Histogram
from lab_engine.work import Sequence, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_engine.chat import ChatRequest
    from lab_engine.settings import Settings

Life = Literal["loading", "serving", "dead"]

# When further behind than this, skip the lost time instead of racing through it.
MOST_CAUGHT_UP_S = 0.25
# vLLM's text for requests in flight at the death of its engine (EngineDeadError).
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """Values of the gauges at one instant."""

    running: int
    waiting: int
    cache_used_ratio: float


class Engine:
    """Serves requests, and applies faults."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        profile = settings.profile
        self.settings = settings
        self.clock = clock
        self.life: Life = "loading"
        self.faults = Faults()
        self.names = SERVERS[settings.metrics]
        self.scheduler = Scheduler(
            speed=profile.speed,
            limits=profile.limits,
            seed=settings.seed,
            bounds=self.names.bounds(profile.limits),
        )
        self.late_s = Histogram(STEP_LATE_S)  # delay of the last token of each step
        self.load_s = settings.load_s
        self._gpu = Gpu(profile.gpu, clock())
        self._answers: dict[str, Answer] = {}
        self._arrivals = 0
        self._changed = asyncio.Event()
        self._frozen: Gauges | None = None
        self._loading_since_s = clock()

    # For clients.

    def require_ready(self) -> None:
        """Check that a request could be taken now.

        Raises:
            RefusedError: the model is loading, the engine failed, or the queue is full.
        """
        if self.life == "dead" or self.faults.effects.erring:
            self.faults.count_refusal()
            raise RefusedError(DEAD, status=500, kind="InternalServerError")
        if self.life == "loading":
            raise RefusedError("the model is still loading", status=503, kind="ServiceUnavailableError")
        waiting = self.scheduler.unfinished - len(self.scheduler.running)
        if waiting > self.settings.queue_max:
            most = self.settings.queue_max
            raise RefusedError(
                f"the engine's queue is full: {waiting} requests wait, at most {most} may",
                status=503,
                kind="ServiceUnavailableError",
            )

    def submit(self, name: str, request: ChatRequest, prefix: tuple[bytes, ...], sink: Sink) -> Sequence:
        self.require_ready()
        sequence = Sequence(
            name=name,
            arrived_s=self.clock(),
            prompt_tokens=request.prompt_tokens,
            answer_tokens=request.answer_tokens,
            # vLLM counts an answer with tool calls as one that the model ended.
            finish_reason="stop" if request.finish_reason == "tool_calls" else request.finish_reason,
            prefix=prefix,
        )
        answer = Answer(request=request, sink=sink, text=request.text)
        self._arrivals += 1
        corruption = self.faults.effects.corruption
        if corruption is not None:
            rng = random.Random(f"{self.settings.seed}|{self._arrivals}")  # noqa: S311 - a repeatable draw, no secret
            if corruption.corrupt(answer, self._answers.values(), rng):
                self.faults.count(corruption.kind, "requests")
        self.scheduler.add(sequence)
        self._answers[name] = answer
        self._changed.set()
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Drop a request whose client has left. No effect on a finished one."""
        self._answers.pop(sequence.name, None)
        if self.scheduler.abort(sequence):
            self._changed.set()  # other requests may wait for its blocks

    # For instruments.

    def gauges(self) -> Gauges:
        """The gauges. A hung engine reports its last values."""
        return self._frozen or self._gauges_now()

    def gpu(self) -> Reading:
        return self._gpu.read(
            self.clock(),
            self.scheduler.stats.busy_s,
            reserved_bytes=self._reserved_bytes(),
            effects=self.faults.effects,
        )

    # For faults.

    def apply_faults(self) -> None:
        """Apply the combined effects of the faults in force."""
        effects = self.faults.effects
        pool = self.scheduler.pool
        pool.withheld = round(pool.count * effects.withheld_ratio)
        if not effects.hung:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = self._gauges_now()
        self._changed.set()

    def die(self) -> int:
        """End the engine process.

        Every request in flight fails as vLLM's do. Returns their number.
        """
        self.life = "dead"
        return self._fail_all(RefusedError(DEAD, status=500, kind="InternalServerError"))

    def drop_model(self) -> int:
        """Reload the model once memory allows. Returns failed requests."""
        self.life = "loading"
        return self._fail_all(
            RefusedError("the model is being loaded anew", status=503, kind="ServiceUnavailableError")
        )

    def fail_in_flight(self) -> int:
        return self._fail_all(RefusedError(DEAD, status=500, kind="InternalServerError"))

    # The machine.

    async def run(self) -> None:
        """Load and serve, repeatedly, until cancelled."""
        while True:
            await self._load()
            await self._serve()
            while self.life == "dead":
                await self._until_change()

    async def _load(self) -> None:
        self._loading_since_s = self.clock()
        while self.life == "loading":
            if self.faults.effects.memory_taken:
                self._loading_since_s = self.clock()
                await self._until_change()
                continue
            left_s = self._loading_since_s + self.load_s - self.clock()
            if left_s <= 0:
                self.scheduler.pool.forget()
                self.life = "serving"
                return
            await self._until_change(left_s)

    async def _serve(self) -> None:
        scheduler, now_s = self.scheduler, self.clock()
        while self.life == "serving":
            effects = self.faults.effects
            step = None if effects.hung else scheduler.begin(now_s, slowdown=effects.slowdown)
            if step is None:
                ready_s = None if effects.hung else scheduler.next_ready_s
                await self._until_change(None if ready_s is None else ready_s - self.clock())
                now_s = self.clock()
                continue
            # Steps have ideal times, so a late wake-up delays one token only.
            await asyncio.sleep(max(0.0, step.end_s - self.clock()))
            if self._stuck():
                while self._stuck():
                    await self._until_change()
                step = replace(step, end_s=self.clock())
            if not self._model_gone():
                now_s = self._finish(step)

    def _finish(self, step: Step) -> float:
        """Hand out the step's tokens, and return the start of the next step."""
        corruption = self.faults.effects.corruption
        for sequence in self.scheduler.finish(step):
            last = sequence.state == "finished"
            answer = self._answers.pop(sequence.name, None) if last else self._answers.get(sequence.name)
            if answer is None:
                continue
            index = sequence.generated - 1
            if answer.corruption is not None and answer.corruption is corruption:
                piece = answer.corrupted_piece(index)
                self.faults.count(corruption.kind, "tokens")
            else:
                piece = answer.piece(index)
            answer.sink.token(piece, first=index == 0, last=last)
        if self.faults.active:
            for lease in self.faults.active.values():
                lease.counters["steps"] += 1
        late_s = self.clock() - step.end_s
        self.late_s.observe(max(0.0, late_s))
        return step.end_s if late_s <= MOST_CAUGHT_UP_S else self.clock()

    def _stuck(self) -> bool:
        return self.faults.effects.hung and self.life == "serving"

    def _model_gone(self) -> bool:
        return self.life != "serving"

    async def _until_change(self, at_most_s: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at_most_s is None else max(0.0, at_most_s)):
                await self._changed.wait()
        self._changed.clear()

    def _fail_all(self, error: RefusedError) -> int:
        scheduler = self.scheduler
        for sequence in scheduler.all_unfinished():
            scheduler.abort(sequence, "error")
        answers, self._answers = list(self._answers.values()), {}
        for answer in answers:
            answer.sink.failed(error)
        self._changed.set()
        return len(answers)

    def _gauges_now(self) -> Gauges:
        scheduler = self.scheduler
        running = len(scheduler.running)
        return Gauges(
            running=running, waiting=scheduler.unfinished - running, cache_used_ratio=scheduler.pool.used_ratio
        )

    def _reserved_bytes(self) -> int:
        reserved = self.settings.profile.reserved_bytes
        if self.life == "loading":
            loaded = (self.clock() - self._loading_since_s) / self.load_s if self.load_s else 1.0
            return int(reserved * min(1.0, loaded))
        return reserved if self.life == "serving" else 0
