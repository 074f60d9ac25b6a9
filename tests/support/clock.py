"""A clock that only its test moves."""

from __future__ import annotations

MOST_SLEEPS = 5000


class Clock:
    """Stands in for the module `time`: `sleep` moves it on and returns at once."""

    def __init__(self, unix_s: float = 1_700_000_000.0, monotonic_s: float = 0.25) -> None:
        self._began_s = monotonic_s
        self._unix_s, self._monotonic_s = unix_s, monotonic_s
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self._unix_s

    def monotonic(self) -> float:
        return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0, f"a sleep of {seconds} s"
        assert len(self.sleeps) < MOST_SLEEPS, "this waits for ever"
        self.sleeps.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._unix_s += seconds
        self._monotonic_s += seconds

    @property
    def passed_s(self) -> float:
        return self._monotonic_s - self._began_s
