"""A late first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Pause, Send
from fault_agent.faults.base import LONGEST_DELAY_S, StreamFault, register
from fault_agent.faults.dialects import TOKEN
from fault_agent.faults.editors import AtMoment, Editor, Moment, PauseFirst
from lab_common.values import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class LateFirstToken(StreamFault):
    """The first token waits, in any channel. Events before it pass.

    A JSON body waits as a whole. The load generator sees a larger TTFT, or `timeout`.

    Attributes:
        delay_s: seconds from the first token of the service.
    """

    kind: ClassVar[str] = "late_first_token"
    delay_s: float

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require("delay_s", self.delay_s, above=0, at_most=LONGEST_DELAY_S)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        return AtMoment(stream, self._act, hit, wanted=TOKEN)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return PauseFirst(Pause(self.delay_s), hit)

    def _act(self, moment: Moment) -> list[Act]:
        return [Pause(self.delay_s), Send(moment.raw)]
