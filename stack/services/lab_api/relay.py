"""Relay of a started stream to the client: the hot path."""

import time

import aiohttp
from aiohttp import web

from lab_api.client import ClientStream
from lab_api.exchange import Exchange
from lab_api.outcomes import GatewayError, Outcome
from lab_api.sse import DONE
from lab_api.upstream import Stream, failure_of
from lab_api.watchdog import SilenceError, Watchdog


class ClientGoneError(Exception):
    """The client stopped reading its answer."""


async def relay(stream: Stream, exchange: Exchange, client: ClientStream, *, gap_s: float) -> web.StreamResponse:
    """The response, once the client has received everything including [DONE].

    Raises:
        GatewayError: the stream is not complete.
        ClientGoneError: the client does not read on.
    """
    writing = False
    scanner = stream.scanner
    name = stream.lease.replica.name
    readany = stream.response.content.readany
    events = stream.head
    try:
        with Watchdog(gap_s) as watch:
            exchange.first_token_s = exchange.last_event_s = client.sent_s = watch.touched_s
            writing = True
            write = (await client.response()).write
            while True:
                exchange.tokens = scanner.events
                writing = True
                if scanner.complete:
                    return await client.end(events + DONE)
                if events:
                    await write(events)
                writing = False
                if scanner.ended:
                    raise failure_of(scanner, name)
                events = b""
                # Only data events show progress: a proxy on the way may send comments.
                watch.touched_s = time.monotonic()
                while not events and not scanner.ended:
                    chunk = await readany()
                    if not chunk:
                        raise failure_of(scanner, name)
                    events = scanner.feed(chunk)
                now_s = time.monotonic()
                exchange.max_gap_s = max(exchange.max_gap_s, now_s - watch.touched_s)
                exchange.last_event_s = client.sent_s = watch.touched_s = now_s
    except SilenceError as error:
        if writing:
            raise ClientGoneError(f"did not read for {gap_s:g} s") from error
        exchange.max_gap_s = max(exchange.max_gap_s, gap_s)
        message = f"{name} sent no data for {gap_s:g} s in the middle of its answer"
        raise GatewayError(outcome=Outcome.STALL_TIMEOUT, message=message) from error
    except aiohttp.ClientError as error:
        if writing:  # aiohttp reports a disconnected client with the same family of errors
            raise ClientGoneError("closed the connection") from error
        message = f"{name} broke off in the middle of its answer: {type(error).__name__}"
        raise GatewayError(outcome=Outcome.TRUNCATED, message=message) from error
