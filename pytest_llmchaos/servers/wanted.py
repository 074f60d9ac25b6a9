"""Series that queries want and the servers' pages lack."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from pytest_llmchaos.servers.bounds import described, neighbours
from pytest_llmchaos.servers.canonical import CANONICAL, PARTS
from pytest_llmchaos.servers.contract import Selector, entries_of, lacking, native_names, selectors_in, selectors_of
from pytest_llmchaos.servers.losses import Fault, canonical_name, explain, explain_canonical

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pytest_llmchaos.servers.canonical import CanonicalMetric
    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.losses import Target
    from pytest_llmchaos.servers.mapping import Server
    from pytest_llmchaos.servers.wanted_files import Wants

# Beginnings of canonical names.
_OURS = ("llmchaos:", "gen_ai_server_")
_MOST_NAMES = 3
_MOST_VALUES = 8
_EQUAL = ("=", "=~")
# What a dashboard's variable is in a text.
_ANYTHING = ".*"
# Labels that a scrape adds, or of which the value is a number.
_OF_SCRAPES = frozenset({"job", "instance", "namespace", "pod", "container", "service", "endpoint", "node", "le"})
_LITERAL = re.compile(r"[a-zA-Z0-9_:.]+")
_ALTERNATIVES = re.compile(r"[a-zA-Z0-9_:]+(\|[a-zA-Z0-9_:]+)+")


@dataclass(frozen=True, kw_only=True)
class Lack:
    """A series that a query wants and that is not there.

    Attributes:
        file: the file of the query.
        place: the rule, panel, variable, trigger or objective.
        series: the wanted name, or the pattern of names.
        fault: the reason.
    """

    file: str
    place: str
    series: str
    fault: Fault


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All names of the queries.

    Attributes:
        lacks: those that are not there.
        found: names that are there, also those that a recording rule makes.
        late: names that may appear after the first request.
        skipped: names of other systems, which no page is expected to have, and a line
            for each query of a dashboard that is of another data source.
        unread: a line for each query of a dashboard that could not be read.
        unrecorded: canonical names that are there once rules record them, and that
            the files do not record.
    """

    lacks: tuple[Lack, ...]
    found: frozenset[str]
    late: frozenset[str]
    skipped: frozenset[str]
    unread: tuple[str, ...] = ()
    unrecorded: frozenset[str] = frozenset()

    @property
    def is_good(self) -> bool:
        """True if every query was read, and all of its series are there."""
        return not self.lacks and not self.unread

    @property
    def remark(self) -> str:
        """A line about canonical names without rules, empty without any."""
        if not self.unrecorded:
            return ""
        few = ", ".join(sorted(self.unrecorded)[:_MOST_NAMES])
        more = f" and {len(self.unrecorded) - _MOST_NAMES} more" * (len(self.unrecorded) > _MOST_NAMES)
        verb = "needs a recording rule" if len(self.unrecorded) == 1 else "need recording rules"
        return f"{few}{more} {verb} (--write-rules)"


def judge(wants: Wants, targets: Sequence[Target], known: Iterable[Server]) -> Judged:
    """Return which series of the queries are there.

    A name of a server is looked for on each page of that server. Canonical names are
    there if a server has the metric, because recording rules make them. Names of other
    systems are skipped.

    Args:
        wants: the queries.
        targets: the pages.
        known: all servers, for names of those that have no page here.
    """
    verdicts = _Verdicts(recorded=wants.recorded, targets=tuple(targets), known=tuple(known))
    lacks: dict[Lack, None] = {}
    names: dict[_Kind, set[str]] = {"found": set(), "late": set(), "skipped": set(), "lacks": set()}
    for query in wants.queries:
        for one in selectors_in(query.tree):
            for name, verdict in verdicts.of(one):
                names[verdict.kind].add(name)
        for one in lacking(query.tree, verdicts.has):
            for name, verdict in verdicts.of(one):
                for fault in verdict.faults:
                    lacks[Lack(file=query.file, place=query.place, series=name, fault=fault)] = None
    return Judged(
        lacks=tuple(lacks),
        found=frozenset(names["found"]),
        late=frozenset(names["late"]),
        skipped=frozenset({*names["skipped"], *wants.foreign}),
        unread=wants.unread,
        unrecorded=frozenset(names["found"] & set(_CANONICAL) - wants.recorded),
    )


