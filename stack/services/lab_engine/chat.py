"""Chat requests as checked values, and OpenAI's JSON answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from lab_engine import tokens, tools
from lab_engine.errors import BadRequestError, brief

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_STOPS = 4  # OpenAI's limit
MAX_STOP_CHARACTERS = 1000  # a search for longer ones would delay all other streams
# Fields whose effect this engine does not model, and their neutral values.
NOT_MODELLED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "functions": (None, []),
    "logprobs": (None, False),
    "response_format": (None, {"type": "text"}),
    "echo": (None, False),
}


_ALL = 10**12  # characters, more than any answer has
_MOST_TOKENS = 10**9  # beyond any model's context. Python does not print numbers of thousands of digits


class Text(Protocol):
    """An answer's tokens: by a plan, or hashes of the prompt."""

    def token(self, index: int) -> str: ...
    def rest(self, start: int) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One checked request."""

    prompt: str  # content of the last user message
    rendered: bytes  # the messages as one text, the model's input, up to a partial answer
    stream: bool
    include_usage: bool
    prompt_tokens: int  # with those of a partial answer
    answer_tokens: int  # new ones
    finish_reason: str
    start: int  # characters of the answer that the client sent, 0 for a new answer
    end: int  # characters of the whole answer, fewer than its tokens have after a stop string
    script: tools.Script | None = None  # the answer by a plan

    @property
    def text(self) -> Text:
        """The source of the answer's tokens."""
        return self.script or tokens.AnswerText(self.prompt)

    def piece(self, text: Text, index: int) -> str:
        """The text of new token `index`. The first one completes a partial token."""
        at = tokens.held_by(self.start) + index
        token = text.token(at)[: max(0, self.end - at * tokens.TOKEN_CHARACTERS)]
        return token if index else text.rest(self.start)[: self.end - self.start] + token


@dataclass(frozen=True, kw_only=True, slots=True)
class _Messages:
    """Checked messages."""

    prompt: str  # text of the last user message
    rendered: bytes  # the model's input
    given: int  # characters of a partial answer
    texts: tuple[tuple[str, str], ...]  # role and text of each
    answered: frozenset[str]  # ids of the calls with a result


def parse(body: bytes, *, model: str, max_model_tokens: int, manner: str = "disciplined") -> ChatRequest:
    data = _object(body)
    asked = data.get("model")
    if not isinstance(asked, str):
        raise BadRequestError(f"'model' must be a string, got {brief(asked)}", param="model")
    if asked != model:
        raise BadRequestError(
            f"The model `{asked[:80]}` does not exist; this engine serves `{model}`.",
            param="model", status=404, kind="NotFoundError",
        )  # fmt: skip
    for name, harmless in NOT_MODELLED.items():
        if data.get(name) not in harmless:
            raise BadRequestError(f"'{name}' is not modelled by this simulated engine: drop it", param=name)
    names = tools.declared(data)
    continues = _continues(data)
    messages = _messages(data.get("messages"), continues=continues, declared=data.get("tools"))
    prompt, given = messages.prompt, messages.given
    parallel = data.get("parallel_tool_calls") is not False
    script = tools.answer(messages.texts, names, messages.answered, manner, parallel=parallel)
    tools.require_chosen(data.get("tool_choice"), script)
    stream = _flag(data, "stream")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequestError(f"'stream_options' must be an object, got {brief(options)}", param="stream_options")
    if options and not stream:
        raise BadRequestError("'stream_options' is only allowed when 'stream' is true", param="stream_options")
    _sampling(data)
    prompt_tokens = tokens.prompt_tokens(messages.rendered) + tokens.held_by(given)
    room = max_model_tokens - prompt_tokens
    wanted = _max_tokens(data)
    least = wanted or 1
    if least > room:
        raise BadRequestError(
            f"This model's maximum context length is {max_model_tokens} tokens. However, you requested "
            f"{prompt_tokens + least} tokens ({prompt_tokens} in the messages, {least} in the completion). "
            "Please reduce the length of the messages or completion.",
            param="messages" if room < 1 else "max_tokens",
        )
    if script is None:
        answer_tokens, end, reason = _extent(data, prompt, given=given, wanted=wanted, room=room)
    else:
        answer_tokens, end, reason = _extent_of(script, data, given=given, most=wanted or room)
    return ChatRequest(
        prompt=prompt,
        rendered=messages.rendered,
        stream=stream,
        include_usage=options is not None and _flag(options, "include_usage"),
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        finish_reason=reason,
        start=given,
        end=end,
        script=script,
    )


def _extent_of(script: tools.Script, data: dict[str, Any], *, given: int, most: int) -> tuple[int, int, str]:
    """As `_extent`, of an answer by a plan."""
    if _stops(data.get("stop")):
        raise BadRequestError("'stop' is not modelled for answers by a plan: drop it", param="stop")
    if given and (script.calls or given >= len(script.text)):
        raise BadRequestError(
            f"'continue_final_message' needs the start of the answer by the plan, which is {brief(script.text)} with "
            f"{len(script.calls)} tool calls",
            param="messages",
        )
    left = len(script.tokens) - tokens.held_by(given)
    if most < left:
        return most, _ALL, "length"
    return max(1, left), _ALL, script.finish_reason


def _extent(data: dict[str, Any], prompt: str, *, given: int, wanted: int | None, room: int) -> tuple[int, int, str]:
    """New tokens, characters of the whole answer, and the finish reason.

    A model that would have ended its answer within the `given` characters ends it at
    once, with a token without text.
    """
    whole = _own_length(prompt, data.get("seed"))
    new, reason = (wanted, "length") if wanted else (min(room, whole - tokens.held_by(given)), "stop")
    stops = _stops(data.get("stop"))
    if new < 1:
        return 1, max(given, whole * tokens.TOKEN_CHARACTERS), reason
    if (stopped := tokens.stopped_at(prompt, stops, new, start=given)) is not None:
        return *stopped, "stop"
    return new, (tokens.held_by(given) + new) * tokens.TOKEN_CHARACTERS, reason


