"""An answer that breaks off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Finish, Send
from fault_agent.faults.base import StreamFault, register, require_tokens
from fault_agent.faults.dialects import END, FINISH, TOKEN, dump, is_whole_answer, parse, shortened, stopped
from fault_agent.faults.editors import AtMoment, Editor, Moment, Whole
from lab_common.values import require_one_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Truncate(StreamFault):
    """The answer ends after some tokens, and the HTTP message ends well.

    - `clean`: no finish reason and no `[DONE]`. The load generator sees `truncated`.
    - `false_stop`: the finish reason `stop`, then `[DONE]`. No client can see it in the
      stream. The load generator sees `truncated` if it has the expected answer, else
      `ok` with fewer tokens.
    - `mid_event`: half of the next event. The load generator sees `truncated`.

    In a JSON body a token is a word. `clean` removes the finish reason, which is
    `truncated`. `mid_event` sends half of the body, which is `corrupted`.

    Attributes:
        after_tokens: number of tokens that pass. A shorter answer is not hit.
        how: one of the above.
    """

    kind: ClassVar[str] = "truncate"
    after_tokens: int
    how: str = "clean"

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)
        require_one_of("how", self.how, ("clean", "false_stop", "mid_event"))

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def act(moment: Moment) -> list[Act]:
            if self.how == "clean":
                return [Finish()]
            if self.how == "mid_event":
                return [Send(stream.cut(moment.raw)), Finish()]
            end = stopped(moment.fields, moment.text, moment.tokens)
            return [Send(b"".join(stream.with_data(moment.raw, data) for data in end)), Finish()]

        is_false = self.how == "false_stop"
        wanted = TOKEN if is_false else TOKEN | FINISH | END
        return AtMoment(stream, act, hit, after_tokens=self.after_tokens, wanted=wanted, keeps_text=is_false)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return Whole(self._shorten, hit)

    def _shorten(self, body: bytes) -> list[Act] | None:
        fields = parse(body)
        if not is_whole_answer(fields):
            return None
        short = shortened(fields, self.after_tokens, is_finished=self.how == "false_stop")
        if short is None:
            return None
        if self.how == "mid_event":
            return [Send(body[: len(body.rstrip()) // 2]), Finish()]
        return [Send(dump(short))]
