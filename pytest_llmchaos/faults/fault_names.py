"""Tells the faults of one experiment apart by name, as results and seeds are kept by it. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import OnTarget
from pytest_llmchaos.faults.engine_faults import EngineFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import Fault

# What a primitive says of itself follows from its kind and its strength.
_FOLLOWS = frozenset({"kind", "needs", "lifetime", "fidelity", "expects", "witness", "counter"})


def told_apart(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """The faults, each with a name of its own: where several share one, what they differ in goes into it.

    A name that is alone stays as it is, since seeds and schedules are drawn from it.
    """
    for index, one in enumerate(faults):
        if one in faults[:index]:
            raise BadScenario(
                f"experiment(fault=[...]) names a fault twice ({one}): use --chaos-repeat to repeat trials"
            )
    alike = Counter(str(one) for one in faults)
    named = tuple(
        _with_strength(one, [other for other in faults if str(other) == str(one)]) if alike[str(one)] > 1 else one
        for one in faults
    )
    (name, times), *_ = Counter(str(one) for one in named).most_common(1)
    if times > 1:
        raise BadScenario(
            f"experiment(fault=[...]) has {times} faults that differ and share the name {name!r}, by which results are kept: "
            "give each a scenario file of its own"
        )
    return named


def _with_strength(fault: Fault, alike: Sequence[Fault]) -> Fault:
    if not isinstance(fault, OnTarget):
        return fault
    strength = _strength(fault)
    told = [
        f"{name}={value}" for name, value in strength.items() if any(_strength(o).get(name) != value for o in alike)
    ]
    return replace(fault, strength=", ".join(told))


def _strength(fault: Fault) -> dict[str, Any]:
    primitive = getattr(fault, "primitive", None)
    if not is_dataclass(primitive):
        return {}
    found = {field.name: getattr(primitive, field.name) for field in fields(primitive) if field.name not in _FOLLOWS}
    if isinstance(primitive, EngineFault):
        found |= found.pop("options")
    return found