def _continues(data: dict[str, Any]) -> bool:
    """True if the last message is the start of the answer, by the fields of vLLM."""
    continues = _flag(data, "continue_final_message")
    opens = data.get("add_generation_prompt") is None or _flag(data, "add_generation_prompt")
    if continues and opens:
        raise BadRequestError(
            "'continue_final_message' needs 'add_generation_prompt' false: an answer is either continued or begun",
            param="add_generation_prompt",
        )
    return continues


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadRequestError(f"the body must be a JSON object, got {brief(data)}")
    return data


def _messages(messages: object, *, continues: bool, declared: object) -> _Messages:
    """Check the messages, and join them with the tools to the model's input."""
    if not isinstance(messages, list) or not messages:
        raise BadRequestError(
            f"'messages' must be a list with at least one message, got {brief(messages)}", param="messages"
        )
    rendered = [f"<|im_start|>tools\n{json.dumps(declared)}<|im_end|>\n"] if declared else []
    texts: list[tuple[str, str]] = []
    called: set[str] = set()
    answered: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role, text, calls = _message(message, where)
        if role != "tool":
            _require_results(called - answered, where)
        called.update(call.id for call in calls)
        if role == "tool":
            answered.add(_result_of(message, where, called))
        texts.append((role, text))
        said = "".join(f"<|call|>{call.name} {call.arguments}" for call in calls)
        rendered.append(f"<|im_start|>{role}\n{text}{said}<|im_end|>\n")
    _require_results(called - answered, "messages")
    prompt = next((text for role, text in reversed(texts) if role == "user"), None)
    if prompt is None:
        raise BadRequestError(
            "'messages' has no message of role user: the answer is derived from the last one", param="messages"
        )
    role, text = texts[-1]
    if continues:
        if role != "assistant":
            raise BadRequestError(
                f"'continue_final_message' needs a last message of role assistant, got {brief(role)}", param="messages"
            )
        rendered.pop()  # its tokens are counted by their number
    rendered.append("<|im_start|>assistant\n")
    try:
        encoded = "".join(rendered).encode()
    except UnicodeEncodeError:
        raise BadRequestError("'messages' holds a lone surrogate, which is not text", param="messages") from None
    return _Messages(
        prompt=prompt,
        rendered=encoded,
        given=len(text) if continues else 0,
        texts=tuple(texts),
        answered=frozenset(answered),
    )


def _message(message: object, where: str) -> tuple[str, str, tuple[tools.Call, ...]]:
    """Role, text and tool calls of one message."""
    if not isinstance(message, dict):
        raise BadRequestError(f"'{where}' must be an object, got {brief(message)}", param=where)
    role = message.get("role")
    if role not in ROLES:
        raise BadRequestError(
            f"'{where}.role' must be one of {', '.join(ROLES)}, got {brief(role)}", param=f"{where}.role"
        )
    calls = tools.calls_of(message, where) if role == "assistant" else ()
    content = message.get("content")
    return role, "" if calls and content is None else _content(content, f"{where}.content"), calls


def _require_results(open_calls: set[str], where: str) -> None:
    """Check that no call lacks its result. Raises BadRequestError, as OpenAI's API."""
    if open_calls:
        raise BadRequestError(
            "an assistant message with 'tool_calls' must be followed by messages of role tool that respond to each id, "
            f"no response to {brief(min(open_calls))}",
            param=where,
        )


def _result_of(message: dict[str, Any], where: str, called: set[str]) -> str:
    """Id of the call whose result a message of role tool is."""
    id_ = message.get("tool_call_id")
    if not isinstance(id_, str) or id_ not in called:
        raise BadRequestError(
            f"'{where}.tool_call_id' must be the id of a tool call in a message before it, got {brief(id_)}",
            param=f"{where}.tool_call_id",
        )
    return id_


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(text for text in texts if isinstance(text, str))
        raise BadRequestError(f"'{where}' may hold parts of type text only", param=where)
    raise BadRequestError(f"'{where}' must be a string or a list of text parts, got {brief(content)}", param=where)


def _max_tokens(data: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = data.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_TOKENS:
            raise BadRequestError(
                f"'{name}' must be a whole number of at least 1 and at most {_MOST_TOKENS}, got {brief(value)}",
                param=name,
            )
        return int(value)
    return None


def _stops(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    stops = stop if isinstance(stop, list) else [stop]
    if len(stops) > MAX_STOPS or not all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARACTERS for one in stops):
        raise BadRequestError(
            f"'stop' must be a string or up to {MAX_STOPS} strings, each of 1 to {MAX_STOP_CHARACTERS} characters, "
            f"got {brief(stop)}",
            param="stop",
        )
    return tuple(stops)


def _sampling(data: dict[str, Any]) -> None:
    """Check the sampling fields.

    Sampling does not change the answer here, but real engines refuse invalid values
    too.
    """
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
    ):
        value = data.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadRequestError(f"'{name}' must be a number from {low} to {high}, got {brief(value)}", param=name)
    seed = data.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise BadRequestError(f"'seed' must be a whole number, got {brief(seed)}", param="seed")


def _own_length(prompt: str, seed: int | None) -> int:
    """16 to 256 tokens for an answer without `max_tokens`.

    The model would end it by itself.
    """
    return 16 + int(hashlib.sha256(f"{seed}\x1f{prompt}".encode()).hexdigest()[:8], 16) % 241


def _flag(data: dict[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequestError(f"'{name}' must be true or false, got {brief(value)}", param=name)
    return bool(value)
