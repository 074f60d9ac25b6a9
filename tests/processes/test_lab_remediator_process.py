"""The remediator as a process: how it starts and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.remediator_rules import PROJECT, RULES

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(Path(__file__).parents[2] / "stack" / "services"),
    "LAB_PROJECT": PROJECT,
    "LAB_REPAIRS": "api",
    "LAB_PORT": "0",
    "LAB_PROMETHEUS_URL": "http://127.0.0.1:1",
    "LAB_DOCKER_URL": "http://127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("LAB_PROJECT", "", "remediator: LAB_PROJECT: expected the name of a compose project, got ''"),
        ("LAB_RULES_FILE", "/nowhere/rules.yaml", "No such file or directory: '/nowhere/rules.yaml'"),
        ("LAB_AUDIT_FILE", "/nowhere/audit.jsonl", "expected a writable audit log at /nowhere/audit.jsonl"),
    ],
)
def test_a_bad_start_is_one_line_and_status_2(tmp_path: Path, name: str, value: str, complaint: str) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    files = {"LAB_RULES_FILE": str(tmp_path / "rules.yaml"), "LAB_AUDIT_FILE": str(tmp_path / "audit.jsonl")}
    ended = subprocess.run(
        [sys.executable, "-m", "lab_remediator"],
        env={**ENVIRONMENT, **files, name: value},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_sigterm_ends_it_at_once_and_cleanly_although_a_scraper_holds_its_connection(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    files = {"LAB_RULES_FILE": str(tmp_path / "rules.yaml"), "LAB_AUDIT_FILE": str(tmp_path / "audit.jsonl")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "lab_remediator"],
        env={**ENVIRONMENT, **files, "LAB_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            scraper.recv(1)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=2)

    assert started["event"] == "started"
    assert (process.returncode, errors) == (0, "")
