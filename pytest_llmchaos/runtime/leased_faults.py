"""Lists of faults as the simulated engine and the fault agent write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from pytest_llmchaos.model import LeasedFaults, LeasedFaultState


class ListedFault(TypedDict):
    """One fault of a list. `state` is `active` while it is in force."""

    id: str
    kind: str
    state: str
    lease_s: float
    left_s: float
    counters: Mapping[str, float]


def read_faults(listed: Sequence[ListedFault], now_unix_s: float) -> LeasedFaults:
    """Return the list as values.

    Starts are computed from the leases, because the other clock may differ.

    Args:
        listed: Faults as the other process lists them.
        now_unix_s: Unix time of the list in seconds, by our clock.
    """
    return LeasedFaults(at_unix_s=now_unix_s, faults=tuple(_state(one, now_unix_s) for one in listed))


def _state(listed: ListedFault, now_unix_s: float) -> LeasedFaultState:
    active = listed["state"] == "active"
    age_s = float(listed["lease_s"]) - float(listed["left_s"]) if active else 0.0
    return LeasedFaultState(
        id=str(listed["id"]),
        kind=str(listed["kind"]),
        active=active,
        started_unix_s=now_unix_s - age_s,
        counters={str(name): float(count) for name, count in listed["counters"].items()},
    )
