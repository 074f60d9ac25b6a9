"""The engine's log, marked as simulated in each line."""

from __future__ import annotations

from lab_common.log import Log

log = Log("engine", {"simulated": True})
