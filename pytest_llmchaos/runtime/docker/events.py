"""Stream of one stack's container events from Docker."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.model import EventGap, RuntimeEvent
from pytest_llmchaos.runtime.docker import sdk

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.types.daemon import CancellableStream

    from pytest_llmchaos.runtime.docker.docker_cli import Daemon
    from pytest_llmchaos.runtime.docker.members import Filters, Members

# Docker keeps its last 256 events, and health checks make several a second. A replay
# would miss acts and deaths, so the stream is read from the start and filtered.
ACTIONS = ("create", "start", "die", "kill", "stop", "restart", "pause", "unpause", "oom", "destroy", "health_status")
REOPEN_S = 0.2
# Events that were in flight when a stream broke may be lost.
BREAK_MARGIN_S = 1.0
NUMBER = "com.docker.compose.container-number"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One event, and the number of its container within the service."""

    event: RuntimeEvent
    number: str


class EventReader:
    """Thread that reads one stack's container events from Docker.

    A broken stream is reopened from the last event, and Docker replays what it kept. If
    that does not reach back to the break, the time between is a gap. Start and end
    times are then read from the containers.
    """

    def __init__(self, daemon: Daemon, members: Members) -> None:
        self._daemon = daemon
        self._members = members
        self._heard: list[Heard] = []
        self._gaps: list[EventGap] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closing = False
        self._broken_unix_s: float | None = None
        self._error: Exception | None = None
        self._stream: CancellableStream[dict[str, Any]] | None = None
        self._thread = threading.Thread(target=self._read, name="llmchaos-events", daemon=True)

    def start(self, *, within_s: float = 10) -> None:
        """Start reading. Raises NotReady if no stream opens in `within_s` seconds."""
        self._thread.start()
        if not self._ready.wait(within_s):
            self.close()
            why = f"the last error was {self._error!r}" if self._error else "Docker may be overloaded"
            raise NotReady(
                f"the Docker daemon did not open its event stream within {within_s:g} s: {why}; restart Docker if it hangs"
            )

    def _read(self) -> None:
        since = time.time()
        while not self._closing:
            try:
                client = sdk.connect(self._daemon)
                filters = {"type": "container", "event": list(ACTIONS), **self._members_filter}
                # Docker accepts fractions of seconds, which the SDK's types lack.
                self._stream = client.events(since=cast("int", f"{since:.9f}"), filters=filters, decode=True)
                self._mend(client)
                self._ready.set()
                for raw in self._stream:
                    self._hear(raw)
                    since = raw["timeNano"] / 1e9
                self._error = None
            except Exception as error:  # noqa: BLE001 - Docker may restart, and the stream is reopened from `since`
                self._error = error
            if not self._closing:
                if self._ready.is_set() and self._broken_unix_s is None:
                    with self._lock:
                        self._broken_unix_s = time.time() - BREAK_MARGIN_S
                time.sleep(REOPEN_S)

    @property
    def _members_filter(self) -> Filters:
        """Docker's filter for events of all members.

        Docker combines filters of several kinds by "and", so those of members that no
        single filter finds are filtered here.
        """
        filters = self._members.filters()
        return filters[0] if len(filters) == 1 else {}

    def _hear(self, raw: dict[str, Any]) -> None:
        heard = _heard(raw, self._members)
        with self._lock:
            if heard is not None and heard not in self._heard:
                self._heard.append(heard)

    def _mend(self, client: DockerClient) -> None:
        """After a break, record a gap unless Docker kept an event from before it."""
        broken_s = self._broken_unix_s
        if broken_s is None:
            return
        opened_s = time.time()
        kept = client.events(since=cast("int", "1"), until=cast("int", f"{opened_s:.9f}"), decode=True)
        if not any(raw["timeNano"] / 1e9 <= broken_s for raw in kept):
            why = f"the Docker daemon's event stream broke ({self._error or 'it ended'})"
            containers = client.containers.list(all=True, filters={**self._members_filter}, ignore_removed=True)
            found = [heard for one in containers for heard in _from_state(one.attrs, self._members, broken_s, opened_s)]
            with self._lock:
                self._heard += [heard for heard in found if heard not in self._heard]
                self._gaps.append(EventGap(from_unix_s=broken_s, to_unix_s=opened_s, why=why))
        with self._lock:
            self._broken_unix_s = None

    def between(self, since_unix_s: float, until_unix_s: float) -> Sequence[Heard]:
        """Events between two Unix times, oldest first."""
        with self._lock:
            found = [heard for heard in self._heard if since_unix_s <= heard.event.at_unix_s <= until_unix_s]
        return sorted(found, key=lambda heard: heard.event.at_unix_s)

    def gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        """Gaps that overlap this time. A break that lasts is an open gap."""
        with self._lock:
            open_now = (
                []
                if self._broken_unix_s is None
                else [
                    EventGap(from_unix_s=self._broken_unix_s, to_unix_s=until_unix_s, why=f"no stream: {self._error}")
                ]
            )
            return [
                gap
                for gap in (*self._gaps, *open_now)
                if gap.from_unix_s <= until_unix_s and gap.to_unix_s >= since_unix_s
            ]

    def close(self) -> None:
        self._closing = True
        if self._stream is not None:
            with contextlib.suppress(Exception):  # closing a broken stream may fail
                self._stream.close()
        self._thread.join(timeout=5)


def _heard(raw: dict[str, Any], members: Members) -> Heard | None:
    """Parse an event. None for a container that is no member."""
    attributes = raw["Actor"]["Attributes"]
    service = members.service_of(str(attributes.get("name", "")), attributes)
    if service is None:
        return None
    action, _, detail = str(raw["Action"]).partition(": ")
    kept = {k: str(v) for k, v in attributes.items() if k in {"exitCode", "signal", "execID"}}
    if detail:
        kept["detail"] = detail
    event = RuntimeEvent(
        at_unix_s=raw["timeNano"] / 1e9,
        service=service,
        action=action,
        attributes=kept,
        container=str(raw["Actor"].get("ID", "")),
    )
    return Heard(event=event, number=str(attributes.get(NUMBER, "")))


def _from_state(attrs: dict[str, Any], members: Members, from_unix_s: float, to_unix_s: float) -> list[Heard]:
    """The last start and end of a member, if they are inside a gap."""
    labels, state = attrs["Config"]["Labels"] or {}, attrs["State"]
    service = members.service_of(str(attrs.get("Name", "")).removeprefix("/"), labels)
    if service is None:
        return []
    times = {"die": unix(str(state["FinishedAt"])), "start": unix(str(state["StartedAt"]))}
    return [
        Heard(
            event=RuntimeEvent(
                at_unix_s=at_unix_s,
                service=service,
                action=action,
                attributes={"seen": "in the container's state, after a gap"},
                container=str(attrs["Id"]),
            ),
            number=str(labels.get(NUMBER, "")),
        )
        for action, at_unix_s in times.items()
        if from_unix_s <= at_unix_s <= to_unix_s
    ]


def unix(stamp: str) -> float:
    """Docker's time stamp in Unix seconds. 0 for Docker's zero time."""
    if stamp.startswith("0001-01-01"):
        return 0.0
    return dt.datetime.fromisoformat(stamp).timestamp()


def number_of(label: str) -> int:
    """Number of a container within its service. 1 if Compose gave none."""
    return int(label) if label.isdigit() else 1
