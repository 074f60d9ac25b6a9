"""Checks of options, each with one error that names the option and its bounds."""

from __future__ import annotations

from pytest_llmchaos.errors import BadScenario


def check_number(where: str, value: object, *, above: float, at_most: float) -> float:
    """Return the value if it is a number above one bound and at most the other.

    Raises:
        BadScenario: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= at_most:
        raise BadScenario(f"faults.{where} must be a number above {above:g} and at most {at_most:g}, got {value!r}")
    return float(value)


def check_whole(where: str, value: object, *, at_least: int, at_most: int) -> int:
    """Return the value if it is a whole number within the bounds.

    Raises:
        BadScenario: It is not.
    """
    if type(value) is not int or not at_least <= value <= at_most:
        raise BadScenario(f"faults.{where} must be a whole number from {at_least} to {at_most}, got {value!r}")
    return value


def check_choice(where: str, value: object, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        BadScenario: It is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise BadScenario(f"faults.{where} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_span(where: str, value: object, *, least: float = 0.0, most: float, named: str = "") -> float:
    """Return the value if it is a number from `least` to `most`.

    Args:
        where: Name of the option, for the error.
        value: Its value.
        least: Lower bound.
        most: Upper bound.
        named: Name of the option that is the upper bound.

    Raises:
        BadScenario: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        bound = f"{named} = {most:g}" if named else f"{most:g}"
        raise BadScenario(f"faults.{where} must be a number from {least:g} to {bound}, got {value!r}")
    return float(value)


def check_text(where: str, value: object) -> str:
    """Return the value if it is a text that is not blank.

    Raises:
        BadScenario: It is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadScenario(f"faults.{where} must be a text, got {value!r}")
    return value
