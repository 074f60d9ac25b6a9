"""Whole pytest sessions as child processes, and their orphans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from support.hiccups import run_measured

from pytest_llmchaos.evidence import journal
from pytest_llmchaos.runtime.docker import docker_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Ended = TypeVar("Ended")

ROOT = Path(__file__).parent.parent.parent

# Nothing listens there. Every session works as behind a company's proxy that is down.
_DEAD = "http://127.0.0.1:9"
PROXIES = {name: _DEAD for base in ("http_proxy", "https_proxy", "all_proxy") for name in (base, base.upper())} | {
    "no_proxy": "127.0.0.0/8",
    "NO_PROXY": "127.0.0.0/8",
}


def start(
    reports: Path, *args: str, env: dict[str, str] | None = None, inside: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start pytest in a session of its own, which gets signals alone.

    Its output goes to `output.txt`. `inside` is a command that runs another one.
    """
    reports.mkdir(parents=True, exist_ok=True)
    command = [
        *inside,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        f"--chaos-report={reports}",
        *args,
    ]
    with (reports / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **PROXIES, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run(
    reports: Path,
    *args: str,
    env: dict[str, str] | None = None,
    timeout_s: float = 240,
    inside: Sequence[str] = (),
) -> tuple[int, str]:
    """Status and output of a session that the machine did not disturb."""
    return measured(reports, lambda: _run(reports, args, env, timeout_s, inside), lambda ended: ended[1])


def measured(reports: Path, run: Callable[[], Ended], output_of: Callable[[Ended], str]) -> Ended:
    """`run_measured`, without the evidence of sessions that the machine disturbed."""
    before = {path.name for path in reports.iterdir()} if reports.exists() else set[str]()

    def once() -> Ended:
        for path in reports.iterdir() if reports.exists() else ():
            if path.name not in before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return run()

    return run_measured(once, output_of)


def _run(
    reports: Path, args: Sequence[str], env: dict[str, str] | None, timeout_s: float, inside: Sequence[str]
) -> tuple[int, str]:
    process = start(reports, *args, env=env, inside=inside)
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"pytest did not end within {timeout_s:g} s:\n{said(reports)}") from None
    finally:
        process.kill()  # even if the test was ended from outside, does nothing to an ended process
        process.wait()
    return process.returncode, (reports / "output.txt").read_text()


def said(reports: Path) -> str:
    return (reports / "output.txt").read_text()[-4000:]


def lines(reports: Path) -> list[dict[str, Any]]:
    return [line for path in sorted(reports.glob("2*/journal*.jsonl")) for line in journal.read(path)]


def of_kind(reports: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines(reports) if line["kind"] == kind]


def leftovers(project: str) -> list[str]:
    """Containers, networks and volumes of a compose project."""
    label = f"label=com.docker.compose.project={project}"
    found = [f"container {row['Names']}" for row in docker_cli.list_rows("container", label)]
    found += [f"network {row['Name']}" for row in docker_cli.list_rows("network", label)]
    return found + [f"volume {row['Name']}" for row in docker_cli.list_rows("volume", label)]


def run_json(reports: Path) -> dict[str, Any]:
    return dict(json.loads((reports / "latest" / "run.json").read_text()))
