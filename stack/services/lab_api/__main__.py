"""Gateway process, until SIGTERM or SIGINT."""

import gc
import os
import sys

from lab_common.packages import refuse_without

try:
    import uvloop
    from aiohttp import web
    from prometheus_client import disable_created_metrics
except ImportError as error:
    sys.exit(refuse_without("lab_api", error))

from lab_api.app import create_app
from lab_api.gateway import Gateway
from lab_api.logs import log_json, logger
from lab_api.settings import Settings, unknown_variables
from lab_common.settings import CANNOT_START, SettingsError, refuse
from lab_common.signals import stop_event

_END_S = 0.2  # for handlers that still run after the drain
_CUT_S = 0.001  # without a drain. 0 would wait for them without limit
# Between two garbage collections, which are pauses. Requests leave almost no garbage.
_YOUNG_OBJECTS = 10_000


async def serve(settings: Settings) -> None:
    """Serve until the stop event, then let open requests end within `drain_s`.

    They are cut at once if the pattern `drain` is off.
    """
    stop = stop_event()
    gateway = Gateway(settings)
    # A client that disconnects cancels the handler, and so the upstream request.
    runner = web.AppRunner(
        create_app(gateway),
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=75.0,
        lingering_time=1.0,
        shutdown_timeout=_END_S if settings.patterns.drain else _CUT_S,
    )
    await runner.setup()
    try:
        await gateway.start()
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError(f"LAB_HOST and LAB_PORT must be an address to listen on: {error}") from error
        logger.info("listening", extra={"host": settings.host, "port": runner.addresses[0][1]})
        # These objects live as long as the process: no garbage collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        await stop.wait()
        if settings.patterns.drain:
            await drain(gateway)
    finally:
        await runner.cleanup()
        await gateway.close()


async def drain(gateway: Gateway) -> None:
    """Refuse new requests, wait for open ones, and end the rest with an error."""
    gateway.draining = True
    in_flight = len(gateway.board.exchanges)
    finished = await gateway.board.emptied(gateway.settings.deadlines.drain_s)
    if not finished:
        gateway.board.abort_all()
        await gateway.board.emptied(0.3)
    logger.info("drained", extra={"in_flight": in_flight, "finished": finished})


def main() -> int:
    """Exit status: 0 after an orderly end, 2 if settings or address are invalid."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        return refuse("lab_api", error)
    log_json(settings.log_level)
    # These would double the series of the counters and are unused.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    if unknown := unknown_variables(os.environ):
        logger.warning("variables that the gateway does not use", extra={"variables": unknown})
    try:
        uvloop.run(serve(settings))
    except SettingsError as error:
        logger.error("cannot start", extra={"detail": str(error)})
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
