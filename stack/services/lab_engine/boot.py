"""Faults of the next start, in a file that outlives the process."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from lab_common.values import InvalidValueError
from lab_engine.faults import Fault, options, parse
from lab_engine.log import log

if TYPE_CHECKING:
    from pathlib import Path


class BootFaults:
    """Entries with an end in wall time each.

    No other clock runs while the process is down.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "boot-faults.json"

    def due(self) -> list[Fault]:
        """Faults that hit this start. Expired entries are dropped."""
        entries = [entry for entry in self._read() if entry["ends_at"] > time.time()]
        self._write(entries)
        return [parse(entry["fault"] | {"lease_s": 1})[0] for entry in entries]

    def add(self, fault: Fault, lease_s: float) -> None:
        data = {"kind": fault.kind, **options(fault)}
        others = [entry for entry in self._read() if entry["fault"]["kind"] != fault.kind]
        self._write([*others, {"fault": data, "ends_at": time.time() + lease_s}])

    def remove(self, fault: Fault) -> None:
        entries = self._read()
        kept = [entry for entry in entries if entry["fault"]["kind"] != fault.kind]
        if kept != entries:
            self._write(kept)

    def _read(self) -> list[dict[str, Any]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            for entry in entries:
                parse(entry["fault"] | {"lease_s": 1})
                float(entry["ends_at"])
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError, InvalidValueError) as error:
            # A start that fails on our own file would look like an injected fault.
            log("boot faults unreadable, ignored", path=str(self._path), error=str(error))
            return []
        return list(entries)

    def _write(self, entries: list[dict[str, Any]]) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(entries), encoding="utf-8")
        fresh.replace(self._path)
