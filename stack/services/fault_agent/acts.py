"""Acts of the relay on one answer, in the order of its editor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for some seconds.

    `seconds` is None for a pause until the fault ends. A comment of the stream's format
    goes out every `keep_alive_s` seconds, none if that is None.
    """

    seconds: float | None
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """End the answer cleanly here. What the service still sends is dropped."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection off here, in the middle of the answer."""


@dataclass(frozen=True, slots=True)
class Report:
    """Call `sent` once all before it was sent."""

    sent: Callable[[], None]


Act = Send | Pause | Finish | Cut | Report
