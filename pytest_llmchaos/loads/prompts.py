"""Prompts: built-in sets and a user's own lines."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

# Small answers by default: a real 135-million-parameter model on two cores writes 60
# to 100 tokens a second in all.
MIN_TOKENS, MAX_TOKENS = 8, 16
LONG_WORDS = 400

ASKS = (
    "Name one good thing about {}.",
    "Explain {} in one sentence.",
    "Write a short title for a text on {}.",
    "What is the opposite of {}?",
    "Give one example of {}.",
    "Who would like {}, and why?",
    "Is {} old or new? Answer briefly.",
    "Finish the sentence: the trouble with {} is",
)
THEMES = (
    "bread",
    "the sea",
    "a good walk",
    "small towns",
    "chess",
    "rain in spring",
    "old maps",
    "night trains",
    "tea",
    "mountain huts",
    "the violin",
    "a quiet library",
    "green paint",
    "radio plays",
    "first snow",
    "bicycles",
    "bridges",
    "honey",
    "paper boats",
    "harbour lights",
)
_VOCABULARY = (
    "river stone window garden letter morning market copper forest table winter silver engine paper bridge candle "
    "harbour meadow signal thunder village orchard lantern marble journey pencil castle ribbon anchor blanket feather"
)
WORDS = tuple(_VOCABULARY.split())


def below(rng: Random, n: int) -> int:
    """Return a whole number from 0 to n - 1.

    Only `random()` promises the same numbers in every version of Python.
    """
    return int(rng.random() * n)


def words(rng: Random, count: int) -> str:
    """Return `count` words."""
    return " ".join(WORDS[below(rng, len(WORDS))] for _ in range(count))


@functools.cache
def _asks() -> tuple[tuple[str, ...], ...]:
    """Return each question on each theme. Cached, because plans have many requests."""
    return tuple(tuple(ask.format(theme) for theme in THEMES) for ask in ASKS)


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A named source of prompts.

    Attributes:
        name: Name of the set, or of the file with a digest of its content.
        lines: The prompts of a file. Empty for the built-in sets.
        answers: Recorded length of each line's answer, in tokens. Empty: drawn.
    """

    name: str
    lines: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def mean_tokens(self) -> float:
        """Mean length of an answer, in tokens."""
        if self.answers:
            return sum(self.answers) / len(self.answers)
        return (MIN_TOKENS + MAX_TOKENS) / 2

    def draw(self, rng: Random) -> str:
        if self.lines:
            return self.lines[below(rng, len(self.lines))]
        # The same draws as by `below`, without its calls: a plan draws many prompts.
        ask = _asks()[int(rng.random() * len(ASKS))][int(rng.random() * len(THEMES))]
        if self.name == "long-prompt":
            return f"Read this list of words: {words(rng, LONG_WORDS)}. {ask}"
        return ask

    def draw_tokens(self, rng: Random) -> int:
        return MIN_TOKENS + below(rng, MAX_TOKENS - MIN_TOKENS + 1)


BUILT_IN = {name: PromptSet(name=name) for name in ("short-chat", "long-prompt")}


def from_lines(name: str, lines: Sequence[str]) -> PromptSet:
    """Return a user's own prompts. File name and content are the set's identity."""
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
    return PromptSet(name=f"{name}:{digest}", lines=tuple(lines))
