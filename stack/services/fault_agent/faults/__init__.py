"""Registry of faults, one file a kind.

To add one, write its file and name it in the import below.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from fault_agent.faults import (  # noqa: F401 - each of them registers its kinds
    duplicate,
    empty_answer,
    flaky,
    hold,
    inband_error,
    late_first_token,
    malformed,
    network,
    reorder,
    slow_drip,
    slow_error,
    stale,
    stall,
    tool_answers,
    tool_edits,
    truncate,
    wrong_model,
)
from fault_agent.faults.base import (
    KINDS,
    LONGEST_LEASE_S,
    AnswerFault,
    Fault,
    NetworkFault,
    StreamFault,
)
from fault_agent.faults.editors import Editor
from fault_agent.faults.match import Match
from fault_agent.faults.substitute import Substitute
from lab_common.values import InvalidValueError, require, require_whole

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KINDS",
    "LONGEST_LEASE_S",
    "AnswerFault",
    "Editor",
    "Fault",
    "InvalidValueError",
    "Match",
    "NetworkFault",
    "Parsed",
    "StreamFault",
    "Substitute",
    "options",
    "parse",
]
_LARGEST_SEED = 2**64 - 1


class Parsed(NamedTuple):
    """A fault, its lease in seconds and the seed of its decisions."""

    fault: Fault
    lease_s: float
    seed: int


def parse(data: object) -> Parsed:
    """Read a fault from decoded JSON.

    Raises:
        InvalidValueError: an unknown kind or option, a missing option, or a value out
            of its bounds.
    """
    if not isinstance(data, dict):
        raise InvalidValueError(f"a fault must be a JSON object, got {data!r}")
    given: dict[str, Any] = dict(data)
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidValueError(f"kind must be one of {', '.join(sorted(KINDS))}, got {name!r}")
    if "lease_s" not in given:
        raise InvalidValueError("lease_s is missing: every fault needs the seconds after which it ends by itself")
    lease_s = given.pop("lease_s")
    require("lease_s", lease_s, above=0, at_most=LONGEST_LEASE_S)
    seed = given.pop("seed", 0)
    require_whole("seed", seed, at_least=0, at_most=_LARGEST_SEED)
    _require_fields(name, KINDS[name], given)
    if "match" in given:
        given["match"] = _match(given["match"])
    make: Callable[..., Fault] = KINDS[name]
    return Parsed(make(**given), float(lease_s), seed)


def options(fault: Fault) -> dict[str, Any]:
    """The options of a fault as JSON values."""
    return asdict(fault)


def _match(data: object) -> Match:
    if not isinstance(data, dict):
        raise InvalidValueError(f"match must be a JSON object, got {data!r}")
    _require_fields("match", Match, data)
    make: Callable[..., Match] = Match
    return make(**data)


def _require_fields(name: str, made: type[Fault | Match], given: dict[str, Any]) -> None:
    """Check the names of the options. Raises InvalidValueError."""
    known = fields(made)
    for unknown in sorted(map(str, set(given) - {field.name for field in known})):
        takes = ", ".join(field.name for field in known)
        raise InvalidValueError(f"{name} has no option {unknown!r}; it takes {takes}")
    for field in known:
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise InvalidValueError(f"{field.name} is missing: {name} cannot act without it")
