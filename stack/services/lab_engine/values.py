"""Checks that frozen values run at birth. Knows nothing of any one value."""

from __future__ import annotations

import math


class InvalidValueError(ValueError):
    """A number outside what the thing it describes can be."""


def require(
    name: str, value: float, *, at_least: float = 0.0, above: float | None = None, at_most: float = math.inf
) -> None:
    """Raise InvalidValueError, naming the field, the bound and the number seen, unless the number lies inside."""
    if isinstance(value, bool) or not math.isfinite(value):
        raise InvalidValueError(f"{name} must be a finite number, got {value!r}")
    if above is not None and not value > above:
        raise InvalidValueError(f"{name} must be greater than {above:g}, got {value!r}")
    if above is None and value < at_least:
        raise InvalidValueError(f"{name} must be at least {at_least:g}, got {value!r}")
    if value > at_most:
        raise InvalidValueError(f"{name} must be at most {at_most:g}, got {value!r}")
