"""Status and summary of a load, combined from its workers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COUNTS = ("offered", "sent", "done", "shed", "reconnected", "push_failures")


@dataclass(frozen=True, kw_only=True)
class LoadStatus:
    """The generator's newest status, at most 0.25 s old.

    Attributes:
        at_s: time of the status, in seconds since the start of the load.
        offered: requests that were due.
        sent: requests that were sent.
        done: requests that ended.
        shed: requests that were not sent, because too many were open.
        reconnected: requests that were sent again on a fresh connection.
        inflight: open requests.
        outcomes: counts of ended requests by outcome.
        lateness_p99_s: 99th percentile of the delay from due time to sending.
        cpu: share of a core that the generator used lately.
        push_failures: failed pushes to the pushgateway.
        settled_s: every request due before this second has ended and has a sample.
        begun_s: every request due before this second has its first token or has ended.
        overdue: due times of open requests that exceed their limits, by request id.
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
    """Figures of a load that is over.

    Attributes:
        offered: requests that were due.
        sent: requests that were sent.
        done: requests that ended.
        shed: requests that were not sent, because too many were open.
        offered_rps: due requests a second.
        achieved_ratio: sent / offered.
        lateness_p99_s: 99th percentile of the delay from due time to sending.
        generator_cpu: share of a core that the generator used, 1 for a whole core.
        push_failures: failed pushes to the pushgateway.
        ended: "schedule_end" if every request was sent before the stop.
        reconnected: requests that were sent again on a fresh connection, because the
            server had just closed the idle one.
        uncancelled: tasks that may still run, because their agent did not confirm that
            they are cancelled.
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
    uncancelled: int = 0


def status_of(lines: Sequence[Mapping[str, Any]], settled_s: float) -> LoadStatus:
    """Combine the workers' newest status lines."""
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


def summary_of(parts: Sequence[Mapping[str, Any]]) -> LoadSummary:
    """Combine the workers' summaries."""
    counts = {name: sum(one[name] for one in parts) for name in COUNTS}
    seconds = max([0.001, *(one["seconds"] for one in parts)])
    return LoadSummary(
        **counts,
        offered_rps=counts["offered"] / seconds,
        achieved_ratio=counts["sent"] / counts["offered"] if counts["offered"] else 0.0,
        lateness_p99_s=max(one["lateness_p99_s"] for one in parts),
        generator_cpu=max(one["generator_cpu"] for one in parts),
        uncancelled=sum(one.get("uncancelled", 0) for one in parts),
        ended="schedule_end" if all(one["ended"] == "schedule_end" for one in parts) else "stopped",
    )
