"""Gives the faults of one experiment unique names: results and seeds are kept by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import Fault


def with_unique_names(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """The faults, each with a name of its own: where several share one, the options in which they differ go into it.

    A name that is alone stays as it is, since seeds and schedules are drawn from it.
    """
    for index, one in enumerate(faults):
        if one in faults[:index]:
            raise BadScenario(
                f"experiment(fault=[...]) names a fault twice ({one}): use --chaos-repeat to repeat trials"
            )
    named = tuple(_with_unique_name(one, [other for other in faults if str(other) == str(one)]) for one in faults)
    ((name, times),) = Counter(str(one) for one in named).most_common(1)
    if times > 1:
        raise BadScenario(
            f"experiment(fault=[...]) has {times} faults that differ and share the name {name!r}, by which results are kept: "
            "give each a scenario file of its own"
        )
    return named


def _with_unique_name(fault: Fault, alike: Sequence[Fault]) -> Fault:
    """The fault with those of its options in its name in which the faults of that name differ."""
    mine = fault.strength
    differ = [name for name, value in mine.items() if any(other.strength.get(name) != value for other in alike)]
    return fault.named_by(differ) if differ else fault
