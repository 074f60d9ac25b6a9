"""The load generator's locustfile, whose one User is the arrival process.

Run by `process.LoadProcess`, or by hand (docs/load.md). A single process sets its own
second 0. A master sets it for its workers, and each worker sends every n-th request.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from pytest_llmchaos.loadgen import load_plan as plans
from pytest_llmchaos.loadgen.driver import Driver
from pytest_llmchaos.loadgen.pushgateway import PushFailed
from pytest_llmchaos.model import OUTCOMES, Sample

# From the decision to the first arrival. Workers on other machines need more time.
LEAD_S = 0.1
MASTER_LEAD_S = 1.0
GO_POLL_S = 0.005
GO_PATIENCE_S = 180  # how long the parent may check the stack before it starts the load
FAILED_EXIT = 3

# Locust ends by SIGINT, which background processes of a shell inherit as ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

log = logging.getLogger(__name__)
# Locust's hooks and environment are untyped.
hooks: Any = events


class CallFailed(Exception):
    """A failed request in Locust's own statistics."""


FAILURES: dict[str, CallFailed] = {outcome: CallFailed(outcome) for outcome in OUTCOMES if outcome != "ok"}


def may_begin(directory: Path, parent_pid: int | None) -> bool:
    """Wait for the file `load_plan.GO`. False if the parent is gone.

    A load without a parent begins at once.
    """
    while parent_pid is not None and not (directory / plans.GO).exists():
        if os.getppid() != parent_pid:
            return False
        gevent.sleep(GO_POLL_S)
    return True


class Alone:
    """The only process of a load, or one of several workers."""

    def __init__(self, environment: Any, directory: Path) -> None:
        self._environment, self._directory = environment, directory
        self._plan, self._parent_pid = plans.load(directory)
        self._driver: Driver | None = None
        self._start: AsyncResult = AsyncResult()
        # The kernel ends this process if everything else fails.
        signal.alarm(int(self._plan.longest_s) + GO_PATIENCE_S + 30)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.register_message("llmchaos_start", lambda msg, **_: self._start.set(msg.data))

    def perform(self) -> None:
        """Run the load from its first request to its last."""
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner):
            start = self._start.get()
            worker, workers = int(start["worker"]), int(start["workers"])
            share = list(enumerate(self._plan.arrivals))[worker::workers]
            self._driver = Driver(self._plan, share, self._directory, self._report_to_locust, worker)
            self._driver.prepare()
            self._driver.begin(time.monotonic() + float(start["t0_unix_s"]) - time.time())
            self._driver.wait()
            runner.send_message("llmchaos_done", {"worker": worker})
            return
        driver = Driver(self._plan, list(enumerate(self._plan.arrivals)), self._directory, self._report_to_locust)
        if self._parent_pid in (None, driver.parent_pid) and may_begin(self._directory, self._parent_pid):
            self._driver = driver
            driver.prepare()
            driver.begin(time.monotonic() + LEAD_S)
            driver.wait()
            if driver.is_stopped:  # Locust is already ending
                return
        gevent.spawn(self._environment.runner.quit)

    def interrupt(self) -> None:
        """Send no further request, then end Locust.

        Locust looks at its stack first, for some 50 ms in which a request that becomes
        due would be sent late.
        """
        self.stopping()
        self._environment.runner.quit()

    def stopping(self, **_: Any) -> None:
        if self._driver is not None:
            self._driver.stop()

    def quitting(self, **_: Any) -> None:
        if self._driver is not None:
            self._driver.finish()

    def _report_to_locust(self, sample: Sample, size: int) -> None:
        """Update the statistics of Locust's console and master."""
        self._environment.events.request.fire(
            request_type="POST",
            name="chat" if self._plan.tasks is None else "task",
            response_time=sample.e2e_s * 1000,
            response_length=size,
            exception=FAILURES.get(sample.outcome),
            context={},
        )


class Master:
    """Sends second 0 to the workers, and ends the load with the last of them.

    It also ends the load when its parent is gone.
    """

    def __init__(self, environment: Any, directory: Path) -> None:
        self._runner, self._directory = environment.runner, directory
        plan, self._parent_pid = plans.load(directory)
        signal.alarm(int(plan.longest_s) + GO_PATIENCE_S + 60)
        self._done: set[int] = set()
        self._workers = 0
        environment.events.spawning_complete.add_listener(self._start)
        self._runner.register_message("llmchaos_done", self._one_done)
        gevent.spawn(self._watch)

    def _start(self, **_: Any) -> None:
        if self._workers or not may_begin(self._directory, self._parent_pid):
            return
        clients = sorted(self._runner.clients)
        self._workers = len(clients)
        t0_unix_s = time.time() + MASTER_LEAD_S
        for worker, client in enumerate(clients):
            data = {"t0_unix_s": t0_unix_s, "worker": worker, "workers": len(clients)}
            self._runner.send_message("llmchaos_start", data, client_id=client)

    def _one_done(self, msg: Any, **_: Any) -> None:
        self._done.add(int(msg.data["worker"]))
        if len(self._done) == self._workers:
            gevent.spawn(self._runner.quit)

    def _watch(self) -> None:
        while self._parent_pid is None or os.getppid() == self._parent_pid:
            gevent.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)


class Clients(User):
    """The only User of a process."""

    @task
    def call(self) -> None:
        environment = self.environment
        try:
            environment.llmchaos.perform()
        except PushFailed as error:
            log.error("%s", error)
            environment.process_exit_code = FAILED_EXIT
            gevent.spawn(environment.runner.quit)
        raise StopUser


def prepare(environment: Any, **_: Any) -> None:
    directory = Path(os.environ[plans.DIRECTORY_VARIABLE])
    if isinstance(environment.runner, MasterRunner):
        gevent.signal_handler(signal.SIGINT, environment.runner.quit)
        Master(environment, directory)
        return
    environment.process_exit_code = 0
    environment.llmchaos = Alone(environment, directory)
    # The default, an exception, would hit the running greenlet, such as a client.
    gevent.signal_handler(signal.SIGINT, environment.llmchaos.interrupt)
    environment.events.test_stopping.add_listener(environment.llmchaos.stopping)
    environment.events.quitting.add_listener(environment.llmchaos.quitting)


hooks.init.add_listener(prepare)
