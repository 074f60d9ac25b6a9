"""The list of known refutations: claims whose refutation has an issue."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pytest_llmchaos.errors import BadScenario

EXAMPLE = 'write issue = "https://github.com/OWNER/REPOSITORY/issues/1"'
MOST_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True)
class KnownRefutation:
    """A claim that is refuted for a known reason.

    Attributes:
        test: pytest's id of the test, with or without its parameters in brackets.
        issue: link to the issue about the refutation.
        why: the reason, in one line.
        runtime: the only runtime on which the refutation is known, or None.
        backend: the only backend on which it is known, or None.
        until: last day on which it is known, or None.
    """

    test: str
    issue: str
    why: str
    runtime: str | None = None
    backend: str | None = None
    until: dt.date | None = None

    @property
    def file(self) -> str:
        """Path of the test's file, relative to pytest's root folder."""
        return self.test.partition("::")[0]

    def is_about(self, test: str) -> bool:
        """True for this test. An entry without parameters is about all of them."""
        return test == self.test or test.startswith(f"{self.test}[")

    def applies_on(self, runtime: str, backend: str) -> bool:
        """True if the refutation is known on a runtime and a backend."""
        return self.runtime in {None, runtime} and self.backend in {None, backend}

    def overlaps(self, other: KnownRefutation) -> bool:
        """True if both are about one test on one runtime and backend."""
        pairs = ((self.runtime, other.runtime), (self.backend, other.backend))
        is_same = self.is_about(other.test) or other.is_about(self.test)
        return is_same and all(None in pair or pair[0] == pair[1] for pair in pairs)


def parse_known(text: str, name: str, choices: Mapping[str, Sequence[str]]) -> tuple[KnownRefutation, ...]:
    """Return the entries of a TOML file with known refutations.

    Args:
        text: the file's content.
        name: the file's name, for messages.
        choices: the allowed values of `runtime` and of `backend`.

    Raises:
        BadScenario: It is no TOML, a key is unknown or missing, a value is of another
            form, or two entries are about the same claim.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"{name} must be a TOML file with [[known]] entries: {error}") from None
    rows = table.pop("known", [])
    if table or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        seen = ", ".join(table) or f"known = {rows!r:.80}"
        raise BadScenario(f"{name} must hold [[known]] entries and nothing else, got {seen}: begin each with [[known]]")
    found: list[KnownRefutation] = []
    for number, row in enumerate(rows, 1):
        one = _entry(row, f"{name}, entry {number}", choices)
        twin = next((at for at, other in enumerate(found, 1) if one.overlaps(other)), None)
        if twin is not None:
            raise BadScenario(f"{name}: entries {twin} and {number} are both about {one.test}: remove one of them")
        found.append(one)
    return tuple(found)


def _entry(row: Mapping[str, object], where: str, choices: Mapping[str, Sequence[str]]) -> KnownRefutation:
    keys = {one.name for one in fields(KnownRefutation)}
    for key in sorted(row.keys() - keys):
        near = difflib.get_close_matches(key, keys, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(sorted(keys))}"
        raise BadScenario(f"{where} has the unknown key {key!r:.80}; {hint}")
    test, issue, why = (_line(row, key, where) for key in ("test", "issue", "why"))
    file = test.partition("::")[0]
    if "::" not in test or str(PurePosixPath(file)) != file or file.startswith("/") or ".." in file.split("/"):
        raise BadScenario(
            f"{where}: test must be an id as `pytest -v` prints it, got {test!r}: "
            'write test = "scenarios/test_kill_api.py::test_kill_api_is_detected"'
        )
    if not is_web_link(issue):
        raise BadScenario(f"{where}: issue must be an http or https link without a password, got {issue!r}: {EXAMPLE}")
    for key, allowed in choices.items():
        if key in row and row[key] not in allowed:
            raise BadScenario(f"{where}: {key} must be one of {', '.join(allowed)}, got {row[key]!r:.80}")
    until = row.get("until")
    if until is not None and type(until) is not dt.date:  # a datetime is a date too
        raise BadScenario(f"{where}: until must be a date without quotes, got {until!s:.80}: write until = 2026-12-31")
    return KnownRefutation(
        test=test,
        issue=issue,
        why=why,
        runtime=_text(row.get("runtime")),
        backend=_text(row.get("backend")),
        until=until,
    )


def _line(row: Mapping[str, object], key: str, where: str) -> str:
    """Return a required value of one line."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > MOST_CHARACTERS:
        seen = "none" if key not in row else f"{value!r:.80}"
        way = EXAMPLE if key == "issue" else f'write {key} = "..."'
        raise BadScenario(
            f"{where}: {key} must be one line of text with at most {MOST_CHARACTERS} characters, got {seen}: {way}"
        )
    return value


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def without_repeat(test: str, fault: str, repeat: int, *, is_only: bool) -> str:
    """Return a test's id as it is without `--chaos-repeat`.

    Args:
        test: pytest's id, such as `test_a.py::test_b[kill api #2]`.
        fault: the fault of its trial.
        repeat: number of the repeat, from 0.
        is_only: True if the experiment has no other fault. Then the id lacks it.
    """
    file, _, name = test.removesuffix("]").partition("::")
    function, _, cases = name.partition("[")
    cases = cases.replace(f"{fault} #{repeat + 1}", "" if is_only else fault, 1).strip("-")
    return f"{file}::{function}[{cases}]" if cases else f"{file}::{function}"


def is_web_link(text: str) -> bool:
    """True for an http or https link that a page may show.

    It has a host, no password, and no space or control character.
    """
    if re.fullmatch(r"https?://[!-~]+", text) is None:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.hostname) and "@" not in parts.netloc


def unknown_test(
    known: Sequence[KnownRefutation], parent: str, children: Mapping[str, bool | None], name: str
) -> str | None:
    """Return why an entry is about no claim of a collected file or class, or None.

    A misspelt entry would never be missed.

    Args:
        known: the entries.
        parent: pytest's id of the file or class.
        children: whether each test in it can be refuted, by id. None for a class.
        name: the file with the entries, for messages.
    """
    for one in known:
        if not one.test.startswith(f"{parent}::"):
            continue
        below, bracket, parameters = one.test.removeprefix(f"{parent}::").partition("[")
        first, *deeper = below.split("::")
        child = f"{parent}::{first}" + ("" if deeper else bracket + parameters)
        found = [can for test, can in children.items() if test == child or test.startswith(f"{child}[")]
        if (None not in found) if deeper else (set(found) <= {None}):
            near = difflib.get_close_matches(one.test, children, n=1)
            hint = f"did you mean {near[0]}?" if near else "correct the id, or remove the entry"
            return f"{name} lists {one.test}, which is no test in {parent}: {hint}"
        if not any(found) and not deeper:
            return (
                f"{name} lists {one.test}, which uses no `trial`, `arms` or `lab`, so it cannot be refuted: "
                "remove the entry, and mark the test with pytest.mark.xfail"
            )
    return None
