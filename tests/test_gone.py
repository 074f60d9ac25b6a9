"""Removal of a dead run, in time and too late."""

import time

import pytest
from support import gone, machine


@pytest.fixture(autouse=True)
def _speed(monkeypatch):
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    monkeypatch.setattr(machine, "slowness_now", lambda: 2.0)


def ago(seconds):
    return time.monotonic() - seconds


def test_a_run_that_is_gone_in_time_passes():
    assert gone.seconds_until_gone(list, ago(1)) == pytest.approx(1, abs=0.5)


def test_a_run_that_is_gone_too_late_fails():
    with pytest.raises(AssertionError, match=r"^7\.\d s after the death something was left: expected 3 s"):
        gone.seconds_until_gone(list, ago(7))


def test_a_machine_that_became_slower_gets_more_time():
    assert gone.seconds_until_gone(list, ago(5)) >= 5


def test_the_time_of_a_start_that_docker_had_begun_does_not_count():
    assert gone.seconds_until_gone(list, ago(7), not_before_s=lambda: ago(1)) < 2


def test_what_stays_is_named():
    with pytest.raises(AssertionError, match=r"nothing is left after the death; seen: \['volume x'\]"):
        gone.seconds_until_gone(lambda: ["volume x"], ago(0), latest_s=0.01)