_Kind = Literal["found", "late", "skipped", "lacks"]


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    kind: _Kind
    faults: tuple[Fault, ...] = ()


_FOUND, _LATE, _SKIPPED = _Verdict(kind="found"), _Verdict(kind="late"), _Verdict(kind="skipped")


def _lack(*faults: Fault) -> _Verdict:
    return _Verdict(kind="lacks", faults=faults)


@dataclass(frozen=True, kw_only=True)
class _Verdicts:
    """Verdicts on names: there or not."""

    recorded: frozenset[str]
    targets: tuple[Target, ...]
    known: tuple[Server, ...]

    def has(self, selector: Selector) -> bool:
        return all(verdict.kind != "lacks" for _, verdict in self.of(selector))

    def of(self, selector: Selector) -> Iterator[tuple[str, _Verdict]]:
        """Yield the verdict on each name of a selector.

        If the name is there, and its labels are not, it is the one on the selector.
        """
        for name in _patterns(selector):
            verdict = self._of_name(name, selector)
            labels = self._of_labels(selector) if verdict.kind == "found" and name not in self.recorded else None
            yield (str(selector), labels) if labels else (name, verdict)

    def _of_name(self, name: str, selector: Selector) -> _Verdict:
        """Return the verdict on a name, or on a pattern of names."""
        if name in self.recorded:
            return _FOUND
        if not _LITERAL.fullmatch(name):
            return self._of_pattern(name)
        if name in _CANONICAL:
            return self._of_canonical(*_CANONICAL[name], selector)
        owners = [one for one in self.targets if one.owns(name) and self._may_mean(one.server, selector)]
        if not owners:
            return self._of_other(name)
        found = [_on_page(name, one.page) or _of_fault(explain(name, one, self._makers(name))) for one in owners]
        faults = [fault for one in found for fault in one.faults]
        return _lack(*faults) if faults else found[0]

    def _between_edges(self, selector: Selector) -> Iterator[Fault]:
        """Yield a fault for each page whose buckets lack the selector's bound."""
        wanted = [value for label, how, value in selector.matchers if (label, how) == ("le", "=")]
        for one in self.targets:
            edges = {float(series.labels.get("le", "nan")) for series in one.page.by_name.get(selector.name, ())}
            for bound in wanted if edges else ():
                with suppress(ValueError):
                    if float(bound) not in edges:
                        place = described(*neighbours(edges, float(bound)))
                        yield Fault(where=one.where, advice=f'No bucket has le="{bound}", which lies {place}.')

    def _of_labels(self, selector: Selector) -> _Verdict | None:
        """Return the verdict on the labels of series whose name is there, None if good.

        Labels that no series has are those that a scrape adds.
        """
        if faults := [*self._between_edges(selector)]:
            return _lack(*faults)
        pages = [one for one in self.targets if selector.name in one.page.by_name]
        is_owned = any(one.owns(selector.name) for one in pages) or self._has_prefix(selector.name)
        if not (pages and is_owned):
            return None
        series = [one for page in pages for one in page.page.by_name[selector.name]]
        asked = _closed(selector, {label for one in series for label in one.labels} - _OF_SCRAPES)
        if any(asked.fits(one.labels) for one in series):
            return None
        values = {
            label: dict.fromkeys(one.labels.get(label, "") for one in series)
            for label in dict.fromkeys(label for label, _, _ in asked.matchers)
        }
        wrong = {
            label: there
            for label, there in values.items()
            if not any(_closed(asked, {label}).fits({label: one}) for one in there)
        }
        if _may_come(asked, pages, wrong):
            return _LATE
        lines = [f"{label} is {_few(there)}" for label, there in wrong.items()]
        advice = (
            f"No series has such labels: {', and '.join(lines)} here." if lines else "No series has all its labels."
        )
        return _lack(Fault(where=pages[0].where, advice=advice))

    def _has_prefix(self, name: str) -> bool:
        """True if the name begins as those of one server, and not by chance."""
        return any(name.startswith(_own_prefixes(one)) for one in self.known)

    def _may_mean(self, server: Server | None, selector: Selector) -> bool:
        """True if a selector may be of a server whose name it has.

        A name without a prefix may be anyone's. It is the server's unless a label is
        not as in its file.
        """
        if server is None or self._has_prefix(selector.name):
            return True
        return any(
            all(_allows(selector, one) for one in found.matchers)
            for entry, _ in entries_of(server, selector.name)
            for found in selectors_of(entry)
        )

    def _of_pattern(self, pattern: str) -> _Verdict:
        beginning = re.split("[^a-zA-Z0-9_:]", pattern, maxsplit=1)[0]
        there = {*self.recorded, *_CANONICAL, *(name for one in self.targets for name in one.page.names)}
        try:
            if any(re.fullmatch(pattern, name) for name in there):
                return _FOUND
        except re.error:  # of RE2 only
            return _SKIPPED
        prefixes = [prefix for one in self.known for prefix in one.prefixes]
        if any(beginning.startswith(one) for one in prefixes):
            return _lack(Fault(advice="No name of the pages matches this pattern."))
        return _SKIPPED

    def _of_canonical(self, metric: CanonicalMetric, part: str, selector: Selector) -> _Verdict:
        pages = [one for one in self.targets if one.server]
        if not pages:
            return _SKIPPED
        found = [(one, explain_canonical(metric, part, one)) for one in pages]
        made = [
            {"server": one.server.name, "origin": one.cell(metric.key).entry.status}
            for one, fault in found
            if one.server and not fault
        ]
        asked = _closed(selector, {"server", "origin"})
        if any(asked.fits(one) for one in made):
            return _FOUND
        if made:
            lines = [
                f"{label} is {_few(dict.fromkeys(one[label] for one in made))}"
                for label in dict.fromkeys(label for label, _, _ in asked.matchers)
            ]
            return _lack(Fault(advice=f"No server of the pages has such labels: {', and '.join(lines)} here."))
        return _lack(*(fault for _, fault in found if fault))

    def _of_other(self, name: str) -> _Verdict:
        """Return the verdict on a name that no server of the pages has."""
        found = next((there for one in self.targets if (there := _on_page(name, one.page))), None)
        makers = self._makers(name)
        if found or not makers:
            return found or self._misspelt(name)
        if not self._has_prefix(name):
            return _SKIPPED
        maker = makers[0]
        what = f"This is a name of {maker.title}, which has no page here"
        entry, part = next(iter(entries_of(maker, name)), (None, ""))
        faults = [_equivalent(what, entry.canonical, part, one) for one in self.targets if entry and one.server]
        return _lack(*faults or [Fault(advice=f"{what}.")])

    def _misspelt(self, name: str) -> _Verdict:
        """Return the verdict on a name of no server, which may be nearly one."""
        if name.startswith(_OURS) and (close := difflib.get_close_matches(name, _CANONICAL, n=1, cutoff=0.8)):
            advice = f"No canonical metric has this name. {close[0]} is similar."
            return _lack(Fault(canonical=close[0], advice=advice))
        # Other exporters have no colon in their names, so people write an underscore.
        spelt = name.replace("_", ":", 1)
        for maker in self._makers(spelt):
            if entries_of(maker, spelt):
                return _lack(Fault(new=(spelt,), advice=f"{maker.title} writes it with a colon."))
        return _SKIPPED

    def _makers(self, name: str) -> list[Server]:
        """Return the servers with such names, first one whose file has the name."""
        found = [one for one in self.known if name.startswith(one.prefixes)]
        return sorted(found, key=lambda one: (not entries_of(one, name), len(one.prefixes)))


