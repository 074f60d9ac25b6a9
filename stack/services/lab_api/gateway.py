"""The path of a chat completion from client to replica and back."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiohttp import web

from lab_api.ask import Ask, parse
from lab_api.breaker import RetryBudget
from lab_api.client import ClientStream
from lab_api.exchange import Board, Exchange, Phase
from lab_api.hedging import Hedger, Send
from lab_api.logs import logger
from lab_api.metrics import Metrics
from lab_api.migration import Migrator, RecordedClient, RestScanner
from lab_api.outcomes import MIGRATABLE, RETRYABLE, GatewayError, Migrated, Outcome
from lab_api.pacing import Pace
from lab_api.pool import Lease, Pool
from lab_api.priority import HEADER, requested
from lab_api.probe import Prober
from lab_api.provider_metrics import OllamaMetrics, ProviderMetrics
from lab_api.relay import ClientGoneError, relay
from lab_api.scaling import Scaling
from lab_api.settings import Settings
from lab_api.sse import DONE
from lab_api.upstream import Stream, Upstream

_T = TypeVar("_T")
_LAST_WORD_S = 0.2  # to report the end inside the stream, within the wait of `drain`


class Gateway:
    """The parts of the gateway, and the path of a request through them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.board = Board()
        self.pool = Pool(
            settings.replicas,
            admission=settings.admission,
            shedding=settings.shedding,
            probing=settings.probing,
            ejection=settings.ejection,
            patterns=settings.patterns,
        )
        self.budget = RetryBudget(ratio=settings.retrying.ratio, burst=settings.retrying.burst)
        self.upstream = Upstream(settings)
        self.pace = Pace()
        self.prober = Prober(self.pool, path=settings.health_path, probing=settings.probing)
        self.scaling = Scaling(self.pool, settings.autoscaler_url) if settings.autoscaler_url else None
        self.migrator = Migrator(settings.retrying, settings.patterns, pool=self.pool, budget=self.budget)
        self.metrics = Metrics(model=settings.model, pool=self.pool, board=self.board, budget=self.budget)
        self.metrics.registry.register(ProviderMetrics(self.pool.replicas, settings.providers))
        if settings.upstream == "ollama":
            self.metrics.registry.register(OllamaMetrics(self.pool.replicas, settings.model))
        self.hedger = (
            Hedger(settings.hedging, pool=self.pool, metrics=self.metrics, release=self.upstream.release)
            if settings.patterns.hedging
            else None
        )

    async def start(self) -> None:
        """Return once each replica has been probed."""
        self.pace.start()
        if self.scaling is not None:
            await self.scaling.start()
        await self.prober.start()

    async def close(self) -> None:
        self.pace.stop()
        await self.prober.stop()
        if self.scaling is not None:
            await self.scaling.stop()
        await self.upstream.close()

    async def chat(self, request: web.Request, request_id: str) -> web.StreamResponse:
        """Answer one chat completion and count its outcome.

        A client that disconnects cancels it, and so the work upstream.
        """
        if self.settings.patterns.cancel:
            return await self._chat(request, request_id)
        return await asyncio.shield(asyncio.create_task(self._chat(request, request_id)))

    async def _chat(self, request: web.Request, request_id: str) -> web.StreamResponse:
        exchange = Exchange(request_id=request_id)
        with self.board.showing(exchange):
            try:
                return await self._answer(request, exchange)
            finally:
                self._settle(exchange)

    async def _answer(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        client: ClientStream | None = None
        request_s = self.settings.deadlines.request_s
        try:
            async with asyncio.timeout(request_s) as deadline:
                ask = await self._read(request)
                exchange.streaming = ask.stream
                exchange.prefix = ask.prefix
                if self.settings.patterns.priority:
                    exchange.priority = requested(request.headers.get(HEADER), ask.priority)
                if not ask.stream:
                    return await self._whole(ask, exchange)
                client = self._client(request, exchange)
                return await self._stream(ask, exchange, client)
        except GatewayError as error:
            return await self._fail(exchange, client, error)
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"the request was not answered within {request_s:g} s"
            late = GatewayError(outcome=Outcome.REQUEST_TIMEOUT, message=message)
            return await self._fail(exchange, client, late)
        except asyncio.CancelledError:
            if not exchange.drained or (task := asyncio.current_task()) is None or task.uncancel() > 0:
                exchange.outcome = exchange.outcome or Outcome.CLIENT_CANCELLED
                raise
            return await self._fail(exchange, client, _shutting_down())
        except (ClientGoneError, ConnectionError) as error:
            exchange.outcome = Outcome.CLIENT_CANCELLED
            exchange.detail = str(error)
            if client is not None:
                client.abort()
            raise asyncio.CancelledError from error
        except Exception:  # noqa: BLE001 -- a started stream must end with an error event
            logger.exception("unexpected failure", extra={"request_id": exchange.request_id})
            failed = GatewayError(outcome=Outcome.INTERNAL_ERROR, message="the gateway failed: see its log")
            return await self._fail(exchange, client, failed)
        finally:
            if client is not None:
                client.close()

    def _client(self, request: web.Request, exchange: Exchange) -> ClientStream:
        patterns = self.settings.patterns
        keepalive_s = self.settings.deadlines.keepalive_s if patterns.keepalive else None
        if not patterns.migration:
            return ClientStream(request, exchange, keepalive_s, outlived=not patterns.cancel)
        kept_max_bytes = self.settings.migrating.kept_max_bytes
        return RecordedClient(
            request, exchange, keepalive_s, outlived=not patterns.cancel, kept_max_bytes=kept_max_bytes
        )

    async def _read(self, request: web.Request) -> Ask:
        """The client's request.

        Raises:
            GatewayError: the request is invalid.
        """
        if self.draining:
            raise _shutting_down()
        body_s = self.settings.deadlines.body_s
        if (encoding := request.headers.get("Content-Encoding", "identity")) != "identity":
            message = f"the body must be sent as it is, got Content-Encoding {encoding[:40]!r}"
            raise GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=415)
        try:
            async with asyncio.timeout(None if request.content.is_eof() else body_s):
                body = await request.read()
        except TimeoutError as error:
            message = f"the body did not arrive within {body_s:g} s"
            raise GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=408) from error
        except web.HTTPRequestEntityTooLarge as error:
            message = f"the body is larger than {self.settings.admission.body_max_bytes} bytes: shorten the messages"
            raise GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=413) from error
        except web.RequestPayloadError as error:
            message = f"the body cannot be read: {str(error)[:100]}"
            raise GatewayError(outcome=Outcome.INVALID_REQUEST, message=message) from error
        return parse(body, self.settings.model, self.settings.affinity if self.settings.patterns.affinity else None)

    async def _whole(self, ask: Ask, exchange: Exchange) -> web.StreamResponse:
        async def attempt(lease: Lease) -> bytes:
            body = await self.upstream.whole(lease, ask, exchange.request_id)
            lease.end(Outcome.OK)
            return body

        body = await self._attempt(exchange, attempt)
        exchange.outcome = Outcome.OK
        return web.Response(body=body, content_type="application/json", headers={"x-llmlab-replica": exchange.replica})

    async def _stream(self, ask: Ask, exchange: Exchange, client: ClientStream) -> web.StreamResponse:
        send = self._hedged(exchange, lambda lease: self.upstream.stream(lease, ask, exchange.request_id))
        stream = await self._attempt(exchange, send)
        while True:
            try:
                return await self._relay(stream, exchange, client)
            except GatewayError as cut:
                if not isinstance(client, RecordedClient) or cut.outcome not in MIGRATABLE:
                    raise
                if client.left or self.draining:
                    raise
                rest = await self._rest(ask, exchange, client, cut)
            if isinstance(rest, web.StreamResponse):
                return rest
            stream = rest

    async def _relay(self, stream: Stream, exchange: Exchange, client: ClientStream) -> web.StreamResponse:
        try:
            exchange.enter(Phase.DECODE, stream.lease.replica.name)
            gap_s = self.settings.deadlines.gap_s
            response = await relay(
                stream,
                exchange,
                client,
                self.pace,
                gap_s=gap_s if self.settings.patterns.gap_deadline else math.inf,
                unread_s=gap_s,
            )
            exchange.outcome = Outcome.OK
        except GatewayError as error:
            stream.lease.end(error.outcome)
            raise
        except BaseException:
            stream.lease.end(Outcome.CLIENT_CANCELLED)
            raise
        else:
            stream.lease.end(Outcome.OK)
            return response
        finally:
            self.upstream.release(stream)

    async def _rest(
        self, ask: Ask, exchange: Exchange, client: RecordedClient, cut: GatewayError
    ) -> Stream | web.StreamResponse:
        """The rest of an answer from another replica, or the response with its end.

        Raises:
            GatewayError: the cut, if there is no rest.
        """
        name = exchange.replica
        exchange.tried.append(name)
        rest = self.migrator.rest(ask, exchange, client, cut)
        if isinstance(rest, Migrated):
            self.metrics.migrated(rest)
            raise cut
        if (asked := rest.ask) is None:
            response = await client.end(rest.end + DONE)
            exchange.outcome = Outcome.OK
            self.metrics.migrated(Migrated.ENDED)
            return response
        emitted, events = rest.emitted, exchange.tokens

        def send(lease: Lease) -> Awaitable[Stream]:
            return self.upstream.stream(lease, asked, exchange.request_id, RestScanner(emitted, events))

        try:
            stream = await self._attempt(exchange, send, "migration")
        except GatewayError as error:
            exchange.replica = name
            self.metrics.migrated(Migrated.FAILED)
            logger.info("not migrated", extra={"request_id": exchange.request_id, "detail": error.message})
            raise cut from error
        self.metrics.migrated(Migrated.CONTINUED)
        return stream

    def _hedged(self, exchange: Exchange, send: Send) -> Send:
        """`send` with a hedge, if that is switched on.

        Whole answers are sent once: the first to end would be the shorter one.
        """
        hedger = self.hedger
        return send if hedger is None else lambda lease: hedger.race(lease, exchange, send)

    async def _attempt(self, exchange: Exchange, send: Callable[[Lease], Awaitable[_T]], reason: str = "first") -> _T:
        """The first usable answer, from as many replicas as the retry budget allows.

        The client sees nothing of a failed attempt. The calling code ends the returned
        lease.
        """
        tried = exchange.tried
        while True:
            exchange.enter(Phase.QUEUED)
            lease = await self._admitted(exchange)
            name = lease.replica.name
            exchange.enter(Phase.PREFILL, name)
            exchange.attempts += 1
            if exchange.attempts == 1:
                self.budget.earn()
            self.metrics.attempted(name, reason)
            try:
                return await send(lease)
            except GatewayError as error:
                lease.end(error.outcome)
                tried.append(name)
                if not self._may_retry(error, tried):
                    raise
                reason = error.outcome.value
                logger.info(
                    "attempt failed, retrying",
                    extra={"request_id": exchange.request_id, "replica": name, "detail": error.message},
                )
            except BaseException:
                lease.end(Outcome.CLIENT_CANCELLED)
                raise

    def _may_retry(self, error: GatewayError, tried: Sequence[str]) -> bool:
        patterns = self.settings.patterns
        return (
            patterns.retry
            and error.outcome in RETRYABLE
            and len(tried) < self.settings.retrying.attempts_max
            and self.pool.has_good_candidate(tried)
            and (not patterns.retry_budget or self.budget.spend())
        )

    async def _admitted(self, exchange: Exchange) -> Lease:
        """A place in a replica. Its waiting time is measured in any case."""
        tried, began_s = exchange.tried, time.monotonic()
        outcome = Outcome.CLIENT_CANCELLED.value
        try:
            lease = await self.pool.acquire(
                excluding=tried, retry=bool(tried), priority=exchange.priority, prefix=exchange.prefix
            )
            outcome = "admitted"
            return lease
        except GatewayError as error:
            outcome = error.outcome.value
            raise
        finally:
            self.metrics.queued(time.monotonic() - began_s, outcome)

    async def _fail(self, exchange: Exchange, client: ClientStream | None, error: GatewayError) -> web.StreamResponse:
        """Report a failure by the status if that is open, else inside the stream."""
        exchange.outcome = error.outcome
        exchange.detail = error.message
        if client is not None and client.started:
            try:
                async with asyncio.timeout(_LAST_WORD_S):
                    return await (client.fail(error) if self.settings.patterns.strict else client.end(b""))
            except (TimeoutError, ConnectionError) as gone:
                client.abort()
                raise asyncio.CancelledError from gone
        return self.refusal(error, exchange.request_id, exchange.replica)

    def refusal(self, error: GatewayError, request_id: str, replica: str = "") -> web.Response:
        """An error as an HTTP answer."""
        response = web.json_response(error.body(request_id), status=error.status)
        if error.asks_to_retry and self.settings.patterns.retry_after:
            response.headers["Retry-After"] = str(error.retry_after_s or self.settings.admission.retry_after_s)
        if replica:
            response.headers["x-llmlab-replica"] = replica
        if self.draining:
            response.force_close()
        return response

    def _settle(self, exchange: Exchange) -> None:
        now_s = time.monotonic()
        self.metrics.ended(exchange, now_s)
        self.budget.ended(exchange.outcome or Outcome.INTERNAL_ERROR)
        if exchange.outcome is not Outcome.OK:
            clients_doing = exchange.outcome in {Outcome.CLIENT_CANCELLED, Outcome.INVALID_REQUEST}
            logger.log(
                logging.INFO if clients_doing else logging.WARNING,
                "request failed",
                extra={
                    "request_id": exchange.request_id,
                    "outcome": exchange.outcome or Outcome.INTERNAL_ERROR,
                    "detail": exchange.detail,
                    "priority": exchange.priority,
                    "replica": exchange.replica,
                    "attempts": exchange.attempts,
                    "tokens": exchange.tokens,
                    "duration_s": round(now_s - exchange.arrived_s, 6),
                },
            )


def _shutting_down() -> GatewayError:
    return GatewayError(outcome=Outcome.DRAINING, message="the gateway is shutting down: send it again")
