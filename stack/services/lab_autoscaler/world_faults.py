"""Faults of the simulated world, with their written form."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from lab_common.values import InvalidValueError, require

if TYPE_CHECKING:
    from collections.abc import Iterable

BUSIEST = "busiest"
EVERY = "all"
PEAK: Literal["peak"] = "peak"
At = float | Literal["peak"]
_LONGEST_S = 86_400.0
_REPLICA = re.compile(r"busiest|all|model-[1-9][0-9]{0,5}")


class InvalidFaultError(ValueError):
    """A written fault that is not one."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Base of the faults. `at_s` is a time in seconds, or "peak"."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check(field.name, getattr(self, field.name))

    def _check(self, name: str, value: object) -> None:
        if name == "replica":
            if not isinstance(value, str) or not _REPLICA.fullmatch(value):
                raise InvalidValueError(f"replica must be busiest, all or a name such as 'model-1', got {value!r}")
        elif not (name == "at_s" and value == PEAK):
            require(name, value, above=None if name == "at_s" else 0, at_most=_LONGEST_S)


@dataclass(frozen=True, kw_only=True)
class Nothing(Fault):
    """The control: no fault."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class Timed(Fault):
    """Base of the faults with a start."""

    at_s: At


@dataclass(frozen=True, kw_only=True)
class Kill(Timed):
    """The death of one replica: the busiest ready one, a name, or "all"."""

    kind: ClassVar[str] = "kill"
    replica: str = BUSIEST


@dataclass(frozen=True, kw_only=True)
class Lasting(Timed):
    """Base of the faults with a duration."""

    for_s: float


@dataclass(frozen=True, kw_only=True)
class CrashOnBoot(Lasting):
    """Every start within the time fails at once."""

    kind: ClassVar[str] = "crash_on_boot"


@dataclass(frozen=True, kw_only=True)
class SlowLoad(Lasting):
    """Loading takes `factor` times as long for every start within the time."""

    kind: ClassVar[str] = "slow_load"
    factor: float


@dataclass(frozen=True, kw_only=True)
class ScrapeGap(Lasting):
    """No scrape succeeds."""

    kind: ClassVar[str] = "scrape_gap"


@dataclass(frozen=True, kw_only=True)
class Nan(Lasting):
    """Every scraped value is NaN."""

    kind: ClassVar[str] = "nan"


@dataclass(frozen=True, kw_only=True)
class Throttle(Lasting):
    """Steps take `factor` times as long on the busiest replica, a name or "all"."""

    kind: ClassVar[str] = "throttle"
    factor: float
    replica: str = BUSIEST


KINDS: dict[str, type[Fault]] = {
    one.kind: one for one in (Nothing, Kill, CrashOnBoot, SlowLoad, ScrapeGap, Nan, Throttle)
}
SomeFault = TypeVar("SomeFault", bound=Fault)


def at_peak(fault: Fault, peak_s: float) -> Fault:
    """The fault with its start as a time, in place of "peak"."""
    return replace(fault, at_s=peak_s) if isinstance(fault, Timed) and fault.at_s == PEAK else fault


def window_of(fault: Lasting) -> tuple[float, float]:
    """Start and end, in seconds.

    Raises:
        InvalidFaultError: the start is "peak" still.
    """
    if fault.at_s == PEAK:
        raise InvalidFaultError(f"{written(fault)}: expected a start in seconds, after at_peak")
    return fault.at_s, fault.at_s + fault.for_s


def parse(text: str) -> Fault:
    """The fault of a written form, such as `kill(at_s=300)` or `none`.

    Raises:
        InvalidFaultError: with the text and what was expected.
    """
    found = parse_all(text)
    if len(found) > 1:
        raise InvalidFaultError(f"expected one fault, got {text!r}")
    return found[0]


def parse_all(text: str) -> tuple[Fault, ...]:
    """The faults of a written sum, such as `kill(at_s=300) + nan(at_s=300, for_s=60)`.

    Raises:
        InvalidFaultError: with the text and what was expected.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidFaultError(f"expected a fault such as kill(at_s=300), got {text!r}") from None
    parts = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.append(node.right)
        node = node.left
    found = tuple(_parse(text, part) for part in (node, *reversed(parts)))
    if len(found) > 1 and Nothing() in found:
        raise InvalidFaultError(f"expected none alone, got {text!r}")
    return found


def _parse(text: str, node: ast.expr) -> Fault:
    name, given = _call(text, node)
    if name not in KINDS:
        raise InvalidFaultError(f"expected a fault among {', '.join(KINDS)}, got {text!r}")
    kind = KINDS[name]
    known = [field.name for field in fields(kind)]
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in given]
    unknown = [one for one in given if one not in known]
    if unknown or missing:
        raise InvalidFaultError(f"expected {name}({', '.join(known)}), got {text!r}")
    try:
        return kind(**given)
    except InvalidValueError as error:
        raise InvalidFaultError(f"{text}: {error}") from None


def _call(text: str, node: ast.expr) -> tuple[str, dict[str, object]]:
    """Name and options of a call. A name alone is a call without options."""
    if isinstance(node, ast.Name):
        return node.id, {}
    options: dict[str, object] = {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        try:
            for one in node.keywords:
                # `at_s=peak` without quotes reads as a name.
                bare = one.value.id if isinstance(one.value, ast.Name) else None
                options[one.arg or "**"] = ast.literal_eval(one.value) if bare is None else bare
        except (ValueError, TypeError, RecursionError):
            pass
        else:
            return node.func.id, options
    raise InvalidFaultError(f"expected a fault such as kill(at_s=300), got {text!r}")


def written(fault: Fault) -> str:
    """The written form, without options that have their default."""
    given = [
        f"{field.name}={_value(getattr(fault, field.name))}"
        for field in fields(fault)
        if getattr(fault, field.name) != field.default
    ]
    return f"{fault.kind}({', '.join(given)})" if given else fault.kind


def written_all(faults: Iterable[Fault]) -> str:
    """The written sum, which `parse_all` reads as the same faults."""
    return " + ".join(map(written, faults))


def require_start_before(until_s: float, faults: Iterable[Fault]) -> None:
    """Check that each fault begins in time.

    Raises:
        InvalidFaultError: with the fault that does not.
    """
    for fault in faults:
        if isinstance(fault, Timed) and fault.at_s != PEAK and fault.at_s >= until_s:
            raise InvalidFaultError(f"{written(fault)}: expected a start before until_s, {until_s:g} s")


def _value(value: object) -> str:
    if isinstance(value, str):
        return value if value.isidentifier() else repr(value)
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)
