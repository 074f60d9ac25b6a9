"""Figures of a benchmark, as a table and as one JSON line."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

_HOLDS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number with its goal (`<= 0.01`) and the number of its peer."""

    value: float
    unit: str
    goal: str | None = None
    met: bool | None = None
    peer: float | Mapping[str, float] | None = None
    more: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        kept = {"value": self.value, "unit": self.unit, "goal": self.goal, "met": self.met, "peer": self.peer}
        return {**kept, **self.more}


def figure(
    value: float,
    unit: str,
    goal: str | None = None,
    *,
    peer: float | Mapping[str, float] | None = None,
    digits: int = 3,
    **more: float,
) -> Figure:
    """Judge the value against its goal, then round it.

    `more` is kept in the JSON and not printed.
    """
    met = None
    if goal is not None:
        sign, limit = goal.split()
        met = bool(_HOLDS[sign](round(value, 9), float(limit)))
    shown = round(peer, digits) if isinstance(peer, int | float) else peer
    return Figure(value=round(value, digits), unit=unit, goal=goal, met=met, peer=shown, more=more)


def publish(benchmark: str, figures: Mapping[str, Figure], *, as_json: bool) -> None:
    """Print the figures as a table, with `--json` also as a last line of JSON."""
    width = max(26, *(len(name) for name in figures)) if figures else 26
    print(f"{'figure':<{width}} {'value':>14} {'unit':<22} {'goal':<12} {'peer':>14}")
    for name, one in figures.items():
        peer = f"{one.peer:,g}" if isinstance(one.peer, int | float) else ""
        verdict = "" if one.met is None else "met" if one.met else "NOT MET"
        print(f"{name:<{width}} {one.value:>14,g} {one.unit:<22} {one.goal or '':<12} {peer:>14}  {verdict}".rstrip())
    if as_json:
        print(json.dumps({"benchmark": benchmark, "figures": {name: one.as_json() for name, one in figures.items()}}))
