"""Ledger of error budgets spent by experiments, across runs."""

from __future__ import annotations

import json
import math
import os
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.slo.arithmetic import DAY_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


# JSON types of an entry's fields by annotation, and their names in messages.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {"str": ((str,), "text"), "float": ((int, float), "a number")}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One SLO of one trial.

    Attributes:
        at_unix_s: Time of the trial, in Unix seconds.
        run: The run's name.
        trial: The trial's id.
        scenario: The scenario.
        fault: The fault, such as "kill api".
        slo: The SLO's name.
        objective: The SLO's objective as a share.
        window_days: The SLO's window in days.
        rate_rps: Events per second in the steady phase, which scale the budget.
        window_s: Length of the judged window in seconds.
        good: Good events in the window.
        total: All events in the window.
        bad: Bad events in the window.
        verdict: The trial's verdict.
        arm: Name of the trial's arm, empty without arms.

    Raises:
        BadScenario: A number is not finite or below 0, or the objective is not between
            0 and 1.
    """

    at_unix_s: float
    run: str
    trial: str
    scenario: str
    fault: str
    slo: str
    objective: float
    window_days: float
    rate_rps: float
    window_s: float
    good: float
    total: float
    bad: float
    verdict: str
    arm: str = ""

    def __post_init__(self) -> None:
        numbers = (self.at_unix_s, self.rate_rps, self.window_s, self.good, self.total, self.bad, self.window_days)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise BadScenario(f"a ledger's numbers must be finite and not below 0, got {numbers}")
        if not 0 < self.objective < 1:
            raise BadScenario(f"objective must be above 0 and below 1, got {self.objective}")

    @property
    def budget_events(self) -> float:
        """Bad events that the SLO's window allows."""
        return round(1 - self.objective, 12) * self.rate_rps * self.window_days * DAY_S

    @property
    def spent(self) -> float:
        """Share of the whole budget that the trial spent."""
        return self.bad / self.budget_events if self.budget_events else math.inf


class Ledger(NamedTuple):
    """Content of a ledger's file.

    Attributes:
        entries: The lines that can be read.
        unreadable: Number and reason of each line that cannot.
    """

    entries: tuple[Entry, ...]
    unreadable: tuple[str, ...]


def append(path: Path, entries: Iterable[Entry]) -> None:
    """Append entries with one write, so parallel runs do not cut each other's lines.

    A torn line before them stays a line of its own.
    """
    text = "".join(json.dumps(asdict(one), sort_keys=True) + "\n" for one in entries)
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read() == b"\n" else f"\n{text}"
        file.write(text.encode())
        os.fsync(file.fileno())


def read(path: Path) -> Ledger:
    """Return the ledger in a file, with its unreadable lines.

    A run that was killed while it wrote leaves a torn line.

    Raises:
        NotReady: There is no such file, or it cannot be read.
        BadScenario: The file has lines, and all of them are unreadable.
    """
    if not path.is_file():
        seen = "nothing" if not path.exists() else "a folder" if path.is_dir() else "no regular file"
        raise NotReady(
            f"expected a ledger at {path}, found {seen}: give the path of ledger.jsonl in the folder of the reports"
        )
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise NotReady(f"the ledger {path} cannot be read: {error.strerror or error}") from error
    found: list[Entry] = []
    unreadable: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                found.append(_entry(json.loads(line)))
        except (ValueError, RecursionError) as error:
            unreadable.append(f"{path}:{number}: expected a ledger line, got {_shown(line)}: {error}")
    if unreadable and not found:
        raise BadScenario(f"{unreadable[0]}; no line of this file is a ledger line: give another file")
    return Ledger(tuple(found), tuple(unreadable))


def table(entries: Sequence[Entry], slo: str | None = None) -> str:
    """Return a text table of each trial's cost, newest last, with totals per SLO."""
    chosen = [one for one in sorted(entries, key=lambda one: one.at_unix_s) if slo in (None, one.slo)]
    if not chosen:
        return f"no trial in the ledger{f' for {slo}' if slo else ''} yet"
    head = ("run", "scenario", "fault", "slo", "bad events", "of events", "of the month's budget", "verdict")
    rows = [
        (
            one.run,
            one.scenario,
            f"{one.fault}{f', arm {one.arm}' if one.arm else ''}",
            one.slo,
            f"{one.bad:g}",
            f"{one.total:g}",
            _percent(one.spent),
            one.verdict,
        )
        for one in chosen
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join([*lines, "", *_totals(chosen)])


def _totals(entries: Sequence[Entry]) -> list[str]:
    """Return one line per SLO, with a bar of the spent budget."""
    slos = sorted({one.slo for one in entries})
    totals = ["all of them within one month:"]
    for slo in slos:
        spent = sum(one.spent for one in entries if one.slo == slo)
        trials = sum(1 for one in entries if one.slo == slo)
        left = f"{_percent(1 - spent)} left" if spent <= 1 else f"overspent by {_percent(spent - 1)}"
        of = f"of the budget spent by {trials} trial{'s' if trials > 1 else ''}"
        totals.append(f"{slo.ljust(max(map(len, slos)))}  [{_bar(spent)}]  {_percent(spent)} {of}, {left}")
    return totals


def _bar(spent: float, width: int = 20) -> str:
    """Return the bar, with at least one mark for any cost and for any remainder."""
    full = max(bool(spent), int(min(spent, 1) * width))
    return "#" * full + "." * (width - full)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _shown(line: bytes) -> str:
    return ascii(line.strip()[:80].decode("utf-8", "replace"))


def _entry(line: object) -> Entry:
    """Return the entry of a line, or raise ValueError."""
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, got {type(line).__name__}")
    # Earlier versions wrote no arm.
    wanted = {one.name: _TYPES[str(one.type)] for one in fields(Entry) if one.name in line or one.default is MISSING}
    lacking = [name for name in wanted if name not in line]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    for name, (kind, called) in wanted.items():
        if not isinstance(line[name], kind) or isinstance(line[name], bool):
            raise ValueError(f"{name} must be {called}, got {line[name]!r:.40}")
    try:
        return Entry(**{name: line[name] for name in wanted})
    except OverflowError as error:
        raise ValueError(str(error)) from None
