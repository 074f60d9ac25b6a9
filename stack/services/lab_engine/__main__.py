"""The simulated engine as a process: `python -m lab_engine`.

Settings are environment variables (docs/engine.md).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from lab_common.packages import refuse_without

try:
    import uvloop
    from aiohttp import web
except ImportError as error:
    sys.exit(refuse_without("lab_engine", error))

from lab_common.addresses import authority
from lab_common.settings import SettingsError, refuse
from lab_common.signals import stop_event
from lab_engine import admin, server
from lab_engine.boot import BootFaults
from lab_engine.chaos import Chaos
from lab_engine.engine import Engine
from lab_engine.faults.base import StartFailedError
from lab_engine.log import log
from lab_engine.settings import Settings

BANNER = "SIMULATED engine: no language model runs here, tokens are hashes and timings are modelled"


class CannotListenError(OSError):
    """A port that could not be opened."""


async def serve(chosen: Settings, boot: BootFaults | None, load_s: float) -> int:
    """Exit status: 0 after SIGTERM, 1 after a fault has killed the engine."""
    engine = Engine(chosen, time.monotonic)
    engine.load_s = load_s
    chaos = Chaos(engine, boot)
    runners = [
        web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=chosen.drain_s + 0.2)
        for app in (server.application(engine), admin.application(chaos))
    ]
    stop = asyncio.create_task(stop_event().wait())
    machine = asyncio.create_task(engine.run())
    try:
        addresses = ((chosen.host, chosen.port), (chosen.admin_host, chosen.admin_port))
        for runner, (host, port) in zip(runners, addresses, strict=True):
            await runner.setup()
            await _listen(runner, host, port)
        log(
            "listening",
            banner=BANNER,
            host=chosen.host,
            port=chosen.port,
            admin_port=chosen.admin_port,
            model=chosen.model,
            profile=chosen.profile.name,
            load_s=engine.load_s,
        )
        await asyncio.wait((stop, chaos.exit_status, machine), return_when=asyncio.FIRST_COMPLETED)
        if machine.done():
            machine.result()  # it ends only by a bug, which must end the process instead of hanging it
        status = chaos.exit_status.result() if chaos.exit_status.done() else 0
        log("stopping", unfinished=engine.scheduler.unfinished, status=status)
        return status
    finally:
        asyncio.get_running_loop().call_later(chosen.drain_s, engine.fail_in_flight)
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        chaos.close()
        machine.cancel()
        stop.cancel()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise CannotListenError(
            f"cannot listen on {authority(host, port)}: {error.strerror or error}; choose another port or free it"
        ) from None


def main() -> int:
    try:
        chosen = Settings.from_env(os.environ)
    except SettingsError as error:
        return refuse("lab_engine", error)
    boot = BootFaults(Path(chosen.state_dir)) if chosen.state_dir else None
    load_s = chosen.load_s
    try:
        for fault in boot.due() if boot else ():
            load_s = fault.boot() or load_s
        return uvloop.run(serve(chosen, boot, load_s))
    except StartFailedError as error:
        log("crash on boot", error=str(error))
        return 1
    except CannotListenError as error:
        return refuse("lab_engine", error)


if __name__ == "__main__":
    sys.exit(main())
