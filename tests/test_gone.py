"""Removal of a dead run, in time and too late."""

import time

import pytest
from support import gone, machine


@pytest.fixture(autouse=True)
def _speed(monkeypatch):
    monkeypatch.setattr(machine, "slowness", lambda: 2.0)


def ago(seconds):
    return time.monotonic() - seconds


def test_a_run_that_is_gone_in_time_passes():
    assert gone.seconds_until_gone(list, ago(1)) == pytest.approx(1, abs=0.5)


def test_a_slower_machine_gets_more_time():
    assert gone.seconds_until_gone(list, ago(5)) >= 5


def test_a_run_that_is_gone_too_late_fails_with_what_was_left_last():
    left = [["volume x"], []]

    with pytest.raises(AssertionError, match=r"^7\.\d s after the death there was left: \['volume x'\]; expected 3 s"):
        gone.seconds_until_gone(lambda: left.pop(0), ago(7))


def test_the_time_of_starts_that_docker_had_begun_does_not_count():
    assert gone.seconds_until_gone(list, ago(7), last_start_s=lambda: ago(5)) >= 7


def test_starts_that_go_on_after_the_death_are_no_excuse():
    with pytest.raises(AssertionError, match=r"and 6\.0 s for the starts that Docker had begun"):
        gone.seconds_until_gone(list, ago(13), last_start_s=lambda: ago(1))


def test_what_stays_is_named():
    with pytest.raises(AssertionError, match=r"nothing is left after the death; seen: \['volume x'\]"):
        gone.seconds_until_gone(lambda: ["volume x"], ago(0), latest_s=0.01)
