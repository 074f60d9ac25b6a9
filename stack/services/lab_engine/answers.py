"""Text of one answer, piece by piece, right or corrupted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from lab_engine.chat import ChatRequest, Text
    from lab_engine.tokens import AnswerText


class RefusedError(Exception):
    """A request that fails with `status` and this text."""

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Sink(Protocol):
    """Receiver of one answer. Must not raise and must not block."""

    def token(self, piece: str, *, first: bool, last: bool) -> None: ...
    def failed(self, error: RefusedError) -> None: ...


class Corruption(Protocol):
    """A fault that makes answers wrong."""

    kind: ClassVar[str]

    def corrupt(self, answer: Answer, others: Iterable[Answer], rng: random.Random) -> bool:
        """Mark `answer` for corruption or leave it. `others` are in progress too."""


@dataclass(eq=False, kw_only=True, slots=True)
class Answer:
    """One answer in progress: request, sink, and the corruption chosen on arrival."""

    request: ChatRequest
    sink: Sink
    text: Text
    corruption: Corruption | None = None
    false_text: AnswerText | None = None  # the replacement text. None: random characters

    def piece(self, index: int) -> str:
        return self.request.piece(self.text, index)

    def corrupted_piece(self, index: int) -> str:
        if self.false_text is None:
            return "!" * len(self.piece(index))
        return self.request.piece(self.false_text, index)
