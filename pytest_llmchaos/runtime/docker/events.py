"""The runtime's own account of what happened to containers, read as it happens. It only listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.model import RuntimeEvent
from pytest_llmchaos.runtime.docker import sdk

if TYPE_CHECKING:
    from docker.types.daemon import CancellableStream

# The daemon keeps its last 256 events, and health checks alone make several a second: a replay would miss what matters, so
# the stream is read from the start and narrowed to acts and deaths.
ACTIONS = ("create", "start", "die", "kill", "stop", "restart", "pause", "unpause", "oom", "destroy", "health_status")


class EventReader:
    """A thread that reads one project's container events from the daemon."""

    def __init__(self, base_url: str, project: str) -> None:
        self._base_url = base_url
        self._project = project
        self._events: list[RuntimeEvent] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closing = False
        self._error: Exception | None = None
        self._stream: CancellableStream[dict[str, Any]] | None = None
        self._thread = threading.Thread(target=self._read, name="llmchaos-events", daemon=True)

    def start(self, *, within_s: float = 10) -> None:
        """Begin to read. Raises NotReady, with the last error, if the daemon opens no stream within that time."""
        self._thread.start()
        if not self._ready.wait(within_s):
            self.close()
            why = f"the last error was {self._error!r}" if self._error else "is it overloaded?"
            raise NotReady(f"the Docker daemon did not open its event stream within {within_s:g} s: {why}")

    def _read(self) -> None:
        since = time.time()
        while not self._closing:
            try:
                client = sdk.DockerClient(base_url=self._base_url, timeout=10)
                filters = {
                    "type": "container",
                    "event": list(ACTIONS),
                    "label": f"com.docker.compose.project={self._project}",
                }
                # The daemon takes fractions of seconds, which the SDK's own types do not know.
                self._stream = client.events(since=cast("int", f"{since:.9f}"), filters=filters, decode=True)
                self._ready.set()
                for raw in self._stream:
                    event = _event(raw)
                    with self._lock:
                        if event not in self._events:
                            self._events.append(event)
                    since = event.at_unix_s
            except Exception as error:  # noqa: BLE001 - the daemon may be restarted under us; the stream is reopened from `since`
                self._error = error
            if not self._closing:
                time.sleep(0.2)

    def between(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        with self._lock:
            return [e for e in self._events if since_unix_s <= e.at_unix_s <= until_unix_s]

    def close(self) -> None:
        self._closing = True
        if self._stream is not None:
            self._stream.close()
        self._thread.join(timeout=5)


def _event(raw: dict[str, Any]) -> RuntimeEvent:
    attributes = raw["Actor"]["Attributes"]
    action, _, detail = str(raw["Action"]).partition(": ")
    kept = {k: str(v) for k, v in attributes.items() if k in {"exitCode", "signal", "execID"}}
    if detail:
        kept["detail"] = detail
    return RuntimeEvent(
        at_unix_s=raw["timeNano"] / 1e9,
        service=str(attributes.get("com.docker.compose.service", "")),
        action=action,
        attributes=kept,
    )