def _closed(selector: Selector, labels: Collection[str]) -> Selector:
    """Return the matchers on some labels, without those of a dashboard's variables."""
    found = [
        (label, how, value)
        for label, how, value in selector.matchers
        if label in labels and (how == "=~" or _ANYTHING not in value)
    ]
    return Selector(name=selector.name, matchers=tuple(found))


def _allows(selector: Selector, wanted: tuple[str, str, str]) -> bool:
    """True if the matchers of a selector leave series that another matcher wants."""
    label, how, text = wanted
    own = _closed(selector, {label})
    given = [one for _, equal, value in own.matchers if equal in _EQUAL for one in value.split("|")]
    values = [*given, *(text.split("|") if how in _EQUAL else ())]
    both = Selector(name="", matchers=(*own.matchers, wanted))
    return not own.matchers or any(both.fits({label: one}) for one in values)


def _may_come(asked: Selector, pages: Sequence[Target], wrong: Mapping[str, object]) -> bool:
    """True if series with labels that no series has yet may appear later.

    The server's file marks it late, or has the labels. A name that the file lacks may
    be late if one of the server's metrics is.
    """
    name = asked.name
    here = [cell.entry for one in pages for cell in one.cells if cell.state != "absent"]
    entries = [entry for entry in here if any(one.name == name for one in selectors_of(entry))]
    if any(entry.late for entry in entries or here):
        return True
    known = [one for entry in entries for found in selectors_of(entry) for one in found.matchers]
    return bool(wrong) and all(any(one[0] == label and _allows(asked, one) for one in known) for label in wrong)


