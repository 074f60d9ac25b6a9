"""The value of an ini key that was guessed, with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Value of an ini key and the reason for it.

    Attributes:
        key: the key without its prefix.
        value: a text, several, or a number.
        reason: one line, without a line break.
        sure: False writes the line as a comment.
    """

    key: str
    value: str | float | tuple[str, ...]
    reason: str
    sure: bool = True
