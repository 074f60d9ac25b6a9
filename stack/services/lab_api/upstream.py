"""One attempt on one replica, up to its first token."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from lab_api.ask import Ask
from lab_api.connections import IDLE_S, Address, Connection, Connections, End
from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Lease
from lab_api.replica import Replica
from lab_api.settings import Settings
from lab_api.sse import GIVEN_UP, Scanner
from lab_api.tally import Usage

_T = TypeVar("_T")
PATH = "/v1/chat/completions"
# The client's own mistakes: another replica would answer the same.
_CLIENTS_FAULT = frozenset({400, 413, 414, 415, 422})
_BUSY = frozenset({408, 429})
_DETAIL_MAX_BYTES = 2000
_WHOLE_MAX_BYTES = 2**26
_HELD_MAX_BYTES = 2**20  # until the relay takes the events
# A complete stream may take this long to end, so that its connection is used again.
_END_S = 0.2


class _Answer:
    """Reader of one answer. A task waits in `until` for what it needs."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.connection = connection
        self.status = 0
        self.ended: End | None = None
        self._woken: asyncio.Future[None] | None = None

    def begin(self, status: int) -> None:
        self.status = status

    def end(self, how: End) -> None:
        self.ended = how
        self.wake()

    def wake(self) -> None:
        """Let the waiting task look again."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`, or until the answer has ended."""
        loop = asyncio.get_running_loop()
        while self.ended is None and not ready():
            self._woken = loop.create_future()
            await self._woken

    def require_status(self) -> None:
        """Check that there is an answer in HTTP.

        Raises:
            GatewayError: it is missing.
        """
        if self.ended is End.MALFORMED:
            raise GatewayError(outcome=Outcome.UPSTREAM_5XX, message=f"{self.name} does not answer in HTTP")
        if not self.status:
            raise GatewayError(
                outcome=Outcome.CONNECT_ERROR, message=f"the connection to {self.name} was lost before an answer"
            )


class Whole(_Answer):
    """An answer that is read to its end."""

    def __init__(self, name: str, connection: Connection) -> None:
        super().__init__(name, connection)
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > _WHOLE_MAX_BYTES:
            self.connection.close()
            self.end(End.LOST)
        elif self.status != 200 and len(self.body) >= _DETAIL_MAX_BYTES:
            self.wake()

    async def read(self) -> bytes:
        """The body.

        Raises:
            GatewayError: the answer is a refusal or broke off.
        """
        await self.until(lambda: self.status not in (0, 200) and len(self.body) >= _DETAIL_MAX_BYTES)
        self.require_status()
        if self.status != 200:
            raise _refusal(self.name, self.status, bytes(self.body[:_DETAIL_MAX_BYTES]))
        if len(self.body) > _WHOLE_MAX_BYTES:
            message = f"{self.name} answered more than {_WHOLE_MAX_BYTES} bytes"
            raise GatewayError(outcome=Outcome.CORRUPTED, message=message)
        if self.ended is not End.COMPLETE:
            raise GatewayError(outcome=Outcome.TRUNCATED, message=f"{self.name} broke off its answer")
        return bytes(self.body)


