"""A pause between two health checks of a container."""

from __future__ import annotations

import pytest

from pytest_llmchaos.runtime.docker import freezing, sdk
from pytest_llmchaos.runtime.docker.events import unix

END = "2026-11-28T09:30:00.123456789Z"


def inspected(*, executions=None, end=END, interval_s=10.0, **other):
    """Docker's answer about a container that is checked."""
    return {
        "ExecIDs": executions,
        "State": {"Paused": False, "Health": {"Status": "healthy", "Log": [{"End": "2026"}, {"End": end}]}},
        "Config": {"Image": "x", "Healthcheck": {"Test": ["CMD", "x"], "Interval": int(interval_s * 1e9)}},
        **other,
    }


class Container:
    """A container whose check ends after a few looks at it."""

    def __init__(self, looks):
        self.looks, self.paused_after = looks, None
        self.attrs = inspected()

    def reload(self):
        self.looks -= 1
        self.attrs = inspected(executions=["f00"] if self.looks > 0 else None)

    def pause(self):
        self.paused_after = self.looks


@pytest.mark.parametrize(
    ("about", "after_s", "checks"),
    [
        (inspected(), 5, False),
        (inspected(executions=["f00"]), 5, True),
        (inspected(executions=[]), 5, False),
        (inspected(), 9.9, True),
        (inspected(), 10.1, True),
        (inspected(), 11, False),  # Docker's clock differs, or Docker is late
        (inspected(interval_s=0), 29.9, True),
        (inspected(interval_s=0), 9.9, False),
        (inspected(State={"Health": {"Log": None}}), 9.9, False),
        (inspected(State={}), 9.9, False),
        (inspected(Config={"Healthcheck": None}), 9.9, False),
        (inspected(State="of another runtime"), 9.9, False),
    ],
)
def test_a_check_that_runs_or_is_due_is_seen(about, after_s, checks):
    assert freezing.checks_now(about, unix(END) + after_s) is checks


def test_a_container_is_frozen_after_its_check_has_ended(monkeypatch):
    monkeypatch.setattr(freezing.time, "sleep", lambda _: None)
    container = Container(looks=3)

    freezing.pause(container)

    assert container.paused_after == 0


def test_a_check_that_does_not_end_delays_the_fault_for_a_moment_only(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(freezing.time, "sleep", lambda _: None)
    monkeypatch.setattr(freezing.time, "monotonic", lambda: next(clock))
    container = Container(looks=50)

    freezing.pause(container)

    assert container.paused_after > 40


class Busy(Container):
    """A container that Docker cannot freeze for some times."""

    def __init__(self, failures, explanation="OCI runtime pause failed: unable to freeze: unknown"):
        super().__init__(looks=0)
        self.failures, self.tries, self.explanation = failures, 0, explanation

    def pause(self):
        self.tries += 1
        if self.tries <= self.failures:
            raise sdk.errors.APIError("500", explanation=self.explanation)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes in sleeps and tries alone."""
    passed_s = [0.0]
    monkeypatch.setattr(freezing.time, "monotonic", lambda: passed_s[0])
    monkeypatch.setattr(freezing.time, "sleep", lambda seconds: passed_s.__setitem__(0, passed_s[0] + seconds))
    return passed_s


def test_a_busy_machine_gets_more_tries(clock):
    container = Busy(failures=3)

    freezing.pause(container)

    assert container.tries == 4


def test_a_container_that_never_freezes_is_an_error_after_a_while(clock):
    with pytest.raises(sdk.errors.APIError):
        freezing.pause(Busy(failures=10_000))

    assert clock[0] == pytest.approx(freezing.FREEZE_WITHIN_S, abs=0.05)


def test_any_other_refusal_is_an_error_at_once(clock):
    container = Busy(1, "it is not running")

    with pytest.raises(sdk.errors.APIError):
        freezing.pause(container)

    assert container.tries == 1
