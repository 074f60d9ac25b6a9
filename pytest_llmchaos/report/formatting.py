"""Values as people read them. Pure: no markup, no I/O."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from pytest_llmchaos.evidence.trial_result import Counts, RunResult

NONE = "\u2013"  # an en dash: what stands where there is no value
VERDICTS = tuple(Counts.__struct_fields__)  # what needs a reader first comes first
VERDICT_MARK = {"held": "✓", "refuted": "✗", "invalid": "∅", "inconclusive": "?", "heal_failed": "!"}
VERDICT_MEANS = {
    "held": "a claim held, and none did otherwise",
    "refuted": "a claim is wrong",
    "invalid": "proves nothing: the trial was not performed as planned, or not judged",
    "inconclusive": "proves nothing: the judge could not answer",
    "heal_failed": "a fault could not be undone",
}
FIDELITY_MEANS = {
    "real": "the real thing broke, by the runtime's own means",
    "kernel": "the kernel withheld a resource",
    "proxy": "a proxy between real parts misbehaved",
    "telemetry": "only a measured value was forged: says nothing about the engine itself",
    "simulated": "a simulated part was told to fail",
}

# Characters that act on a terminal or reorder text instead of showing themselves: controls but \t and \n, the soft
# hyphen's family of bidirectional marks and isolates, separators, zero-width characters, byte order marks, lone surrogates.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str, cut: int = 4000) -> str:
    """`text` with every character that would act instead of show itself spelled out, at most `cut` characters long."""
    if len(text) > cut:
        text = f"{text[:cut]}… ({len(text) - cut} more characters in run.json)"
    return _ACTING.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def one_line(value: object, cut: int = 200) -> str:
    """The text of `value` on one line: for tables, terminals and attributes."""
    return visible(" ".join(str(value).split()) if value is not None else "", cut)


def ran_as(run: RunResult) -> str:
    """What the services ran as where that was not containers, such as "process, not container"; else empty."""
    told = run.environment.get("services run as")
    return "" if told in (None, "containers") else one_line(told, 60)


def number(value: object) -> float | None:
    """`value` as a number, infinity included; None where it is none (absent, text, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def figure(value: object, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent between 0.0001 and 10 million; NONE where there is none."""
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
    """A moment on the trial's clock, to the millisecond so that two moments can be compared."""
    seen = number(value)
    return NONE if seen is None or math.isinf(seen) else f"{seen:.3f}"


def percent(value: object) -> str:
    """A ratio as a percentage; more digits close to 100 %, where they matter."""
    seen = number(value)
    if seen is None or math.isinf(seen):
        return figure(value)
    if 0 < abs(seen) < 0.001:
        return figure(seen * 100, 2) + " %"
    places = 3 if 0.99 <= seen < 1 else 2 if seen < 0.1 else 1
    text = f"{seen * 100:.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def utc(unix_s: object) -> str:
    seen = number(unix_s)
    if seen is None or not 0 <= seen < 253402300800:
        return NONE
    return datetime.fromtimestamp(seen, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(from_unix_s: object, to_unix_s: object) -> str:
    """How long something took, in the units that a person would say it in."""
    begin, end = number(from_unix_s), number(to_unix_s)
    if begin is None or end is None or not math.isfinite(end - begin):
        return NONE
    whole = max(0, round(end - begin))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def is_simulated(run: RunResult) -> bool:
    """Whether the answers came from the simulated engine: such a run says nothing about a real model's speed."""
    return (run.backend or "").strip().lower() in {"sim", "simulated"}
