"""An answer without text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Send
from fault_agent.faults.base import StreamFault, register
from fault_agent.faults.dialects import FINISH, TOKEN, Fields, dump, emptied, is_whole_answer, parse
from fault_agent.faults.editors import EachEvent, Editor, Whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class EmptyAnswer(StreamFault):
    """The answer ends well and has no token in any channel.

    The first token and one with the finish reason become empty, others are dropped. The
    load generator sees `truncated` if it has the expected answer, else `ok` without a
    token.
    """

    kind: ClassVar[str] = "empty_answer"

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        has_begun = False

        def change(raw: bytes, _data: bytes, meaning: int, fields: Fields) -> bytes:
            nonlocal has_begun
            if not meaning & TOKEN and not fields.get("generated_text"):
                return raw
            if has_begun and not meaning & FINISH:
                return b""
            has_begun = True
            return stream.with_data(raw, dump(emptied(fields)))

        return EachEvent(stream, change, hit)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return Whole(_empty, hit)


def _empty(body: bytes) -> list[Act] | None:
    fields = parse(body)
    return [Send(dump(emptied(fields)))] if is_whole_answer(fields) else None
