"""Pause of a container between two of its health checks.

A check that starts while the kernel freezes its container freezes with it. Docker then
resumes the container only after that check's timeout, by default 30 s.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import msgspec

from pytest_llmchaos.runtime.docker import sdk

if TYPE_CHECKING:
    from docker.models.containers import Container

# The longest wait for a moment between two checks.
PATIENCE_S = 1.5
# The longest series of tries. Two in a row failed on two busy cores with cgroup v1.
FREEZE_WITHIN_S = 4.0
# A check that is due within this time may start before the container is frozen.
_MARGIN_S = 0.2
_POLL_S = 0.02
_TOO_SLOW = "unable to freeze"
_DEFAULT_INTERVAL_S = 30.0


class _Check(msgspec.Struct, rename="pascal"):
    end: str = ""


class _Health(msgspec.Struct, rename="pascal"):
    log: list[_Check] | None = None


class _State(msgspec.Struct, rename="pascal"):
    health: _Health | None = None


class _HealthCheck(msgspec.Struct, rename="pascal"):
    interval: int = 0  # ns, 0 is the default


class _Config(msgspec.Struct, rename="pascal"):
    healthcheck: _HealthCheck | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    state: _State
    config: _Config
    executions: list[str] | None = msgspec.field(name="ExecIDs", default=None)


def pause(container: Container) -> None:
    """Freeze a container at a moment at which it runs no health check.

    Under load the kernel may not stop every process at once. Docker resumes them then,
    and this tries again for a few seconds.

    Raises:
        APIError: Docker refuses, or could not freeze the container in this time.
    """
    deadline = time.monotonic() + PATIENCE_S
    container.reload()
    while checks_now(container.attrs, time.time()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        container.reload()
    deadline = time.monotonic() + FREEZE_WITHIN_S
    while True:
        try:
            container.pause()
        except sdk.errors.APIError as error:
            if _TOO_SLOW not in str(error.explanation) or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def checks_now(attributes: object, now_unix_s: float) -> bool:
    """Return whether a health check runs or is due.

    Args:
        attributes: what Docker's inspect returns.
        now_unix_s: the time on Docker's clock. A clock that differs finds fewer checks.
    """
    try:
        seen = msgspec.convert(attributes, _Inspected)
    except msgspec.ValidationError:  # not Docker's own format: pause as before
        return False
    if seen.executions:
        return True
    if seen.config.healthcheck is None or seen.state.health is None or not seen.state.health.log:
        return False
    interval_s = seen.config.healthcheck.interval / 1e9 or _DEFAULT_INTERVAL_S
    due_unix_s = dt.datetime.fromisoformat(seen.state.health.log[-1].end).timestamp() + interval_s
    return -_MARGIN_S < due_unix_s - now_unix_s < _MARGIN_S
