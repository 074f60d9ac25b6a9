"""The text of one answer, piece by piece, right or corrupted. Knows nothing of time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lab_engine.tokens import AnswerText

if TYPE_CHECKING:
    from lab_engine.chat import ChatRequest
    from lab_engine.fault_kinds import Corruption

STRANGER = "what another caller asked"  # whose answer a swapped one is when nobody else is being served


class RefusedError(Exception):
    """A request that the engine cannot take or finish: answered with `status` and this text."""

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Sink(Protocol):
    """Where one answer goes. Must not raise and must not block."""

    def token(self, piece: str, *, first: bool, last: bool) -> None: ...
    def failed(self, error: RefusedError) -> None: ...


@dataclass(eq=False, kw_only=True, slots=True)
class Answer:
    """One answer on its way: what was asked, where it goes, and the corruption that hit it on arrival, if any."""

    request: ChatRequest
    sink: Sink
    text: AnswerText
    corruption: Corruption | None = None
    false_text: AnswerText | None = None  # what `wrong` and `swapped` give instead

    def piece(self, index: int) -> str:
        return self.request.piece(self.text, index)

    def corrupted_piece(self, index: int) -> str:
        if self.false_text is None:
            return "!" * len(self.piece(index))
        return self.request.piece(self.false_text, index)


def corrupted(answer: Answer, corruption: Corruption, others: list[Answer], rng: random.Random) -> bool:
    """Mark the answer for corruption when the dice say so."""
    if rng.random() >= corruption.share:
        return False
    answer.corruption = corruption
    prompt = answer.request.prompt
    if corruption.how == "wrong":
        answer.false_text = AnswerText(f"{prompt}\x1fwrong")
    elif corruption.how == "swapped":
        strangers = [other.request.prompt for other in others if other.request.prompt != prompt]
        answer.false_text = AnswerText(strangers[0] if strangers else STRANGER)
    return True
