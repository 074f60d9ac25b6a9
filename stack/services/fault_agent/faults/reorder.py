"""Two tokens in the wrong order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.faults.base import StreamFault, register, require_tokens
from fault_agent.faults.editors import Editor, Swap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Reorder(StreamFault):
    """One token is sent after the next one, for which it waits.

    The load generator sees `corrupted` if it has the expected answer and the tokens
    differ, else `ok`.

    Attributes:
        after_tokens: number of tokens before both. A shorter stream is not hit, nor
            is one whose next token has the finish reason.
    """

    kind: ClassVar[str] = "reorder"
    after_tokens: int

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        return Swap(stream, hit, after_tokens=self.after_tokens)
