"""A body in small pieces with pauses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Pause
from fault_agent.faults.base import StreamFault, register
from fault_agent.faults.editors import Drip, Editor
from lab_common.values import require, require_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.messages import AnswerHead

LONGEST_PIECE = 1 << 20
LONGEST_PAUSE_S = 60.0


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class SlowDrip(StreamFault):
    """The body of any answer with status 200 arrives a few bytes at a time.

    The load generator sees larger gaps, `timeout` or `stalled`.

    Attributes:
        bytes_per_piece: bytes between two pauses.
        every_s: seconds of each pause.
    """

    kind: ClassVar[str] = "slow_drip"
    bytes_per_piece: int = 1
    every_s: float

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_whole("bytes_per_piece", self.bytes_per_piece, at_least=1, at_most=LONGEST_PIECE)
        require("every_s", self.every_s, at_least=0.001, at_most=LONGEST_PAUSE_S)

    def editor(self, answer: AnswerHead, hit: Callable[[], None]) -> Editor | None:
        """An editor for one answer."""
        return Drip(self.bytes_per_piece, Pause(self.every_s), hit) if answer.status == 200 else None
