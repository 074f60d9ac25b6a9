"""Progress in a terminal, in a pipe, and with -q and -v."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import load_server

if TYPE_CHECKING:
    from collections.abc import Iterator

# A small trial: a real load on a server that refuses for a while, and the lab's
# progress.
CONFTEST = f"""
import sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, {str(Path(load_server.__file__).parent.parent)!r})
from support.load_server import Server
from support.plugin_double import Double
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.lab.live_load import RunningLoad
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.subject.lab import lab_subject

def perform(campaign, plan):
    progress = campaign._make_progress()
    with Server() as server:
        lab = SimpleNamespace(
            record=Record(Journal(Path("journal.jsonl")), "001", Path()),
            running_load=None,
            runtime=SimpleNamespace(url=lambda service: server.url),
            subject=replace(lab_subject("sim"), pushgateway=None, replica_header=None, ready_path=None),
        )
        progress(lab, "starting", None)
        words = ["ok"] * 40 + ["s500"] * 20 + ["ok"] * 100
        arrivals = [Arrival(i / 40, f"{{word}} {{i}}", 4) for i, word in enumerate(words)]
        load = lab.running_load = RunningLoad(
            plan.experiment.load, arrivals, runtime=lab.runtime, subject=lab.subject, directory=Path()
        )
        load.start()
        for phase, until_s in (("steady", 1.0), ("fault", 1.5), ("recovery", 2.2)):
            with lab.record.phase(phase):
                while load.now_s() < until_s:
                    progress(lab, phase, until_s + 9 - load.now_s())
                    time.sleep(0.02)
        load.stop()
        progress.done()
    return Double().perform(campaign, plan)

Campaign._perform = perform
Campaign.preflight = lambda campaign: None
"""
SCENARIO = """
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("api"))

def test_it(trial):
    assert trial.time_to_detect_s <= 5
"""
LINE = re.compile(
    r"(steady|fault|recovery) (\d+) s \((\d+) s left\)  offered ([\d.]+)/s, ok ([\d.]+), failed (\d+), open \d+"
    r"(?: \([\d.]+ s\))?(?:, p95 (-|inf|[\d.]+ s))?"
)
COLUMNS = 80


def started(directory: Path, out: int, *options: str) -> subprocess.Popen[bytes]:
    directory.mkdir()
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text(SCENARIO)
    off = [part for name in ("randomly", "cacheprovider", "locust", "html") for part in ("-p", f"no:{name}")]
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "CI"}}
    command = [sys.executable, "-m", "pytest", "--rootdir", str(directory), *off, *options]
    return subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=out, start_new_session=True)


def read(end: int) -> str:
    """Everything that was written until the last writer closed."""
    said = b""
    try:
        while block := os.read(end, 65536):
            said += block
    except OSError:  # a terminal whose other end is closed
        pass
    os.close(end)
    return said.decode()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Output of four sessions: terminal, pipe, and terminals with -q and -v."""
    folder = tmp_path_factory.mktemp("sessions")
    ends, sessions = {}, []
    for name, options in (("terminal", ()), ("pipe", ()), ("quiet", ("-q",)), ("verbose", ("-v",))):
        near, far = os.pipe() if name == "pipe" else pty.openpty()
        if name != "pipe":
            fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        sessions.append(started(folder / name, far, *options))
        os.close(far)
        ends[name] = near
    try:
        yield {name: read(end) for name, end in ends.items()}
    finally:
        for session in sessions:
            session.kill()
            session.wait()


def test_every_session_passed(shown: dict[str, str]) -> None:
    for text in shown.values():
        assert "1 passed" in text, text


def test_a_terminal_shows_one_line_that_updates_itself(shown: dict[str, str]) -> None:
    (region,) = re.findall(r"starting[^\n]*", shown["terminal"])  # no end of line while the trial runs
    *updates, cleared, verdict = region.rstrip("\r").split("\r")
    updates = [update for update in updates if LINE.match(update)]

    assert {found[1] for update in updates if (found := LINE.search(update))} == {"steady", "fault", "recovery"}
    assert all(len(update) < COLUMNS for update in updates)
    assert cleared.strip() == ""
    assert re.match(r"test_it.py .*\..*\[100%\]", verdict)


def test_a_verbose_terminal_ends_with_the_whole_id_and_its_verdict(shown: dict[str, str]) -> None:
    *_, line = [line for line in shown["verbose"].splitlines() if "PASSED" in line]

    assert LINE.search(shown["verbose"])
    assert re.search(r"test_it\.py::test_it .*PASSED", line.rsplit("\r")[-1])


def test_the_line_has_rates_failures_p95_and_the_time_left(shown: dict[str, str]) -> None:
    lines = [found.groups() for found in LINE.finditer(shown["terminal"])]
    phase, at_s, left_s, offered, answered, failed, _ = lines[-1]

    assert (phase, int(at_s)) == ("recovery", 2)
    assert 9 <= int(left_s) <= 10
    assert 30 <= float(offered) <= 50
    assert 0 < float(answered) <= 50
    assert 10 <= int(failed) <= 20
    assert "inf" in {line[-1] for line in lines}  # more than one in twenty failed


def test_a_pipe_gets_a_plain_line_for_each_phase(shown: dict[str, str]) -> None:
    lines = [line for line in shown["pipe"].splitlines() if LINE.search(line)]

    assert [line.split()[0] for line in lines] == ["steady", "fault", "recovery"]
    assert all(LINE.fullmatch(line) for line in lines)
    assert "\r" not in shown["pipe"]
    assert "\x1b" not in shown["pipe"]


def test_quiet_is_silent(shown: dict[str, str]) -> None:
    assert not LINE.search(shown["quiet"])
    assert "starting" not in shown["quiet"]
