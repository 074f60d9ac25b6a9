"""Lists of faults as the simulated engine and the fault agent write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from pytest_llmchaos.model import LeasedFaults, LeasedFaultState


class ListedFault(TypedDict):
    """One fault of a list. `state` is `active` while it is in force."""

    id: str
    kind: str
    state: str
    lease_s: float
    left_s: float
    counters: Mapping[str, float]
    started_unix_s: NotRequired[float]
    hit_unix_s: NotRequired[float | None]


def read_faults(listed: Sequence[ListedFault], now_unix_s: float) -> LeasedFaults:
    """Return the list as values.

    Starts are computed from the leases, because the other clock may differ.

    Args:
        listed: Faults as the other process lists them.
        now_unix_s: Unix time of the list in seconds, by our clock.
    """
    return LeasedFaults(at_unix_s=now_unix_s, faults=tuple(read_fault(one, now_unix_s) for one in listed))


def read_fault(listed: ListedFault, now_unix_s: float) -> LeasedFaultState:
    """Return one fault of a list as a value.

    Args:
        listed: The fault as the other process lists it.
        now_unix_s: Unix time of the list in seconds, by our clock.
    """
    active = listed["state"] == "active"
    age_s = float(listed["lease_s"]) - float(listed["left_s"]) if active else 0.0
    start_unix_s, hit_unix_s = listed.get("started_unix_s"), listed.get("hit_unix_s")
    return LeasedFaultState(
        id=str(listed["id"]),
        kind=str(listed["kind"]),
        active=active,
        started_unix_s=now_unix_s - age_s,
        counters={str(name): float(count) for name, count in listed["counters"].items()},
        hit_unix_s=hit_unix_s,
        hit_after_s=None if start_unix_s is None or hit_unix_s is None else max(0.0, hit_unix_s - start_unix_s),
    )
