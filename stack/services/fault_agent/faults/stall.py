"""A stream that stops and stays open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Pause, Send
from fault_agent.faults.base import LONGEST_DELAY_S, StreamFault, register, require_tokens
from fault_agent.faults.dialects import END, FINISH, TOKEN
from fault_agent.faults.editors import AtMoment, Editor, Moment, PauseFirst
from lab_common.values import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Stall(StreamFault):
    """The stream stops after some tokens, then goes on.

    It stops when the next event arrives. With `after_tokens=0` a JSON body waits as a
    whole. The load generator sees `stalled` for a stream that was silent for its
    `stall_s` at its timeout, `timeout` for one without a token, else a large gap.
    Comments do not change that.

    Attributes:
        after_tokens: number of tokens that pass.
        for_s: seconds, None until the fault ends.
        keep_alive_s: seconds between comments of a proxy, None without comments.
    """

    kind: ClassVar[str] = "stall"
    after_tokens: int = 0
    for_s: float | None = None
    keep_alive_s: float | None = None

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_tokens(self.after_tokens)
        if self.for_s is not None:
            require("for_s", self.for_s, above=0, at_most=LONGEST_DELAY_S)
        if self.keep_alive_s is not None:
            require("keep_alive_s", self.keep_alive_s, at_least=0.01, at_most=LONGEST_DELAY_S)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        return AtMoment(stream, self._act, hit, after_tokens=self.after_tokens, wanted=TOKEN | FINISH | END)

    def edit_whole(self, hit: Callable[[], None]) -> Editor | None:
        """An editor for a JSON body, which has no event to stop after."""
        return None if self.after_tokens else PauseFirst(self._pause(), hit)

    def _act(self, moment: Moment) -> list[Act]:
        return [self._pause(), Send(moment.raw)]

    def _pause(self) -> Pause:
        return Pause(self.for_s, self.keep_alive_s)
