"""Faults of other packages, from the entry points `pytest_llmchaos.faults`.

Entry points are searched only for names the catalogue lacks, so that importing it costs
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.compositions import Together, check_fault
from pytest_llmchaos.model import FIDELITIES, UNDO_OPS, Undo

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pytest_llmchaos.model import Fault, Primitive

GROUP = "pytest_llmchaos.faults"
ACTS = ("inject", "undo", "observed", "healed")


@functools.cache
def discover() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of installed packages by name.

    Each is listed once, even if its folder is on the path twice.
    """
    offered: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        offered.setdefault(point.name, {}).setdefault((_owner(point), point.value), point)
    return {name: tuple(points.values()) for name, points in sorted(offered.items())}


@functools.cache
def factory(name: str) -> Callable[..., Fault] | None:
    """Return the maker of a fault of another package, or None if no package has it.

    Raises:
        BadScenario: Two packages claim the name, or the entry point cannot be imported
            or called.
    """
    points = discover().get(name, ())
    if not points:
        return None
    if len(points) > 1:
        owners = " and ".join(sorted(_whence(point) for point in points))
        raise BadScenario(f"faults.{name} is claimed by {owners}: expected one; uninstall the other")
    (point,) = points
    try:
        make = point.load()
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        raise BadScenario(
            f"faults.{name} of {_whence(point)} cannot be imported ({type(error).__name__}: {error}): repair or uninstall it"
        ) from None
    if not callable(make):
        raise BadScenario(f"faults.{name} of {_whence(point)} must be a function that makes a fault, got {make!r}")

    @functools.wraps(make)
    def checked(*args: object, **options: object) -> Fault:
        return check_foreign(f"faults.{name} of {_whence(point)}", name, make(*args, **options))

    return checked


def check_foreign(where: str, name: str, fault: object) -> Fault:
    """Return the fault if it declares what every fault of the catalogue declares.

    Journals, the revert after a crash and the coverage table rely on it.

    Raises:
        BadScenario: It is not an act on a target, or lacks a part.
    """
    made = check_fault(f"what {where} makes", fault)
    for one in made.members if isinstance(made, Together) and made.verb == "together" else (made,):
        lacks = [act for act in ACTS if not callable(getattr(getattr(one, "primitive", None), act, None))]
        if not isinstance(one, OnTarget) or lacks:
            raise BadScenario(
                f"{where} must make OnTarget(primitive=..., target=...) whose primitive has {', '.join(f'`{act}`' for act in ACTS)}; "
                f"got {type(one).__name__}{f' without `{lacks[0]}`' if lacks else ''}"
            )
        _check_primitive(where, name, one.primitive, one.target)
    return made


def _check_primitive(where: str, name: str, primitive: Primitive, target: str) -> None:
    expected: dict[str, tuple[Callable[[object], bool], str]] = {
        "kind": (lambda it: it == name, f"{name!r}, its name in reports"),
        "needs": (_words, "a frozenset of abilities, such as frozenset({'kill', 'events'})"),
        "lifetime": (lambda it: it in {"lasting", "passing"}, "'lasting' or 'passing'"),
        "fidelity": (lambda it: it in FIDELITIES, f"one of {', '.join(FIDELITIES)}"),
        "expects": (_text, "the signal that should show it, in words"),
    }
    for what, (right, words) in expected.items():
        declared = getattr(primitive, what, None)
        if not right(declared):
            raise BadScenario(f"{where} has {what}={declared!r}, expected {words}")
    undo: object = primitive.undo(target)
    if not isinstance(undo, Undo) or undo.op not in UNDO_OPS:
        raise BadScenario(
            f"{where} is reverted by {undo!r}, expected an Undo whose op is one of {', '.join(sorted(UNDO_OPS))}: "
            "after a crash another process reverts it, and supports no others"
        )


def _words(value: object) -> bool:
    return isinstance(value, frozenset) and bool(value) and all(_text(item) for item in value)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unnamed distribution"


def _whence(point: EntryPoint) -> str:
    """Return the distribution and the entry point's value, for a message."""
    version = f" {point.dist.version}" if point.dist else ""
    return f"{_owner(point)}{version} ({point.value})"
