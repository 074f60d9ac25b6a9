"""One JSON line an event on a stream. Decides nothing about what is worth a line."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO


def log(event: str, *, stream: TextIO | None = None, **details: object) -> None:
    line = json.dumps({"at": round(time.time(), 3), "service": "engine", "event": event, "simulated": True, **details})
    target = stream or sys.stdout
    target.write(line + "\n")
    target.flush()
