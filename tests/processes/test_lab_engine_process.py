"""The engine as a process: start, end and state across a restart."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lab_engine_process import SERVICES, START_S, Process, free_ports
from support.waiting import until


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def one(**variables: str) -> Process:
        started.append(Process(**variables))
        return started[-1]

    yield one
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


def test_it_starts_logs_that_it_is_simulated_and_ends_on_sigterm_within_two_seconds(
    start: Callable[..., Process],
) -> None:
    process = start()
    until(process.answers, "the engine answers")
    process.popen.send_signal(signal.SIGTERM)
    before_s = time.monotonic()
    status, out, err = process.ended()
    lines = [json.loads(line) for line in out.splitlines()]

    assert time.monotonic() - before_s < 2
    assert (status, err) == (0, "")
    assert "SIMULATED" in lines[0]["banner"]
    assert all(line["simulated"] for line in lines)
    assert lines[-1]["event"] == "stopping"


def test_sigterm_ends_even_a_hung_engine_with_streams_open_within_two_seconds(start: Callable[..., Process]) -> None:
    process = start()
    until(process.answers, "the engine answers")
    asked = {
        "model": "smollm2:135m",
        "stream": True,
        "max_tokens": 8000,
        "messages": [{"role": "user", "content": "x"}],
    }
    url = f"http://127.0.0.1:{process.port}/v1/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, data=json.dumps(asked).encode()), timeout=5) as stream:
        assert stream.readline().startswith(b"data: ")
        process.fault("hang")
        process.popen.send_signal(signal.SIGTERM)
        before_s = time.monotonic()
        status, _, err = process.ended()

    assert time.monotonic() - before_s < 2
    assert (status, err) == (0, "")


def test_a_wrong_setting_is_one_line_and_exit_status_2(start: Callable[..., Process]) -> None:
    status, out, err = start(LAB_SLOTS="none").ended()

    assert (status, out) == (2, "")
    assert err == "lab_engine: LAB_SLOTS: expected a whole number from 1 to 1000000000, got 'none'\n"


def test_a_port_in_use_is_one_line_and_exit_status_2(start: Callable[..., Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = start(LAB_PORT=str(port)).ended()

    assert (status, out) == (2, "")
    assert f"127.0.0.1:{port}: " in err
    assert len(err.splitlines()) == 1


def test_out_of_device_memory_ends_the_process_with_status_1(start: Callable[..., Process]) -> None:
    process = start()
    until(process.answers, "the engine answers")
    process.fault("gpu_exhaustion", what="device_memory", then="die", linger_s=0.1)
    status, out, _ = process.ended()

    assert status == 1
    assert "CUDA out of memory" in out


def test_a_crash_on_boot_strikes_every_start_within_its_lease(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start(LAB_STATE_DIR=str(tmp_path))
    until(process.answers, "the engine answers")
    process.fault("crash_on_boot")
    process.popen.kill()
    statuses = [start(LAB_STATE_DIR=str(tmp_path)).ended()[0] for _ in range(2)]

    assert statuses == [1, 1]

    entries = json.loads((tmp_path / "boot-faults.json").read_text())
    entries[0]["ends_at"] = time.time() - 1  # as if the lease were over
    (tmp_path / "boot-faults.json").write_text(json.dumps(entries))
    healthy = start(LAB_STATE_DIR=str(tmp_path))

    until(healthy.answers, "the engine answers again")


def test_a_slow_load_holds_back_the_next_start(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start(LAB_STATE_DIR=str(tmp_path))
    until(process.answers, "the engine answers")
    process.fault("slow_load", load_s=60, when="next_start")

    assert process.get("/health") == 200

    process.popen.kill()
    slow = start(LAB_STATE_DIR=str(tmp_path))

    until(lambda: slow.answers(503), "the engine reports that it loads")


def test_the_admin_port_is_on_loopback_wherever_the_engine_listens(start: Callable[..., Process]) -> None:
    process = start(LAB_HOST="0.0.0.0")
    until(process.answers, "the engine answers")

    def listens(port: int) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.2", port)) == 0

    assert listens(process.port)
    assert not listens(process.admin_port)
    process.fault("hang")


def test_faults_can_be_started_listed_and_ended_from_inside_the_container(start: Callable[..., Process]) -> None:
    process = start()
    until(process.answers, "the engine answers")

    def call(*arguments: str, port: int = process.admin_port) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab_engine.fault", *arguments],
            env={"PYTHONPATH": str(SERVICES), "LAB_ADMIN_PORT": str(port)},
            capture_output=True, text=True, check=False, timeout=START_S,
        )  # fmt: skip

    started = call("start", '{"kind": "hang", "lease_s": 30}')
    refused = call("start", '{"kind": "hang"}')
    listed = json.loads(call("list").stdout)["faults"]
    ended = json.loads(call("end", json.loads(started.stdout)["id"]).stdout)

    assert [each["state"] for each in listed] == ["active"]
    assert ended["state"] == "ended"
    assert refused.returncode == 1
    assert "lease_s is missing" in refused.stderr
    assert call("list", port=free_ports()[0]).returncode == 2
