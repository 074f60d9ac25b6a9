"""Samples binned into the few hundred points of a chart.

One pass over the samples. A million of them fit in 40 MB.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from pytest_llmchaos.evidence.trial_result import PhaseResult
from pytest_llmchaos.model import Sample
from pytest_llmchaos.stats.quantiles import nearest_rank

WIDTHS_S = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
SHED = frozenset({"http_429"})  # rejected by design: the client may retry
WRONG = frozenset({"truncated", "cut", "corrupted", "inband_error"})  # answers that began and are wrong or incomplete
UNKNOWN = frozenset({"cancelled", "left"})
KINDS = ("failed", "wrong", "shed")


@dataclass(kw_only=True)
class Raw:
    """One trial's samples as columns, without `cancelled` and `left` requests.

    Those two are evidence for neither success nor failure.
    """

    due_s: array[float] = field(default_factory=lambda: array("d"))
    sent_s: array[float] = field(default_factory=lambda: array("d"))
    end_s: array[float] = field(default_factory=lambda: array("d"))
    ttft_s: array[float] = field(default_factory=lambda: array("d"))  # infinite if the request failed
    kind: bytearray = field(default_factory=bytearray)  # 0 ok, else 1 + index in KINDS
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Values of one trial's charts, in bins of `width_s` seconds by due time.

    The last bin takes the rest, 0.5 to 1.5 widths. A quantile is None if no request was
    due, and infinite if too many requests failed for it to have a value.
    """

    width_s: float
    until_s: float
    offered: list[int]
    ok: list[int]
    bad: dict[str, list[int]]
    ttft_p50_s: list[float | None]
    ttft_p95_s: list[float | None]
    e2e_p95_s: list[float | None]
    inflight: list[int]
    dots: list[tuple[float, float]]
    """(due, time to first token) of answered requests, empty if there are too many."""

    @property
    def edges_s(self) -> list[float]:
        return [*(i * self.width_s for i in range(len(self.offered))), self.until_s]

    def per_second(self, counts: list[int]) -> list[float]:
        last_s = self.until_s - (len(counts) - 1) * self.width_s
        return [*(n / self.width_s for n in counts[:-1]), counts[-1] / last_s]


def gather(samples: Iterable[Sample]) -> Raw:
    raw = Raw()
    for sample in samples:
        outcome = sample.outcome
        if outcome in UNKNOWN:
            continue
        raw.outcomes[outcome] += 1
        raw.due_s.append(sample.due_s)
        raw.sent_s.append(sample.sent_s)
        raw.end_s.append(sample.end_s)
        if outcome == "ok":
            # An answer without a first token of its own, such as a task's, has an end.
            raw.ttft_s.append((sample.end_s if sample.first_s is None else sample.first_s) - sample.due_s)
            raw.kind.append(0)
        else:
            raw.ttft_s.append(math.inf)
            raw.kind.append(1 + KINDS.index(_kind(outcome)))
    return raw


def curves(raw: Raw, *, until_s: float, points: int, dots: int) -> Curves:
    """Return at most `points` bins up to `until_s` seconds.

    Includes single requests if at most `dots` of them were answered.
    """
    width_s = _width_s(until_s, points, len(raw.due_s))
    bins = max(1, int(until_s / width_s + 0.5))
    offered, ok = [0] * bins, [0] * bins
    bad = {kind: [0] * bins for kind in KINDS}
    ttft: list[list[float]] = [[] for _ in range(bins)]
    e2e: list[list[float]] = [[] for _ in range(bins)]
    for due_s, end_s, ttft_s, kind in zip(raw.due_s, raw.end_s, raw.ttft_s, raw.kind, strict=True):
        place = int(due_s / width_s)
        if place >= bins:
            place = bins - 1
        offered[place] += 1
        ttft[place].append(ttft_s)
        if kind:
            bad[KINDS[kind - 1]][place] += 1
            e2e[place].append(math.inf)
        else:
            ok[place] += 1
            e2e[place].append(end_s - due_s)
    for values in (*ttft, *e2e):
        values.sort()
    answered = sum(ok)
    return Curves(
        width_s=width_s,
        until_s=until_s,
        offered=offered,
        ok=ok,
        bad=bad,
        ttft_p50_s=[quantile(values, 0.5) for values in ttft],
        ttft_p95_s=[quantile(values, 0.95) for values in ttft],
        e2e_p95_s=[quantile(values, 0.95) for values in e2e],
        inflight=_inflight(raw, width_s, bins),
        dots=[(d, t) for d, t in zip(raw.due_s, raw.ttft_s, strict=True) if t < math.inf] if answered <= dots else [],
    )


def quantile(ordered: list[float], q: float) -> float | None:
    """Return the nearest-rank quantile, a measured value.

    With fewer than 1/(1-q) requests it is the slowest of them.
    """
    return ordered[nearest_rank(q, len(ordered)) - 1] if ordered else None


def with_counts(raw: Raw, phases: Iterable[PhaseResult]) -> tuple[PhaseResult, ...]:
    """Return the phases, with counts from the samples for those without a judgement.

    Samples count by due time. A phase that did not end lacks `offered`, because its
    open requests have no sample.
    """
    counted = []
    for phase in phases:
        if phase.offered is not None:
            counted.append(phase)
            continue
        to_s = math.inf if phase.to_s is None else phase.to_s
        inside = [i for i, due_s in enumerate(raw.due_s) if phase.from_s <= due_s < to_s]
        ok = sum(not raw.kind[i] for i in inside)
        counted.append(replace(phase, offered=None if phase.to_s is None else len(inside), ok=ok))
    return tuple(counted)


def _kind(outcome: str) -> str:
    return "shed" if outcome in SHED else "wrong" if outcome in WRONG else "failed"


def _width_s(until_s: float, points: int, samples: int) -> float:
    """Return the finest of WIDTHS_S that makes at most `points` bins.

    Widths below 1 s need a mean of 20 requests in each bin.
    """
    for width_s in WIDTHS_S:
        if until_s / width_s <= points and (width_s >= 1 or samples * width_s >= 20 * until_s):
            return width_s
    return max(until_s / points, WIDTHS_S[-1])


def _inflight(raw: Raw, width_s: float, bins: int) -> list[int]:
    """Return the most concurrent requests in each bin.

    Concurrency peaks at the beginning of a bin or after a request that is sent in it.
    """
    sent, ended = sorted(raw.sent_s), sorted(raw.end_s)
    most = [bisect_left(sent, i * width_s) - bisect_right(ended, i * width_s) for i in range(bins)]
    for left, sent_s in enumerate(sent, 1):
        now, place = left - bisect_right(ended, sent_s), max(0, min(bins - 1, int(sent_s / width_s)))
        most[place] = max(most[place], now)
    return most
