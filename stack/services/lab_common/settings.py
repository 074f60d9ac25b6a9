"""Settings from environment variables, all checked at once."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = TypeVar("Value")
Default = TypeVar("Default")
CANNOT_START = 2  # exit status of a service with invalid settings


class SettingsError(ValueError):
    """Every wrong setting, one a line."""


def parsed(
    variable: str, parse: Callable[[str], Value], default: Callable[[], Default], *, secret: bool = False
) -> Value | Default:
    """A field read by `parse`, which raises ValueError with its expectation.

    An empty variable counts as unset.
    """

    def read(env: Mapping[str, str], problems: list[str]) -> Value | Default | None:
        given = env.get(variable, "")
        try:
            return parse(given) if given else default()
        except ValueError as expected:
            seen = "a value that is not shown" if secret else repr(given)
            problems.append(f"{variable}: expected {expected}, got {seen}")
            return None

    metadata = {"variables": {variable}, "read": read}
    return field(default_factory=default, repr=not secret, metadata=metadata)


def whole(variable: str, default: Default, low: int, high: int) -> int | Default:
    def parse(given: str) -> int:
        if not re.fullmatch("-?[0-9]{1,20}", given) or not low <= int(given) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(given)

    return parsed(variable, parse, lambda: default)


def number(variable: str, default: Default, low: float, high: float) -> float | Default:
    def parse(given: str) -> float:
        expected = f"a number from {low:g} to {high:g}"
        try:
            value = float(given)
        except ValueError:
            raise ValueError(expected) from None
        if not low <= value <= high:  # NaN is not either
            raise ValueError(expected)
        return value

    return parsed(variable, parse, lambda: default)


def text(variable: str, default: str = "", *, pattern: str = ".*", expected: str = "", secret: bool = False) -> str:
    """A text field, stripped of blanks.

    `pattern` holds for the default too, so a default of "" can mean that it must be
    set.
    """

    def parse(given: str) -> str:
        if not re.fullmatch(pattern, given.strip()):
            raise ValueError(expected)
        return given.strip()

    return parsed(variable, parse, lambda: parse(default), secret=secret)


def flag(variable: str) -> bool:
    """A flag, off unless it is 1."""

    def parse(given: str) -> bool:
        if given not in ("0", "1"):
            raise ValueError("0 or 1")
        return given == "1"

    return parsed(variable, parse, lambda: False)


def switch(variable: str, *, default: bool) -> bool:
    """A switch: on or off."""

    def parse(given: str) -> bool:
        if given not in ("on", "off"):
            raise ValueError("on or off")
        return given == "on"

    return parsed(variable, parse, lambda: default)


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base of frozen dataclasses whose fields this module's functions declare."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """The section with its values.

        Raises:
            SettingsError: one line for each wrong setting.
        """
        problems: list[str] = []
        found = cls.read(env, problems)
        if found is None or problems:
            raise SettingsError("\n".join(problems))
        return found

    @classmethod
    def read(cls, env: Mapping[str, str], problems: list[str]) -> Self | None:
        """The section, or None after appending its errors to `problems`."""
        before = len(problems)
        values = {one.name: one.metadata["read"](env, problems) for one in fields(cls)}
        if len(problems) > before:
            return None
        make: Callable[..., Self] = cls
        found = make(**values)
        problems += found.conflicts()
        return found

    @classmethod
    def variables(cls) -> set[str]:
        return {name for one in fields(cls) for name in one.metadata["variables"]}

    def conflicts(self) -> list[str]:
        """Errors of values that are each valid alone."""
        return []


SomeSection = TypeVar("SomeSection", bound=Section)


def section(kind: type[SomeSection]) -> SomeSection:
    """A field that is a section of its own."""
    return field(default_factory=kind, metadata={"variables": kind.variables(), "read": kind.read})


def refuse(service: str, error: Exception) -> int:
    """Write one line to stderr for each problem and return the exit status."""
    sys.stderr.writelines(f"{service}: {line}\n" for line in str(error).splitlines())
    return CANNOT_START
