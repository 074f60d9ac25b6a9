"""A supervisord that runs small programs as services."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.control import Control
from pytest_llmchaos.runtime.local.daemon import Daemon
from pytest_llmchaos.runtime.local.supervisord_config import EVENTS, Process, read_log, write_supervisord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEPER = "import time\nwhile True: time.sleep(60)"
# A service that forks a child and writes the child's pid to a file.
PARENT = """
import os, time
child = os.fork()
if child:
    with open(os.environ["CHILD_FILE"] + ".new", "w") as file: file.write(str(child))
    os.rename(os.environ["CHILD_FILE"] + ".new", os.environ["CHILD_FILE"])
while True: time.sleep(60)
"""
# A service that allocates 256 MiB once the file MORE exists. RESULT gets the outcome.
GREEDY = """
import os, time
more, result = os.environ["MORE"], os.environ["RESULT"]
while True:
    if os.path.exists(more):
        try:
            answer = "given" if bytearray(256 << 20) else ""
        except MemoryError:
            answer = "refused"
        os.unlink(more)
        with open(result + ".new", "w") as file: file.write(answer)
        os.rename(result + ".new", result)
    time.sleep(0.01)
"""
DEAF = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(60)"


class World:
    """One run below `directory`, with the `control` of its supervisord."""

    def __init__(self, directory: Path, project: str) -> None:
        self.directory, self.project = directory, project
        self.work = cleanup.work_folder(directory, project)
        self.work.mkdir(parents=True)
        self.control = Control(self.work)
        self.daemon = Daemon(self.work, self.control)

    def process(self, service: str, program: str = SLEEPER, *, restarts: bool = False, **environment: str) -> Process:
        """A service that runs this Python text, or a process that `restarts`."""
        script = self.work / f"{service}.py"
        script.write_text(program)
        command = (sys.executable, "-S", str(script))
        shown = {"SHOWS": service, **environment}
        return Process(service=service, command=command, environment=shown, restarts=restarts)

    def start(self, *processes: Process, owner_id: str = "") -> None:
        write_supervisord(self.work, processes)
        who = owner_id or identity.owner_label()
        self.daemon.start(project=self.project, owner=who, directory=self.directory)
        for process in processes:
            self.control.call("start", process.service)

    def events(self, service: str) -> list[tuple[str, dict[str, str]]]:
        return [(e["action"], e["attributes"]) for e in read_log(self.work / EVENTS).lines if e["service"] == service]

    def times(self, action: str) -> list[float]:
        return [float(e["at"]) for e in read_log(self.work / EVENTS).lines if e["action"] == action]

    def pid(self, service: str) -> int:
        return self.control.inspect()[service].pid


@contextlib.contextmanager
def world(directory: Path, name: str = "world") -> Iterator[World]:
    made = World(directory, f"llmchaos-test-{os.getpid()}-{name}")
    try:
        yield made
    finally:
        made.daemon.stop()
        cleanup.remove_run(made.project, made.directory)
