"""The engine's log; each line says that nothing real runs here."""

from __future__ import annotations

from lab_common.log import Log

log = Log("engine", {"simulated": True})