class Stream(_Answer):
    """A stream of events.

    It holds them back up to its first token, so a replica that dies before can still be
    replaced. Then `take` gets them as they arrive.
    """

    def __init__(self, lease: Lease, connection: Connection, scanner: Scanner) -> None:
        super().__init__(lease.replica.name, connection)
        self.lease = lease
        self.scanner = lease.scanner = scanner
        self._held = bytearray()
        self._take: Callable[[bytes], None] | None = None

    def feed(self, data: bytes) -> None:
        if self.status == 200:
            data = self.scanner.feed(data)
            if self._take is not None:
                self._take(data)
                return
        self._held += data
        if len(self._held) > _HELD_MAX_BYTES:
            self.connection.pause()
        if self._first():
            self.wake()

    def end(self, how: End) -> None:
        self.ended = how
        if self._take is not None:
            self._take(b"")
        else:
            self.wake()

    def _first(self) -> bool:
        if self.status != 200:
            return self.status != 0 and len(self._held) >= _DETAIL_MAX_BYTES
        return self.scanner.started or self.scanner.ended

    async def first_token(self) -> None:
        """Wait for the first token.

        Raises:
            GatewayError: the answer is a refusal or ended before.
        """
        await self.until(self._first)
        self.require_status()
        if self.status != 200:
            raise _refusal(self.name, self.status, bytes(self._held[:_DETAIL_MAX_BYTES]))
        if not self.scanner.started:
            raise self.failure()

    def attach(self, take: Callable[[bytes], None]) -> None:
        """Give `take` the events from now on, and nothing but b"" at the end."""
        self._take = take
        self.connection.resume()

    def detach(self) -> None:
        """End `attach`: its reference is a cycle, whose garbage would cost pauses."""
        self._take = None

    def held(self) -> bytes:
        """The events before `attach`, once."""
        events = bytes(self._held)
        self._held.clear()
        return events

    def failure(self) -> GatewayError:
        """Reason why a stream that has ended is not a complete answer."""
        scanner = self.scanner
        if scanner.error is not None:
            return GatewayError(outcome=Outcome.INBAND_ERROR, message=f"{self.name} reported an error: {scanner.error}")
        if scanner.corrupted is not None:
            return GatewayError(
                outcome=Outcome.CORRUPTED, message=f"{self.name} sent what is not a stream: {scanner.corrupted}"
            )
        if self.ended in (End.LOST, End.MALFORMED):
            where = "in the middle of its answer" if scanner.started else "before its first token"
            return GatewayError(outcome=Outcome.TRUNCATED, message=f"{self.name} broke off {where}")
        # Without its brackets: a careless client may search the bytes for the marker.
        missing = "finish_reason" if not scanner.finished else "the DONE marker"
        return GatewayError(outcome=Outcome.TRUNCATED, message=f"{self.name} ended its answer without {missing}")


