"""Memory limits of processes: set, refused by the kernel, restored."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest
from support.local_world import GREEDY, PARENT, world
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.local.process_groups import MIB, data_limit, data_limits, limit_data, own_data_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.local_world import World

NOBODY = 65534


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_every_process_of_the_service_is_limited_and_no_other(lab: World, tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    lab.start(lab.process("api", PARENT, CHILD_FILE=str(child_file)), lab.process("model-1"))
    until(child_file.exists, "the child")
    pids = [lab.pid("api"), int(child_file.read_text())]

    assert lab.control.call("limit_memory", "api", "128")

    assert [data_limit(pid) for pid in pids] == [128 * MIB, 128 * MIB]
    assert data_limits(lab.pid("model-1")) == {own_data_limit()}
    assert data_limit(lab.daemon.pid) == own_data_limit()

    assert lab.control.call("unlimit_memory", "api")

    assert [data_limit(pid) for pid in pids] == [own_data_limit()] * 2
    assert lab.events("api") == [("start", {}), ("limit_memory", {"mebibytes": "128"}), ("unlimit_memory", {})]


def test_memory_above_the_limit_is_refused_until_the_limit_is_lifted(lab: World, tmp_path: Path) -> None:
    more, result = tmp_path / "more", tmp_path / "result"
    lab.start(lab.process("api", GREEDY, MORE=str(more), RESULT=str(result)))

    def answer() -> str:
        result.unlink(missing_ok=True)
        more.touch()
        until(result.exists, "the answer")
        return result.read_text()

    assert answer() == "given"
    lab.control.call("limit_memory", "api", "64")
    assert answer() == "refused"
    lab.control.call("unlimit_memory", "api")
    assert answer() == "given"
    assert [action for action, _ in lab.events("api")] == ["start", "limit_memory", "unlimit_memory"]


def test_a_restarted_process_has_no_limit(lab: World) -> None:
    lab.start(lab.process("api"))
    lab.control.call("limit_memory", "api", "64")
    lab.control.call("kill", "api", "SIGKILL")
    lab.control.wait_dead("api")

    assert not lab.control.call("limit_memory", "api", "64")
    lab.control.call("start", "api")

    assert data_limits(lab.pid("api")) == {own_data_limit()}


def test_a_limit_above_the_hard_limit_is_refused_with_both_numbers(lab: World) -> None:
    lab.start(lab.process("api"))
    resource.prlimit(lab.pid("api"), resource.RLIMIT_DATA, (64 * MIB, 64 * MIB))

    with pytest.raises(NotReady, match=rf"a hard limit of {64 * MIB} bytes of data, wanted {128 * MIB}"):
        lab.control.call("limit_memory", "api", "128")

    assert data_limits(lab.pid("api")) == {64 * MIB}


def test_limiting_an_own_process_and_lifting_it_need_no_root() -> None:
    def limited_and_lifted() -> bool:
        sleeper = _forked(signal.pause)
        try:
            os.setpgid(sleeper, sleeper)
            limit_data(sleeper, 64 * MIB)
            low = data_limits(sleeper)
            limit_data(sleeper, own_data_limit())
            return (low, data_limits(sleeper)) == ({64 * MIB}, {own_data_limit()})
        finally:
            os.kill(sleeper, signal.SIGKILL)

    def as_nobody() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        os._exit(0 if limited_and_lifted() else 1)

    _, status = os.waitpid(_forked(as_nobody), 0)

    assert os.waitstatus_to_exitcode(status) == 0


def _forked(act: Callable[[], object]) -> int:
    """A child that runs `act` and never returns."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(2)
    return child