def _few(values: Iterable[str]) -> str:
    given = sorted(one or "empty" for one in values)
    few = given[:_MOST_VALUES]
    more = [f"{len(given) - len(few)} more"] * (len(given) > len(few))
    return ", ".join(few + more)


def _of_fault(fault: Fault | None) -> _Verdict:
    return _lack(fault) if fault else _LATE


def _on_page(name: str, page: Page) -> _Verdict | None:
    return _FOUND if name in page.by_name else _LATE if name in page.names else None


def _equivalent(what: str, metric: CanonicalMetric, part: str, target: Target) -> Fault:
    """Return what a server has in place of another server's metric."""
    cell = target.cell(metric.key)
    new = native_names(cell.entry, part) if cell.state in ("found", "late") else ()
    if not new:
        note = f" {cell.note}" if cell.state == "absent" else ""
        return Fault(where=target.where, advice=f"{what}, and {target.title} has no equivalent.{note}")
    advice = f"{what}: {target.title} has {', '.join(new)}."
    return Fault(where=target.where, new=new, canonical=canonical_name(cell, part), advice=advice)


def _patterns(selector: Selector) -> Iterator[str]:
    """Yield the names of a selector: one, those of a pattern, or the pattern itself."""
    if selector.name:
        yield selector.name
    for label, how, value in selector.matchers:
        if label == "__name__" and how == "=~":
            yield from value.split("|") if _ALTERNATIVES.fullmatch(value) else [value]


@cache
def _own_prefixes(server: Server) -> tuple[str, ...]:
    """Return the prefixes of a server that are no names of metrics themselves."""
    names = {one.expr.partition("{")[0] for one in server.entries}
    return tuple(one for one in server.prefixes if one not in names)


_CANONICAL = {
    name: (metric, part)
    for metric in CANONICAL
    for name, part in zip(metric.series, PARTS if metric.kind == "histogram" else ("",), strict=True)
}