class Upstream:
    """Client of the replicas."""

    def __init__(self, settings: Settings) -> None:
        self._deadlines = settings.deadlines
        self._ttft_s = settings.deadlines.ttft_s if settings.patterns.ttft_deadline else None
        self._connections = Connections(settings.deadlines.connect_s)
        self._addresses = {name: Address.of(url, PATH) for name, url in settings.replicas.items()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=1, keepalive_timeout=IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.deadlines.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        self._connections.close()
        await self._session.close()

    def release(self, stream: Stream) -> None:
        """End the stream's use of its connection.

        A complete stream's connection is used again. Any other is closed, which cancels
        the work upstream: replicas detect the disconnect.
        """
        stream.detach()
        if stream.scanner.complete:
            stream.connection.release(_END_S)
        else:
            stream.connection.close()

    async def stream(self, lease: Lease, ask: Ask, request_id: str, scanner: Scanner | None = None) -> Stream:
        """The stream with its first token, as `scanner` reads it.

        Raises:
            GatewayError: no first token came.
        """
        try:
            async with asyncio.timeout(self._ttft_s):
                lease.sent()
                stream = Stream(lease, await self._connection(lease.replica), scanner or Scanner())
                await self._send(stream, ask, request_id, stream.first_token)
                lease.first_token()
                return stream
        except TimeoutError as error:
            raise GatewayError(
                outcome=Outcome.TTFT_TIMEOUT, message=f"{lease.replica.name} sent no token within {self._ttft_s:g} s"
            ) from error

    async def whole(self, lease: Lease, ask: Ask, request_id: str) -> bytes:
        """The body of a complete answer.

        Raises:
            GatewayError: the answer is missing or not complete.
        """
        answer_s = self._deadlines.answer_s
        name = lease.replica.name
        try:
            async with asyncio.timeout(answer_s):
                answer = Whole(name, await self._connection(lease.replica))
                body = await self._send(answer, ask, request_id, answer.read)
                answer.connection.release(_END_S)
        except TimeoutError as error:
            raise GatewayError(
                outcome=Outcome.TTFT_TIMEOUT, message=f"{name} did not answer within {answer_s:g} s"
            ) from error
        lease.usage = Usage.of(_complete(name, body).get("usage"))
        return body

    async def owner(self, replica: Replica, model: str, timeout_s: float) -> str:
        """The model's owner as the replica reports it.

        Raises:
            GatewayError: the replica does not report one.
        """
        try:
            async with asyncio.timeout(timeout_s), self._session.get(replica.url + "/v1/models") as response:
                said = json.loads(await response.read())
            entries = [entry for entry in said["data"] if isinstance(entry, dict)]
            best = next((entry for entry in entries if entry.get("id") == model), entries[0])
            return str(best.get("owned_by", "unknown"))
        except (aiohttp.ClientError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise GatewayError(
                outcome=Outcome.CONNECT_ERROR, message=f"{replica.name} does not report which models it serves"
            ) from error

    async def _connection(self, replica: Replica) -> Connection:
        try:
            return await self._connections.get(self._addresses[replica.name])
        except OSError as error:  # includes a deadline that has passed
            raise GatewayError(
                outcome=Outcome.CONNECT_ERROR, message=f"no connection to {replica.name}: {type(error).__name__}"
            ) from error

    async def _send(self, answer: Stream | Whole, ask: Ask, request_id: str, read: Callable[[], Awaitable[_T]]) -> _T:
        """Send the request, and return what `read` makes of its answer."""
        address = answer.connection.address
        accept = "text/event-stream" if ask.stream else "application/json"
        head = (
            f"POST {address.target} HTTP/1.1\r\nHost: {address.authority}\r\nUser-Agent: lab_api\r\n"
            f"Content-Type: application/json\r\nAccept: {accept}\r\nAccept-Encoding: identity\r\n"
            f"x-request-id: {request_id}\r\nContent-Length: {len(ask.body)}\r\n\r\n"
        )
        try:
            answer.connection.send(head.encode(), ask.body, answer)
            return await read()
        except BaseException:
            answer.connection.close()
            raise


def _refusal(name: str, status: int, body: bytes) -> GatewayError:
    """The client's error for a status other than 200."""
    message = f"{name} answered {status}: {_error_message(body.decode(errors='replace'))}"
    if status in _BUSY:
        return GatewayError(outcome=Outcome.UPSTREAM_429, message=message)
    if status in _CLIENTS_FAULT:
        return GatewayError(outcome=Outcome.UPSTREAM_4XX, message=message, status=status)
    # Includes 401, 403 and 404: the request is valid, so the replica is misconfigured.
    return GatewayError(outcome=Outcome.UPSTREAM_5XX, message=message)


def _error_message(text: str) -> str:
    """The message of an OpenAI error object, or the start of the body."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return text[:200] or "(nothing)"


def _complete(name: str, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise GatewayError(outcome=Outcome.CORRUPTED, message=f"{name} answered what is not JSON") from error
    if not isinstance(answer, dict):
        raise GatewayError(outcome=Outcome.CORRUPTED, message=f"{name} answered what is not a JSON object")
    if answer.get("error") not in (None, False, "") or answer.get("object") == "error":
        raise GatewayError(
            outcome=Outcome.INBAND_ERROR, message=f"{name} reported an error: {_error_message(body.decode())}"
        )
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise GatewayError(outcome=Outcome.TRUNCATED, message=f"{name} answered without a choice")
    if not all(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices):
        raise GatewayError(outcome=Outcome.TRUNCATED, message=f"{name} ended its answer without finish_reason")
    if any(choice["finish_reason"] in GIVEN_UP for choice in choices):
        raise GatewayError(outcome=Outcome.INBAND_ERROR, message=f"{name} gave its answer up")
    return answer
