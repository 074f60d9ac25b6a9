"""Faults of connections. The relay performs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fault_agent.faults.base import NetworkFault, register
from lab_common.values import require, require_one_of, require_whole

LONGEST_LATENCY_S = 600.0
MOST_BYTES = 1 << 40


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Latency(NetworkFault):
    """Bytes of both directions arrive late.

    Attributes:
        delay_s: mean seconds.
        jitter_s: largest difference from it (uniform), or the standard deviation
            (normal). At most `delay_s`.
        distribution: "uniform" or "normal".
    """

    kind: ClassVar[str] = "latency"
    delay_s: float
    jitter_s: float = 0.0
    distribution: str = "uniform"

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require("delay_s", self.delay_s, above=0, at_most=LONGEST_LATENCY_S)
        require("jitter_s", self.jitter_s, at_most=self.delay_s)
        require_one_of("distribution", self.distribution, ("uniform", "normal"))


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Bandwidth(NetworkFault):
    """Fewer bytes a second, for each direction of a connection."""

    kind: ClassVar[str] = "bandwidth"
    bytes_per_s: int

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_whole("bytes_per_s", self.bytes_per_s, at_least=1, at_most=MOST_BYTES)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class BlackHole(NetworkFault):
    """Connections stay open and carry no byte."""

    kind: ClassVar[str] = "black_hole"


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Reset(NetworkFault):
    """Connections end with RST.

    Attributes:
        after_bytes: of the service's answers that still pass. 0 for at once.
    """

    kind: ClassVar[str] = "reset"
    after_bytes: int = 0

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_whole("after_bytes", self.after_bytes, at_least=0, at_most=MOST_BYTES)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Reject(NetworkFault):
    """New connections end with RST before their first byte."""

    kind: ClassVar[str] = "reject"
