"""Leases: seconds after which an engine or an agent ends a fault by itself."""

from __future__ import annotations

from pytest_llmchaos.errors import BadScenario

# The engine or agent ends a fault after 5 minutes if the instrument did not revert it.
# An experiment with longer phases requests a longer lease.
LEASE_S = 300.0
LONGEST_LEASE_S = 3600.0  # the limit of stack/services/lab_engine and of fault_agent


def longer_lease_s(lease_s: float, for_s: float, name: str, lessor: str) -> float:
    """Return a lease of at least `for_s` seconds.

    Args:
        lease_s: The lease so far, in seconds.
        for_s: Seconds for which the fault must stay in force.
        name: The fault's name, for the message.
        lessor: The process that ends the fault, for the message.

    Raises:
        BadScenario: No lease is that long.
    """
    if for_s > LONGEST_LEASE_S:
        raise BadScenario(
            f"experiment(...) may need {name!r} for {for_s:g} s, margins included; {lessor} ends every fault after "
            f"{LONGEST_LEASE_S:g} s: shorten fault_s, the deadline, or the time from the first fault to the last"
        )
    return max(lease_s, for_s)
