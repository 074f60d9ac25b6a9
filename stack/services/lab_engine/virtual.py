"""The machine on a virtual clock: an hour of traffic in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab_engine.scheduler import Scheduler
    from lab_engine.work import Sequence


def run(
    scheduler: Scheduler,
    arrivals: Iterable[Sequence],
    *,
    on_token: Callable[[Sequence, float], None] | None = None,
    slowdown: float = 1.0,
) -> float:
    """Serve all arrivals (in order of time), and return the time of the last token.

    Raises:
        RuntimeError: requests are left that can never run.
    """
    coming = iter(arrivals)
    following = next(coming, None)
    now_s = 0.0
    while True:
        while following is not None and following.arrived_s <= now_s:
            scheduler.add(following)
            following = next(coming, None)
        step = scheduler.begin(now_s, slowdown=slowdown)
        if step is None:
            times = [scheduler.next_ready_s, following.arrived_s if following is not None else None]
            known = [time_s for time_s in times if time_s is not None]
            if not known:
                if scheduler.unfinished:
                    raise RuntimeError(f"{scheduler.unfinished} requests can never run: the KV cache is too small")
                return now_s
            now_s = max(now_s, min(known))
            continue
        now_s = step.end_s
        # Arrivals during the step are queued before the next decision.
        while following is not None and following.arrived_s <= now_s:
            scheduler.add(following)
            following = next(coming, None)
        for sequence in scheduler.finish(step):
            if on_token is not None:
                on_token(sequence, now_s)
