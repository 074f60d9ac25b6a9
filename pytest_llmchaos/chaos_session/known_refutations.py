"""The ratchet: a known refutation is expected, and fails once it has vanished."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_llmchaos import options
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.evidence.trial_result import KnownNote

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    import pytest

    from pytest_llmchaos.evidence.trial_result import ClaimOutcome
    from pytest_llmchaos.plan.known import KnownRefutation


class Ratchet:
    """The known refutations of a session.

    Args:
        file: name of the file with the entries. Empty without one, and with pytest's
            `--runxfail`.
        known: the entries for this runtime and backend.
        today: the day of the run, for entries with an end.
    """

    def __init__(self, file: str, known: Sequence[KnownRefutation], today: dt.date) -> None:
        self._file = file
        self._known = known
        self._today = today
        self._entries: dict[str, KnownRefutation] = {}  # by test
        self._names: dict[str, str] = {}  # of tests, without a number of a repeat
        self._claims: dict[str, str] = {}  # of tests: one claim has several repeats
        self._left: dict[str, set[str]] = {}  # tests of each claim that are not over
        self._refuted: set[str] = set()  # claims

    def take(self, items: Iterable[pytest.Function], *, whole_files: bool) -> None:
        """Set the selected tests.

        A repeat that holds is no failure if another repeat of the claim was refuted.

        Args:
            items: tests with a trial or a lab.
            whole_files: False if other processes perform some repeats. Then each is a
                claim by itself.

        Raises:
            BadScenario: A listed test has a mark `xfail`.
        """
        for item in items if self._file else ():
            name = self._names[item.nodeid] = options.id_without_repeat(item)
            claim = self._claims[item.nodeid] = name if whole_files else item.nodeid
            self._left.setdefault(claim, set()).add(item.nodeid)
            entry = next((one for one in self._known if one.is_about(name)), None)
            if entry is None:
                continue
            if item.get_closest_marker("xfail") is not None:
                raise BadScenario(
                    f"{self._file} lists {entry.test}, so the test must not have the mark xfail: remove the mark or the entry"
                )
            self._entries[item.nodeid] = entry

    def judge_subtest(self, nodeid: str, found: pytest.TestReport, *, refuted: bool) -> None:
        """Expect the refutation of a subtest of a listed claim."""
        entry = self._entries.get(nodeid)
        if entry is not None and refuted and not self._has_ended(entry):
            expect(found, entry)

    def judge(self, nodeid: str, found: pytest.TestReport, outcome: ClaimOutcome, *, refuted: bool) -> KnownNote | None:
        """Judge a test that is over. Returns the entry that it met or missed.

        Args:
            nodeid: the test.
            found: its report. A known refutation becomes an expected failure, and one
                that has vanished a failure.
            outcome: the worst outcome of the test and its subtests.
            refuted: True if the test itself was refuted.
        """
        if nodeid not in self._claims:
            return None
        claim, entry = self._claims[nodeid], self._entries.get(nodeid)
        self._left[claim].discard(nodeid)
        if entry is None:
            if refuted:
                add_line(found, self._way_to_list(nodeid))
        elif outcome == "failed" and (refuted or found.passed):
            self._refuted.add(claim)
            if not self._has_ended(entry):
                expect(found, entry)
                return KnownNote(issue=entry.issue, why=entry.why)
            add_line(found, f"{self._file} lists it until {entry.until} ({entry.issue}): fix it, or move the date")
        elif outcome == "passed" and claim not in self._refuted and not self._left[claim]:
            found.outcome, found.longrepr = "failed", self._vanished(nodeid, entry)
            return KnownNote(issue=entry.issue, why=entry.why)
        return None

    def _has_ended(self, entry: KnownRefutation) -> bool:
        return entry.until is not None and entry.until < self._today

    def _way_to_list(self, nodeid: str) -> str:
        test = json.dumps(self._names[nodeid], ensure_ascii=False)
        return f'if this is known, add to {self._file}: [[known]] with test = {test}, issue = "https://..." and why = "..."'

    def _vanished(self, nodeid: str, entry: KnownRefutation) -> str:
        name = self._names[nodeid]
        cases = (
            "" if name == entry.test else f", or name the cases that are still refuted instead of all of {entry.test}"
        )
        return (
            f"{name} held, and {self._file} lists it as refuted ({entry.issue}): the known refutation has vanished, "
            f"so remove its entry{cases}"
        )


def expect(found: pytest.TestReport, entry: KnownRefutation) -> None:
    """Turn a report into an expected failure, as pytest does for the mark `xfail`."""
    found.outcome = "skipped"
    found.wasxfail = f"known refutation: {entry.why} ({entry.issue})"


def add_line(found: pytest.TestReport, line: str) -> None:
    """Add a line to the text of a failure."""
    add_section = getattr(found.longrepr, "addsection", None)
    if add_section is not None:
        add_section("known refutations", line)
    elif found.failed:
        found.longrepr = f"{found.longreprtext}\n{line}"
