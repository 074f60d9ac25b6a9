"""One JSON line per event on standard output."""

from __future__ import annotations

import json
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
