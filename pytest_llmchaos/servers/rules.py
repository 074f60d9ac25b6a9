"""Recording rules that give each server's metrics their canonical names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.canonical import CANONICAL, PARTS
from pytest_llmchaos.servers.mapping import BUCKET_FACTORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmchaos.servers.mapping import Entry, Server


def recording_rules(
    servers: Sequence[Server],
    matchers: str = "",
    head: str = "",
    *,
    group: str = "canonical",
    guard: str = "",
    more: str = "",
) -> str:
    """Return the text of a rule file.

    Each rule copies a metric of a server with all its labels, and adds `server` and
    `origin` (native or derived). Buckets keep their bounds. A label of the metric with
    the name of an added one is kept as `exported_server`, as Prometheus does it.

    Args:
        servers: the servers that may be scraped.
        matchers: label matchers of their series, such as `job="model"`.
        head: comment lines for the start of the file.
        group: beginning of the groups' names, which are unique in a file.
        guard: PromQL that has a series for each job whose metrics are of `$server`.
            Others are not recorded then. Empty if the matchers decide.
        more: labels of all records besides, such as `job: model`.
    """
    groups = [_group(one, matchers, group, guard.replace("$server", one.name), more) for one in servers]
    return head + ("groups:\n" + "\n".join(one for one in groups if one) if any(groups) else "groups: []\n")


def _group(server: Server, matchers: str, group: str, guard: str, more: str) -> str:
    lines = [
        line
        for metric in CANONICAL
        for status in ("native", "derived")
        if (entries := [one for one in server.of(metric.key) if one.status == status])
        for line in _records(server, entries, matchers, guard, more)
    ]
    return "\n".join([f"  - name: {group}-{server.name}", "    rules:", *lines]) + "\n" if lines else ""


def _records(server: Server, entries: Sequence[Entry], matchers: str, guard: str, more: str) -> Iterator[str]:
    first = entries[0]
    added = {"server": server.name, "origin": first.status} | ({"ticks": first.ticks} if first.ticks else {})
    labels = ", ".join(f"{name}: {value}" for name, value in added.items()) + (f", {more}" if more else "")
    for part in PARTS if first.canonical.kind == "histogram" else ("",):
        found = list(dict.fromkeys(one for entry in entries if (one := expression(entry, part))))
        if not found:
            continue
        text = " or ".join(found)
        for name in added:
            text = _exported(text, name)
        if server.service_label:
            text = f'label_replace({text}, "service", "$1", "{server.service_label}", "(.+)")'
        text = _with(text, matchers)
        text = f"({text}) and on (job) {guard}" if guard else text
        yield f"      - record: {first.canonical.name}{part and '_'}{part}"
        yield f"        expr: {_quote(text)}"
        yield f"        labels: {{{labels}}}"


def _exported(text: str, label: str) -> str:
    """Keep the values of a label that the record overwrites.

    If a scrape has made an exported label already, the value of the target is joined.
    Unlike label_replace it compiles no pattern, so a rule without series is cheap.
    """
    return f'label_join({text}, "exported_{label}", "", "exported_{label}", "{label}")'


def expression(entry: Entry, part: str = "") -> str:
    """Return the PromQL of an entry in base units, empty without one.

    Args:
        entry: the entry.
        part: bucket, sum or count of a histogram, else empty.
    """
    if entry.status == "absent":
        return ""
    if not part:
        return _times(entry.expr, entry.factor)
    own = {"sum": entry.sum, "count": entry.count}.get(part, "")
    if not (own or entry.expr):
        return ""
    text = own or _suffixed(entry, part)
    if part == "sum":
        return _times(text, entry.factor)
    return text if part == "count" or entry.factor == 1 else _scaled_bounds(text, entry.factor)


def _suffixed(entry: Entry, part: str) -> str:
    name, brace, matchers = entry.expr.partition("{")
    return f"{name}_{part}{brace}{matchers}"


def _times(text: str, factor: float) -> str:
    return text if factor == 1 else f"({text}) * {factor:.12g}"


def _scaled_bounds(text: str, factor: float) -> str:
    """Divide bounds by 1,000 or 1,000,000 as text, for they are labels."""
    digits = BUCKET_FACTORS[factor]
    # The letter marks bounds that are done, so that no further pattern matches them.
    decimals = "(?:[.]0|[.]([0-9]*))?"
    text = f'label_replace({text}, "le", "s$1.$2$3", "le", "([0-9]+)([0-9]{{{digits}}}){decimals}")'
    for count in range(1, digits + 1):
        zeros = "0" * (digits - count)
        text = f'label_replace({text}, "le", "s0.{zeros}$1$2", "le", "([0-9]{{{count}}}){decimals}")'
    # As Prometheus 3 and most clients write a bound: 0.5 and 2.0, not 0.500 and 2.000.
    return f'label_replace({text}, "le", "$1", "le", "s([0-9]+[.](?:[0-9]*[1-9]|0))0*")'


def _with(text: str, matchers: str) -> str:
    """Add matchers to all selectors. Each has braces, and no string has any."""
    return (
        re.sub(r"(?<=[a-zA-Z0-9_])\{", "{" + matchers + ",", text).replace(",}", "}")
        if matchers
        else text.replace("{}", "")
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
