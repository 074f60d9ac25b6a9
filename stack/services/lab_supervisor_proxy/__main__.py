"""Runs the proxy until SIGTERM: `python -m lab_supervisor_proxy`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from lab_supervisor_proxy.server import say, servers
from lab_supervisor_proxy.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from types import FrameType


def _end(number: int, _: FrameType | None) -> None:
    say("ends", signal=signal.Signals(number).name)
    os._exit(0)


def main() -> int:
    try:
        settings = read_settings(os.environ)
    except SettingsError as wrong:
        sys.stderr.write(f"lab_supervisor_proxy: {wrong}\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    calls, metrics = servers(settings)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
    say("listening", port=calls.server_port, metrics_port=metrics.server_port, repairs=settings.repairs)
    calls.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
