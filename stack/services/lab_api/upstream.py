"""One attempt on one replica, up to its first token."""

import asyncio
import json
from dataclasses import dataclass

import aiohttp

from lab_api.ask import Ask
from lab_api.outcomes import GatewayError, Outcome
from lab_api.pool import Lease, Replica
from lab_api.settings import Deadlines
from lab_api.sse import GIVEN_UP, Scanner

PATH = "/v1/chat/completions"
# The client's own mistakes: another replica would answer the same.
_CLIENTS_FAULT = frozenset({400, 413, 414, 415, 422})
_BUSY = frozenset({408, 429})
_DETAIL_MAX_BYTES = 2000
_END_S = 0.2
_IDLE_S = 2.0  # replicas close idle connections (llama.cpp after 5 s), which can fail a request


@dataclass(kw_only=True)
class Stream:
    """A stream that has sent its first token. `head` ends with that token."""

    lease: Lease
    response: aiohttp.ClientResponse
    scanner: Scanner
    head: bytes

    async def read_out(self) -> None:
        """Wait briefly for the end of a complete stream, to reuse its connection."""
        try:
            async with asyncio.timeout(_END_S):
                while await self.response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError):
            pass
        finally:
            self.response.close()  # no effect after the end


class Upstream:
    """Client of the replicas."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._reading_out: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(
            # A recreated container has a new address, so resolve names anew.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=1, keepalive_timeout=_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=deadlines.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        for task in tuple(self._reading_out):
            task.cancel()
        await self._session.close()

    def release(self, stream: Stream) -> None:
        """End the stream's use of its connection.

        A complete stream is read out by a task of its own: its client has everything,
        so the client's later fate may not change the count. Any other is closed, which
        cancels the work upstream: replicas detect the disconnect.
        """
        if not stream.scanner.complete:
            stream.response.close()
            return
        task = asyncio.create_task(stream.read_out())
        self._reading_out.add(task)
        task.add_done_callback(self._reading_out.discard)

    async def stream(self, lease: Lease, ask: Ask, request_id: str) -> Stream:
        """The stream with its first token.

        Raises:
            GatewayError: no first token came.
        """
        ttft_s = self._deadlines.ttft_s
        try:
            async with asyncio.timeout(ttft_s):
                response = await self._post(lease.replica, ask, request_id)
                try:
                    return await _until_first_token(lease, response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError as error:
            raise GatewayError(
                outcome=Outcome.TTFT_TIMEOUT, message=f"{lease.replica.name} sent no token within {ttft_s:g} s"
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
                response = await self._post(lease.replica, ask, request_id)
                try:
                    body = await response.read()
                except aiohttp.ClientError as error:
                    raise GatewayError(outcome=Outcome.TRUNCATED, message=f"{name} broke off its answer") from error
                except BaseException:
                    response.close()
                    raise
        except TimeoutError as error:
            raise GatewayError(
                outcome=Outcome.TTFT_TIMEOUT, message=f"{name} did not answer within {answer_s:g} s"
            ) from error
        _require_complete(name, body)
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

    async def _post(self, replica: Replica, ask: Ask, request_id: str) -> aiohttp.ClientResponse:
        """The response, once its status is 200."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if ask.stream else "application/json",
            "Accept-Encoding": "identity",
            "x-request-id": request_id,
        }
        try:
            response = await self._session.post(
                replica.url + PATH, data=ask.body, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectionError, aiohttp.ClientOSError) as error:
            raise GatewayError(
                outcome=Outcome.CONNECT_ERROR,
                message=f"no connection to {replica.name}, or lost before an answer: {type(error).__name__}",
            ) from error
        except aiohttp.ClientError as error:
            raise GatewayError(
                outcome=Outcome.UPSTREAM_5XX, message=f"{replica.name} does not answer in HTTP: {type(error).__name__}"
            ) from error
        if response.status != 200:
            raise await _refusal(replica.name, response)
        return response


async def _refusal(name: str, response: aiohttp.ClientResponse) -> GatewayError:
    """The client's error for a status other than 200."""
    try:
        said = (await response.content.read(_DETAIL_MAX_BYTES)).decode(errors="replace")
    except aiohttp.ClientError:
        said = ""
    status = response.status
    response.close()
    message = f"{name} answered {status}: {_error_message(said)}"
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


async def _until_first_token(lease: Lease, response: aiohttp.ClientResponse) -> Stream:
    """Everything up to the first token.

    It is held back, so a replica that dies before can still be replaced.
    """
    scanner = Scanner()
    head: list[bytes] = []
    try:
        while not scanner.started and not scanner.ended:
            chunk = await response.content.readany()
            if not chunk:
                break
            head.append(scanner.feed(chunk))
    except aiohttp.ClientError as error:
        raise GatewayError(
            outcome=Outcome.TRUNCATED, message=f"{lease.replica.name} broke off before its first token"
        ) from error
    if not scanner.started:
        raise failure_of(scanner, lease.replica.name)
    return Stream(lease=lease, response=response, scanner=scanner, head=b"".join(head))


def failure_of(scanner: Scanner, name: str) -> GatewayError:
    """Reason why a stream that has ended is not a complete answer."""
    if scanner.error is not None:
        return GatewayError(outcome=Outcome.INBAND_ERROR, message=f"{name} reported an error: {scanner.error}")
    if scanner.corrupted is not None:
        return GatewayError(outcome=Outcome.CORRUPTED, message=f"{name} sent what is not a stream: {scanner.corrupted}")
    # Without its brackets: a careless client may search the bytes for the marker.
    missing = "finish_reason" if not scanner.finished else "the DONE marker"
    return GatewayError(outcome=Outcome.TRUNCATED, message=f"{name} ended its answer without {missing}")


def _require_complete(name: str, body: bytes) -> None:
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
