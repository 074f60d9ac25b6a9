"""A token that comes twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Send
from fault_agent.faults.base import StreamFault, register, require_tokens
from fault_agent.faults.dialects import END, FINISH, TOKEN
from fault_agent.faults.editors import AtMoment, Editor, Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate(StreamFault):
    """One token is sent twice. A token with the finish reason is left alone.

    The load generator sees `corrupted` if it has the expected answer, else `ok` with
    one more token.

    Attributes:
        after_tokens: number of tokens before it. A shorter stream is not hit.
    """

    kind: ClassVar[str] = "duplicate"
    after_tokens: int

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def act(moment: Moment) -> list[Act]:
            return [Send(stream.closed(moment.raw) + moment.raw)]

        return AtMoment(stream, act, hit, after_tokens=self.after_tokens, wanted=TOKEN, unwanted=FINISH | END)
