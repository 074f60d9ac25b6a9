"""Detection and recovery as an onlooker recorded them.

The definitions are the design's, written a second time. Detected: from the fault's
start, by the runtime's own event, to the first signal that the system raised by itself.
Recovered: from the fault's start to the instant from which every victim took part (ran,
was healthy by its own check, was scraped and used by the gateway) and clients got good
answers to the end, for at least `stable_s` seconds. Settled: the same from the thaw of
a frozen victim.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WITHIN_S = 0.1
# A longer gap between two looks hides when something began.
BLIND_S = 0.08

Line = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Seconds from the fault's start, and `settle_s` from its end.

    `detected_by` names every signal that came within `WITHIN_S` of the first. Without a
    signal `detect_s` is infinite.
    """

    detect_s: float
    detected_by: frozenset[str]
    recover_s: float
    settle_s: float


class Blind(Exception):
    """The onlooker saw too little to contradict the instrument."""


def seen(lines: Sequence[Line], victims: Collection[str], stable_s: float, fault_s: float = 0.0) -> Moments:
    """The moments of one trial.

    `fault_s` are the seconds that a passing fault was in force. An earlier thaw ends
    nothing.

    Raises:
        Blind: the lines do not show it.
    """
    events = [line for line in lines if line["saw"] == "event" and line["service"] in victims]
    hits = [line["at"] for line in events if line["action"] in {"die", "pause"}]
    if not hits:
        raise Blind(f"no event shows that {', '.join(sorted(victims))} was hit")
    start_s = min(hits)
    signals = sorted((one["at"], one["name"]) for one in lines if one["saw"] == "signal" and one["at"] >= start_s)
    recovered_s = _recovered_s(lines, events, victims, stable_s)
    first_s = signals[0][0] if signals else math.inf
    _require_sight(lines, start_s, min(first_s, recovered_s), recovered_s)
    thawed_s = max(start_s + fault_s, *(line["at"] for line in events if line["action"] == "unpause"), 0.0)
    return Moments(
        detect_s=first_s - start_s,
        detected_by=frozenset(name for at, name in signals if at <= first_s + WITHIN_S),
        recover_s=recovered_s - start_s,
        settle_s=max(0.0, recovered_s - thawed_s),
    )


def _recovered_s(lines: Sequence[Line], events: Sequence[Line], victims: Collection[str], stable_s: float) -> float:
    back_s = max(_back_s(lines, events, victim) for victim in victims)
    last_hit_s = max(line["at"] for line in events if line["action"] in {"die", "pause"})
    probes = sorted(
        (line["due"], line["good"]) for line in lines if line["saw"] == "probe" and line["due"] >= last_hit_s
    )
    bad = [due for due, good in probes if not good]
    if not bad:
        return back_s
    good = [due for due, is_good in probes if is_good and due > bad[-1]]
    if not good or good[-1] < good[0] + stable_s:
        raise Blind("clients never got good answers again")
    if good[0] > back_s:
        _require_edge(bad, good[0])
    return max(back_s, float(good[0]))


def _back_s(lines: Sequence[Line], events: Sequence[Line], victim: str) -> float:
    """Latest instant at which all evidence shows a victim taking part again."""
    own = [line for line in events if line["service"] == victim]
    starts = [line["at"] for line in own if line["action"] in {"start", "unpause"}]
    if not starts:
        raise Blind(f"no event shows that {victim} came back")
    start_s = float(max(starts))
    hit_s = max(line["at"] for line in own if line["action"] in {"die", "pause"})
    died = any(line["action"] == "die" for line in own)
    healthy = [line["at"] for line in own if line["action"] == "health_status: healthy" and line["at"] >= start_s]
    back = [start_s, *healthy[:1]]
    parts = [line for line in lines if line["saw"] == "part" and line["service"] == victim]
    for is_scrape in (True, False):
        looks: dict[float, list[bool]] = {}
        for line in parts:
            if (line["what"] == "scrape") is is_scrape:
                looks.setdefault(line["at"], []).append(line["good"])
        again_s = _again_s({at: all(good) for at, good in looks.items()}, hit_s, start_s if died else None)
        if again_s is not None:
            back.append(again_s)
    return float(max(back))


def _again_s(looks: Mapping[float, bool], hit_s: float, start_s: float | None) -> float | None:
    """The first good look after the start. None without such a look.

    Without a start, the first good look after the first bad one.
    """
    before = [looks[at] for at in sorted(looks) if at < hit_s]
    if not before or not before[-1]:
        return None
    since_s = start_s
    if since_s is None:
        since_s = min((at for at, good in looks.items() if at >= hit_s and not good), default=None)
    if since_s is None:
        return None
    again = [at for at, good in looks.items() if good and at >= since_s]
    if not again:
        raise Blind("a victim was not seen to take part again")
    return min(again)


def _require_edge(bad: Sequence[float], good_s: float) -> None:
    """Refuse an edge at which good and bad answers alternate.

    Two clients who send in turn see the last bad answer at different times.
    """
    gap_s = max((b - a for a, b in itertools.pairwise([*bad[-2:], good_s])), default=0.0)
    if gap_s > BLIND_S:
        raise Blind(f"answers were good and bad by turns: the last bad ones {gap_s:.3f} s apart, at most {BLIND_S:g} s")


def _require_sight(lines: Sequence[Line], start_s: float, signal_s: float, stable_from_s: float) -> None:
    """Require looks at alerts and answers without a gap up to the recovery."""
    reasons = [line["why"] for line in lines if line["saw"] == "blind"]
    if reasons:
        raise Blind(reasons[0])
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


def differences(claimed: Mapping[str, float], there: Moments) -> dict[str, float]:
    """Signed seconds: the instrument's number less the onlooker's."""
    return {name: value - getattr(there, name) for name, value in claimed.items()}


def complaints(
    claimed: Mapping[str, float], detected_by: str | None, there: Moments, within_s: float = WITHIN_S
) -> list[str]:
    """Values of the instrument that the onlooker's evidence contradicts."""
    wrong = [
        f"{name}: the instrument has {claimed[name]:.3f} s, the onlooker {getattr(there, name):.3f} s: {apart:+.3f} s, "
        f"at most {within_s:g} s may lie between"
        for name, apart in differences(claimed, there).items()
        if not abs(apart) <= within_s
    ]
    if detected_by is not None and detected_by not in there.detected_by:
        wrong.append(f"detected by {detected_by}, the onlooker first saw {', '.join(sorted(there.detected_by))}")
    return wrong
