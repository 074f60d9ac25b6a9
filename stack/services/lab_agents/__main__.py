"""Agent process until SIGTERM: `python -m lab_agents`."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import sys

from lab_common.packages import AGENTS, refuse_without

try:
    import uvloop
    from aiohttp import web
    from prometheus_client import disable_created_metrics

    from lab_agents.metrics import Metrics
    from lab_agents.web import application
except ImportError as error:
    sys.exit(refuse_without("lab_agents", error, AGENTS))

from lab_agents.agent import make_agent
from lab_agents.service import Service
from lab_agents.settings import Settings
from lab_agents.store import Disk, Memory, owned
from lab_common.addresses import authority
from lab_common.log import Log, log_libraries
from lab_common.settings import SettingsError, refuse
from lab_common.signals import stop_event

_LAST_ANSWER_S = 0.2


def main() -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for bad settings, folder or address."""
    # These would double the series of the counters and are unused.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as wrong:
        return refuse("lab_agents", wrong)
    try:
        # First, because a second process would perform the tasks of the first.
        with owned(settings.state_dir) if settings.persistent else contextlib.nullcontext():
            uvloop.run(_serve(settings))
    except OSError as wrong:
        return refuse("lab_agents", wrong)
    except sqlite3.Error as error:
        problem = f"cannot use the files in LAB_STATE_DIR {settings.state_dir}: {error}; choose another folder"
        return refuse("lab_agents", OSError(problem))
    except ImportError as missing:  # of the chosen agent
        return refuse_without("lab_agents", missing, AGENTS)
    return 0


async def _serve(settings: Settings) -> None:
    stop = stop_event()
    log = Log("agent", {"agent": settings.agent})
    log_libraries(log)
    metrics = Metrics()
    service = Service(
        settings=settings,
        agent=make_agent(settings, metrics),
        store=Disk(settings.state_dir / "tasks.sqlite") if settings.persistent else Memory(),
        metrics=metrics,
        log=log,
    )
    runner = web.AppRunner(application(service, metrics), access_log=None, shutdown_timeout=_LAST_ANSWER_S)
    await runner.setup()
    try:
        await service.start()
        await _listen(runner, settings)
        gc.collect()
        gc.freeze()  # what the imports left lives as long as the process
        gc.enable()
        log("listening", host=settings.host, port=runner.addresses[0][1], flaws=sorted(settings.flaws))
        await stop.wait()
        await service.drain(settings.drain_s)
    finally:
        await runner.cleanup()
        await service.close()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
    except OSError as error:
        at = authority(settings.host, settings.port)
        raise OSError(f"cannot listen on {at}: {error.strerror}; choose another port or free it") from None


if __name__ == "__main__":
    sys.exit(main())
