"""One JSON line per event on standard output."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Log:
    """The log of one service. `facts` are in every line."""

    service: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, event: str, **details: object) -> None:
        line = {"at": round(time.time(), 6), "service": self.service, "event": event, **self.facts, **details}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class _Lines(logging.Handler):
    """Handler that writes a library's records as lines of a log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._plain = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        details: dict[str, object] = {"level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            details["exception"] = self._plain.formatException(record.exc_info)
        self._log(record.getMessage(), **details)


def log_libraries(log: Log, level: str = "WARNING") -> None:
    """Send what libraries log from `level` on to a service's log."""
    logging.basicConfig(level=level, handlers=[_Lines(log)], force=True)
