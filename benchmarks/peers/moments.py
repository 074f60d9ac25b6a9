"""Detection and recovery from what an onlooker saw, and how far the instrument's numbers are from it. Pure.

The definitions are the design's, written a second time: detected is the fault's start, by the runtime's own event, to the
first signal that the system raised by itself; recovered is the fault's start to the instant from which every victim ran
and callers got good answers for `stable_s` seconds in a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WITHIN_S = 0.1
# An onlooker that did not look for longer than this cannot say when something began.
BLIND_S = 0.08

Line = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Seconds from the fault's start. `detected_by` names every signal that came within `WITHIN_S` of the first."""

    detect_s: float
    detected_by: frozenset[str]
    recover_s: float


class Blind(Exception):
    """The onlooker saw too little to contradict anybody."""


def seen(lines: Sequence[Line], victims: Collection[str], stable_s: float) -> Moments:
    """The moments of one trial. Raises Blind where the lines cannot tell."""
    events = [line for line in lines if line["saw"] == "event" and line["service"] in victims]
    hits = [line["at"] for line in events if line["action"] in {"die", "pause"}]
    if not hits:
        raise Blind(f"no event says that {', '.join(sorted(victims))} was hit")
    start_s = min(hits)
    signals = sorted((one["at"], one["name"]) for one in lines if one["saw"] == "signal" and one["at"] >= start_s)
    if not signals:
        raise Blind("no signal was raised")
    recovered_s = _recovered_s(lines, events, victims, stable_s)
    first_s = signals[0][0]
    _require_sight(lines, start_s, first_s, recovered_s)
    return Moments(
        detect_s=first_s - start_s,
        detected_by=frozenset(name for at, name in signals if at <= first_s + WITHIN_S),
        recover_s=recovered_s - start_s,
    )


def _recovered_s(lines: Sequence[Line], events: Sequence[Line], victims: Collection[str], stable_s: float) -> float:
    starts = {line["service"]: line["at"] for line in events if line["action"] in {"start", "unpause"}}
    if missing := sorted(set(victims) - set(starts)):
        raise Blind(f"no event says that {', '.join(missing)} came back")
    last_hit_s = max(line["at"] for line in events if line["action"] in {"die", "pause"})
    probes = sorted(
        (line["due"], line["good"]) for line in lines if line["saw"] == "probe" and line["due"] >= last_hit_s
    )
    bad = [due for due, good in probes if not good]
    back_s = float(max(starts.values()))
    if not bad:
        return back_s
    for due, good in probes:
        if good and not any(due <= at <= due + stable_s for at in bad):
            _require_edge([at for at in bad if at < due], due)
            return max(back_s, float(due))
    raise Blind("callers never got good answers again")


def _require_edge(bad: Sequence[float], good_s: float) -> None:
    """Where good and bad answers alternate, two callers who ask in turn see the last bad one at different times."""
    gap_s = max((b - a for a, b in itertools.pairwise([*bad[-2:], good_s])), default=0.0)
    if gap_s > BLIND_S:
        raise Blind(f"answers were good and bad by turns: the last bad ones {gap_s:.3f} s apart, at most {BLIND_S:g} s")


def _require_sight(lines: Sequence[Line], start_s: float, signal_s: float, stable_from_s: float) -> None:
    """Alerts must have been looked at up to the first signal, and callers sent up to the recovery, without a gap."""
    told = [line["why"] for line in lines if line["saw"] == "blind"]
    if told:
        raise Blind(told[0])
    looks = [line["answered"] for line in lines if line["saw"] == "look"]
    dues = [line["due"] for line in lines if line["saw"] == "probe"]
    for what, stamps, to_s in (("alerts", looks, signal_s), ("the api", dues, stable_from_s)):
        inside = [start_s, *sorted(at for at in stamps if start_s <= at <= to_s), to_s]
        gap_s = max(b - a for a, b in itertools.pairwise(inside))
        if gap_s > BLIND_S:
            raise Blind(f"{what} went unseen for {gap_s:.3f} s, at most {BLIND_S:g} s may pass")
    probes = (line for line in lines if line["saw"] == "probe" and start_s <= line["due"] <= stable_from_s)
    late_s = max((line["late"] for line in probes), default=0.0)
    if late_s > BLIND_S:
        raise Blind(f"a probe left {late_s:.3f} s late, at most {BLIND_S:g} s may pass")


def differences(told: Mapping[str, float], there: Moments) -> dict[str, float]:
    """Signed seconds, the instrument's number less the onlooker's."""
    return {name: value - getattr(there, name) for name, value in told.items()}


def complaints(told: Mapping[str, float], detected_by: str, there: Moments, within_s: float = WITHIN_S) -> list[str]:
    """What the instrument says that the onlooker does not bear out."""
    wrong = [
        f"{name}: the instrument says {told[name]:.3f} s, the onlooker {getattr(there, name):.3f} s: {apart:+.3f} s, "
        f"at most {within_s:g} s may lie between"
        for name, apart in differences(told, there).items()
        if not abs(apart) <= within_s
    ]
    if detected_by not in there.detected_by:
        wrong.append(f"detected by {detected_by}, the onlooker first saw {', '.join(sorted(there.detected_by))}")
    return wrong
