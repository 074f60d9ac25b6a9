"""An error inside a good answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Finish, Send
from fault_agent.faults.base import StreamFault, register, require_tokens
from fault_agent.faults.dialects import END, FINISH, TOKEN, failed, is_whole_answer, parse
from fault_agent.faults.editors import AtMoment, Editor, Moment, Whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class InbandError(StreamFault):
    """The stream ends with an error event after some tokens, with status 200.

    The event has the format of vLLM, Ollama or TGI, and `[DONE]` follows it as in vLLM.
    A JSON body becomes an error as a whole. The load generator sees `inband_error`.

    Attributes:
        after_tokens: number of tokens that pass. A shorter stream is not hit.
    """

    kind: ClassVar[str] = "inband_error"
    after_tokens: int

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def act(moment: Moment) -> list[Act]:
            data = failed(moment.fields)
            return [Send(b"".join(stream.with_data(moment.raw, one) for one in data)), Finish()]

        return AtMoment(stream, act, hit, after_tokens=self.after_tokens, wanted=TOKEN | FINISH | END)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return Whole(_fail, hit)


def _fail(body: bytes) -> list[Act] | None:
    fields = parse(body)
    return [Send(failed(fields)[0])] if is_whole_answer(fields) else None
