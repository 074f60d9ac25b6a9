"""Wrong answers, fast and complete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_common.values import require, require_one_of
from lab_engine.faults.base import Fault, register
from lab_engine.tokens import AnswerText

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from lab_engine.answers import Answer
    from lab_engine.effects import Effects

STRANGER = "what another client sent"  # its answer replaces the right one if no other client is served


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptedOutput(Fault):
    """Corrupted answers by `mode`.

    `garbage` is the output of NaN logits, `wrong` another text, `swapped` the answer to
    another prompt.
    """

    kind: ClassVar[str] = "corrupted_output"
    how: str = "garbage"
    share: float = 1.0  # of the requests that arrive

    def __post_init__(self) -> None:
        require_one_of("how", self.how, ("garbage", "wrong", "swapped"))
        require("share", self.share, above=0, at_most=1)

    def effects(self, others: Effects) -> Effects:
        return replace(others, corruption=self)

    def corrupt(self, answer: Answer, others: Iterable[Answer], rng: random.Random) -> bool:
        """Mark the answer for corruption with the configured share."""
        if rng.random() >= self.share:
            return False
        answer.corruption = self
        prompt = answer.request.prompt
        if self.how == "wrong":
            answer.false_text = AnswerText(f"{prompt}\x1fwrong")
        elif self.how == "swapped":
            strangers = (other.request.prompt for other in others if other.request.prompt != prompt)
            answer.false_text = AnswerText(next(strangers, STRANGER))
        return True
