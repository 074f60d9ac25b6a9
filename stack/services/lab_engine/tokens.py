"""Checkable tokens of scheme sim-v1.

A client computes the same tokens, and so detects loss and swaps.
"""

from __future__ import annotations

import hashlib

TOKEN_CHARACTERS = 7  # six hexadecimal digits and a blank
BYTES_PER_PROMPT_TOKEN = 4  # rule of thumb for English text in byte-pair vocabularies


class AnswerText:
    """The endless answer to one prompt. Token `i` depends on prompt and `i` alone."""

    __slots__ = ("_base",)

    def __init__(self, prompt: str) -> None:
        self._base = hashlib.sha256(f"{prompt}\x1f".encode())

    def token(self, index: int) -> str:
        digest = self._base.copy()
        digest.update(b"%d" % index)
        return digest.hexdigest()[:6] + " "

    def rest(self, start: int) -> str:
        """Characters from `start` to the end of its token. None between two tokens."""
        at, offset = divmod(start, TOKEN_CHARACTERS)
        return self.token(at)[offset:] if offset else ""


def answer(prompt: str, tokens: int) -> str:
    text = AnswerText(prompt)
    return "".join(text.token(index) for index in range(tokens))


def stopped_at(prompt: str, stops: tuple[str, ...], limit: int, *, start: int = 0) -> tuple[int, int] | None:
    """New tokens, and characters of the whole answer, if one of `stops` ends it.

    None if the answer reaches its `limit` of new tokens. As in real engines the stop
    string is not part of the answer, and the client's first `start` characters are not
    searched. An engine does not send the start of a stop string that it completes, so a
    client that returns its partial answer has cut none in two.
    """
    if not stops:
        return None
    text = AnswerText(prompt)
    kept = max(len(stop) for stop in stops) - 1  # this much of the text before can still begin a stop string
    tail, tail_at = text.rest(start), start
    for index in range(limit):
        tail += text.token(held_by(start) + index)
        found = [at for stop in stops if (at := tail.find(stop)) >= 0]
        if found:
            return index + 1, tail_at + min(found)
        dropped = max(0, len(tail) - kept)
        tail, tail_at = tail[dropped:], tail_at + dropped
    return None


def held_by(characters: int) -> int:
    """Tokens in so many characters of an answer. A partial one counts."""
    return -(-characters // TOKEN_CHARACTERS)


def prompt_tokens(rendered: bytes) -> int:
    return max(1, -(-len(rendered) // BYTES_PER_PROMPT_TOKEN))


def prefix_hashes(rendered: bytes, block_tokens: int) -> tuple[bytes, ...]:
    """One hash for every full KV block of the prompt.

    Each covers all text before it, as prefix caches need.
    """
    width = block_tokens * BYTES_PER_PROMPT_TOKEN
    chain = hashlib.blake2b(digest_size=8)
    hashes = []
    for at in range(0, len(rendered) - width + 1, width):
        chain.update(rendered[at : at + width])
        hashes.append(chain.digest())
    return tuple(hashes)
