"""The machine in real time: drives the scheduler by the event loop's clock and hands tokens to those who wait."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal, Protocol

from lab_engine.scheduler import Scheduler, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_engine.chat import ChatRequest
    from lab_engine.settings import Settings

Life = Literal["loading", "serving", "dead"]

# Behind by more than this the machine accepts that the time is lost instead of racing through missed steps.
MOST_CAUGHT_UP_S = 0.25


class RefusedError(Exception):
    """A request that the engine cannot take now: answered with `status` and this text."""

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Sink(Protocol):
    """Where the tokens of one request go. Must not raise and must not block."""

    def token(self, index: int, *, last: bool) -> None: ...
    def failed(self, error: RefusedError) -> None: ...


class Engine:
    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        profile = settings.profile
        self.settings = settings
        self.clock = clock
        self.life: Life = "loading"
        self.started_at = time.time()  # Unix seconds, a label only
        self.scheduler = Scheduler(speed=profile.speed, limits=profile.limits, seed=settings.seed)
        self._sinks: dict[str, Sink] = {}
        self._work = asyncio.Event()

    def require_ready(self) -> None:
        """Raise RefusedError unless a request could be taken now."""
        if self.life == "loading":
            raise RefusedError("the model is still loading", status=503, kind="ServiceUnavailableError")
        scheduler = self.scheduler
        waiting = scheduler.unfinished - len(scheduler.running)
        if waiting > self.settings.queue_max:
            raise RefusedError(
                f"the engine's queue is full: {waiting} requests wait, at most {self.settings.queue_max} may",
                status=503,
                kind="ServiceUnavailableError",
            )

    def submit(self, name: str, request: ChatRequest, prefix: tuple[bytes, ...], sink: Sink) -> Sequence:
        self.require_ready()
        scheduler = self.scheduler
        sequence = Sequence(
            name=name,
            arrived_s=self.clock(),
            prompt_tokens=request.prompt_tokens,
            answer_tokens=request.answer_tokens,
            finish_reason=request.finish_reason,
            prefix=prefix,
        )
        scheduler.add(sequence)
        self._sinks[name] = sink
        self._work.set()
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """The caller has left. Harmless for a request that is done."""
        self._sinks.pop(sequence.name, None)
        self.scheduler.abort(sequence)

    async def run(self) -> None:
        """Load, then step until cancelled."""
        await asyncio.sleep(self.settings.load_s)
        self.life = "serving"
        scheduler, now_s = self.scheduler, self.clock()
        while True:
            step = scheduler.begin(now_s)
            if step is None:
                await self._until_work()
                now_s = self.clock()
                continue
            # Steps follow one another on their own ideal times, so a late wake-up delays one token, not all later ones.
            await asyncio.sleep(max(0.0, step.end_s - self.clock()))
            for sequence in scheduler.finish(step):
                last = sequence.state == "finished"
                sink = self._sinks.pop(sequence.name, None) if last else self._sinks.get(sequence.name)
                if sink is not None:
                    sink.token(sequence.generated - 1, last=last)
            late_s = self.clock() - step.end_s
            now_s = step.end_s if late_s <= MOST_CAUGHT_UP_S else self.clock()

    async def _until_work(self) -> None:
        self._work.clear()
        ready_s = self.scheduler.next_ready_s
        if ready_s is None:
            await self._work.wait()
        else:
            await asyncio.sleep(max(0.0, ready_s - self.clock()))
