"""An event that is not JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Finish, Send
from fault_agent.faults.base import StreamFault, register, require_tokens
from fault_agent.faults.dialects import END, FINISH, TOKEN, is_whole_answer, parse
from fault_agent.faults.editors import AtMoment, Editor, Moment, Whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed(StreamFault):
    """One event has half of its data, and the stream goes on.

    Of a JSON body half is sent. The load generator sees `corrupted`.

    Attributes:
        after_tokens: number of tokens that pass. A shorter stream is not hit.
    """

    kind: ClassVar[str] = "malformed"
    after_tokens: int

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def act(moment: Moment) -> list[Act]:
            return [Send(stream.with_data(moment.raw, moment.data[: len(moment.data) // 2]))]

        return AtMoment(stream, act, hit, after_tokens=self.after_tokens, wanted=TOKEN | FINISH | END)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return Whole(_halve, hit)


def _halve(body: bytes) -> list[Act] | None:
    return [Send(body[: len(body.rstrip()) // 2]), Finish()] if is_whole_answer(parse(body)) else None
