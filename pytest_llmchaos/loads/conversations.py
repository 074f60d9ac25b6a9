"""Prompts from recorded conversations, such as ShareGPT's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads.prompts import PromptSet, from_lines

# Longest prompt: the lab's models have contexts of 2,048 tokens, answers included.
MAX_WORDS = 1024
MAX_CONVERSATIONS = 200_000


def parse(name: str, text: str) -> PromptSet:
    """Return the first prompt of each conversation and the length of its answer.

    Formats: a JSON array or JSON lines with `conversations` (ShareGPT), `messages`
    (OpenAI) or `prompt`. Entries without a prompt are left out.

    Raises:
        BadScenario: It is not JSON, or has no prompt.
    """
    try:
        entries = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise BadScenario(f"prompts {name!r} are not valid JSON ({error}): give a JSON array or JSON lines") from error
    found = [turn for entry in entries[:MAX_CONVERSATIONS] if isinstance(entry, dict) and (turn := _turn(entry))]
    if not found:
        raise BadScenario(
            f"prompts {name!r} have no conversation: expected entries with conversations (ShareGPT), messages or prompt"
        )
    # A prompt that occurs again would have two lengths.
    unique = dict(reversed(found))
    answers = tuple(unique.values())
    made = from_lines(name, [f"{prompt}\n{tokens}" for prompt, tokens in unique.items()])
    return PromptSet(name=made.name, lines=tuple(unique), answers=answers if all(answers) else ())


def _turn(entry: dict[str, object]) -> tuple[str, int] | None:
    """Return the prompt and the answer's length, 0 without an answer."""
    if isinstance(prompt := entry.get("prompt"), str) and prompt.strip():
        return _cut(prompt), 0
    turns = entry.get("conversations") or entry.get("messages")
    texts = list(_texts(turns)) if isinstance(turns, Sequence) else []
    for (who, prompt), (other, answer) in pairwise(texts):
        if who in ("human", "user") and other not in ("human", "user", "system") and prompt.strip() and answer.strip():
            return _cut(prompt), tokens(answer)
    return None


def _texts(turns: Iterable[object]) -> Iterable[tuple[str, str]]:
    for turn in turns:
        if isinstance(turn, dict):
            text = turn.get("value", turn.get("content"))
            yield str(turn.get("from", turn.get("role"))), text if isinstance(text, str) else ""


def _cut(prompt: str) -> str:
    return " ".join(prompt.split()[:MAX_WORDS])


def tokens(text: str) -> int:
    """Return about the number of tokens: words, or a quarter of the characters."""
    return max(1, len(text.split()), len(text) // 4)
