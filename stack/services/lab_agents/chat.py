"""Client of the model: OpenAI chat completions with tools."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import aiohttp

from lab_agents.tasks import BudgetExceeded, TaskFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task

Message: TypeAlias = "Mapping[str, object]"
ERROR = "error: "  # start of a tool message without a result
CUT = "the model's answer was cut: finish_reason length"
_BACKOFF_S = 0.1  # doubles with each try, until the task's seconds are over
_LONGEST_BACKOFF_S = 2.0
_MOST_TOKENS = 1 << 53  # exceeds every budget, and fits a row of SQLite


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A tool call in an answer of the model.

    Attributes:
        text: the arguments as the model has written them.
        arguments: None if `text` is no JSON object.
    """

    id: str
    tool: str
    text: str
    arguments: Mapping[str, object] | None


class _Retryable(Exception):
    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Chat:
    """Whole answers of the model, with a deadline each and retries."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._url = f"{settings.model_url}/chat/completions"
        self._model = settings.model
        self._max_tokens = settings.budgets.max_tokens
        self._timeout = aiohttp.ClientTimeout(total=settings.calls.model_s)
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

    async def answer(self, task: Task, messages: Sequence[Message], tools: Sequence[Message]) -> Message:
        """The next message of the model.

        Raises:
            BudgetExceeded: the answer's tokens exceed the task's.
            TaskFailed: the model refused the request, or its answer was cut.
        """
        found = await self.completion(messages, tools)
        task.model_calls += 1
        task.tokens += tokens_of(found)
        if task.tokens > self._max_tokens:
            raise BudgetExceeded("tokens", f"LAB_MAX_TOKENS allows {self._max_tokens}, the task has used {task.tokens}")
        if is_cut(found):
            raise TaskFailed(CUT)
        return message_of(found)

    async def completion(self, messages: Sequence[Message], tools: Sequence[Message]) -> Mapping[str, object]:
        """The JSON object that the model has answered, unread. Raises TaskFailed."""
        body = {"model": self._model, "messages": list(messages), "tools": list(tools)}
        tried = 0
        while True:
            try:
                found = await self._tried(body)
                break
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError, _Retryable) as error:
                wait_s = error.retry_after_s if isinstance(error, _Retryable) else None
                await asyncio.sleep(min(_BACKOFF_S * 2**tried, _LONGEST_BACKOFF_S) if wait_s is None else wait_s)
                tried = min(tried + 1, 10)
        self._metrics.model_calls.inc()
        return found

    async def _tried(self, body: Mapping[str, object]) -> Mapping[str, object]:
        self._session = self._session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with self._session.post(self._url, json=body, timeout=self._timeout) as response:
            if response.status == 429 or response.status >= 500:
                raise _Retryable(f"HTTP {response.status}", seconds(response.headers.get("Retry-After")))
            content = await response.read()
            if response.status != 200:
                text = content[:200].decode(errors="replace")
                raise TaskFailed(f"the model refused the request with HTTP {response.status}: {text}")
        try:
            found = json.loads(content)
        except ValueError:  # also of bytes that are no text
            raise _Retryable("an answer that is no JSON") from None
        if not isinstance(found, dict):
            raise _Retryable("an answer that is no object")
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header. None for a date, or without one."""
    # isdigit alone is true for a superscript.
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None


def tokens_of(found: Mapping[str, object]) -> int:
    """The tokens that an answer reports, 0 without a valid report."""
    used = found.get("usage")
    total = used.get("total_tokens") if isinstance(used, dict) else None
    return min(max(total, 0), _MOST_TOKENS) if type(total) is int else 0


def is_cut(found: Mapping[str, object]) -> bool:
    """True if the answer's length has ended it, so a part of it is missing."""
    match found:
        case {"choices": [{"finish_reason": "length"}, *_]}:
            return True
    return False


def message_of(found: Mapping[str, object]) -> Message:
    """The message in an answer. Raises TaskFailed if it is no chat completion."""
    match found:
        case {"choices": [{"message": {"role": "assistant"} as message}, *_]}:
            return dict(message)
    raise TaskFailed(f"expected a chat completion of the model, got {json.dumps(found)[:200]}")


def asked(message: Message) -> tuple[Asked, ...]:
    """The tool calls in a message of the model."""
    calls = message.get("tool_calls")
    return tuple(_asked(call) for call in calls) if isinstance(calls, list) else ()


def _asked(call: object) -> Asked:
    match call:
        case {"id": str(call_id), "function": {"name": str(tool), "arguments": str(text)}}:
            try:
                arguments = json.loads(text)
            except ValueError:
                arguments = None
            known = arguments if isinstance(arguments, dict) else None
            return Asked(id=call_id, tool=tool, text=text, arguments=known)
    raise TaskFailed(f"expected a tool call of the model, got {json.dumps(call)[:200]}")


def is_listed(call: Asked, tools: Sequence[Message]) -> bool:
    """True if the call's tool is one of these."""
    functions = [tool["function"] for tool in tools]
    return any(isinstance(one, dict) and one.get("name") == call.tool for one in functions)


def tool_message(call: Asked, text: str) -> Message:
    """The result of a tool call as the model reads it."""
    return {"role": "tool", "tool_call_id": call.id, "content": text}


def results(messages: Sequence[Message]) -> int:
    """The number of tool calls that have a result: the index of the next step."""
    return sum(message.get("role") == "tool" for message in messages)


def waiting(messages: Sequence[Message]) -> tuple[Asked, ...]:
    """Tool calls of the last answer that have no result yet."""
    last = max((at for at, message in enumerate(messages) if message.get("role") == "assistant"), default=None)
    if last is None:
        return ()
    return asked(messages[last])[results(messages[last:]) :]


def require_success(messages: Sequence[Message]) -> None:
    """Check that the last result of each different call is no error.

    Raises:
        TaskFailed: with the first call whose last result is an error.
    """
    last: dict[str, tuple[str, str]] = {}
    calls: list[Asked] = []
    for message in messages:
        if message.get("role") == "assistant":
            calls = list(asked(message))
        elif message.get("role") == "tool" and calls:
            call = calls.pop(0)
            last[f"{call.tool} {json.dumps(call.arguments, sort_keys=True)}"] = (call.tool, str(message.get("content")))
    for tool, text in last.values():
        if text.startswith(ERROR):
            raise TaskFailed(f"tool {tool} answered with an {text[:300]}")
