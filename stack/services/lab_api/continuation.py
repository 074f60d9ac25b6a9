"""The rest of a cut answer, as a request to another replica.

vLLM, SGLang and TGI continue an answer with `continue_final_message`. vLLM wants it
without `add_generation_prompt`. llama.cpp continues a last message of the assistant by
itself.

A replica takes over text and nothing else. A seed, and penalties that count only new
tokens, begin anew: the rest is as likely as any, and not what the first replica would
have drawn. A chat template that trims messages loses a blank at the cut.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lab_api.ask import Ask
from lab_api.emitted import Emitted, NotContinuableError, read, whole_number
from lab_api.rewriting import Rewriter

# Fields of a request whose effect does not survive a cut, and their values without one.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "prompt_logprobs": (None,),
    "modalities": (None, ["text"]),
    # Grammars: a replica would require that the rest is a whole document (Dynamo too
    # does not migrate these).
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "auto", "none"),
    "function_call": (None, "auto", "none"),
    "structured_outputs": (None, {}),
    "grammar": (None, ""),
    "json_schema": (None, {}),
    "regex": (None, ""),
    "ebnf": (None, ""),
    "structural_tag": (None, ""),
}
_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")


@dataclass(frozen=True, kw_only=True)
class Rest:
    """A request for the rest of an answer, or its `end` without a request."""

    ask: Ask | None
    emitted: Emitted
    end: bytes = b""


def rest_of(ask: Ask, events: bytes, *, reported: bool = False) -> Rest:
    """The rest of the answer to `ask` after the whole `events` that the client has.

    `reported` is True if the replica sent an error or garbage, and did not just end.

    Raises:
        NotContinuableError: another replica could not continue it.
    """
    asked = json.loads(ask.body)
    emitted = read(events)
    if emitted.finished and reported:
        raise NotContinuableError("it was finished before its replica reported an error")
    left = {name: limit - emitted.tokens for name in _LIMITS if (limit := whole_number(asked.get(name), 0)) > 0}
    if emitted.finished or min(left.values(), default=1) < 1:
        # The replica declared the answer complete, or all its tokens are there. What is
        # missing has no text: [DONE] adds nothing to the finish_reason before it, and
        # another replica would add text.
        if (asked.get("stream_options") or {}).get("include_usage") and not emitted.counted:
            raise NotContinuableError("only its usage is missing, and no other replica counted it")
        return Rest(ask=None, emitted=emitted, end=b"" if emitted.finished else Rewriter(emitted).finish("length"))
    _require_plain(asked)
    if least := whole_number(asked.get("min_tokens"), 0):
        left["min_tokens"] = max(0, least - emitted.tokens)
    more = {"messages": _with_answer(asked, emitted.text), "continue_final_message": True}
    body = json.dumps(asked | more | {"add_generation_prompt": False} | left, separators=(",", ":"))
    return Rest(ask=replace(ask, body=body.encode()), emitted=emitted)


def _require_plain(asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        if value not in _NEUTRAL.get(name, (value,)) or (name.startswith("guided_") and value is not None):
            raise NotContinuableError(f"its request has {name}")


def _with_answer(asked: dict[str, Any], text: str) -> list[object]:
    """The messages with the partial answer as the last one."""
    *before, last = asked["messages"]
    if last.get("role") != "assistant":
        return [*before, last, {"role": "assistant", "content": text}]
    # The client continues an answer itself. Without its word for it, servers differ.
    if asked.get("continue_final_message") is not True or not isinstance(last.get("content"), str):
        raise NotContinuableError("its last message is the assistant's")
    return [*before, last | {"content": last["content"] + text}]
