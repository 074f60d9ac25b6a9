"""Counter selectors inside PromQL queries such as `sum(rate(x_total[5m]))`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_llmchaos.slo.selectors import expected_of, matchers_of

_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)""", re.DOTALL)
_SUM = re.compile(r"(?:sum\s*)?\((.*)\)")
# Any range: 5m, {{.window}}, $__rate_interval. A colon would make it a subquery.
_RATE = re.compile(r"(?:rate|irate|increase)\s*\((.*)\[[^\[\]:]+\]\s*\)")
_OR_ZERO = re.compile(r"(.*)\sor\s+(?:on\s*\(\s*\)\s*)?vector\s*\(\s*0\s*\)", re.IGNORECASE)
_OPPOSITE = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}

NO_BAD_COUNTER = (
    'a part of total, such as x_total{code=~"5.."} of x_total, another counter, such as x_failed_total, '
    "or total minus good events"
)


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Selectors of all events of an SLO, and of the good or the bad ones."""

    total: str
    good: str = ""
    bad: str = ""


def has_line_break_in_quotes(query: str) -> bool:
    """True if a label value goes over several lines, which no selector can hold."""
    return any("\n" in quoted for quoted in _QUOTED.findall(query))


def counter_of(query: str) -> str:
    """Return the selector of the only counter in a query.

    Drops functions that do not change which events are counted: `sum`, `rate`, `irate`,
    `increase`, brackets and `or vector(0)`. The rest is returned as it is, so a query
    of other functions is not a valid selector.
    """
    rest = _one_line(query)
    while found := _OR_ZERO.fullmatch(rest) or _SUM.fullmatch(rest):
        rest = found[1].strip()
    if rate := _RATE.fullmatch(rest):
        rest = rate[1].strip()
    return rest


def good_of(bad: str, total: str) -> str | None:
    """Return the selector of the events in `total` that the query `bad` does not count.

    It is exact, or None. Bad events are the total's series with one more matcher, or a
    difference of the total and the good events.

    Args:
        bad: The query of bad events.
        total: The selector of all events.
    """
    left, right = _difference(_one_line(bad))
    if right:
        good = counter_of(right)
        is_valid = expected_of(good) is None and is_same(counter_of(left), total)
        return good if is_valid else None
    selector = counter_of(bad)
    if expected_of(selector) is not None:
        return None
    (metric, of_bad), (of_metric, of_total) = matchers_of(selector), matchers_of(total)
    more = [one for one in of_bad if one not in of_total]
    if metric != of_metric or len(more) != 1 or any(one not in of_bad for one in of_total):
        return None
    label, operator, value = more[0]
    matchers = [f"{one}{is_}{text}" for one, is_, text in (*of_total, (label, _OPPOSITE[operator], value))]
    return f"{metric}{{{', '.join(matchers)}}}"


def counters_without(bad: str, total: str) -> Counters | None:
    """Return the counters of an SLO by its query of bad events, or None.

    Good events have a selector if `good_of` finds one. If not, the bad ones are
    counted: a part of the total's series, or another metric. That one's events must be
    among the total's, which no query shows.

    Args:
        bad: The query of bad events.
        total: The selector of all events.
    """
    good = good_of(bad, total)
    if good is not None:
        return Counters(good=good, total=total)
    selector = counter_of(bad)
    if expected_of(selector) is not None:
        return None
    (metric, of_bad), (of_metric, of_total) = matchers_of(selector), matchers_of(total)
    is_part = len(of_bad) > len(of_total) and all(one in of_bad for one in of_total)
    return Counters(bad=selector, total=total) if metric != of_metric or is_part else None


def is_same(selector: str, total: str) -> bool:
    """True if a text is a selector of the same series as another selector."""
    if expected_of(selector) is not None:
        return False
    (metric, matchers), (of_total, others) = matchers_of(selector), matchers_of(total)
    return metric == of_total and sorted(matchers) == sorted(others)


def _difference(query: str) -> tuple[str, str]:
    """Return both sides of the only minus outside of brackets, else the query alone."""
    while query.startswith("(") and query.endswith(")") and _depths(query)[:-1].count(0) == 0:
        query = query[1:-1].strip()
    depths = _depths(query)
    at = [index for index, one in enumerate(query) if one == "-" and depths[index] == 0]
    return (query[: at[0]].strip(), query[at[0] + 1 :].strip()) if len(at) == 1 else (query, "")


def _depths(query: str) -> list[int]:
    """Return the number of open brackets after each character, 1 or more in quotes."""
    found: list[int] = []
    depth = 0
    for index, part in enumerate(_QUOTED.split(query)):
        if index % 2:
            found += [max(depth, 1)] * len(part)
            continue
        for one in part:
            depth += (one in "([{") - (one in ")]}")
            found.append(depth)
    return found


def _one_line(query: str) -> str:
    """Return the query with single blanks outside of quotes, and without backquotes."""
    parts = _QUOTED.split(query)
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = re.sub(r"\s+", " ", part)
        elif part.startswith("`"):
            escaped = part[1:-1].replace("\\", "\\\\").replace('"', '\\"')
            parts[index] = f'"{escaped}"'
    return "".join(parts).strip()
