"""Shutdown of a service by SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from lab_common.log import Log

ENDING = (signal.SIGTERM, signal.SIGINT)


def stop_event() -> asyncio.Event:
    """An event of the running loop that the signal sets, for services that drain."""
    stop = asyncio.Event()
    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def exit_at_once(log: Log) -> None:
    """Exit in the signal handler.

    For services whose threads would hold the process for seconds, even after
    `sys.exit`.
    """

    def end(number: int, _: FrameType | None) -> None:
        log("ends", signal=signal.Signals(number).name)
        os._exit(0)

    for number in ENDING:
        signal.signal(number, end)
