"""Validation of counter selectors such as `metric_total{label="value"}`.

Finds what Prometheus would reject before a rule file is written.
"""

from __future__ import annotations

import re
import warnings

_TEXT = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_LABEL = rf"[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*{_TEXT}"
_SELECTOR = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{{\s*(?:{_LABEL}\s*(?:,\s*{_LABEL}\s*)*,?)?\s*\}})?", re.ASCII)
_MATCHER = re.compile(rf"([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*({_TEXT})", re.ASCII)
# Words that PromQL parses as keywords or numbers, not as metric names.
_RESERVED = frozenset({"atan2", "bool", "group_left", "group_right", "ignoring", "inf", "nan", "on"})
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.)|$)", re.DOTALL
)
_CONTROLS = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))
# Quoted literals, escaped characters and character classes.
_LITERAL = re.compile(r"\\Q.*?(?:\\E|$)|\\[^A-Za-z0-9]", re.DOTALL)
_SET = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]")
# In Python but not in RE2: look-around, atomic groups, back-references, `*+`.
_NOT_RE2 = re.compile(r"\(\?(?:[=!>(#]|<[=!]|P=)|[*+?}]\+|\\[1-9ZuUN]")
_NUMBER = r"(0|[1-9]\d*)"
_REPEAT = rf"\{{{_NUMBER}(?:,{_NUMBER}?)?\}}"
_REPEATS = re.compile(_REPEAT, re.ASCII)
_MOST_REPEATS = 1000
# In RE2 but not in Python, each with a Python equivalent for the syntax check.
_ONLY_RE2 = (
    (r"\\[pP](?:\{\^?\w+\}|\w)|\\C|\\x\{[0-9a-fA-F]+\}", "."),
    (r"\\z", "$"),
    (r"\[:\^?\w+:\]", "_"),
    (r"\(\?[imsU]*(?:-[imsU]+)?\)", ""),
    (rf"(?!{_REPEAT})\{{[\d,]*\}}", "_"),  # literal braces
)
_FLAGS = re.compile(r"\(\?[imsU]*(?:-[imsU]+)?:")


def expected_of(selector: str) -> str | None:
    """Return what an invalid selector must be instead, None if it is valid."""
    found = _SELECTOR.fullmatch(selector)
    if found is None:
        return 'metric_total{label="value"} without functions (the arithmetic is added here)'
    if found[1].lower() in _RESERVED:
        return f"a metric whose name is not a word of PromQL, as {found[1]} is"
    for label, operator, quoted in _MATCHER.findall(found[2] or ""):
        if label == "__name__":
            return f"without __name__, for it names the metric already ({found[1]})"
        value = unquoted(quoted)
        if value is None:
            return f"with texts whose escapes are valid in PromQL, unlike {quoted} (write a backslash twice)"
        if operator in ("=~", "!~") and not _is_re2(value):
            return f"with regular expressions that Prometheus accepts (RE2), unlike {quoted}"
    return None


def matchers_of(selector: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the metric of a valid selector, and its matchers in three parts."""
    metric, _, rest = selector.partition("{")
    return metric.strip(), _MATCHER.findall(rest)


def unquoted(quoted: str) -> str | None:
    """Return the text between quotes, None if an escape is invalid in PromQL."""
    quote, bad = quoted[0], False

    def character(escape: re.Match[str]) -> str:
        nonlocal bad
        control, octal, other = escape[1], escape[2], escape[6]
        if control is not None:
            return _CONTROLS[control]
        code = int(octal, 8) if octal else int(escape[3] or escape[4] or escape[5] or "-1", 16)
        if other == quote:
            return quote
        if code < 0 or (octal and code > 0xFF) or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            bad = True
            return ""
        return chr(code)

    text = _ESCAPE.sub(character, quoted[1:-1])
    return None if bad else text


def _is_re2(pattern: str) -> bool:
    """True if RE2 accepts the pattern, as far as Python's `re` can check."""
    plain = _LITERAL.sub("_", pattern)
    without_sets = _SET.sub("_", plain)
    repeats = [number for pair in _REPEATS.findall(without_sets) for number in pair if number]
    too_many = any(len(number) > 4 or int(number) > _MOST_REPEATS for number in repeats)
    if too_many or _NOT_RE2.search(without_sets):
        return False
    for only, like in _ONLY_RE2:
        plain = re.sub(only, like, plain)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of [[:alpha:]], which RE2 has
            re.compile(_FLAGS.sub("(?:", plain))
    except (re.error, RecursionError):
        return False
    return True
