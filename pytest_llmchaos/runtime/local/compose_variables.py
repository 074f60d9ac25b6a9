"""Variables in values of compose files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_llmchaos.errors import BadScenario

_VARIABLE = re.compile(
    r"\$(?:\$|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:?[-?+])(?P<rest>[^}]*))?\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))"
)


def substitute(value: Any, variables: Mapping[str, str], files: str) -> Any:
    """Substitute variables in every text of a value, as Compose does.

    `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?reason}`,
    `${NAME?reason}`, `${NAME:+text}` and `${NAME+text}` are known, and `$$` is a
    dollar.

    Args:
        value: A value of a compose file: mapping, list, text or other.
        variables: The variables that are set.
        files: Names of the files, for the error.

    Raises:
        BadScenario: A required variable is not set.
    """
    if isinstance(value, dict):
        return {key: substitute(one, variables, files) for key, one in value.items()}
    if isinstance(value, list):
        return [substitute(one, variables, files) for one in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda found: _value(found, variables, files), value)


def _value(found: re.Match[str], variables: Mapping[str, str], files: str) -> str:
    name, kind = found["braced"] or found["plain"], found["kind"] or ""
    if name is None:
        return "$"
    value = variables.get(name)
    if kind.endswith("+"):
        return found["rest"] if value or (value is not None and kind == "+") else ""
    if value is None or (not value and kind.startswith(":")):
        if kind.endswith("?"):
            raise BadScenario(f"{files} needs the variable {name}: {found['rest'] or 'set it'}")
        return found["rest"] if kind.endswith("-") else ""
    return value
