"""A message that waits, so that something else can happen at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from fault_agent.acts import Act, Pause, Report, Send
from fault_agent.faults.base import LONGEST_DELAY_S, StreamFault, register
from fault_agent.faults.dialects import END, FAILURE, FINISH, RESULT, TOKEN
from fault_agent.faults.editors import AtMoment, Editor, Moment, PauseFirst, PauseLast
from lab_common.values import InvalidValueError, require, require_one_of, require_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream

EVENTS: Final = ("received", "first_token", "answered", "delivered")
MOST_REQUESTS: Final = 1_000_000
_UNTIL_THE_END: Final = Pause(None)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Hold(StreamFault):
    """One message of one request waits until the fault ends, or for `most_s`.

    It changes no byte. The load generator sees a late answer.

    Attributes:
        event: the message: the request itself (`received`), the first token of its
            answer (`first_token`), or the last event of its answer (`answered`). With
            `delivered` the whole answer has been passed on, and nothing waits.
        number: number of the request among those that match, counted from 1 since the
            start of the fault, in the order of their heads, or of their ends if `match`
            names a tool.
        most_s: the fault ends so many seconds after the message came, None for never.
    """

    kind: ClassVar[str] = "hold"
    event: str = "first_token"
    number: int = 1
    most_s: float | None = None

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_one_of("event", self.event, EVENTS)
        require_whole("number", self.number, at_least=1, at_most=MOST_REQUESTS)
        if self.most_s is not None:
            require("most_s", self.most_s, above=0, at_most=LONGEST_DELAY_S)
        if self.share != 1:
            raise InvalidValueError(f"share must be 1, because number selects the request, got {self.share!r}")
        if self.match.model is not None or self.match.streaming is not None:
            raise InvalidValueError(
                "match of hold must not name model or streaming: it counts requests or calls of a tool"
            )

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        wanted = RESULT | FAILURE | END
        if self.event == "delivered":  # some clients do not read on to the end of the body
            return AtMoment(stream, lambda moment: [Send(moment.raw), Report(hit)], _no_hit, wanted=wanted)
        if self.event == "first_token":
            wanted |= TOKEN | FINISH
        return AtMoment(stream, self._act, hit, wanted=wanted)

    def edit_whole(self, hit: Callable[[], None]) -> Editor | None:
        """An editor for a JSON body, None if the end of the answer is the message."""
        if self.event == "delivered":
            return None
        return PauseLast(hit) if self.event == "answered" else PauseFirst(_UNTIL_THE_END, hit)

    def _act(self, moment: Moment) -> list[Act]:
        return [_UNTIL_THE_END, Send(moment.raw)]


def _no_hit() -> None:
    """The hit is reported once the event is sent."""
