"""One attempt on one replica, up to the first thing worth sending. Never talks to the client."""

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
# The client's own mistakes: another replica would say the same.
_CLIENTS_FAULT = frozenset({400, 413, 414, 415, 422})
_BUSY = frozenset({408, 429})
_DETAIL_MAX_BYTES = 2000
_END_S = 0.2
_IDLE_S = 2.0  # replicas close idle connections, llama.cpp's after 5 s; one that is just being closed fails a request


@dataclass(kw_only=True)
class Stream:
    """A stream that has said its first token; `head` is everything up to and with it."""

    lease: Lease
    response: aiohttp.ClientResponse
    scanner: Scanner
    head: bytes

    async def read_out(self) -> None:
        """Waits a little for the end of a complete stream, so that its connection can be used again."""
        try:
            async with asyncio.timeout(_END_S):
                while await self.response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError):
            pass
        finally:
            self.response.close()  # changes nothing if the end has come


class Upstream:
    """Sends requests to replicas."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._reading_out: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(
            # Addresses change when a container comes back, so names are asked for anew.
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
        """Ends the stream's use of its connection.

        A complete stream is read out by a task of its own: its client has everything, so nothing that happens to the
        client now may change how the request is counted. Any other is closed, which is what cancels the work upstream:
        replicas notice that their client has gone.
        """
        if not stream.scanner.complete:
            stream.response.close()
            return
        task = asyncio.create_task(stream.read_out())
        self._reading_out.add(task)
        task.add_done_callback(self._reading_out.discard)

    async def stream(self, lease: Lease, ask: Ask, request_id: str) -> Stream:
        """Raises GatewayError if no first token came."""
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
        """The answer's body, known to be complete. Raises GatewayError otherwise."""
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
        """Who, by the replica's own word, owns the model. Raises GatewayError if it does not say."""
        try:
            async with asyncio.timeout(timeout_s), self._session.get(replica.url + "/v1/models") as response:
                said = json.loads(await response.read())
            entries = [entry for entry in said["data"] if isinstance(entry, dict)]
            best = next((entry for entry in entries if entry.get("id") == model), entries[0])
            return str(best.get("owned_by", "unknown"))
        except (aiohttp.ClientError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise GatewayError(
                outcome=Outcome.CONNECT_ERROR, message=f"{replica.name} does not say which models it serves"
            ) from error

    async def _post(self, replica: Replica, ask: Ask, request_id: str) -> aiohttp.ClientResponse:
        """The response once its headers say 200."""
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
                outcome=Outcome.UPSTREAM_5XX, message=f"{replica.name} does not speak HTTP: {type(error).__name__}"
            ) from error
        if response.status != 200:
            raise await _refusal(replica.name, response)
        return response


async def _refusal(name: str, response: aiohttp.ClientResponse) -> GatewayError:
    """What a status other than 200 means for the client."""
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
    # Also 401, 403 and 404: the request was checked here, so the replica is set up wrongly.
    return GatewayError(outcome=Outcome.UPSTREAM_5XX, message=message)


def _error_message(text: str) -> str:
    """The message of an OpenAI error object, or the beginning of what was said instead."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return text[:200] or "(nothing)"


async def _until_first_token(lease: Lease, response: aiohttp.ClientResponse) -> Stream:
    """Holds back what comes before the first token, so that a replica that dies until then can still be replaced."""
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
    """Why a stream that has ended is not a complete answer."""
    if scanner.error is not None:
        return GatewayError(outcome=Outcome.INBAND_ERROR, message=f"{name} reported an error: {scanner.error}")
    if scanner.corrupted is not None:
        return GatewayError(outcome=Outcome.CORRUPTED, message=f"{name} sent what is not a stream: {scanner.corrupted}")
    # Spelt without its brackets: a careless client may search the bytes for the real marker.
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
