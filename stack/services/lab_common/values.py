"""Checks of frozen values at construction."""

from __future__ import annotations

import math


class InvalidValueError(ValueError):
    """A value out of its bounds."""


def require(
    name: str, value: object, *, at_least: float = 0.0, above: float | None = None, at_most: float = math.inf
) -> None:
    """Check that a value is a number within bounds.

    Raises:
        InvalidValueError: with the field, the bound and the value.
    """
    # `math.isfinite` raises OverflowError for an integer beyond the largest float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise InvalidValueError(f"{name} must be a finite number, got {value!r}")
    if above is not None and not value > above:
        raise InvalidValueError(f"{name} must be greater than {above:g}, got {value!r}")
    if above is None and value < at_least:
        raise InvalidValueError(f"{name} must be at least {at_least:g}, got {value!r}")
    if value > at_most:
        raise InvalidValueError(f"{name} must be at most {at_most:g}, got {value!r}")


def require_whole(name: str, value: object, *, at_least: int, at_most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValueError(f"{name} must be a whole number, got {value!r}")
    require(name, value, at_least=at_least, at_most=at_most)


def require_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidValueError(f"{name} must be a text that is not empty, got {value!r}")
