"""The proxy as a process: `python -m fault_agent`.

Settings are environment variables (`settings.py`).
"""

from __future__ import annotations

import gc
import os
import resource
import sys

from lab_common.packages import refuse_without

try:
    import uvloop
except ImportError as error:
    sys.exit(refuse_without("fault_agent", error))

from fault_agent.agent import Agent
from fault_agent.control import serve_control
from fault_agent.settings import Settings
from lab_common.log import Log
from lab_common.settings import SettingsError, refuse
from lab_common.signals import exit_at_once

SERVICE = "fault_agent"
# A collection every 700 objects, the default, costs milliseconds under load.
OBJECTS_PER_COLLECTION = 20_000


async def serve(settings: Settings, log: Log) -> None:
    agent = Agent(settings, log)
    control = await serve_control(agent, settings.control)
    await agent.listen()
    log("listening", host=settings.host, port=settings.port)
    async with control:
        await control.serve_forever()


def main() -> int:
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        return refuse(SERVICE, error)
    log = Log(SERVICE, {"target": settings.target})
    exit_at_once(log)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    try:
        uvloop.run(serve(settings, log))
    except OSError as error:
        return refuse(SERVICE, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
