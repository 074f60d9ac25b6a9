"""Page of the gateway's settings."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, fields

from lab_api.settings import Settings
from lab_common.settings import Section
from reference_pages.markdown import page

_WRONG = ("\n", "\0")  # one of them is wrong for every setting that refuses anything
_FREE_TEXT = "text"


def gateway_page() -> str:
    """Return the page of all settings of the gateway."""
    own = [one for one in fields(Settings) if _section(one) is None]
    parts = [
        "Environment variables of the lab's service `api`. [Reliability patterns](../gateway.md) explains them.",
        "An empty variable counts as unset. Without a default it must be set.",
        "## Process",
        _table(own),
    ]
    for one in fields(Settings):
        if (section := _section(one)) is not None:
            parts += [f"## {section.__name__}", inspect.getdoc(section) or "", _table(fields(section))]
    return page("Gateway settings", *parts)


def _section(one: Field[object]) -> type[Section] | None:
    return one.type if isinstance(one.type, type) and issubclass(one.type, Section) else None


def _table(settings: list[Field[object]] | tuple[Field[object], ...]) -> str:
    return "\n".join(["| variable | default | value |", "|---|---|---|", *map(_row, settings)])


def _row(one: Field[object]) -> str:
    (variable,) = one.metadata["variables"]
    return f"| `{variable}` | {_default(one)} | {_expected(one, variable)} |"


def _default(one: Field[object]) -> str:
    """Return the default as the variable would have it."""
    if one.default_factory is MISSING:
        return ""
    try:
        value = one.default_factory()
    except ValueError:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("", {}):
        return "(empty)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _expected(one: Field[object], variable: str) -> str:
    """Return the expectation that a wrong value's error names."""
    problems: list[str] = []
    for wrong in _WRONG:
        one.metadata["read"]({variable: wrong}, problems)
    if not problems:
        return _FREE_TEXT
    return problems[0].partition(": expected ")[2].rpartition(", got ")[0].partition(", instead of ")[0]
