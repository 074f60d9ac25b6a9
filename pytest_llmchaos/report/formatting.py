"""Values formatted for readers."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from pytest_llmchaos.evidence.trial_result import Counts, RunResult, ShareInterval, SloVerdict
from pytest_llmchaos.servers.bounds import described

NONE = "\u2013"  # an en dash in place of a missing value
VERDICTS = tuple(Counts.__struct_fields__)  # the most urgent verdict first
VERDICT_MARK = {"held": "✓", "refuted": "✗", "invalid": "∅", "inconclusive": "?", "heal_failed": "!"}
VERDICT_MEANS = {
    "held": "all claims held",
    "refuted": "a claim failed",
    "invalid": "proves nothing: the trial was not performed as planned, or was not judged",
    "inconclusive": "proves nothing: the evidence does not decide",
    "heal_failed": "a fault could not be reverted",
}
FIDELITY_MEANS = {
    "real": "a real part failed, by the runtime's own means",
    "kernel": "the kernel withheld a resource",
    "proxy": "a proxy between real parts caused the failure",
    "telemetry": "only a measured value was forged, so this proves nothing about the engine",
    "simulated": "a simulated part failed on command",
}

# Characters that control a terminal or reorder text: controls except \t and \n,
# bidirectional marks and isolates, separators, zero-width characters, byte order marks,
# lone surrogates.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str, cut: int = 4000) -> str:
    """Return `text` with control characters spelled out, at most `cut` characters."""
    if len(text) > cut:
        text = f"{text[:cut]}… ({len(text) - cut} more characters in run.json)"
    return _ACTING.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def one_line(value: object, cut: int = 200) -> str:
    """Return the text of `value` on one line, for tables, terminals and attributes."""
    return visible(" ".join(str(value).split()) if value is not None else "", cut)


def ran_as(run: RunResult) -> str:
    """Return what the services ran as, such as "process, not container".

    Empty if they were containers.
    """
    found = run.environment.get("services run as")
    return "" if found in (None, "containers") else one_line(found, 60)


def number(value: object) -> float | None:
    """Return `value` as a number or infinity, None if it is absent, text or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def figure(value: object, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, NONE if it is missing.

    Only numbers below 0.0001 or from 10 million on have an exponent.
    """
    seen = number(value)
    if seen is None:
        return NONE if value is None or isinstance(value, float) else one_line(value, 40)
    if math.isinf(seen):
        return "∞"
    if seen == 0 or 1e-4 <= abs(seen) < 1e7:
        places = max(0, digits - 1 - math.floor(math.log10(abs(seen)))) if seen else 0
        text = f"{seen:,.{min(places, 6)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{seen:.{digits - 1}e}"


def seconds(value: object) -> str:
    text = figure(value)
    return text if text == NONE else f"{text} s"


def at(value: object) -> str:
    """Return a moment on the trial's clock, in seconds to the millisecond."""
    seen = number(value)
    return NONE if seen is None or math.isinf(seen) else f"{seen:.3f}"


def percent(value: object) -> str:
    """Return a ratio as a percentage, with more digits close to 100 %."""
    seen = number(value)
    if seen is None or math.isinf(seen):
        return figure(value)
    if 0 < abs(seen) < 0.001:
        return figure(seen * 100, 2) + " %"
    places = 3 if 0.99 <= seen < 1 else 2 if seen < 0.1 else 1
    text = f"{seen * 100:.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def share(slo: SloVerdict) -> str:
    """Return an SLO's share of good events as a percentage, or as two."""
    ends = (slo.value,) if slo.interval is None else (slo.interval.low, slo.interval.high)
    return " to ".join(map(percent, ends))


def coarse(interval: ShareInterval) -> str:
    """Return why a share is an interval."""
    upper_s = math.inf if interval.upper_edge_s is None else interval.upper_edge_s
    return f"bound {interval.bound_s:g} s lies {described(interval.lower_edge_s, upper_s)}"


def utc(unix_s: object) -> str:
    seen = number(unix_s)
    if seen is None or not 0 <= seen < 253402300800:
        return NONE
    return datetime.fromtimestamp(seen, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(from_unix_s: object, to_unix_s: object) -> str:
    """Return a duration in hours, minutes and seconds."""
    begin, end = number(from_unix_s), number(to_unix_s)
    if begin is None or end is None or not math.isfinite(end - begin):
        return NONE
    whole = max(0, round(end - begin))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def is_simulated(run: RunResult) -> bool:
    """True if the simulated engine answered. Such a run shows no real model's speed."""
    return (run.backend or "").strip().lower() in {"sim", "simulated"}
