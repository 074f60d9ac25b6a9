"""Selection of the requests that a fault on the wire may hit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.option_checks import check_text

_HEADER = re.compile(r"\s*[^\s:]+\s*:.*")


@dataclass(frozen=True, kw_only=True)
class Match:
    """Requests that a fault applies to, as `faults.match(...)` returns them.

    Attributes:
        conditions: Names and values of the conditions. All must hold.
    """

    conditions: tuple[tuple[str, str | bool], ...]

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.conditions)


def match(
    *,
    path: str | None = None,
    method: str | None = None,
    model: str | None = None,
    header: str | None = None,
    streaming: bool | None = None,
) -> Match:
    """Return the requests that a fault on the wire applies to.

    All conditions must hold. Globs have `*`, `?` and `[...]`. A `*` also matches
    slashes.

    Args:
        path: Glob of the path without its query, such as `/v1/chat/*`. None for any
            path.
        method: Glob of the method. None for POST, so that health checks and scrapes
            pass.
        model: Glob of the field `model` in the request's body. None for any.
        header: Name and glob of a header, such as `x-tenant: a*`. None for any.
        streaming: True for requests of a stream, False for others, None for both.

    Returns:
        A value for the argument `match` of a fault, such as `faults.stall`.

    Raises:
        BadScenario: There is no condition, or one of them can match no request.
    """
    texts = {"path": path, "method": method, "model": model, "header": header}
    for name, value in texts.items():
        if value is not None:
            check_text(f"match({name}=...)", value)
    if path is not None and not path.startswith(("/", "*", "?", "[")):
        raise BadScenario(
            f"faults.match(path=...) must begin with a slash or a wildcard, such as '/v1/*', got {path!r}"
        )
    if header is not None and not _HEADER.fullmatch(header):
        raise BadScenario(
            f"faults.match(header=...) must be a name, a colon and a glob, such as 'x-tenant: a*', got {header!r}"
        )
    if streaming is not None and not isinstance(streaming, bool):
        raise BadScenario(f"faults.match(streaming=...) must be True, False or None, got {streaming!r}")
    given = {name: value for name, value in {**texts, "streaming": streaming}.items() if value is not None}
    if not given:
        raise BadScenario("faults.match() is empty: give a condition such as path='/v1/*', or drop the argument")
    return Match(conditions=tuple(given.items()))
