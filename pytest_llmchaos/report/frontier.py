"""Scaling policies compared: which keeps the objective with the fewest hours.

Pure. The cells come from the simulation, one for each policy, fault and seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from pytest_llmchaos.report.formatting import count, figure, percent

NO_FAULT = "none"


class Moment(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The fleet at one moment, a row in the simulation's lines.

    Attributes:
        at_s: Seconds since the first request.
        desired: Replicas that the policy wants.
        ready: Replicas that serve.
        cold: Replicas that start.
        draining: Replicas that finish their requests before they stop.
        waiting: Requests in the gateway's queue.
    """

    at_s: float
    desired: int
    ready: int
    cold: int
    draining: int
    waiting: int


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one simulated run, as the simulation prints it.

    Attributes:
        cell: Place in the plan of its process.
        policy: The policy as text.
        fault: The fault as text, or `none`.
        seed: Seed of the run.
        offered: Requests that arrived. Each is served, shed, lost or open.
        served: Requests with a whole answer.
        shed: Requests that the gateway refused.
        lost: Requests that began and failed.
        lost_at_zero: Refused requests for which no replica was there.
        open: Requests without an end when the simulation ended.
        cut_by_scale_down: Requests that ended because their replica was removed.
        attained: Ratio of requests within both latency targets to all offered ones,
            without those that are open and may still be in time.
        first_token_attained: The same for the first token alone, None if no request is
            left.
        token_gap_attained: The same for the gaps between tokens alone.
        first_token_p95_s: p95 of the time to the first token in seconds, None if more
            than 5 % got none.
        replica_s: Seconds of all replicas from their start to their stop.
        cold_s: The part of it in which they did not serve yet.
        flaps: Changes of direction within a short time.
        max_replicas: Most replicas at a time.
        min_ready: Fewest replicas that served at a time.
        fault_acts: How often the fault struck, by its name.
        syncs: Decisions of the policy.
        blind_syncs: Those without a fresh scrape.
        trajectory: The fleet over time.
    """

    cell: int
    policy: str
    fault: str
    seed: int
    offered: int
    served: int
    shed: int
    lost: int
    lost_at_zero: int
    open: int
    cut_by_scale_down: int
    attained: float
    first_token_attained: float | None
    token_gap_attained: float | None
    first_token_p95_s: float | None
    replica_s: float
    cold_s: float
    flaps: int
    max_replicas: int
    min_ready: int
    fault_acts: dict[str, int]
    syncs: int
    blind_syncs: int
    trajectory: tuple[Moment, ...] = ()

    @property
    def replica_h(self) -> float:
        """Hours of all replicas together."""
        return self.replica_s / 3600

    @property
    def struck(self) -> bool:
        """True if each part of the fault did something. Always true without one."""
        parts = {part.partition("(")[0].strip() for part in self.fault.split(" + ")}
        return all(part == NO_FAULT or self.fault_acts.get(part, 0) > 0 for part in parts)


@dataclass(frozen=True, kw_only=True)
class Point:
    """All seeds of one policy under one fault.

    Attributes:
        policy: The policy.
        fault: The fault.
        cells: Its runs in the order of their seeds.
        keeps: True if every run reached the objective.
        is_frontier: True if no other policy reached as much with as few hours.
    """

    policy: str
    fault: str
    cells: tuple[Cell, ...]
    keeps: bool
    is_frontier: bool = False

    @property
    def attained(self) -> float:
        """Mean ratio within the targets."""
        return statistics.fmean(cell.attained for cell in self.cells)

    @property
    def replica_h(self) -> float:
        """Mean replica-hours."""
        return statistics.fmean(cell.replica_h for cell in self.cells)

    def spread(self, value: Callable[[Cell], float]) -> tuple[float, float]:
        """Return the least and the largest value of a run."""
        found = [value(cell) for cell in self.cells]
        return min(found), max(found)

    @property
    def struck(self) -> bool:
        """True if the fault did something in a run.

        A policy that starts no replica is rightly not hit by slow starts.
        """
        return any(cell.struck for cell in self.cells)

    def total(self, value: Callable[[Cell], int]) -> int:
        """Return the sum of a count over all runs."""
        return sum(value(cell) for cell in self.cells)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One policy under all faults.

    Attributes:
        policy: The policy.
        points: Its results, one for each fault.
    """

    policy: str
    points: tuple[Point, ...]

    @property
    def kept(self) -> int:
        """Number of faults under which every run reached the objective."""
        return sum(point.keeps for point in self.points)

    @property
    def worst(self) -> Point:
        """The fault under which it reached the least."""
        return min(self.points, key=_least)

    @property
    def replica_h(self) -> float:
        """Mean replica-hours of all its runs."""
        return statistics.fmean(point.replica_h for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The comparison.

    Attributes:
        objective: Ratio of requests within their targets that a policy has to reach.
        points: Results by policy and fault, in the order of the command.
        ranks: The policies, the best first: those that keep the objective under the
            most faults, then those with the fewest hours.
    """

    objective: float
    points: tuple[Point, ...]
    ranks: tuple[Rank, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.fault for point in self.points))

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.policy for point in self.points))

    @property
    def idle_faults(self) -> tuple[str, ...]:
        """Faults that struck in no run. Their results show nothing."""
        return tuple(fault for fault in self.faults if not any(one.struck for one in self.by_fault(fault)))

    @property
    def best(self) -> Rank | None:
        """The cheapest policy that keeps the objective under every fault.

        None if there is no such policy, or if a fault never struck.
        """
        first = self.ranks[0]
        return first if first.kept == len(self.faults) and not self.idle_faults else None

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        # `none` is a condition, too, and no fault.
        goal = f"{percent(self.objective)} of requests within their targets"
        faults = count(len(self.faults), "condition")
        if self.best is not None:
            return f"{self.best.policy} keeps {goal} in all {faults} with the fewest replica-hours"
        if self.idle_faults:
            return f"Nothing is shown: {', '.join(self.idle_faults)} struck in no run"
        first = self.ranks[0]
        reached = f"reaches {below(_least(first.worst), self.objective)} under {first.worst.fault}"
        return f"No policy keeps {goal} in all {faults}; {first.policy} keeps it in {first.kept}, and {reached}"

    def by_fault(self, fault: str) -> tuple[Point, ...]:
        """Return the results under one fault."""
        return tuple(point for point in self.points if point.fault == fault)


def compare(cells: Sequence[Cell], objective: float) -> Frontier:
    """Return the comparison of complete runs.

    Args:
        cells: One run or more for each policy and fault.
        objective: Ratio of requests within their targets, 0 to 1.
    """
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell.policy, cell.fault), []).append(cell)
    points = [
        Point(
            policy=policy,
            fault=fault,
            cells=tuple(sorted(found, key=lambda cell: cell.seed)),
            keeps=all(cell.attained >= objective for cell in found),
        )
        for (policy, fault), found in grouped.items()
    ]
    marked = tuple(_marked(point, points) for point in points)
    policies = dict.fromkeys(point.policy for point in marked)
    ranks = [
        Rank(policy=policy, points=tuple(point for point in marked if point.policy == policy)) for policy in policies
    ]
    order = sorted(ranks, key=lambda rank: (-rank.kept, rank.replica_h if rank.kept else -_least(rank.worst)))
    return Frontier(objective=objective, points=marked, ranks=tuple(order))


def text_of(frontier: Frontier) -> str:
    """Return the comparison for a terminal."""
    wide = max(len(policy) for policy in frontier.policies)
    lines = []
    for fault in frontier.faults:
        lines.append(f"{fault}")
        for point in sorted(frontier.by_fault(fault), key=lambda point: (point.replica_h, -point.attained)):
            mark = "✓" if point.keeps else "✗"
            low, high = point.spread(lambda cell: cell.attained)
            hours_low, hours_high = point.spread(lambda cell: cell.replica_h)
            lines.append(
                f"  {mark} {point.policy:<{wide}}  {below(point.attained, frontier.objective):>8} "
                f"({below(low, frontier.objective)} to {below(high, frontier.objective)})  "
                f"{figure(point.replica_h):>6} replica-hours ({figure(hours_low)} to {figure(hours_high)})"
                f"{'  frontier' if point.is_frontier else ''}{_losses(point)}"
            )
    return "\n".join([*lines, "", f"{frontier.headline}.", ""])


def below(ratio: float, objective: float) -> str:
    """Return a ratio as a percentage that never rounds a miss up to the objective."""
    text = percent(ratio)
    return f"{math.floor(ratio * 1e5) / 1e3:.3f} %" if ratio < objective and text == percent(objective) else text


def _losses(point: Point) -> str:
    cut, at_zero = point.total(lambda cell: cell.cut_by_scale_down), point.total(lambda cell: cell.lost_at_zero)
    flaps = point.total(lambda cell: cell.flaps)
    blind = sum(cell.blind_syncs for cell in point.cells) / max(1, sum(cell.syncs for cell in point.cells))
    named = ((cut, "request", "cut by scale-down"), (at_zero, "request", "lost at zero"), (flaps, "flap", ""))
    missed = "" if point.struck else ", the fault did not strike"
    return (
        "".join(f", {count(n, noun)} {what}".rstrip() for n, noun, what in named if n)
        + (f", blind in {percent(blind)} of its decisions" if blind else "")
        + missed
    )


def _marked(point: Point, points: Sequence[Point]) -> Point:
    others = [other for other in points if other.fault == point.fault and other.policy != point.policy]
    is_beaten = any(
        other.attained >= point.attained
        and other.replica_h <= point.replica_h
        and (other.attained, other.replica_h) != (point.attained, point.replica_h)
        for other in others
    )
    return Point(
        policy=point.policy, fault=point.fault, cells=point.cells, keeps=point.keeps, is_frontier=not is_beaten
    )


def _least(point: Point) -> float:
    return min(cell.attained for cell in point.cells)
