"""Headers of one load's requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import OWN_HEADERS, is_header_name, is_plain

_SECRET = re.compile(r"(?i)auth|cookie|key|token|secret|signature|passw|credential")


def check_headers(who: str, headers: object) -> tuple[tuple[str, str], ...]:
    """Return names and values of a load's headers, which reports show.

    Raises:
        BadScenario: They are no headers, the run sets one itself, or one may be a
            secret. The message has no value.
    """
    if headers is None:
        return ()
    if not isinstance(headers, Mapping):
        raise BadScenario(f'{who}: headers must be such as {{"x-priority": "high"}}, got {type(headers).__name__}')
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not is_header_name(name):
            raise BadScenario(f"{who}: headers must have names such as x-priority, got {name!r}")
        if name.lower() in seen:
            raise BadScenario(f"{who}: headers: {name} is given twice: give each header once")
        seen.add(name.lower())
        if name.lower() in OWN_HEADERS:
            raise BadScenario(f"{who}: headers: {name} is set by the run itself: drop it")
        if name.lower() == "host" or _SECRET.search(name):
            raise BadScenario(
                f"{who}: headers: {name} belongs to the stack and not to one load, whose headers reports show: "
                "set it in llmchaos_headers"
            )
        if not isinstance(value, str) or not value.strip() or not is_plain(value) or "$" in value:
            raise BadScenario(
                f"{who}: headers: the value of {name} must be plain ASCII on one line, without $: values from "
                "environment variables belong into llmchaos_headers"
            )
    return tuple((name, value.strip()) for name, value in headers.items())
