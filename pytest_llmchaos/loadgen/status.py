"""How the load goes, and how it went: what the workers told, as one value. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COUNTS = ("offered", "sent", "done", "shed", "reconnected", "push_failures")


@dataclass(frozen=True, kw_only=True)
class LoadStatus:
    """The generator's latest word, at most a quarter of a second old.

    Every request due before `settled_s` has ended, and its sample has been seen.
    Every request due before `begun_s` has shown its first token or has ended.
    `overdue` are due times of open requests, by their ids, that are older than their own limits.
    """

    at_s: float = 0.0
    offered: int = 0
    sent: int = 0
    done: int = 0
    shed: int = 0
    reconnected: int = 0
    inflight: int = 0
    outcomes: Mapping[str, int]
    lateness_p99_s: float = 0.0
    cpu: float = 0.0
    push_failures: int = 0
    settled_s: float = 0.0
    begun_s: float = 0.0
    overdue: Mapping[str, float] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class LoadSummary:
    """What the load was, once it is over. `achieved_ratio` is sent / offered; `generator_cpu` is 1 for a whole core.

    `reconnected` requests were sent again on a fresh connection, because the server had just closed the idle one.
    """

    offered: int
    sent: int
    done: int
    shed: int
    offered_rps: float
    achieved_ratio: float
    lateness_p99_s: float
    generator_cpu: float
    push_failures: int
    ended: Literal["stopped", "schedule_end"]
    reconnected: int = 0


def status_of(lines: Sequence[Mapping[str, Any]], settled_s: float) -> LoadStatus:
    """The status of all workers; `lines` holds the latest of each."""
    outcomes: dict[str, int] = {}
    for line in lines:
        for name, count in line["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
    return LoadStatus(
        at_s=min(line["at_s"] for line in lines),
        outcomes=outcomes,
        lateness_p99_s=max(line["lateness_p99_s"] for line in lines),
        cpu=max(line["cpu"] for line in lines),
        settled_s=settled_s,
        begun_s=min(line["begun_s"] for line in lines),
        overdue={name: due_s for line in lines for name, due_s in line["overdue"].items()},
        **{name: sum(line[name] for line in lines) for name in (*COUNTS, "inflight")},
    )


def summary_of(told: Sequence[Mapping[str, Any]]) -> LoadSummary:
    """The summary of all workers' summaries."""
    counts = {name: sum(one[name] for one in told) for name in COUNTS}
    seconds = max([0.001, *(one["seconds"] for one in told)])
    return LoadSummary(
        **counts,
        offered_rps=counts["offered"] / seconds,
        achieved_ratio=counts["sent"] / counts["offered"] if counts["offered"] else 0.0,
        lateness_p99_s=max(one["lateness_p99_s"] for one in told),
        generator_cpu=max(one["generator_cpu"] for one in told),
        ended="schedule_end" if all(one["ended"] == "schedule_end" for one in told) else "stopped",
    )
