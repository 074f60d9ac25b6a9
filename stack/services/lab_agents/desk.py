"""Sessions with the tool server, each for one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, TextContent

from lab_agents.chat import ERROR, Message, seconds
from lab_agents.tools import NoAnswer, Refusal, ToolAnswer, note_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeVar

    from mcp_types import CallToolResult

    Answer = TypeVar("Answer")

# The call may pass with another try, in a session of its own.
RETRYABLE = (CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR)
_MOST_IDLE = 32


class _Session:
    """One session. A task of its own opens and closes it, as its cancel scopes need."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self._session: ClientSession | None = None
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._hold(url, client))
        self._task.add_done_callback(_read_error)

    async def _hold(self, url: str, client: httpx2.AsyncClient) -> None:
        try:
            async with (
                streamable_http_client(url, http_client=client, terminate_on_close=False) as (read, write),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                self._session = session
                self._ready.set()
                await self._over.wait()
        finally:
            self._ready.set()

    async def use(self, ask: Callable[[ClientSession], Awaitable[Answer]]) -> Answer:
        """The answer, or NoAnswer as soon as the session ends without one."""
        await self._ready.wait()
        if self._session is None:
            await asyncio.wait({self._task})
            raise NoAnswer(self._why())
        asking = asyncio.ensure_future(ask(self._session))
        try:
            await asyncio.wait({asking, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise NoAnswer(self._why())
            return asking.result()
        finally:
            asking.cancel()

    def _why(self) -> str:
        error = None if self._task.cancelled() else self._task.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return f"the session ended: {error!r}" if error else "the session ended"

    def close(self) -> None:
        self._over.set()
        self._task.cancel()

    @property
    def usable(self) -> bool:
        return not self._task.done()

    async def closed(self) -> None:
        self.close()
        with contextlib.suppress(BaseException):  # whatever ended it is of no use now
            await self._task


def _read_error(task: asyncio.Task[None]) -> None:
    """Read a task's error, or asyncio logs that it was not."""
    if not task.cancelled():
        task.exception()


class Desk:
    """The tool server at one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[_Session] = []
        self._client: httpx2.AsyncClient | None = None

    async def tools(self) -> list[Message]:
        """The tools as a chat request has them.

        Raises:
            NoAnswer: as for `call`.
        """
        listed = await self._in_session(lambda session: session.list_tools())
        return [
            {
                "type": "function",
                "function": {"name": one.name, "description": one.description or "", "parameters": one.input_schema},
            }
            for one in listed.tools
        ]

    async def call(self, tool: str, arguments: Mapping[str, object], meta: Mapping[str, str]) -> ToolAnswer:
        """The result of a tool.

        Raises:
            NoAnswer: no valid answer came. A next call gets a session of its own.
        """
        try:
            result = await self._in_session(
                lambda session: session.call_tool(tool, dict(arguments), meta=dict(meta) or None)  # type: ignore[arg-type]
            )
        except MCPError as error:
            return ToolAnswer(text=f"{ERROR}{error}", is_error=True)
        return answer_of(result)

    async def _in_session(self, ask: Callable[[ClientSession], Awaitable[Answer]]) -> Answer:
        session = self._idle.pop() if self._idle else _Session(self._url, self._http())
        try:
            answer = await session.use(ask)
        except MCPError as error:
            if error.error.code in RETRYABLE:
                self._drop(session)
                raise NoAnswer(str(error)) from error
            self._keep(session)
            raise
        except NoAnswer:
            self._drop(session)
            raise
        except (RuntimeError, ValueError) as error:  # the result does not match the tool's schema
            self._drop(session)
            raise NoAnswer(str(error)[:300]) from error
        except asyncio.CancelledError:
            session.close()
            raise
        self._keep(session)
        return answer

    def _keep(self, session: _Session) -> None:
        if session.usable and len(self._idle) < _MOST_IDLE:
            self._idle.append(session)
        else:
            session.close()

    def _drop(self, session: _Session) -> None:
        """Close this session and the idle ones, which have the same server."""
        for one in (session, *self._idle):
            one.close()
        self._idle.clear()

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=None,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # plain HTTP: reading CA certificates takes 80 ms
                event_hooks={"response": [note_refused]},
            )
        return self._client

    async def close(self) -> None:
        for session in self._idle:
            await session.closed()
        if self._client is not None:
            await self._client.aclose()


async def note_refused(response: httpx2.Response) -> None:
    """Keep status and Retry-After of a refused call: an event hook of httpx2.

    A GET is no call. It requests a standing stream, which a server may lack (405).
    """
    if response.status_code >= 400 and response.request.method == "POST":
        note_refusal(Refusal(status=response.status_code, retry_after_s=seconds(response.headers.get("Retry-After"))))


def answer_of(result: CallToolResult) -> ToolAnswer:
    """Text and kind of a result."""
    text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    is_error = bool(result.is_error)
    return ToolAnswer(text=f"{ERROR}{text}" if is_error else text, is_error=is_error)
