"""Proxy that runs until SIGTERM: `python -m lab_supervisor_proxy`."""

from __future__ import annotations

import os
import sys
import threading

from lab_common.settings import SettingsError, refuse
from lab_common.signals import exit_at_once
from lab_supervisor_proxy.server import log, servers
from lab_supervisor_proxy.settings import Settings


def main() -> int:
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as wrong:
        return refuse("lab_supervisor_proxy", wrong)
    exit_at_once(log)
    calls, metrics = servers(settings)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
    log("listening", port=calls.server_port, metrics_port=metrics.server_port, repairs=settings.repairs)
    calls.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
