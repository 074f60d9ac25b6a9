"""Answers from before, as of metrics that no longer change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Send
from fault_agent.faults.base import StreamFault, register
from fault_agent.faults.events import LONGEST_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fault_agent.faults.editors import Editor
    from fault_agent.messages import AnswerHead

MOST_KEPT = 1000  # requests that differ
# The parameter with the time of a query differs each time, and the query is the same.
_TIME = re.compile(rb"(?:^|(?<=[?&]))(?:time|start|end)=[^&]*&?")


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class StaleAnswers(StreamFault):
    """The first answer to a request is repeated for each further one.

    Requests are the same if method, path and body are, but for the time of a query. The
    service gets all of them.
    """

    kind: ClassVar[str] = "stale_answers"

    @property
    def needs_body(self) -> bool:
        """True, because a query may be there."""
        return True

    def replay(
        self, answer: AnswerHead, body: bytes, kept: MutableMapping[bytes, bytes], hit: Callable[[], None]
    ) -> Editor | None:
        """An editor for one answer, or None if the answer is no good one.

        Args:
            answer: head of the answer.
            body: body of the request.
            kept: the first answer to each request.
            hit: called when an older answer takes the place of this one.
        """
        if answer.status != 200:
            return None
        method, path = answer.request.method.encode(), answer.request.path.encode()
        return Replay(b" ".join((method, _TIME.sub(b"", path), _TIME.sub(b"", body))), kept, hit)


class Replay:
    """Keeps the first body of its kind, or sends it in the place of this one."""

    __slots__ = ("_hit", "_is_long", "_kept", "_name", "_pieces", "_size")

    def __init__(self, name: bytes, kept: MutableMapping[bytes, bytes], hit: Callable[[], None]) -> None:
        self._name, self._kept, self._hit = name, kept, hit
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_long = False

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size <= LONGEST_BODY:
            return []
        self._is_long = True
        return [Send(self.release())]

    def end(self) -> list[Act]:
        """Acts at the end of the body."""
        body = self.release()
        if self._is_long:
            return [Send(body)]
        first = self._kept.get(self._name)
        if first is not None:
            if first != body:
                self._hit()
            return [Send(first)]
        if len(self._kept) < MOST_KEPT:
            self._kept[self._name] = body
        return [Send(body)]

    def release(self) -> bytes:
        """The body so far."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body
