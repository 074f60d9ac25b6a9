"""Desk process until SIGTERM: `python -m lab_desk`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

from lab_common.packages import AGENTS, refuse_without

try:
    import uvicorn
    import uvloop
    from prometheus_client import disable_created_metrics

    from lab_desk.desk import Desk, log
    from lab_desk.web import Application
except ImportError as error:
    sys.exit(refuse_without("lab_desk", error, AGENTS))

from lab_common.addresses import authority
from lab_common.log import log_libraries
from lab_common.settings import SettingsError, refuse
from lab_common.signals import stop_event
from lab_desk.ledger import Ledger, LedgerError
from lab_desk.metrics import Metrics
from lab_desk.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEEP_ALIVE_S = 75
_LAST_S = 0.5  # for connections to close after the last answer


class _Server(uvicorn.Server):
    """Uvicorn's server without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for bad settings, ledger or address."""
    try:
        settings = Settings.from_env(os.environ)
        log_libraries(log)
        ledger = Ledger(settings.ledger_file)
        listener = _listener(settings)
    except (SettingsError, LedgerError, OSError) as wrong:
        return refuse("lab_desk", wrong)
    # These would double the series of the counters and are unused.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with contextlib.closing(ledger), listener:
        uvloop.run(_serve(settings, ledger, listener))
    return 0


def _listener(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        at = authority(settings.host, settings.port)
        raise OSError(f"cannot listen on {at}: {error.strerror}; choose another port or free it") from None


async def _serve(settings: Settings, ledger: Ledger, listener: socket.socket) -> None:
    """Serve until the stop event, then answer open calls within `drain_s`."""
    stop = asyncio.create_task(stop_event().wait())
    application = Application(Desk(ledger, Metrics()), settings.host)
    config = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    server = _Server(config)
    async with application.running():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        log("listening", host=settings.host, port=listener.getsockname()[1], ledger=str(settings.ledger_file))
        await asyncio.wait((stop, serving), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True  # takes no more connections
        open_calls = application.open
        finished = await application.emptied(settings.drain_s)
        log("drained", open=open_calls, finished=finished)
        server.force_exit = True  # the standing streams of clients have no end of their own
        await asyncio.wait((serving,), timeout=_LAST_S)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main())
