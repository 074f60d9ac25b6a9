"""Headers of requests, with values from environment variables."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.model import OWN_HEADERS, is_header_name, is_plain

REQUESTS_KEY = "llmchaos_headers"
PROMETHEUS_KEY = "llmchaos_prometheus_headers"
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?")
# Headers whose literal value is no secret.
_PLAIN = frozenset(("host", "accept", "content-type", "user-agent", "origin", "referer"))


@dataclass(frozen=True)
class Header:
    """A request header. Its value may contain `$VARIABLE`, and is never printed."""

    name: str
    value: str = field(repr=False)


def headers_of(lines: Sequence[str], key: str = REQUESTS_KEY) -> tuple[Header, ...]:
    """Return the headers of `Name: value` lines.

    Args:
        lines: The lines.
        key: The ini key that has them, for the message.

    Raises:
        BadScenario: A line is no header. The message has its name and not its value.
    """
    found: dict[str, Header] = {}
    for line in lines:
        name, value = (part.strip() for part in line.partition(":")[::2])
        if not (value and is_header_name(name)):
            raise BadScenario(
                f"{key} must be lines such as Authorization: Bearer $API_KEY, got "
                + (
                    f"{name!r} without a value"
                    if ":" in line and is_header_name(name)
                    else "a line that does not begin with a name"
                )
            )
        if name.lower() in OWN_HEADERS:
            raise BadScenario(f"{key}: {name} is set by the run itself: drop it")
        if name.lower() in found:
            raise BadScenario(f"{key}: {name} is given twice: give each header once")
        if not is_plain(value):
            raise BadScenario(f"{key}: the value of {name} must be plain ASCII on one line")
        check_variables(f"{key}: {name}", value)
        if name.lower() == "host" and "$" not in value and not _HOST.fullmatch(value):
            raise BadScenario(f"{key}: Host must be a name such as llm.localhost, got {value!r}")
        found[name.lower()] = Header(name, value)
    return tuple(found.values())


def resolve(headers: Sequence[Header], environ: Mapping[str, str], key: str = REQUESTS_KEY) -> dict[str, str]:
    """Return headers with the values of their variables.

    Raises:
        NotReady: A variable is not set, or its value cannot be part of a header. The
            message has the variable's name and never a value.
    """
    require_variables(texts_of(headers, key), environ)
    return {one.name: filled(one.value, environ) for one in headers}


def secrets_of(headers: Sequence[Header], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the values of headers and variables that no evidence may contain."""
    found = values_of((one.value for one in headers), environ)
    for one in headers:
        if one.name.lower() not in _PLAIN:
            value = filled(one.value, environ)
            found |= {value, value.split()[-1]} if value.split() else set()
    return frozenset(value for value in found if value.strip())


def texts_of(headers: Sequence[Header], key: str) -> list[tuple[str, str]]:
    """Return the value of each header, after its name in messages."""
    return [(f"{key}: {one.name}", one.value) for one in headers]


def values_of(texts: Iterable[str], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the values of the variables in texts."""
    return frozenset(environ[name] for text in texts for name in _variables(text) if environ.get(name, "").strip())


def require_variables(texts: Iterable[tuple[str, str]], environ: Mapping[str, str]) -> None:
    """Raise NotReady unless every variable of the texts has a usable value."""
    wrong: list[str] = []
    for where, text in texts:
        for name in _variables(text):
            if not environ.get(name):
                wrong.append(f"{where} needs the environment variable {name}, which is {_lack(name, environ)}")
            elif not is_plain(environ[name]):
                wrong.append(f"{where}: the value of the environment variable {name} is not plain ASCII on one line")
    if wrong:
        raise NotReady("; ".join(dict.fromkeys(wrong)) + ": set it before pytest starts")


def filled(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with the values of `$NAME` and `${NAME}`. `$$` is a dollar sign."""
    return string.Template(text).safe_substitute(environ)


def check_variables(where: str, text: str) -> None:
    """Raise BadScenario for a dollar sign that begins no variable."""
    if not string.Template(text).is_valid():
        raise BadScenario(f"{where}: $ must begin a variable such as $API_KEY or ${{API_KEY}}: write $$ for a plain $")


def _lack(name: str, environ: Mapping[str, str]) -> str:
    return "empty" if name in environ else "not set"


def _variables(text: str) -> list[str]:
    return string.Template(text).get_identifiers()
