"""Unique names for the faults of one experiment."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import Fault


def with_unique_names(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the faults, each with a unique name. Results and seeds are keyed by name.

    Faults that share a name get the options in which they differ into it. A name that
    is unique stays as it is, since seeds and schedules are drawn from it.

    Raises:
        BadScenario: A fault is named twice, or two that differ cannot get unique names.
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
            f"experiment(fault=[...]) has {times} different faults with the name {name!r}, and results are keyed by name: "
            "give each a scenario file of its own"
        )
    return named


def _with_unique_name(fault: Fault, alike: Sequence[Fault]) -> Fault:
    """Return the fault named by the options in which faults of its name differ."""
    mine = fault.strength
    differ = [name for name, value in mine.items() if any(other.strength.get(name) != value for other in alike)]
    return fault.named_by(differ) if differ else fault
