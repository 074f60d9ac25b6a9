"""A real Prometheus with a written history, or one that scrapes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from offline.ingredients import packaged_program
from offline.shell import SetupError
from support.waiting import until

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.prometheus.binary import find_or_fetch
from pytest_llmchaos.prometheus.queries import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_DEADLINE_S = 20.0


def program(name: str) -> str:
    """The path of a Prometheus program. Skips the test without one."""
    try:
        return str(find_or_fetch(name))
    except NotReady as error:
        pytest.skip(str(error))


def newer_program(name: str) -> str:
    """The path of a program of Prometheus 3. Skips the test without one.

    It is that of Debian's newer suite, which the set-up of the images fetches too.
    """
    try:
        found = packaged_program("prometheus", name)
    except (SetupError, OSError) as error:
        pytest.skip(f"{name} of Prometheus 3 cannot be had from Debian's newer suite: {error}")
    return str(next(one for one in found if one.name == name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def prometheus_with(
    directory: Path, config: str = "", *options: str, prefix: str = "", headers: Mapping[str, str] | None = None
) -> Iterator[Prometheus]:
    """A server on a free loopback port whose data are in `directory`.

    `prefix` and `headers` are those that its options require.
    """
    (directory / "prometheus.yml").write_text(config)
    port = free_port()
    with (directory / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                *options,
            ],
            stdout=log,
            stderr=log,
        )
        try:
            server = Prometheus(f"http://127.0.0.1:{port}{prefix}", headers=headers)
            until(server.ready, "Prometheus becoming ready", START_DEADLINE_S)
            yield server
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def history(directory: Path, series: Mapping[str, Mapping[float, float]]) -> Iterator[Prometheus]:
    """A server that holds exactly these series: selector -> {Unix seconds: value}."""
    lines = [f"{name} {value} {at:.3f}" for name, points in series.items() for at, value in points.items()]
    (directory / "history.txt").write_text("\n".join([*lines, "# EOF", ""]))
    subprocess.run(
        [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "-q", "history.txt", "data"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    with prometheus_with(directory) as server:
        yield server
