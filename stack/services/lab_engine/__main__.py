"""`python -m lab_engine`: the simulated engine as a process. Settings are environment variables; see docs/engine.md."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TextIO

import uvloop
from aiohttp import web

from lab_engine import server, settings
from lab_engine.engine import Engine


def log(event: str, *, stream: TextIO | None = None, **details: object) -> None:
    """One JSON line on stdout."""
    line = json.dumps({"at": round(time.time(), 3), "service": "engine", "event": event, "simulated": True, **details})
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()


async def serve(chosen: settings.Settings) -> None:
    loop = asyncio.get_running_loop()
    engine = Engine(chosen, loop.time)
    runner = web.AppRunner(
        server.application(engine), access_log=None, handler_cancellation=True, shutdown_timeout=chosen.drain_s
    )
    await runner.setup()
    await web.TCPSite(runner, chosen.host, chosen.port).start()
    log(
        "listening",
        banner="SIMULATED engine: no language model runs here, tokens are hashes and timings are modelled",
        host=chosen.host, port=chosen.port, model=chosen.model, profile=chosen.profile.name,
    )  # fmt: skip
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    machine = asyncio.create_task(engine.run())
    await stopped.wait()
    log("stopping", unfinished=engine.scheduler.unfinished)
    await runner.cleanup()
    machine.cancel()


def main() -> int:
    try:
        chosen = settings.from_environment(os.environ)
    except settings.BadSettingError as error:
        log("bad setting", stream=sys.stderr, error=str(error))
        return 2
    try:
        uvloop.run(serve(chosen))
    except OSError as error:
        log("cannot listen", stream=sys.stderr, error=f"{chosen.host}:{chosen.port}: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
