"""Patience of the fault agent's first process with its proxy."""

import signal

import pytest

from fault_agent import parent

SIGTERM_AT_S, LONG_S = 60.0, 1000.0


class World:
    """A parent with a clock, and proxies that answer for a while after their start."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        self.began_s = self.now_s
        self.proxies = []  # after how many seconds each answers, and for how long
        self.ends_at_s = ()
        self.started_s = []
        self.reaped = 0
        monkeypatch.setattr(parent.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(parent.signal, "pthread_sigmask", lambda *_: None)
        monkeypatch.setattr(parent.signal, "sigtimedwait", self.wait)
        monkeypatch.setattr(parent, "has_network", lambda _: True)
        monkeypatch.setattr(parent, "read_outside_ports", lambda: frozenset({8080}))
        monkeypatch.setattr(parent.subprocess, "Popen", self.start)
        monkeypatch.setattr(parent.os, "waitpid", self.reap)
        monkeypatch.setattr(parent.Control, "_list", self.answer)

    def run(self, *proxies, ends_at_s=()):
        """The parent's exit status and its time."""
        self.proxies, self.ends_at_s = list(proxies), ends_at_s
        status = parent.Parent(parent.ParentSettings.from_env({}), lambda _: "").run()
        return status, self.now_s - self.began_s

    def start(self, *_, **__):
        self.started_s.append(self.now_s)
        return type("Proxy", (), {"pid": len(self.started_s), "returncode": None})()

    def wait(self, _, within_s):
        self.now_s += within_s
        return signal.struct_siginfo((signal.SIGTERM,) * 7) if self.now_s - self.began_s >= SIGTERM_AT_S else None

    def reap(self, *_):
        pid = len(self.started_s)
        if pid == self.reaped or pid > len(self.ends_at_s) or self.now_s - self.began_s < self.ends_at_s[pid - 1]:
            return 0, 0
        self.reaped = pid
        return pid, 0

    def answer(self, _):
        since_s = self.now_s - self.started_s[-1]
        after_s, for_s = self.proxies[min(len(self.started_s), len(self.proxies)) - 1]
        if after_s <= since_s < after_s + for_s:
            return {"seen": {"busy": 0}}
        self.now_s += 0.05
        return None


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_slow_start_is_no_hang(world, capsys):
    status, at_s = world.run((10.0, LONG_S))

    assert (status, at_s) == (0, pytest.approx(SIGTERM_AT_S, abs=1))
    assert len(world.started_s) == 1
    assert '"armed"' in capsys.readouterr().out


def test_a_proxy_that_never_answers_hangs(world):
    status, at_s = world.run((LONG_S, 0.0))

    assert (status, at_s) == (parent.HANGS, pytest.approx(parent.STARTS_S, abs=0.2))


def test_a_proxy_that_has_answered_hangs_sooner(world):
    status, at_s = world.run((10.0, 5.0))

    assert (status, at_s) == (parent.HANGS, pytest.approx(15.0 + parent.HANGS_S, abs=0.6))


def test_the_next_proxy_may_start_slowly_too(world):
    status, _ = world.run((1.0, LONG_S), (10.0, LONG_S), ends_at_s=(20.0,))

    assert status == 0
    assert len(world.started_s) == 2


def test_proxies_that_end_before_they_answer_are_given_up(world):
    status, at_s = world.run((LONG_S, 0.0), ends_at_s=tuple(0.5 * number for number in range(1, 100)))

    assert (status, at_s) == (parent.HANGS, pytest.approx(parent.STARTS_S, abs=0.6))
